"""`openclap cache`: the table of models, and clearing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from openclap.cli import run
from openclap.embedding_cache import EmbeddingCache


@pytest.fixture
def filled(home: Path) -> Path:
    for model, digest, count in (("mini", "a" * 64, 3), ("large", "b" * 64, 2)):
        cache = EmbeddingCache({"digest": digest, "runtime": "torch fp32", "vectors": "whole sounds"}, model)
        cache.add((str(number), np.ones(16, np.float32)) for number in range(count))
    return home


def test_the_table_lists_models_and_sizes(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["cache"]) == 0
    said = capsys.readouterr()
    head, *rows = said.out.splitlines()
    assert head.split()[:5] == ["model", "digest", "runtime", "of", "number"]
    assert sorted(row.split()[:2] for row in rows) == [["large", "b" * 12], ["mini", "a" * 12]]
    assert f"of 10,000.0 MB in {filled / 'embeddings'}" in said.err
    assert run(["cache", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert {space["model"]: space["entries"] for space in facts["spaces"]} == {"mini": 3, "large": 2}
    assert facts["limit_bytes"] == 10**10


@pytest.mark.parametrize("model", ["mini", "aaaa"])
def test_clearing_one_model(filled: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    (filled / "index").mkdir()
    (filled / "index" / "index.json").write_text("{}")
    assert run(["cache", "clear", "--model", model]) == 0
    assert "Deleted 3 cached items." in capsys.readouterr().err
    assert run(["cache", "clear", "--model", model]) == 2
    assert "no embedding of it is cached" in capsys.readouterr().err
    assert run(["cache", "clear"]) == 0
    assert "Deleted 2 cached items." in capsys.readouterr().err
    assert run(["cache"]) == 0 and "0.0 of 10,000.0 MB" in capsys.readouterr().err
    assert (filled / "index" / "index.json").read_text() == "{}"


def test_an_invalid_size_is_one_sentence(
    filled: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENCLAP_CACHE_SIZE", "lots")
    assert run(["cache"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
