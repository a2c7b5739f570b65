"""The tokenizers of this package against the ids of tiktoken and of CLIP's tokenizer."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from openclap.errors import CheckpointError
from openclap.models.config import TextTowerConfig
from openclap.text import merges
from openclap.text.numpy_tokenizer import NumpyTokenizer
from support.errors import raises_naming
from support.open_clip import captions, golden

MARKERS = {"bos_id": 50259, "eos_id": 50257, "pad_id": 50258}
TIKTOKEN_SHA256 = "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930"
"""Of r50k_base.tiktoken, which tiktoken itself demands."""


def tokenizer(name: str, context: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NumpyTokenizer:
    monkeypatch.setenv("OPENCLAP_HOME", str(tmp_path))
    text = TextTowerConfig("modern", "map", context, 64, sizes=MARKERS, tokenizer=name)
    return NumpyTokenizer.read(merges.tokenizer_file(text), context)


def test_ids_are_tiktokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids_BL, mask_BL = tokenizer(merges.R50K, 256, tmp_path, monkeypatch).encode(captions())
    assert np.array_equal(ids_BL, golden("text_ids")["tiktoken"])
    assert np.array_equal(mask_BL.sum(axis=1), golden("text_ids")["lengths"])


def test_ids_are_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = tokenizer(merges.CLIP, 77, tmp_path, monkeypatch)
    assert np.array_equal(words.encode(captions()).ids_BL, golden("text_ids")["simple"])
    short = tokenizer(merges.CLIP, 32, tmp_path, monkeypatch)
    assert np.array_equal(short.encode(captions()).ids_BL, golden("naflexclap_test")["text_ids"])


def test_the_merges_are_those_of_tiktokens_file() -> None:
    """The file of ranks, made again from the merges, has the digest that tiktoken checks."""
    byte_of = dict(
        zip(
            merges.byte_characters(),
            [*range(33, 127), *range(0xA1, 0xAD), *range(0xAE, 0x100), *range(33), *range(127, 0xA1), 0xAD],
            strict=True,
        )
    )
    tokens = [*merges.byte_characters(), *(merge.replace(" ", "") for merge in merges.read_merges(merges.R50K))]
    raw = [bytes(byte_of[letter] for letter in token) for token in tokens]
    ranks = b"".join(base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(raw))
    assert hashlib.sha256(ranks).hexdigest() == TIKTOKEN_SHA256


@pytest.mark.parametrize("damage", ["altered", "truncated", "missing"])
def test_merges_that_are_not_whole_are_refused(tmp_path: Path, damage: str) -> None:
    content = (Path(merges.__file__).parent / "r50k_base.txt.gz").read_bytes()
    file = tmp_path / "r50k_base.txt.gz"
    if damage == "altered":
        file.write_bytes(gzip.compress(gzip.decompress(content).replace(b"h e\n", b"e h\n", 1)))
    elif damage == "truncated":
        file.write_bytes(content[:1000])
    values = (file,) if damage == "missing" else (file, "SHA-256")
    with raises_naming(CheckpointError, *values):
        merges.read_merges(merges.R50K, tmp_path)


def test_a_file_that_was_changed_under_openclaps_home_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENCLAP_HOME", str(tmp_path))
    text = TextTowerConfig("modern", "map", 256, 64, sizes=MARKERS, tokenizer=merges.R50K)
    file = merges.tokenizer_file(text)
    whole = file.read_bytes()
    file.write_text("{}")
    assert merges.tokenizer_file(text).read_bytes() == whole
    assert len(json.loads(whole)["model"]["vocab"]) == 50256
