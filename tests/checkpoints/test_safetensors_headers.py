"""Safetensors files are read with any header length, whose first byte may be that of a pickle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import openclap
from openclap.checkpoints import audioset, detect, huggingface, openclap_folder
from openclap.checkpoints.checkpoint import Checkpoint
from openclap.checkpoints.tensors import read_safetensors, read_tensors
from openclap.cli import run
from openclap.errors import CheckpointError
from openclap.models.build import build_clap
from support.errors import raises_naming
from support.headers import LOW_BYTES, begin, save_beginning
from support.tiny_models import TINY_PRESET, tiny_clap_model, tiny_laion_model, tiny_laion_state, tiny_tokenizer

STATE = {"a.weight": torch.arange(3.0), "b": torch.ones(1)}
PICKLE = 0x80


@pytest.mark.parametrize("low", LOW_BYTES)
def test_header_of_every_length_is_read(tmp_path: Path, low: int) -> None:
    place = tmp_path / "weights"
    save_beginning(STATE, place, low)
    for found in (load_file(place), read_tensors(place), read_safetensors(place)):
        assert found.keys() == STATE.keys() and torch.equal(found["a.weight"], STATE["a.weight"])


@pytest.mark.parametrize("low", [0x00, PICKLE])
def test_truncated_file_is_reported_as_damaged(tmp_path: Path, low: int) -> None:
    place = tmp_path / "weights"
    save_beginning(STATE, place, low)
    whole = place.read_bytes()
    for left in (9, 40, len(whole) - 1):
        place.write_bytes(whole[:left])
        for read in (read_tensors, read_safetensors):
            with raises_naming(CheckpointError, place) as caught:
                read(place)
            assert "torch can read" not in str(caught.value)


def test_header_length_that_spells_zip_is_read(tmp_path: Path) -> None:
    """The first four bytes of a zip are 67,324,752 as a number: a length that a header may have."""
    place = tmp_path / "weights"
    save_file(STATE, place)
    whole, length = place.read_bytes(), int.from_bytes(b"PK\x03\x04", "little")
    header = whole[8 : 8 + int.from_bytes(whole[:8], "little")]
    place.write_bytes(length.to_bytes(8, "little") + header.ljust(length) + whole[8 + len(header) :])
    assert place.read_bytes()[:4] == b"PK\x03\x04"
    assert torch.equal(read_tensors(place)["a.weight"], STATE["a.weight"])


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_torch_are_no_safetensors(tmp_path: Path, protocol: int, zipped: bool) -> None:
    torch.save(STATE, tmp_path / "a", pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    assert read_tensors(tmp_path / "a").keys() == STATE.keys()
    with raises_naming(CheckpointError, tmp_path / "a"):
        read_safetensors(tmp_path / "a")


def test_every_file_of_an_openclap_folder_is_read(tmp_path: Path, tiny_model: Path) -> None:
    preset, weights = tiny_laion_model()
    unused, learned = {"audio_branch.head.weight": torch.ones(5, 5)}, {"bias": torch.tensor(-7.5)}
    openclap_folder.write(Checkpoint("openclap", preset, weights, unused, objective=learned), tmp_path / "model", None)
    shutil.copytree(tiny_model, tmp_path / "tiny")
    expected = openclap.load(tiny_model).digest()
    for low in LOW_BYTES:
        for name in (openclap_folder.WEIGHTS, openclap_folder.UNUSED, openclap_folder.OBJECTIVE):
            begin(tmp_path / "model" / name, low)
        found = detect.read(tmp_path / "model")
        for theirs, ours in ((weights, found.weights), (unused, found.unused), (learned, found.objective)):
            assert theirs.keys() == ours.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)
        begin(tmp_path / "tiny" / openclap_folder.WEIGHTS, low)
        assert openclap.load(tmp_path / "tiny").digest() == expected
    begin(tmp_path / "tiny" / openclap_folder.WEIGHTS, PICKLE)
    assert run(["inspect", str(tmp_path / "tiny")]) == 0


def test_real_model_that_begins_like_a_pickle_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names and sizes make the header's length: here, those of a text tower with one layer more or less."""
    for layers in range(1, 40):
        preset = replace(
            TINY_PRESET,
            text=replace(TINY_PRESET.text, sizes=dict(TINY_PRESET.text.sizes) | {"num_hidden_layers": layers}),
        )
        openclap_folder.save(tmp_path / "model", build_clap(preset), preset, tiny_tokenizer())
        if (tmp_path / "model" / openclap_folder.WEIGHTS).read_bytes()[0] == PICKLE:
            break
    else:
        pytest.fail("no model begins like a pickle")
    assert openclap.load(tmp_path / "model", device="cpu").embed_text(["rain"]).shape == (1, 16)
    for to in ("openclap", "sentence-transformers"):
        assert run(["convert", str(tmp_path / "model"), str(tmp_path / to), "--to", to]) == 0, capsys.readouterr().err


def test_one_part_of_divided_clap_weights_is_read(tmp_path: Path) -> None:
    place, checkpoint = tmp_path / "hf", tiny_clap_model()
    huggingface.write(checkpoint, place)
    state = load_file(place / "model.safetensors")
    (place / "model.safetensors").unlink()
    names = {name: f"model-0000{1 + number % 2}-of-00002.safetensors" for number, name in enumerate(sorted(state))}
    for file in set(names.values()):
        save_file({name: state[name] for name in names if names[name] == file}, place / file)
    (place / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    for low in LOW_BYTES:
        begin(place / "model-00002-of-00002.safetensors", low)
        found = detect.read(place).weights
        assert len(found) > 30 and all(torch.equal(found[name], checkpoint.weights[name]) for name in found)


def test_single_files_are_read(tmp_path: Path) -> None:
    """LAION-CLAP's names, an audio tower alone, and the text encoder of a start."""
    state, place = tiny_laion_state(), tmp_path / "weights"
    tower = {name.removeprefix("audio_branch."): t for name, t in state.items() if name.startswith("audio_branch.")}
    readers: list[tuple[dict[str, torch.Tensor], Callable[[Path], object], object]] = [
        (state, lambda path: detect.read(path).preset.embedding_size, 24),
        (tower, lambda path: audioset.read(path).name, "htsat-16"),
    ]
    for tensors, read, expected in readers:
        save_file(tensors, place)
        for low in LOW_BYTES:
            begin(place, low)
            assert read(place) == expected, low
