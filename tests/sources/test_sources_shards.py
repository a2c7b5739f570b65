"""Shards of LAION's layout as a source: audio is extracted once, and damage loses only damaged samples."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from openclap.data.build import pack
from openclap.errors import DataError
from openclap.sources import SOURCES, Record
from openclap.sources.extracted_audio import extract_audio
from support.errors import raises_naming
from support.layouts import decodable, put, records


def tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as opened:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content))
    return path


def said(text: object, **original: object) -> bytes:
    return json.dumps({"text": text, "tag": ["t"], "original_data": original}).encode()


def flac(folder: Path, number: int) -> bytes:
    return put(folder / f"made-{number}.flac", number).read_bytes()


def test_pairs_in_any_order_and_tars_in_numeric_order(tmp_path: Path, home: Path) -> None:
    first, second, third = (flac(tmp_path, number) for number in range(3))
    root = tmp_path / "freesound"
    tar(root / "train" / "10.tar", {"0.flac": third, "0.json": said("three")})
    tar(
        root / "train" / "2.tar",
        {
            "./0.json": said(["one"], title="a.wav", username="ada", download_url="https://freesound.org/s/7/"),
            "./1.json": said("two"),
            "./1.flac": second,
            "./0.flac": first,
        },
    )
    tar(root / "test" / "0.tar", {"a/0.flac": first, "a/0.json": said(["held out"])})
    found = records("shards", root)
    assert [(record.split, record.captions) for record in found] == [
        ("test", ("held out",)),
        ("train", ("two",)),
        ("train", ("one",)),
        ("train", ("three",)),
    ]
    assert found[2].id == "train/2.tar/0"
    assert (found[2].title, found[2].author, found[2].freesound_id) == ("a.wav", "ada", 7)
    assert [Path(record.audio).read_bytes() for record in found] == [first, second, first, third]
    assert found[2].group == "freesound:ada"
    assert found[0].group == f"sha256:{hashlib.sha256(first).hexdigest()}"
    assert decodable(found)
    assert len([path for path in (home / "sounds").rglob("*") if path.is_file()]) == 3  # equal sounds are one file


def test_packed_shards_are_read(tmp_path: Path) -> None:
    rows = [
        Record(f"id{number}", put(tmp_path / f"{number}.wav", number), (f"sound {number}",), "mine", licence="CC0-1.0")
        for number in range(3)
    ]
    pack(rows, tmp_path / "shards", splits={"train": 1.0})
    found = records("shards", tmp_path / "shards", cache=tmp_path / "cache")
    assert [(record.id, record.captions, record.licence) for record in found] == [
        (row.id, row.captions, row.licence) for row in rows
    ]
    assert decodable(found)
    assert {record.split for record in found} == {"train"}


def test_single_tar_is_read(tmp_path: Path) -> None:
    path = tar(tmp_path / "0.tar", {"0.flac": flac(tmp_path, 0), "0.json": said("one")})
    assert [record.captions for record in records("shards", path)] == [("one",)]


def test_damaged_tar_loses_only_damaged_samples(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sound = flac(tmp_path, 0)
    root = tmp_path / "shards"
    whole = {"0.flac": sound, "0.json": said("zero"), "1.flac": sound, "1.json": said("one")}
    cut = tar(root / "0.tar", whole).read_bytes()
    (root / "0.tar").write_bytes(cut[: cut.index(b"1.flac") + 600])
    (root / "1.tar").write_bytes(b"no tar at all")
    tar(root / "2.tar", {"0.flac": sound, "0.json": b"{", "1.flac": sound, "1.json": said("good"), "2.flac": sound})
    (root / "3.tar").write_bytes(b"")
    found = records("shards", root)
    assert [record.captions for record in found] == [("zero",), ("good",)]
    for words in (
        "0.tar: is truncated in 1.flac",
        "1.tar: cannot be read",
        "2.tar: 0.json is damaged",
        "2.tar: 1 members",
    ):
        assert words in caplog.text


def test_reading_tars_is_lazy(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    tar(tmp_path / "s" / "0.tar", {"0.flac": flac(tmp_path, 0), "0.json": said("a"), "1.flac": flac(tmp_path, 1),
                                   "1.json": said("b")})  # fmt: skip
    found = SOURCES["shards"].read(tmp_path / "s", cache=cache)
    assert not cache.exists()
    next(found)
    assert len([path for path in cache.rglob("*") if path.is_file()]) == 1


def test_extracted_audio_is_complete_and_written_once(tmp_path: Path) -> None:
    path = extract_audio(b"sound", "x/a.FLAC", tmp_path)
    assert path.read_bytes() == b"sound"
    assert path.suffix == ".flac"
    before = path.stat().st_mtime_ns
    assert extract_audio(b"sound", "b.flac", tmp_path) == path
    assert path.stat().st_mtime_ns == before
    path.write_bytes(b"so")  # the machine lost power
    assert extract_audio(b"sound", "b.flac", tmp_path).read_bytes() == b"sound"
    assert extract_audio(b"sound", "../../etc/passwd.x", tmp_path).parent == path.parent
    assert not list(tmp_path.rglob("*.partial"))


def test_unwritable_cache_is_reported(tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(b"a file")
    with raises_naming(DataError, tmp_path / "cache"):
        extract_audio(b"sound", "a.wav", tmp_path / "cache")


def test_audio_with_text_files_is_read(tmp_path: Path) -> None:
    sound = flac(tmp_path, 0)
    tar(
        tmp_path / "set" / "0.tar",
        {
            "a.flac": sound,
            "a.txt": "A dog barks.\nnan\nBarking – “loud”.\n".encode("cp1252"),
            "b.txt": b"A bell.",
            "b.json": said(["It rings."], label="bell"),
            "b.flac": sound,
            "lone.txt": b"No sound.",
        },
    )
    first, second = records("shards", tmp_path / "set")
    assert first.captions == ("A dog barks.", "Barking – “loud”.")
    assert (second.captions, second.label) == (("It rings.", "A bell."), "bell")


def test_folder_with_the_name_of_a_tar_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tar(tmp_path / "set" / "0.tar", {"0.flac": flac(tmp_path, 0), "0.json": said("one")})
    (tmp_path / "set" / "4.tar").mkdir()
    assert [record.captions for record in records("shards", tmp_path / "set")] == [("one",)]
    assert "4.tar: is a folder, expected a tar" in caplog.text
    with raises_naming(DataError, "4.tar"):
        records("shards", tmp_path / "set" / "4.tar")
