"""Read Microsoft's CLAP: embeddings, log-mels and ids are those of the package msclap (tests/golden/msclap.npz)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import openclap
from openclap.audio.frontend import FrontEnd
from openclap.checkpoints import detect, microsoft
from openclap.errors import CheckpointError
from openclap.interop.conversion import convert
from support.errors import raises_naming
from support.microsoft import RATE, TEXTS, bert_tokenizer, golden, gpt2_tokenizer, rows, state, waves, write_file

VERSIONS = ["2022", "2023"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("microsoft")


@pytest.fixture(scope="module", params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(version: str, folder: Path) -> openclap.Embedder:
    # The tokenizer of 2023 is part of openclap.
    words = bert_tokenizer(folder / "tokenizer.json") if version == "2022" else None
    return openclap.load(write_file(folder / f"{version}.pth", version), tokenizer=words, device="cpu")


def unit(array: np.ndarray) -> np.ndarray:
    made: np.ndarray = array / np.linalg.norm(array, axis=-1, keepdims=True)
    return made


def close(ours: np.ndarray, theirs: np.ndarray) -> None:
    np.testing.assert_allclose(ours, unit(theirs), rtol=1e-4, atol=1e-5)


def test_audio_embeddings_are_msclaps(model: openclap.Embedder, version: str) -> None:
    found = golden(version)
    expected = np.stack([found["audio_short"], found["audio_whole"]])
    # Otherwise equal vectors would show nothing.
    assert abs(unit(expected)[0] - unit(expected)[1]).max() > 1e-3
    close(model.embed_audio([(waves(version)[name], RATE) for name in ("short", "whole")]), expected)


def test_a_long_clip_is_read_in_windows_where_msclap_reads_one_of_them(model: openclap.Embedder, version: str) -> None:
    long = waves(version)["long"]
    samples = model.input_samples
    assert samples == {"2022": 5, "2023": 7}[version] * RATE and f"windows of {samples / RATE:.2f} s" in str(
        model.clip_policy.lower()
    )
    # msclap's random stretch was the first.
    close(model.embed_audio([(long[:samples], RATE)])[0], golden(version)["audio_long"])
    whole = model.embed_audio([(long, RATE)])[0]
    parts = model.embed_audio([(long[:samples], RATE), (long[-samples:], RATE)])
    np.testing.assert_allclose(whole, unit(parts.mean(axis=0)), atol=1e-6)
    assert np.array_equal(whole, model.embed_audio([(long, RATE)])[0])


def test_log_mels_are_msclaps(model: openclap.Embedder, version: str) -> None:
    for name in ("short", "whole"):
        mel_TF = model.frontend([waves(version)[name]]).mel_BVTF[0, 0, ::40]
        np.testing.assert_allclose(mel_TF.numpy(), golden(version)[f"mel_{name}"], atol=2e-3)


def test_text_embeddings_and_similarities_are_msclaps(model: openclap.Embedder, version: str) -> None:
    found = golden(version)
    texts = model.embed_text(TEXTS)
    close(texts, found["texts"])
    audios = model.embed_audio([(waves(version)[name], RATE) for name in ("short", "whole")])
    logits = audios @ texts.T * model.runtime.logit_scale
    np.testing.assert_allclose(logits, found["logits"][:2], atol=2e-4)


def test_tokens_are_those_of_gpt2(folder: Path) -> None:
    model = openclap.load(write_file(folder / "gpt2.pth", "2023"), device="cpu")
    words = gpt2_tokenizer()
    words.add_special_tokens({"pad_token": "!"})
    more = [*TEXTS, "mark<|endoftext|>up", "tab\tand\nline", "It's 100% ÜBER-cool… «¿qué?»", "日本語の音"]
    ours = model.tokenizer.encode(more)
    theirs = words([f"{text} <|endoftext|>" for text in more], padding=True, return_tensors="np")
    assert np.array_equal(ours.ids_BL, theirs["input_ids"])
    assert np.array_equal(ours.mask_BL, theirs["attention_mask"])
    assert np.array_equal(ours.ids_BL[: len(TEXTS)], golden("2023")["ids"][:, : ours.ids_BL.shape[1]])
    # msclap does not cut long texts, and refuses batches with them; here they keep their end.
    [cut] = model.tokenizer.encode(["dog " * 200]).ids_BL
    assert len(cut) == 77 and list(cut[-2:]) == [220, 50256]


def test_exclamation_marks_shift_the_pooled_token(folder: Path) -> None:
    """Each "!" is read as padding when tokens are counted, so the state of an earlier token is pooled, as in msclap."""
    model = openclap.load(write_file(folder / "gpt2.pth", "2023"), device="cpu")
    ids_BL = torch.tensor([[3201, 0, 3290, 220, 50256, 0, 0]])
    mask_BL = torch.tensor([[1, 1, 1, 1, 1, 0, 0]])
    with torch.inference_mode():
        states = model.clap.text_tower.encoder(input_ids=ids_BL[:, :5]).last_hidden_state
        expected = torch.nn.functional.normalize(model.clap.text_head(states[:, 3]), dim=-1)
        torch.testing.assert_close(model.text_tensor(ids_BL, mask_BL), expected, rtol=1e-4, atol=1e-5)


def test_embeddings_do_not_depend_on_the_batch(model: openclap.Embedder, version: str) -> None:
    sounds = [(wave[:RATE], RATE) for wave in waves(version).values()]
    for batch, embed in ((sounds, model.embed_audio), (TEXTS, model.embed_text)):
        alone = np.concatenate([embed([one]) for one in batch])  # type: ignore[operator, list-item]
        np.testing.assert_allclose(embed(batch), alone, atol=1e-5)  # type: ignore[operator]


def test_the_filterbank_is_the_stored_one(folder: Path, version: str) -> None:
    [bank] = [name for name, _, _ in rows(version) if name.endswith("melW")]
    read = detect.read(write_file(folder / "stored.pth", version)).preset.frontend.mel
    torch.save({"model": state(rows(version))}, folder / "without.pth")
    assert detect.read(folder / "without.pth").preset.frontend.mel == read
    assert read.filterbank_rate == (32000 if version == "2023" else 0)
    other = replace(read, filterbank_rate=0, f_max=8000.0)
    stored = FrontEnd(replace(microsoft.FRONT_END, mel=other)).logmel.filterbank_KF
    assert detect.read(write_file(folder / "other.pth", version, **{bank: stored})).preset.frontend.mel == other
    with raises_naming(CheckpointError, "odd.pth", "filterbank"):
        detect.read(write_file(folder / "odd.pth", version, **{bank: stored * 2}))


def test_a_folder_of_openclap_keeps_everything(model: openclap.Embedder, version: str, folder: Path) -> None:
    model.save(folder / f"saved-{version}")
    again = openclap.load(folder / f"saved-{version}", device="cpu")
    assert again.preset == model.preset and again.digest() == model.digest()
    sounds = [(waves(version)["short"], RATE)]
    assert np.array_equal(again.embed_audio(sounds), model.embed_audio(sounds))
    assert np.array_equal(again.embed_text(TEXTS), model.embed_text(TEXTS))


def test_the_pooler_of_bert_is_kept_and_not_read(folder: Path) -> None:
    unused = detect.read(write_file(folder / "pooler.pth", "2022")).unused
    assert "text_branch.pooler.dense.weight" in unused


@pytest.mark.parametrize("to", ["laion", "hf", "open-clip"])
def test_formats_without_a_place_for_it_say_so(folder: Path, version: str, to: str) -> None:
    source = write_file(folder / "convert.pth", version)
    with raises_naming(CheckpointError, "Convert to openclap instead"):
        convert(source, folder / f"{version}-{to}", to)  # type: ignore[arg-type]


def test_half_precision_is_read(folder: Path, version: str, model: openclap.Embedder) -> None:
    tensors = {name: tensor.half() for name, tensor in state(rows(version)).items()}
    half = openclap.load(write_file(folder / "half.pth", version, **tensors), device="cpu")
    assert next(half.clap.parameters()).dtype == torch.float32
    sounds = [(waves(version)["short"], RATE)]
    assert half.embed_audio(sounds)[0] @ model.embed_audio(sounds)[0] > 0.999


def test_the_captioning_model_is_refused(folder: Path) -> None:
    torch.save({"model": {"clap_project.linear.weight": torch.zeros(2), "gpt.x": torch.zeros(1)}}, folder / "cap.pth")
    with raises_naming(CheckpointError, "cap.pth", "clapcap", "CLAP_weights_2023.pth"):
        openclap.load(folder / "cap.pth")


def test_a_file_without_one_of_its_tensors_is_refused(folder: Path, version: str) -> None:
    file = write_file(folder / "partial.pth", version)
    content = torch.load(file)
    del content["model"]["caption_encoder.projection.layer_norm.bias"]
    torch.save(content, file)
    with raises_naming(CheckpointError, "partial.pth", "text_head.layer_norm.bias"):
        openclap.load(file)
