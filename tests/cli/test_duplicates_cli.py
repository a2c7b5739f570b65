"""`openclap duplicates`: its three reports, pages, and judged groups."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from openclap.cli import run
from openclap.search.index import Index
from openclap.search.scan import add
from support.search_helpers import IDENTITY, RATE, SpectrumEmbedder, describe

Report = dict[str, list[dict[str, str]]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An index of three noises, each of them twice, and one that is there once."""
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    for number in range(4):
        wave_N = 0.2 * np.random.default_rng(number).standard_normal(RATE)
        soundfile.write(sounds / f"{number}.wav", wave_N, RATE)
        if number < 3:
            soundfile.write(sounds / f"{number}-soft.wav", 0.5 * wave_N, RATE)
    index = Index.create(tmp_path / "index", IDENTITY)
    add(index, [sounds], SpectrumEmbedder(), describe)
    return tmp_path / "index"


def listed(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[list[list[str]], str]:
    """The file names of each group of `--json`, and what was noted."""
    assert run(["duplicates", *map(str, words), "--json"]) == 0
    said = capsys.readouterr()
    groups = json.loads(said.out)["listed"]
    return [sorted(Path(each["path"]).name for each in group["files"]) for group in groups], said.err


def test_reports_agree(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    groups, said = listed(capsys, "--index", folder)
    assert sorted(groups) == [[f"{n}-soft.wav", f"{n}.wav"] for n in range(3)] and "3 groups; 0 judged." in said
    assert run(["duplicates", "--index", str(folder), "--csv"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert len(rows) == 6 and {row["kind"] for row in rows} == {"", "same recording"}
    assert len({row["group"] for row in rows}) == 3 and all(Path(row["path"]).is_file() for row in rows)
    assert run(["duplicates", "--index", str(folder)]) == 0
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 7 and sum("same recording" in line for line in table) == 3
    pages = [listed(capsys, "--index", folder, "--page", n, "--page-size", 2) for n in (1, 2, 3)]
    assert [names for page, _ in pages for names in page] == groups and "page 2 of 2" in pages[1][1]


def test_judged_groups_are_not_listed_again(
    folder: Path, tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judged = tmp_path / "judged.jsonl"
    groups, _ = listed(capsys, "--index", folder, "--judged", judged)
    assert not judged.exists()
    assert run(["duplicates", "--index", str(folder), "--json"]) == 0
    first = json.loads(capsys.readouterr().out)["listed"][0]["id"]
    assert listed(capsys, "--index", folder, "--judged", judged, "--judge", first)[0] == groups[1:]
    rest, said = listed(capsys, "--index", folder, "--judged", judged)
    assert rest == groups[1:] and "2 groups; 1 judged." in said
    assert listed(capsys, "--index", folder)[0] == groups  # the index's own file has no judgements yet
    assert listed(capsys, "--index", folder, "--judge", first)[0] == groups[1:]
    (tmp_path / "link").symlink_to(folder)
    assert listed(capsys, "--index", tmp_path / "link")[0] == groups[1:]
    [own] = (home / "judged").iterdir()
    assert own.read_bytes() == judged.read_bytes()
    before = judged.read_bytes()
    for words, what in [
        (["--judged", str(judged), "--judge", "nothing"], "expected the id of a group"),
        (["--judge", "nothing"], "expected the id of a group"),
        (["--json", "--csv"], "expected one of them"),
        (["--page", "0"], "--page is 0"),
        (["--judged", str(folder / "index.json")], "not a file of judged groups"),
        (["--index", str(tmp_path)], ""),
    ]:
        assert run(["duplicates", *([] if "--index" in words else ["--index", str(folder)]), *words]) == 2
        said = capsys.readouterr().err
        assert what in said and len(said.splitlines()) == 1, said
    assert judged.read_bytes() == before
