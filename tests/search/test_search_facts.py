"""Facts of files in the index: metadata, names of UCS, indexes of format 1, roots that move, and exclusions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import pytest

from openclap.errors import DataError
from openclap.search.index import Index
from openclap.search.queries import paths_of_files
from openclap.search.rows import ENDS_EARLY, METADATA_VERSION, FileRow, windows_schema
from openclap.search.scan import add
from openclap.search.walk import excludes
from openclap.types import FileContent, FileMetadata, Recording
from support.search_helpers import (
    DIM,
    IDENTITY,
    RATE,
    SpectrumEmbedder,
    describe,
    paths_in,
    report,
    spectrum,
    tone,
    write_tone,
)


class Metadata:
    """Titles from file names; records the names."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def __call__(self, sound: Path | FileContent) -> FileMetadata:
        self.read.append(sound.name)
        return FileMetadata(title=f"title of {sound.name}", keywords=("a", "b"), category="OWN")


def rows(index: Index) -> dict[str, FileRow]:
    return {Path(row.path).name: row for row in index._rows(["true"])}


def test_metadata_are_read_once_for_each_content(index: Index, embed: SpectrumEmbedder, sounds: Path) -> None:
    metadata = Metadata()
    add(index, sounds, embed, describe, metadata=metadata)
    assert sorted(metadata.read) == ["high.wav", "low.wav", "middle.wav", "whistle.wav"]
    shutil.copy(sounds / "low.wav", sounds / "copy.wav")
    (sounds / "high.wav").rename(sounds / "AMBForst_Dawn_AB_LIB.wav")
    add(index, sounds, embed, describe, metadata=metadata)
    assert len(metadata.read) == 4
    found = rows(index)
    assert found["copy.wav"].title == "title of low.wav" and found["copy.wav"].keywords == ("a", "b")
    named = found["AMBForst_Dawn_AB_LIB.wav"]
    assert (named.title, named.category, named.subcategory) == ("title of high.wav", "AMB", "Forst")
    [hit] = index.search(spectrum(tone(200)), 1, include=lambda row: row.path.endswith("copy.wav"))
    assert (hit.title, hit.keywords, hit.category, hit.rate, hit.size) == (
        *("title of low.wav", ("a", "b"), "OWN", RATE),
        (sounds / "copy.wav").stat().st_size,
    )


def old_index(folder: Path, sounds: Path) -> Index:
    """An index of format 1, with two files, as the version before this one wrote it."""
    folder.mkdir()
    database = lancedb.connect(str(folder), read_consistency_interval=timedelta(0))
    files = []
    for name in ("low.wav", "high.wav"):
        status = (sounds / name).stat()
        files.append({"path": str(sounds / name), "hash": name, "size": status.st_size, "mtime_ns": status.st_mtime_ns})
    files = [{**file, "duration_s": 1.0, "rate": RATE, "channels": 1} for file in files]
    files = [{**file, "caption": f"a {file['hash']}", "tags": ["tone"], "licence": "CC0-1.0"} for file in files]
    types = {"path": pa.string(), "hash": pa.string(), "size": pa.int64(), "mtime_ns": pa.int64()}
    types |= {"duration_s": pa.float64(), "rate": pa.int32(), "channels": pa.int32(), "caption": pa.string()}
    schema = pa.schema([*types.items(), ("tags", pa.list_(pa.string())), ("licence", pa.string())])
    database.create_table("files", pa.Table.from_pylist(files, schema=schema))
    windows = [
        {"hash": f"{name}.wav", "start_s": 0.0, "end_s": 1.0, "vector": spectrum(tone(hertz)).astype(np.float16)}
        for name, hertz in (("low", 200), ("high", 2500))
    ]
    database.create_table("windows", pa.Table.from_pylist(windows, schema=windows_schema(DIM)))
    (folder / "index.json").write_text(json.dumps({"format_version": 1, "identity": asdict(IDENTITY)}))
    return Index.open(folder)


def test_an_index_of_format_1_is_searched_and_upgraded(tmp_path: Path, embed: SpectrumEmbedder, sounds: Path) -> None:
    index, metadata = old_index(tmp_path / "old", sounds), Metadata()
    before = index.search(spectrum(tone(200)), 1)
    assert Path(before[0].path).name == "low.wav" and before[0].caption == "a low.wav" and before[0].title is None
    assert json.loads((tmp_path / "old" / "index.json").read_text())["format_version"] == 1
    assert add(index, sounds, embed, describe, metadata=metadata) == report(unchanged=2, added=2)
    assert sorted(embed.seen) == ["middle.wav", "whistle.wav"]
    assert sorted(metadata.read) == ["high.wav", "low.wav", "middle.wav", "whistle.wav"]
    after = rows(Index.open(tmp_path / "old"))
    assert {row.title for row in after.values()} == {f"title of {name}" for name in after}
    assert {row.metadata_version for row in after.values()} == {METADATA_VERSION}
    assert (after["low.wav"].caption, after["low.wav"].tags) == ("a low.wav", ("tone",))
    assert json.loads((tmp_path / "old" / "index.json").read_text())["format_version"] == 3


def test_an_upgrade_that_was_stopped_goes_on(tmp_path: Path, embed: SpectrumEmbedder, sounds: Path) -> None:
    index = old_index(tmp_path / "old", sounds)
    header = json.loads((index.folder / "index.json").read_text())
    (index.folder / "index.json").write_text(json.dumps({**header, "format_version": 3}))  # but the table is old
    index = Index.open(tmp_path / "old")
    assert len(index.search(spectrum(tone(200)), 5)) == 2
    assert index.remove([sounds / "low.wav"]) == 1
    assert list(rows(index)) == ["high.wav"]


def test_a_drive_that_is_mounted_elsewhere_is_recognised(
    index: Index, embed: SpectrumEmbedder, sounds: Path, tmp_path: Path
) -> None:
    quoted = tmp_path / "Ann's 100%_drive"
    sounds.rename(quoted)
    add(index, quoted, embed, describe)
    elsewhere = tmp_path / "else'where"
    quoted.rename(elsewhere)
    (elsewhere / "low.wav").unlink()
    write_tone(elsewhere / "new.wav", 1500)

    def describe_none(_: Path) -> tuple[float, int, int]:
        raise AssertionError("a file was read")

    assert add(index, elsewhere, embed, describe_none) == report(moved=3, removed=1, added=1)
    assert len(embed.seen) == 5
    assert paths_in(index) == {str(path) for path in elsewhere.rglob("*.wav")}
    assert [root.path for root in index.header().roots] == [str(elsewhere)]


def test_another_folder_is_not_mistaken_for_one_that_is_gone(
    index: Index, embed: SpectrumEmbedder, sounds: Path, tmp_path: Path
) -> None:
    add(index, sounds, embed, describe)
    sounds.rename(tmp_path / ".away")
    other = write_tone(tmp_path / "other" / "low.wav", 700).parent
    assert add(index, other, embed, describe) == report(added=1)
    assert index.count() == (5, 5)


def test_an_index_beside_its_sounds_moves_with_them(embed: SpectrumEmbedder, sounds: Path, tmp_path: Path) -> None:
    drive, mounted = tmp_path / "drive", tmp_path / "mounted"
    drive.mkdir()
    sounds.rename(drive / "sounds")
    add(Index.create(drive / "index", IDENTITY), drive / "sounds", embed, describe)
    drive.rename(mounted)
    index = Index.open(mounted / "index")
    assert [root.found(index.folder) for root in index.header().roots] == [str(mounted / "sounds")]
    before, now = str(drive / "sounds" / "low.wav"), str(mounted / "sounds" / "low.wav")
    rows = index.files([before, now, str(mounted / "sounds" / "none.wav")])
    assert {path: row.path for path, row in rows.items()} == {before: before, now: now}
    assert rows[before].hash == rows[now].hash
    assert index.stored_paths([before, now, "/elsewhere.wav"]) == {
        before: before,
        now: before,
        "/elsewhere.wav": "/elsewhere.wav",
    }
    assert before not in {hit.path for hit in index.similar_to(now, 5)}, "a sound is not similar to itself"


def test_a_file_that_was_added_by_itself_moves_with_its_index(
    embed: SpectrumEmbedder, sounds: Path, tmp_path: Path
) -> None:
    drive, mounted = tmp_path / "drive", tmp_path / "mounted"
    drive.mkdir()
    sounds.rename(drive / "sounds")
    added = [drive / "sounds" / "low.wav", drive / "sounds" / "deep"]
    add(Index.create(drive / "index", IDENTITY), added, embed, describe, facts=lambda path: (path.name, (), None))
    drive.rename(mounted)
    index, seen = Index.open(mounted / "index"), len(embed.seen)
    roots = [str(mounted / "sounds" / name) for name in ("low.wav", "deep")]
    assert add(index, roots, embed, describe) == report(moved=2) and len(embed.seen) == seen
    rows = index.files_by_path()
    assert {Path(path): row.caption for path, row in rows.items()} == {
        mounted / "sounds" / "low.wav": "low.wav",
        mounted / "sounds" / "deep" / "whistle.wav": "whistle.wav",
    }
    assert {root.path for root in index.header().roots} == set(roots)


def test_roots_are_stored_once(index: Index, embed: SpectrumEmbedder, sounds: Path) -> None:
    add(index, [sounds / "deep", sounds / "low.wav"], embed, describe)
    assert [root.path for root in index.header().roots] == [str(sounds / "deep"), str(sounds / "low.wav")]
    add(index, [sounds], embed, describe)
    assert [root.path for root in index.header().roots] == [str(sounds)]
    index.remove([sounds / "deep"])
    assert [root.path for root in index.header().roots] == [str(sounds)]
    index.remove([sounds])
    assert index.header().roots == ()


def test_exclusions_hold_for_later_scans_and_for_files_of_the_index(
    index: Index, embed: SpectrumEmbedder, sounds: Path
) -> None:
    assert add(index, sounds, embed, describe, exclude=["DEEP"]) == report(added=3)
    assert add(index, sounds, embed, describe) == report(unchanged=3)
    assert add(index, sounds, embed, describe, exclude=["low*"]) == report(unchanged=2, removed=1)
    assert index.header().exclude == ("DEEP", "low*")
    with pytest.raises(DataError, match="no sound"):
        add(index, sounds, embed, describe, exclude=["*.wav"])
    assert index.header().exclude == ("DEEP", "low*") and index.count() == (2, 2)


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("*.tmp", "a/b.TMP", True),
        ("Trash", "a/trash/b.wav", True),
        ("Trash", "a/trashed/b.wav", False),
        ("a/b", "a/b/c.wav", True),
        ("a/*", "a/b.wav", True),
        ("/a/b/", "a/b/c/d.wav", True),
        ("a/b", "x/a/b/c.wav", False),
        ("[ab].wav", "b.wav", True),
        ("[", "x[", False),
    ],
)
def test_patterns_of_exclusion(pattern: str, path: str, expected: bool) -> None:
    assert excludes([pattern])(path) is expected
    assert excludes(["other", pattern])(path) is expected
    assert not excludes([])(path)


def test_a_file_that_ends_early_is_indexed_and_named(index: Index, embed: SpectrumEmbedder, sounds: Path) -> None:
    def embed_cut(listed: Iterable[Any]) -> Iterator[Recording | Exception]:
        for number, recording in enumerate(embed(listed)):
            yield replace(recording, ends_early=True) if number == 0 and isinstance(recording, Recording) else recording

    assert add(index, sounds, embed_cut, describe).ends_early == 1
    [path] = paths_of_files(index, {"damage": ENDS_EARLY})
    assert rows(index)[Path(path).name].damage == ENDS_EARLY
    shutil.copyfile(path, sounds / "copy.wav")  # its content is known, and not embedded again
    assert add(index, sounds, embed, describe).added == 1
    assert paths_of_files(index, {"damage": ENDS_EARLY}) == sorted([path, str(sounds / "copy.wav")])
