from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from openclap import presets
from openclap.checkpoints import openclap_folder
from openclap.checkpoints.checkpoint import ZeroInit, build_network
from openclap.errors import CheckpointError
from openclap.models.build import build_clap
from support.errors import raises_naming
from support.tiny_models import TINY_PRESET, tiny_tokenizer

ODD = json.dumps(
    {
        "format_version": 1,
        "preset": presets.to_dict(replace(TINY_PRESET, text=replace(TINY_PRESET.text, model_type="zzz"))),
    }
).encode()


def copy(model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model, tmp_path / "copy"))


def test_saved_model_reads_back_bit_equal(tmp_path: Path) -> None:
    clap = build_clap(TINY_PRESET)
    openclap_folder.save(tmp_path / "a" / "model", clap, TINY_PRESET, tiny_tokenizer())
    assert sorted(path.name for path in (tmp_path / "a" / "model").iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    found = openclap_folder.read(tmp_path / "a" / "model")
    assert found.preset == TINY_PRESET and found.tokenizer is not None and found.unused == {}
    again = build_network(found, "model")
    for name, tensor in clap.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_unused_tensors_are_saved(tmp_path: Path) -> None:
    unused = {"audio_branch.head.weight": torch.arange(6.0)}
    openclap_folder.save(tmp_path / "model", build_clap(TINY_PRESET), TINY_PRESET, tiny_tokenizer(), unused)
    assert torch.equal(openclap_folder.read(tmp_path / "model").unused["audio_branch.head.weight"], torch.arange(6.0))


def test_zero_init_skips_random_initialisation() -> None:
    with ZeroInit():
        layer = torch.nn.Linear(3, 3)
        torch.nn.init.trunc_normal_(layer.bias)
        assert not layer.weight.any() and not layer.bias.any()
        torch.nn.init.constant_(layer.weight, 7.0)
    assert layer.weight.eq(7.0).all()
    torch.nn.init.kaiming_uniform_(layer.weight)
    assert layer.weight.std() > 0


def test_every_preset_survives_json() -> None:
    for preset in presets.PRESETS.values():
        assert presets.from_dict(json.loads(json.dumps(presets.to_dict(preset)))) == preset


def test_saving_replaces_only_a_model(tiny_model: Path, tmp_path: Path) -> None:
    place = copy(tiny_model, tmp_path)
    openclap_folder.save(place, build_clap(TINY_PRESET), TINY_PRESET, tiny_tokenizer())
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("dear", encoding="utf-8")
    with raises_naming(CheckpointError, mine):
        openclap_folder.save(mine, build_clap(TINY_PRESET), TINY_PRESET, tiny_tokenizer())
    assert (mine / "thesis.txt").read_text(encoding="utf-8") == "dear"


def test_failed_save_leaves_the_old_model(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = copy(tiny_model, tmp_path)

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="No space"):
        openclap_folder.save(place, build_clap(TINY_PRESET), TINY_PRESET, tiny_tokenizer())
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]
    openclap_folder.read(place)


@pytest.mark.parametrize(
    ("file", "content", "value"),
    [
        ("config.json", None, "config.json"),
        ("config.json", b"{", "config.json"),
        ("config.json", b'{"format_version": 9, "preset": {}}', 9),
        ("config.json", b'{"format_version": 1, "preset": {"name": "x"}}', "config.json"),
        ("config.json", ODD, "copy"),
        ("model.safetensors", None, "model.safetensors"),
        ("model.safetensors", b"\x00" * 100, "model.safetensors"),
    ],
)
def test_damaged_folder_is_one_sentence(
    tiny_model: Path, tmp_path: Path, file: str, content: bytes | None, value: object
) -> None:
    place = copy(tiny_model, tmp_path)
    (place / file).unlink()
    if content is not None:
        (place / file).write_bytes(content)
    with raises_naming(CheckpointError, value):
        build_network(openclap_folder.read(place), place.name)


def test_weights_that_do_not_fit_are_named(tiny_model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    place = copy(tiny_model, tmp_path)
    weights = load_file(place / "model.safetensors")
    del weights["logit_scale"]
    weights["surplus"] = torch.zeros(1)
    weights["audio_head.0.bias"] = torch.zeros(3)
    save_file(weights, place / "model.safetensors")
    with raises_naming(CheckpointError, "logit_scale", "surplus", "audio_head.0.bias", "(3,)", "(16,)"):
        build_network(openclap_folder.read(place), place.name)
