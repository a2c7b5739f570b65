from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import openclap
from openclap.checkpoints import audioset, detect
from openclap.checkpoints import unpickle as unpickled
from openclap.errors import CheckpointError
from support.errors import raises_naming
from support.tiny_models import TINY_PANN, tiny_laion_state, tiny_tower_state


def saved(content: Any, place: Path) -> Path:
    torch.save(content, place)
    return place


def test_describe_reads_the_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[Path] = []
    read = unpickled.torch.load
    monkeypatch.setattr(
        unpickled.torch, "load", lambda file, **options: reads.append(file.name) or read(file, **options)
    )
    for content in (tiny_laion_state(), tiny_tower_state(TINY_PANN)):
        reads.clear()
        detect.describe(saved(content, tmp_path / "a.pt"))
        assert len(reads) == 1


@pytest.mark.parametrize("before", ["", "sed_model.", "module.", "module._orig_mod.sed_model."])
def test_misfits_of_a_tower_are_listed(tmp_path: Path, before: str) -> None:
    state = tiny_tower_state(TINY_PANN) | {"surplus": torch.ones(1), "conv_block2.bn1.weight": torch.ones(3)}
    del state["bn0.bias"]
    path = saved({"model": {f"{before}{name}": tensor for name, tensor in state.items()}}, tmp_path / "a.pth")
    facts = detect.describe(path)
    assert facts["format"] == "audio tower" and facts["missing"] == ["bn0.bias"] and facts["not known"] == ["surplus"]
    assert facts["of another shape"] == ["blocks.1.bn1.weight is (3,), expected (8,)"]
    with raises_naming(CheckpointError, "a.pth", "openclap.checkpoints.audioset"):
        detect.read(path)


def test_misshapen_weights_are_listed(tmp_path: Path) -> None:
    state = tiny_laion_state() | {"audio_projection.0.weight": torch.zeros(3, 3), "audio_branch.surplus": torch.ones(1)}
    del state["audio_branch.norm.weight"]
    facts = detect.describe(saved(state, tmp_path / "a.pt"))
    assert facts["missing"] == ["audio_tower.norm.weight"] and facts["not known"] == ["audio_tower.surplus"]
    assert facts["of another shape"] == ["audio_head.0.weight is (3, 3), expected (24, 32)"]


def test_checkpoint_records_its_source(tmp_path: Path, tiny_model: Path) -> None:
    assert detect.read(saved(tiny_laion_state(), tmp_path / "a.pt")).source == tmp_path / "a.pt"
    assert detect.read(tiny_model).source == tiny_model


def damage(edit: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def damaged(config: dict[str, Any]) -> dict[str, Any]:
        edit(config["preset"])
        return config

    return damaged


DAMAGED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a number": lambda config: 5,
    "a list": lambda config: ["format_version"],
    "nothing": lambda config: {"format_version": 1},
    "audio list": damage(lambda preset: preset.update(audio=[])),
    "audio none": damage(lambda preset: preset.update(audio=None)),
    "text none": damage(lambda preset: preset.update(text=None)),
    "mel text": damage(lambda preset: preset["frontend"].update(mel="x")),
    "sizes list": damage(lambda preset: preset["text"].update(sizes=[1])),
    "samples text": damage(lambda preset: preset["frontend"].update(samples="x")),
    "rate 0": damage(lambda preset: preset["frontend"]["mel"].update(rate=0)),
    "hop text": damage(lambda preset: preset["frontend"]["mel"].update(hop="x")),
    "context": damage(lambda preset: preset["text"].update(context="x")),
    "fill": damage(lambda preset: preset["frontend"].update(fill="zz")),
    "pooling": damage(lambda preset: preset["text"].update(pooling="zz")),
    "widths": damage(lambda preset: preset["audio"].update(widths=[])),
    "type": damage(lambda preset: preset["text"].update(model_type=None)),
    "version": lambda config: config | {"format_version": "1"},
}


@pytest.mark.parametrize("what", DAMAGED)
def test_damaged_configuration_is_one_sentence(tiny_model: Path, tmp_path: Path, what: str) -> None:
    place = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    config = json.loads((place / "config.json").read_text(encoding="utf-8"))
    (place / "config.json").write_text(json.dumps(DAMAGED[what](config)), encoding="utf-8")
    with raises_naming(CheckpointError) as caught:
        detect.describe(place)
    assert len(str(caught.value)) < 500
    with pytest.raises(CheckpointError):
        openclap.load(place)


def test_only_a_newer_format_asks_for_an_upgrade(tiny_model: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    config = json.loads((place / "config.json").read_text(encoding="utf-8"))
    for version, advice in ((2, "Upgrade"), ("1", "damaged")):
        (place / "config.json").write_text(json.dumps(config | {"format_version": version}), encoding="utf-8")
        with raises_naming(CheckpointError, repr(version), advice):
            detect.read(place)


def test_paths_without_a_checkpoint_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "config.json").write_bytes(b"\xff\xfe\x00")
    for name in ("pipe", "link", "empty", "odd"):
        with raises_naming(CheckpointError, tmp_path / name):
            detect.read(tmp_path / name)


def test_readable_files_with_other_content_are_refused(tmp_path: Path) -> None:
    state = tiny_laion_state()
    clip = {"token_embedding.weight": torch.zeros(40, 64), "text_branch.resblocks.0.attn.in_proj_bias": torch.zeros(2)}
    for edit, values in (
        ({"audio_branch.layers.300000000.blocks.0.x": torch.zeros(1)}, ()),
        (clip, ("text_branch.resblocks.0.mlp.c_fc.weight",)),
        ({"text_branch.embeddings.word_embeddings.weight": torch.zeros(40, 63)}, ("(24, 64)", "(24, 63)")),
    ):
        with raises_naming(CheckpointError, "a.pt", *values):
            openclap.load(saved(state | edit, tmp_path / "a.pt"))
    for name in ("sed_model.patch_embed.proj.weight", "conv_block1.conv1.weight"):
        with raises_naming(CheckpointError, "a.pt", name.removeprefix("sed_model."), "(3,)"):
            audioset.read(saved({name: torch.zeros(3)}, tmp_path / "a.pt"))
    with raises_naming(CheckpointError, "a.pt", *audioset.FIRST_LAYERS):
        audioset.read(saved({"x": torch.zeros(3)}, tmp_path / "a.pt"))


def test_damaged_safetensors_file_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    weights = load_file(place / "model.safetensors")
    torch.save(weights, place / "model.safetensors")
    with raises_naming(CheckpointError, place / "model.safetensors"):
        detect.read(place)
    save_file(weights, place / "model.safetensors")
    content = (place / "model.safetensors").read_bytes()
    (place / "model.safetensors").write_bytes(content[: len(content) // 2])
    with raises_naming(CheckpointError, place / "model.safetensors"):
        detect.read(place)
