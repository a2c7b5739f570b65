"""The registry, and the errors of sources for folders without the files that they need."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from openclap.errors import DataError
from openclap.sources import SOURCES, Source
from support.errors import raises_naming

LAION = {
    "bbc_sound_effects": 15_973,
    "free_to_use_sounds": 6_370,
    "sonniss_game_effects": 5_049,
    "we_sound_effects": 488,
    "paramount_motion": 4_420,
    "audiostock": 10_000,
    "freesound": 515_581,
    "epidemic_sound_effects": 75_645,
}
"""The samples that the paper's table states for each."""
LAYOUTS = ("folder", "table", "hugging_face", "shards")
"""Sources that are no collection, so that there is nothing to say about them but their form."""


def test_every_source_has_its_own_name() -> None:
    assert {name: source.name for name, source in SOURCES.items()} == {name: name for name in SOURCES}
    with pytest.raises(FrozenInstanceError):
        SOURCES["esc50"].name = "esc"  # type: ignore[misc]


def test_published_sizes_add_up_to_the_papers_sum() -> None:
    published = {name: source.published.samples for name in LAION if (source := SOURCES[name]).published}
    assert published == LAION
    assert sum(published.values()) == 633_526


def test_every_source_but_a_layout_says_how_to_get_it_its_use_and_its_faults() -> None:
    for name in SOURCES:
        empty = [field.name for field in fields(Source) if getattr(SOURCES[name], field.name) == ""]
        assert empty == (["get", "use", "faults"] if name in LAYOUTS else []), name


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_missing_folder_is_refused(name: str, tmp_path: Path) -> None:
    with raises_naming(DataError, tmp_path / "nowhere"):
        SOURCES[name].read(tmp_path / "nowhere")


@pytest.mark.parametrize("name", sorted(set(SOURCES) - {"table"}))
def test_empty_folder_is_refused(name: str, tmp_path: Path) -> None:
    """One sentence or two: what is missing, what is needed, and where it is published. At the call, not later."""
    with raises_naming(DataError, tmp_path, SOURCES[name].needs, SOURCES[name].page):
        SOURCES[name].read(tmp_path)


@pytest.mark.parametrize(
    ("name", "file", "columns"),
    [
        ("bbc_sound_effects", "BBCSoundEffects.csv", ["location", "description"]),
        ("audiostock", "audiostock_meta.csv", ["audio_url", "title"]),
        ("esc50", "meta/esc50.csv", ["filename", "fold", "category"]),
        ("urbansound8k", "metadata/UrbanSound8K.csv", ["slice_file_name", "fsID"]),
        ("audiocaps", "train.csv", ["youtube_id", "start_time", "caption"]),
    ],
)
def test_table_with_wrong_columns_is_refused(name: str, file: str, columns: list[str], tmp_path: Path) -> None:
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text("a,b\n1,2\n", encoding="utf-8")
    with raises_naming(DataError, tmp_path / file, "a, b", *columns):
        list(SOURCES[name].read(tmp_path))
