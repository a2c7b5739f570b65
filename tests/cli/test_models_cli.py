from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from openclap.checkpoints import hub
from openclap.checkpoints.published import PUBLISHED, RECOMMENDATIONS
from openclap.cli import run


@pytest.fixture
def here(home: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with one published model, and two models of its own."""
    cached = {("lukewys/laion_clap", "630k-best.pt")}
    monkeypatch.setattr(hub, "is_cached", lambda repo, file, revision=None: (repo, file) in cached)
    for place in ("models/aaa", "models/bbb"):
        shutil.copytree(tiny_model, home / place)
    (home / "models" / "bbb" / "config.json").write_text("{", encoding="utf-8")
    return home


def test_models_lists_published_and_local_models(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models"]) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    marks = {line[2:].split()[0]: line[0] for line in lines if line[:2] in ("● ", "· ")}
    assert PUBLISHED.keys() <= marks.keys()
    assert {name for name in PUBLISHED if marks[name] == "●"} == {"630k-best"}
    assert max(len(line) for line in lines[: lines.index("")]) <= 100
    assert "tiny" in next(line for line in lines if "models/aaa" in line)
    assert marks["mini"] == "●" and ", the default" in next(line for line in lines if " mini " in line)
    for use, name in RECOMMENDATIONS.items():
        assert any(use in line and name in line for line in lines)
    assert "damaged" in next(line for line in lines if "models/bbb" in line)
    assert "openclap classify --model 630k-audioset-best" in said.err.splitlines()[-1]
    assert "a: README of LAION-CLAP, on its first split of ESC-50" in said.err


def test_models_json_states_the_sources_of_scores(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "--json"]) == 0
    said = capsys.readouterr()
    rows = {row["name"]: row for row in json.loads(said.out)}
    assert said.err == ""
    assert {row["kind"] for row in rows.values()} == {"published", "bundled", "local"}
    assert rows["630k-best"]["here"] and not rows["630k-audioset-best"]["here"]
    assert rows["laion/clap-htsat-unfused"] == {
        "name": "laion/clap-htsat-unfused",
        "kind": "published",
        "here": False,
        "repo": "laion/clap-htsat-unfused",
        "file": None,
        "revision": None,
        "format": "huggingface",
        "audio": "htsat-tiny",
        "fusion": False,
        "domain": "sound",
        "good_for": "sounds",
        "recommended_for": ["sounds in general"],
        "licence": "Apache-2.0",
        "megabytes": 615,
        "scores": {"ESC-50": 0.817},
        "source": "MTEB's board",
    }
    assert rows["mini"]["here"] and "CC-BY-4.0" in rows["mini"]["licence"]
    assert rows[str(here / "models" / "aaa")]["made_of"] == "tiny"
    assert [name for name, row in rows.items() if row.get("default")] == ["mini"]
