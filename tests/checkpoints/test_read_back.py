"""Each writer reads its draft back as a loader would, before anything is replaced."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from openclap.checkpoints import huggingface, laion, openclap_folder
from openclap.checkpoints.checkpoint import Checkpoint
from openclap.errors import CheckpointError
from support.errors import raises_naming
from support.headers import LOW_BYTES
from support.tiny_models import tiny_clap_model, tiny_tokenizer

WRITERS: dict[str, Callable[[Checkpoint, Path], object]] = {
    "openclap": lambda checkpoint, place: openclap_folder.write(checkpoint, place, tiny_tokenizer()),
    "hf": huggingface.write,
    "laion": laion.write,
}


def flip(path: Path) -> None:
    """Change one bit of the last tensor, which no header and no name notices."""
    content = bytearray(path.read_bytes())
    at = len(content) - 1 if content[8:9] == b"{" else content.rfind(b"\x00\x00\x80\x3f") + 3
    content[at] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    """As a full disk would leave it."""
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("harm", [flip, cut])
@pytest.mark.parametrize("to", WRITERS)
def test_damaged_draft_replaces_nothing(
    to: str, harm: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, place = tiny_clap_model(), tmp_path / "model"
    WRITERS[to](checkpoint, place)
    files = [path for path in (place, *place.rglob("*")) if path.is_file()]
    before = {path: path.read_bytes() for path in files}
    for module, name in ((safetensors.torch, "save_file"), (torch, "save")):
        whole = getattr(module, name)

        def harmed(content: Any, path: Path, whole: Callable[..., None] = whole, **options: Any) -> None:
            whole(content, path, **options)
            harm(path)

        monkeypatch.setattr(module, name, harmed)
    for target in (place, tmp_path / "new"):
        with raises_naming(CheckpointError, target):
            WRITERS[to](checkpoint, target)
    assert {path: path.read_bytes() for path in files} == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_folder_reads_back_with_any_header_length(tmp_path: Path) -> None:
    checkpoint, begun = tiny_clap_model(), set()
    for length in range(0, 264, 4):
        weights = {"w" + "-" * length: torch.ones(1)}
        openclap_folder.write(replace(checkpoint, weights=weights), tmp_path / "model", None)
        begun.add((tmp_path / "model" / openclap_folder.WEIGHTS).read_bytes()[0])
    assert begun == set(LOW_BYTES)


def test_preset_that_reads_back_differently_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dumps = json.dumps

    def halved(content: Any, **options: Any) -> str:
        return dumps(content, **options).replace('"samples": 480000', '"samples": 240000')

    monkeypatch.setattr(json, "dumps", halved)
    with raises_naming(CheckpointError, tmp_path / "model"):
        WRITERS["openclap"](tiny_clap_model(), tmp_path / "model")
    assert not any(tmp_path.iterdir())
