from __future__ import annotations

import json
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, ClapProcessor, pipeline

import openclap
from openclap import presets
from openclap.checkpoints import detect, huggingface, openclap_folder
from openclap.checkpoints.checkpoint import Checkpoint, build_network
from openclap.checkpoints.conversion_report import ConversionLosses
from openclap.cli import run
from openclap.errors import CheckpointError, MissingTokenizerError
from openclap.models.build import build_clap
from openclap.models.config import HTSAT_BASE
from openclap.types import AudioBatch, TextBatch
from support.errors import raises_naming
from support.reference import wave
from support.tiny_models import tiny_clap_model, tiny_roberta_tokenizer

AUDIO = {
    "tiny": {},
    "base": {"patch_embeds_hidden_size": 128, "depths": [2, 2, 12, 2], "hidden_size": 1024},
}
TEXT = {"num_hidden_layers": 2, "vocab_size": 60, "layer_norm_eps": 1e-5}


def theirs(size: str, fused: bool) -> ClapModel:
    torch.manual_seed(1)
    config = ClapConfig(text_config=TEXT, audio_config={**AUDIO[size], "enable_fusion": fused})
    model = ClapModel(config).eval()
    for name, buffer in model.named_buffers():
        if "running_" in name:
            buffer.uniform_(0.5, 1.5)
    return model


@torch.inference_mode()
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("size", ["tiny", "base"])
def test_embeddings_and_logits_equal_transformers(size: str, fused: bool, tmp_path: Path) -> None:
    model = theirs(size, fused)
    model.save_pretrained(tmp_path / "hf")
    extractor = ClapFeatureExtractor(frequency_min=50, truncation="fusion" if fused else "rand_trunc")
    extractor.save_pretrained(tmp_path / "hf")
    embedder = openclap.load(tmp_path / "hf")
    mel = 10 * torch.randn(2, 4 if fused else 1, 1001, 64) - 25
    is_long = torch.tensor([fused, False])
    ids = torch.tensor([[0, 10, 11, 2], [0, 12, 2, 1]])
    mask = ids.ne(1).long()
    expected = model(input_ids=ids, attention_mask=mask, input_features=mel, is_longer=is_long.unsqueeze(1))
    audio = embedder.clap.encode_audio(AudioBatch(mel, is_long))
    text = embedder.clap.encode_text(TextBatch(ids, mask))
    torch.testing.assert_close(audio, expected.audio_embeds, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(text, expected.text_embeds, rtol=1e-4, atol=1e-5)
    logits = audio @ text.T * embedder.clap.scale
    torch.testing.assert_close(logits, expected.logits_per_audio, rtol=1e-4, atol=1e-4)
    sounds = [(wave("a", 480000), 48000), (wave("b", 90000), 48000)]
    features = extractor([sound for sound, _ in sounds], sampling_rate=48000, return_tensors="pt")
    features["is_longer"] = torch.zeros(2, 1, dtype=torch.bool)  # transformers calls one of them long
    output = model.get_audio_features(**features)
    vectors = torch.nn.functional.normalize(getattr(output, "pooler_output", output), dim=-1)
    np.testing.assert_allclose(embedder.embed_audio(sounds), vectors, rtol=1e-3, atol=1e-4)  # their own log-mel


def test_round_trip_is_bit_equal(tmp_path: Path) -> None:
    model = theirs("tiny", True)
    model.save_pretrained(tmp_path / "hf")
    tiny_roberta_tokenizer(tmp_path / "hf" / "tokenizer.json")
    found = detect.read(tmp_path / "hf")
    openclap_folder.write(found, tmp_path / "ours", None)
    assert huggingface.write(openclap_folder.read(tmp_path / "ours"), tmp_path / "back") == ConversionLosses()
    before, after = load_file(tmp_path / "hf" / "model.safetensors"), load_file(tmp_path / "back" / "model.safetensors")
    assert set(after) == set(before)
    assert all(torch.equal(before[name], after[name]) for name in after)


def laion_like(audio: presets.AudioConfig = presets.HTSAT_TINY) -> Checkpoint:
    text = replace(presets.ROBERTA, sizes=dict(presets.ROBERTA.sizes) | {"num_hidden_layers": 1, "vocab_size": 60})
    preset = presets.laion(audio, text)
    torch.manual_seed(2)
    return Checkpoint("laion", preset, dict(build_clap(preset).state_dict()), {"audio_branch.head.bias": torch.ones(2)})


@torch.inference_mode()
@pytest.mark.parametrize(
    "audio", [presets.HTSAT_TINY, replace(HTSAT_BASE, fusion="aff_2d")], ids=["tiny", "base fused"]
)
def test_written_folder_loads_in_transformers(audio: presets.AudioConfig, tmp_path: Path) -> None:
    checkpoint = replace(laion_like(audio), tokenizer=tiny_roberta_tokenizer(tmp_path / "tokenizer.json"))
    dropped = huggingface.write(checkpoint, tmp_path / "hf").left_out
    assert {name.split(".")[0] for name in dropped} == {
        "audio_branch",
        "audio_tower",
        "audio_transform",
        "text_transform",
    }
    assert all(name.startswith("audio_tower.tagger.") for name in dropped if name.startswith("audio_tower."))
    model, info = ClapModel.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert model.config.text_config.layer_norm_eps == 1e-5
    clap = build_network(checkpoint, "x")
    mel, is_long = (
        10 * torch.randn(2, 4 if audio.fusion else 1, 1001, 64) - 25,
        torch.tensor([bool(audio.fusion), False]),
    )
    ids = torch.tensor([[0, 10, 11, 2], [0, 12, 2, 1]])
    mask = ids.ne(1).long()
    expected = model.eval()(input_ids=ids, attention_mask=mask, input_features=mel, is_longer=is_long.unsqueeze(1))
    torch.testing.assert_close(clap.encode_audio(AudioBatch(mel, is_long)), expected.audio_embeds, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(clap.encode_text(TextBatch(ids, mask)), expected.text_embeds, rtol=1e-4, atol=1e-5)
    settings = json.loads((tmp_path / "hf" / "preprocessor_config.json").read_text(encoding="utf-8"))
    assert (settings["frequency_min"], settings["sampling_rate"], settings["fft_window_size"]) == (50.0, 48000, 1024)
    assert settings["truncation"] == ("fusion" if audio.fusion else "rand_trunc")


def test_zero_shot_pipeline_of_transformers_agrees(tmp_path: Path) -> None:
    checkpoint = replace(laion_like(), tokenizer=tiny_roberta_tokenizer(tmp_path / "tokenizer.json"))
    huggingface.write(checkpoint, tmp_path / "hf")
    processor = ClapProcessor.from_pretrained(tmp_path / "hf")
    assert processor.feature_extractor.frequency_min == 50
    sound, labels = wave("ten", 480000), ["rain", "wolf", "dog"]
    found = pipeline("zero-shot-audio-classification", model=str(tmp_path / "hf"))(sound, candidate_labels=labels)
    ours = openclap.load(tmp_path / "hf").classify([(sound, 48000)], labels)[0]
    assert {entry["label"]: round(entry["score"], 3) for entry in found} == {
        label: pytest.approx(float(p), abs=2e-3) for label, p in zip(labels, ours, strict=True)
    }


@pytest.mark.parametrize("name", ["pann-6-roberta", "htsat-tiny-bart", "htsat-tiny-clip", "mini"])
def test_model_that_clap_model_cannot_hold_is_refused(name: str, tmp_path: Path) -> None:
    with raises_naming(CheckpointError, name, "ClapModel"):
        huggingface.write(Checkpoint("laion", presets.PRESETS[name], {}), tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


def test_folders_without_weights_or_damaged_are_refused(tmp_path: Path) -> None:
    place = tmp_path / "hf"
    place.mkdir()
    (place / "config.json").write_text('{"model_type": "clap"}', encoding="utf-8")
    with raises_naming(CheckpointError, place, "model.safetensors", "pytorch_model.bin", "config.json"):
        detect.read(place)
    (place / "model.safetensors").write_bytes(b"0" * 20)
    with raises_naming(CheckpointError, place / "model.safetensors"):
        detect.read(place)
    (place / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    with raises_naming(CheckpointError, place, "config.json"):
        detect.read(place)


def test_missing_tokenizer_is_fetched_on_first_text(tmp_path: Path) -> None:
    theirs("tiny", False).save_pretrained(tmp_path / "hf")
    embedder = openclap.load(tmp_path / "hf", offline=True)
    assert embedder.embed_audio([(wave("a", 4000), 48000)]).shape == (1, 512)
    with raises_naming(MissingTokenizerError, "tokenizer.json"):
        embedder.embed_text(["rain"])


def test_vocabulary_and_merges_make_a_tokenizer(tmp_path: Path, home: Path) -> None:
    model = theirs("tiny", False)
    model.save_pretrained(tmp_path / "hf")
    words = {word: number for number, word in enumerate(["<s>", "<pad>", "</s>", "<unk>", "r", "a", "Ġr", "Ġra", "ra"])}
    merges = "#version: 0.2\nĠ r\nĠr a\nr a\n"
    (tmp_path / "hf" / "vocab.json").write_text(json.dumps(words | {"Ġ": 9}), encoding="utf-8")
    (tmp_path / "hf" / "merges.txt").write_text(merges, encoding="utf-8")
    (tmp_path / "hf" / "tokenizer_config.json").write_text('{"tokenizer_class": "RobertaTokenizer"}', encoding="utf-8")
    first, again = (openclap.load(tmp_path / "hf") for _ in range(2))
    batch = first.tokenizer(["ra ra r", "a"])
    assert batch.ids_BL.tolist() == [[0, 8, 7, 6, 2], [0, 5, 2, 1, 1]]
    np.testing.assert_array_equal(first.embed_text(["ra ra r"]), again.embed_text(["ra ra r"]))
    assert first.tokenizer.definition == again.tokenizer.definition and list(home.iterdir()) == []


@pytest.fixture
def hf(tmp_path: Path) -> Path:
    huggingface.write(tiny_clap_model(), tmp_path / "hf")
    return tmp_path / "hf"


def edited(file: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    edit(content)
    file.write_text(json.dumps(content), encoding="utf-8")


Q = "audio_model.audio_encoder.layers.0.blocks.0.attention.self.{}.weight"


def weights(edit: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def apply(place: Path) -> None:
        state = load_file(place / "model.safetensors")
        edit(state)
        save_file(state, place / "model.safetensors")

    return apply


def pickled(content: Any) -> Callable[[Path], None]:
    def apply(place: Path) -> None:
        (place / "model.safetensors").unlink()
        torch.save(content, place / "pytorch_model.bin")

    return apply


def config(edit: Callable[[dict[str, Any]], Any], file: str = "config.json") -> Callable[[Path], None]:
    return lambda place: edited(place / file, edit)


def index(content: str) -> Callable[[Path], Any]:
    return lambda place: (place / "model.safetensors.index.json").write_text(content, encoding="utf-8")


PREPROCESSOR = "preprocessor_config.json"
DAMAGED: dict[str, tuple[Callable[[Path], Any], str]] = {  # and what the error names
    "no key": (weights(lambda state: state.pop(Q.format("key"))), "key.weight"),
    "no query": (weights(lambda state: state.pop(Q.format("query"))), "qkv.weight"),
    "misshapen key": (weights(lambda state: state.update({Q.format("key"): torch.zeros(3, 3)})), "hf"),
    "audio number": (config(lambda c: c.update(audio_config=5)), "hf"),
    "depths text": (config(lambda c: c["audio_config"].update(depths="x")), "hf"),
    "heads none": (config(lambda c: c["audio_config"].update(num_attention_heads=None)), "hf"),
    "text list": (config(lambda c: c.update(text_config=[1])), "hf"),
    "rate text": (config(lambda c: c.update(sampling_rate="abc"), PREPROCESSOR), "hf"),
    "hop 0": (config(lambda c: c.update(hop_length=0), PREPROCESSOR), "hop"),
    "padding": (config(lambda c: c.update(padding="zz"), PREPROCESSOR), "hf"),
    "seconds": (config(lambda c: c.update(max_length_s=float("nan")), PREPROCESSOR), "hf"),
    "index number": (index('{"weight_map": 5}'), "weight_map"),
    "index numbers": (index('{"weight_map": {"a": 5}}'), "weight_map"),
    "index elsewhere": (index('{"weight_map": {"a": "../hf/model.safetensors"}}'), "model.safetensors"),
    "index to nothing": (index('{"weight_map": {"a": "gone.safetensors"}}'), "gone.safetensors"),
    "index damaged": (index("{"), "model.safetensors.index.json"),
    "bin list": (pickled([1]), "list"),
    "bin tensor": (pickled(torch.zeros(2)), "Tensor"),
    "bin numbers": (pickled({1: torch.zeros(2)}), "pytorch_model.bin"),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_damaged_clap_folder_is_one_sentence(hf: Path, what: str) -> None:
    edit, *values = DAMAGED[what]
    edit(hf)
    with raises_naming(CheckpointError, *values):
        openclap.load(hf)


@pytest.mark.parametrize("before", ["", "module."])
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_divided_and_wrapped_weights_are_read(hf: Path, kind: str, before: str) -> None:
    state = {f"{before}{name}": tensor for name, tensor in load_file(hf / "model.safetensors").items()}
    expected = detect.read(hf).weights
    (hf / "model.safetensors").unlink()
    whole, stem = ("model.safetensors", "model") if kind == "safetensors" else ("pytorch_model.bin", "pytorch_model")
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for number, (name, tensor) in enumerate(state.items()):
        parts.setdefault(f"{stem}-0000{1 + number % 2}-of-00002.{kind}", {})[name] = tensor
    for file, part in parts.items():
        (save_file if kind == "safetensors" else torch.save)(part, hf / file)
    places = {name: file for file, part in parts.items() for name in part}
    (hf / f"{whole}.index.json").write_text(json.dumps({"weight_map": places}), encoding="utf-8")
    found = detect.read(hf).weights
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_shared_memory_and_other_precisions_survive_writing(tmp_path: Path, dtype: torch.dtype) -> None:
    checkpoint = tiny_clap_model()
    one = {name: t.to(dtype) if t.is_floating_point() else t for name, t in checkpoint.weights.items()}
    one["logit_scale_text"] = one["logit_scale"] = torch.tensor(2.5, dtype=dtype)
    huggingface.write(replace(checkpoint, weights=one), tmp_path / "hf")
    found = detect.read(tmp_path / "hf").weights
    assert all(torch.equal(found[name], one[name]) and found[name].dtype == one[name].dtype for name in found)
    openclap_folder.write(detect.read(tmp_path / "hf"), tmp_path / "ours", None)
    assert all(
        torch.equal(found[name], tensor) for name, tensor in openclap_folder.read(tmp_path / "ours").weights.items()
    )
    ClapModel.from_pretrained(tmp_path / "hf")
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "hf").iterdir()}
    (tmp_path / "plain").touch()
    assert modes == {stat.S_IMODE((tmp_path / "plain").stat().st_mode)}


@pytest.mark.parametrize(
    ("files", "file"),
    [
        ({"vocab.json": '{"a": 0}'}, "merges.txt"),
        ({"vocab.json": "{", "merges.txt": ""}, "vocab.json"),
        ({"vocab.json": '{"a": 0}', "merges.txt": "", "tokenizer_config.json": "{"}, "vocab.json"),
        ({"tokenizer.json": "{"}, "tokenizer.json"),
    ],
)
def test_damaged_tokenizer_only_prevents_embedding_text(hf: Path, files: dict[str, str], file: str) -> None:
    for name, content in files.items():
        (hf / name).write_text(content, encoding="utf-8")
    assert detect.describe(hf)["tokenizer"] == str(hf / next(iter(files)))
    with raises_naming(CheckpointError, hf / file):
        _ = openclap.load(hf).tokenizer


def test_code_of_a_tokenizer_is_not_run(hf: Path) -> None:
    (hf / "vocab.json").write_text('{"<s>": 0, "a": 1}', encoding="utf-8")
    (hf / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    settings = {"tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": ["mine.Mine", "mine.Mine"]}}
    (hf / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    (hf / "mine.py").write_text(f"open({str(hf / 'executed')!r}, 'w')\nclass Mine: pass\n", encoding="utf-8")
    with raises_naming(CheckpointError, hf / "vocab.json"):
        _ = openclap.load(hf).tokenizer
    assert not (hf / "executed").exists()


def test_zero_shot_pipeline_agrees_for_a_fused_model(tmp_path: Path) -> None:
    words = tiny_roberta_tokenizer(tmp_path / "tokenizer.json")
    huggingface.write(replace(tiny_clap_model(fused=True), tokenizer=words), tmp_path / "hf")
    labels, sound = ["rain", "wolf", "dog"], wave("long", 480000)
    found = pipeline("zero-shot-audio-classification", model=str(tmp_path / "hf"))(sound, candidate_labels=labels)
    ours = openclap.load(tmp_path / "hf").classify([(sound, 48000)], labels)[0]
    assert {entry["label"]: entry["score"] for entry in found} == {
        label: pytest.approx(float(p), abs=5e-3) for label, p in zip(labels, ours, strict=True)
    }


@pytest.mark.parametrize("fused", [False, True])
def test_auto_classes_of_transformers_agree(fused: bool, tmp_path: Path) -> None:
    """A folder as the command line writes it, through the Auto classes, saved again there, and read by openclap."""
    from transformers import AutoModel, AutoProcessor, AutoTokenizer

    openclap_folder.write(tiny_clap_model(fused=fused), tmp_path / "ours", None)
    words = ["--tokenizer", str(tiny_roberta_tokenizer(tmp_path / "words.json"))]
    assert run(["convert", str(tmp_path / "ours"), str(tmp_path / "hf"), "--to", "hf", *words]) == 0
    ours = openclap.load(tmp_path / "ours", tokenizer=tmp_path / "words.json", device="cpu")
    model, processor = AutoModel.from_pretrained(tmp_path / "hf"), AutoProcessor.from_pretrained(tmp_path / "hf")
    assert isinstance(model, ClapModel) and isinstance(processor, ClapProcessor)
    texts, sounds = ["rain on the roof", "wolf", "a dog " * 90], [wave("ten", 480000), wave("two", 96001)]
    tokens = AutoTokenizer.from_pretrained(tmp_path / "hf")(texts, padding=True, truncation=True, return_tensors="pt")
    inputs = dict(processor(audio=sounds, sampling_rate=48000, return_tensors="pt"))
    inputs["is_longer"] = torch.zeros(2, 1, dtype=torch.bool)  # of clips that all fit it calls a random one long
    out = model.eval()(**tokens, **inputs)
    np.testing.assert_allclose(out.text_embeds.detach(), ours.embed_text(texts), atol=1e-5)
    audio_ND = ours.embed_audio([(sound, 48000) for sound in sounds])
    np.testing.assert_allclose(out.audio_embeds.detach(), audio_ND, atol=1e-4)
    model.save_pretrained(tmp_path / "again")
    processor.save_pretrained(tmp_path / "again")
    again, hf = (openclap.load(tmp_path / name, device="cpu") for name in ("again", "hf"))
    assert again.digest() == hf.digest()
    np.testing.assert_array_equal(again.embed_text(texts), hf.embed_text(texts))
