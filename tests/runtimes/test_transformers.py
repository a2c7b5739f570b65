"""Models that transformers computes: embeddings are those of transformers itself, and what they cannot do is said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import openclap
from openclap.checkpoints import clap_model
from openclap.cli import run
from openclap.errors import CheckpointError, ConfigError
from openclap.interop.conversion import convert
from openclap.library import Library
from support import open_clip
from support.errors import raises_naming
from support.foreign import perception, perception_extractor, write_perception, write_perception_video
from support.reference import wave
from support.tiny_models import tiny_clap_model, tiny_roberta_tokenizer, tiny_tokenizer

RATE = 48000
LENGTHS = {"short": 2500, "half": 24000, "odd": 50001, "long": 11 * RATE}
TEXTS = ["rain on the roof", "a dog", "wolf howling in the rain, low tone", ""]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_perception(tmp_path_factory.mktemp("foreign") / "pe")


@pytest.fixture(scope="module")
def model(folder: Path) -> openclap.Embedder:
    return openclap.load(folder, device="cpu")


def sounds() -> list[tuple[np.ndarray, int]]:
    return [(wave(name, samples), RATE) for name, samples in LENGTHS.items()]


def unit(tensor: torch.Tensor) -> np.ndarray:
    made: np.ndarray = torch.nn.functional.normalize(tensor.detach(), dim=-1).numpy()
    return made


def test_embeddings_are_those_of_transformers(model: openclap.Embedder) -> None:
    network = perception()
    tokens = tiny_tokenizer()(TEXTS)
    with torch.no_grad():
        for (samples, rate), ours in zip(sounds(), model.embed_audio(sounds()), strict=True):
            inputs = perception_extractor()(samples, sampling_rate=rate, return_tensors="pt")
            output = network(input_ids=tokens.ids_BL, attention_mask=tokens.mask_BL, **inputs)
            np.testing.assert_allclose(ours, unit(output.audio_embeds)[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.embed_text(TEXTS), unit(output.text_audio_embeds), rtol=1e-4, atol=1e-5)
    assert model.runtime.logit_scale == 7.0 and model.embedding_size == 32
    assert abs(model.embed_audio(sounds())[0] - model.embed_audio(sounds())[2]).max() > 1e-2


def test_the_published_layout_is_read_without_its_video_side(model: openclap.Embedder, tmp_path: Path) -> None:
    published = openclap.load(write_perception_video(tmp_path / "pe-av"), device="cpu")
    assert np.array_equal(published.embed_audio(sounds()[:2]), model.embed_audio(sounds()[:2]))
    assert np.array_equal(published.embed_text(TEXTS), model.embed_text(TEXTS))


def test_embeddings_do_not_depend_on_the_batch(model: openclap.Embedder) -> None:
    audio, text = model.embed_audio(sounds()), model.embed_text(TEXTS)
    np.testing.assert_allclose(audio, np.concatenate([model.embed_audio([one]) for one in sounds()]), atol=1e-5)
    np.testing.assert_allclose(text, np.concatenate([model.embed_text([one]) for one in TEXTS]), atol=1e-5)
    assert np.array_equal(audio, model.embed_audio(sounds()))


def test_perception_encoders_read_their_padding() -> None:
    """Padded beside a longer clip, transformers embeds a clip otherwise than alone: hence batches of equal lengths."""
    clips = [samples for samples, _ in sounds()[:2]]
    with torch.no_grad():
        together, alone = (
            perception().get_audio_embeds(**perception_extractor()(batch, sampling_rate=RATE, return_tensors="pt"))
            for batch in (clips, clips[:1])
        )
    assert abs(unit(together)[0] - unit(alone)[0]).max() > 1e-2


def test_a_clip_up_to_a_minute_is_read_whole_and_a_recording_in_windows_of_ten_seconds(
    model: openclap.Embedder,
) -> None:
    assert "at its own length up to 60.00 s" in model.clip_policy
    windows = model.windows((wave("long", 25 * RATE), RATE))
    assert [(window.start_s, window.end_s) for window in windows] == [(0, 10), (10, 20), (15, 25)]


def test_any_class_with_audio_and_text_features_is_adapted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ClapModel through the adapter, which openclap's own networks read otherwise."""
    from openclap.checkpoints import huggingface

    folder = tmp_path / "clap"
    tokens = tiny_roberta_tokenizer(tmp_path / "tokenizer.json")
    checkpoint = tiny_clap_model()
    huggingface.write(checkpoint, folder)
    own = openclap.load(folder, tokenizer=tokens, device="cpu")
    monkeypatch.setattr(clap_model, "OWN_TYPES", ())
    adapted = openclap.load(folder, tokenizer=tokens, device="cpu")
    assert adapted.runtime.name == "transformers fp32" and own.runtime.name == "torch fp32"
    clips = [(wave(name, samples), RATE) for name, samples in LENGTHS.items()]
    np.testing.assert_allclose(adapted.embed_audio(clips), own.embed_audio(clips), atol=1e-4)
    texts = ["rain on the roof", "a dog"]
    np.testing.assert_allclose(adapted.embed_text(texts), own.embed_text(texts), atol=1e-5)
    assert adapted.runtime.logit_scale == pytest.approx(own.runtime.logit_scale)
    assert adapted.window_s == 10 and "windows of 10.00 s" in adapted.clip_policy.lower()


def test_it_is_indexed_searched_and_evaluated_like_any_other(folder: Path, tmp_path: Path) -> None:
    import soundfile

    for name, samples in LENGTHS.items():
        soundfile.write(tmp_path / f"{name}.wav", wave(name, samples), RATE)
    library = Library.open(tmp_path / "index", model=str(folder))
    library.add([tmp_path])
    assert {hit.path.rpartition("/")[2] for hit in library.search("a dog", k=10)} == {f"{n}.wav" for n in LENGTHS}
    assert len(openclap.load(folder).classify([str(tmp_path / "half.wav")], ["dog", "rain"])[0]) == 2
    rows = [f'{name}.wav,"{text or "silence"}"' for name, text in zip(LENGTHS, TEXTS, strict=True)]
    (tmp_path / "sounds.csv").write_text("\n".join(["file,caption", *rows]))
    assert openclap.evaluate(str(folder), tmp_path / "sounds.csv").row("text_to_audio_R@1").n == len(rows)


def test_inspect_describes_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(folder), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["format"] == "transformers" and facts["type"] == "pe_audio" and facts["embedding"] == 32
    assert facts["parameters"] == sum(weight.numel() for weight in perception().parameters())


@pytest.mark.parametrize("to", ["openclap", "hf", "laion", "open-clip", "onnx", "sentence-transformers"])
def test_conversions_are_refused_in_one_sentence(folder: Path, tmp_path: Path, to: str) -> None:
    with raises_naming(CheckpointError, folder, "pe_audio", "neither converts nor trains"):
        convert(folder, tmp_path / "out", to)  # type: ignore[arg-type]


def test_what_needs_own_networks_is_refused_in_one_sentence(model: openclap.Embedder, folder: Path) -> None:
    from openclap.interop import hear

    for name in ("clap", "preset", "frontend", "objective"):
        with raises_naming(ConfigError, name, "openclap's own networks", "transformers fp32"):
            getattr(model, name)
    with raises_naming(ConfigError, "openclap's own networks"):
        model.audio_tensor([torch.zeros(100)])
    with raises_naming(ConfigError, "openclap's own networks in torch", "transformers fp32", "moments"):
        openclap.locate(model, (np.zeros(RATE, np.float32), RATE), ["a dog"])
    with raises_naming(ConfigError, "openclap's own networks"):
        hear.load_model(str(folder))
    with raises_naming(CheckpointError, folder, "Copy it"):
        model.save(folder / "copy")
    for options in ({"precision": "int8"}, {"compile": True}):
        with raises_naming(ConfigError, "openclap's own networks"):
            openclap.load(folder, device="cpu", **options)  # type: ignore[arg-type]
    with raises_naming(CheckpointError, folder, "pe_audio"):
        openclap.load(folder, runtime="onnx")


def test_bfloat16_is_close(model: openclap.Embedder, folder: Path) -> None:
    half = openclap.load(folder, device="cpu", precision="bf16")
    assert half.runtime.name == "transformers bf16"
    assert (half.embed_text(TEXTS) * model.embed_text(TEXTS)).sum(axis=1).min() > 0.995


def test_the_digest_tells_weights_and_settings(model: openclap.Embedder, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    network = perception()
    with torch.no_grad():
        network.audio_head.proj.weight.mul_(1.01)
    network.save_pretrained(other)
    perception_extractor().save_pretrained(other)
    assert openclap.load(folder, device="cpu").digest() == model.digest() != openclap.load(other, device="cpu").digest()


# ---------------------------------------------------------------------------------------------------------------------
# Bad input.


def test_models_of_frames_are_refused(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": ["PeAudioFrameLevelModel"]}))
    with raises_naming(CheckpointError, tmp_path, "PE-A-Frame", "facebook/pe-av-small"):
        openclap.load(tmp_path)


def test_a_folder_of_open_clip_with_files_of_transformers_beside_is_open_clips(tmp_path: Path) -> None:
    folder = open_clip.write_folder(tmp_path / "both", "tiny")
    (folder / "config.json").write_text(json.dumps({"model_type": "pe_audio"}))
    assert openclap.load(folder, device="cpu").runtime.name == "torch fp32"


def test_a_type_without_embeddings_of_both_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with raises_naming(CheckpointError, tmp_path, "config.json"):
        openclap.load(tmp_path)


def test_missing_weights_and_missing_files_are_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = write_perception(tmp_path / "pe")
    weights = load_file(folder / "model.safetensors")
    del weights["audio_head.proj.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with raises_naming(CheckpointError, folder, "audio_head.proj.weight"):
        openclap.load(folder)
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")  # pickles are not read
    with raises_naming(CheckpointError, folder, "safetensors"):
        openclap.load(folder)


def test_a_model_without_a_tokenizer_embeds_audio(tmp_path: Path) -> None:
    folder = write_perception(tmp_path / "pe")
    (folder / "tokenizer.json").unlink()
    model = openclap.load(folder, device="cpu")
    assert model.embed_audio(sounds()[:1]).shape == (1, 32) and not model.has_tokenizer
    with raises_naming(CheckpointError, folder, "tokenizer.json"):
        model.embed_text(["a dog"])
