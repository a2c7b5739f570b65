"""`build_dataset`: the public function behind `openclap dataset build`."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import polars
import pytest
import soundfile

from openclap.data.build import build_dataset
from openclap.data.config import DataConfig, DataRecipe
from openclap.errors import ConfigError, DataError
from openclap.sources.recognise import ReadOptions
from openclap.sources.table import ColumnChoice
from support.errors import raises_naming
from support.packs import contents


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Six tones in a table whose column names have to be given, two of them with the same samples."""
    folder = tmp_path / "tones"
    folder.mkdir()
    rows = []
    for number in range(6):
        wave_N = 0.5 * np.sin(np.arange(3200) * 0.01 * (1 + number % 5))
        soundfile.write(folder / f"tone{number}.wav", wave_N, 16_000)
        rows.append(f"tone{number}.wav,Tone number {number}.")
    (folder / "tones.csv").write_text("\n".join(["datei,beschreibung", *rows]) + "\n")
    return folder / "tones.csv"


READING = ReadOptions(columns=ColumnChoice("datei", ("beschreibung",)))


def test_table_with_options(table: Path, tmp_path: Path) -> None:
    notes: list[str] = []
    steps: list[tuple[int, int]] = []
    report = build_dataset(
        table,
        tmp_path / "out",
        reading=READING,
        test_fraction=0.2,
        drop_duplicates=True,
        seed=3,
        progress=lambda done, total: steps.append((done, total)),
        note=notes.append,
    )
    assert report.packed == {"test": 1, "train": 4}
    assert [(skipped.kind, Path(skipped.file).name) for skipped in report.skipped] == [("duplicate", "tone5.wav")]
    assert any("table of 6 rows" in note for note in notes)
    assert steps[-1] == (12, 12)
    assert (tmp_path / "out" / "README.md").exists()
    captions = polars.read_parquet(tmp_path / "out/manifest.parquet")["captions"].explode().to_list()
    assert sorted(captions) == [f"Tone number {number}." for number in range(5)]


def test_second_call_changes_nothing(table: Path, tmp_path: Path) -> None:
    first = build_dataset(table, tmp_path / "out", reading=READING)
    before = contents(tmp_path / "out")
    assert build_dataset(table, tmp_path / "out", reading=READING) == first
    assert contents(tmp_path / "out") == before
    assert not (tmp_path / "out/work/sounds").exists()  # these copies are removed with the last step


def test_recipe_and_missing_sources(table: Path, tmp_path: Path) -> None:
    shutil.copytree(table.parent, tmp_path / "root" / "sounds")
    (tmp_path / "root/sounds/tones.csv").unlink()
    recipe = DataRecipe("Mine", {"folder": "sounds", "clotho": "Clotho"}, DataConfig(splits={"train": 1.0}))
    with raises_naming(DataError, "Clotho"):
        build_dataset(recipe, tmp_path / "out", root=tmp_path / "root")
    notes: list[str] = []
    report = build_dataset(
        recipe, tmp_path / "out", root=tmp_path / "root", missing_ok=True, channels="left", note=notes.append
    )
    assert report.packed == {"train": 6}
    assert len(notes) == 1 and "Clotho" in notes[0]


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ({"near_duplicates": 0.9}, "near_duplicates"),
        ({"test_fraction": 1.0}, 1.0),
        ({"decontaminate": {"nothing": "here"}}, "'nothing'"),
        ({"processes": 0}, "processes"),
    ],
)
def test_invalid_options(table: Path, tmp_path: Path, options: dict[str, object], value: object) -> None:
    with raises_naming(ConfigError, value):
        build_dataset(table, tmp_path / "out", reading=READING, **options)  # type: ignore[arg-type]
