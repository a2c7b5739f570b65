"""Folders of audio, with and without sidecar files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from openclap.sources import Record
from support.layouts import decodable, put, records, write


def test_file_names_become_titles(tmp_path: Path) -> None:
    root = tmp_path / "field"
    put(root / "doors" / "DoorCreak-01_take2.wav")
    put(root / "doors" / "DoorCreak-02.wav")
    put(root / "test" / "rain.ogg")  # sounds of tests, perhaps
    first, second, third = records("folder", root)
    assert first == Record(
        id="doors/DoorCreak-01_take2.wav",
        audio=root / "doors" / "DoorCreak-01_take2.wav",
        captions=(),
        source="field",
        group="field:doors/DoorCreak",
        title="DoorCreak-01_take2.wav",
    )
    assert second.group == first.group
    assert (third.split, third.group) == (None, "field:test/rain")
    assert decodable([first, second, third])


def test_sidecar_files_are_read(tmp_path: Path) -> None:
    put(tmp_path / "a.wav")
    write(tmp_path / "a.txt", "\ufeffA dog barks.\n\n  Barking in a yard. \n")
    put(tmp_path / "b.wav")
    laion = {
        "text": ["A bell.", ""],
        "tag": ["bell", "church"],
        "original_data": {
            "title": "bell.wav",
            "description": "Church bell.",
            "username": "ada",
            "id": 7,
            "license": "http://creativecommons.org/licenses/by/4.0/",
            "download_url": "https://freesound.org/apiv2/sounds/7/download/",
        },
    }
    write(tmp_path / "b.json", json.dumps(laion))
    put(tmp_path / "c.wav")
    write(tmp_path / "c.json", json.dumps({"caption": "A cat.", "tags": "cat, pet", "label": "cat", "licence": "CC0"}))
    first, second, third = records("folder", tmp_path)
    assert (first.captions, first.title) == (("A dog barks.", "Barking in a yard."), "a.wav")
    assert (second.id, second.captions, second.tags) == ("7", ("A bell.",), ("bell", "church"))
    assert (second.title, second.description, second.author) == ("bell.wav", "Church bell.", "ada")
    assert (second.licence, second.freesound_id) == ("CC-BY-4.0", 7)
    assert (third.captions, third.tags, third.label, third.licence) == (("A cat.",), ("cat", "pet"), "cat", "CC0-1.0")


@pytest.mark.parametrize("text", ["{", "[1]", "[" * 100_000, "\x00"])
def test_damaged_sidecar_file_keeps_the_sound(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path / "a.wav")
    put(tmp_path / "b.wav")
    write(tmp_path / "a.json", text)
    write(tmp_path / "b.txt", "A bell.")
    first, second = records("folder", tmp_path)
    assert (first.title, first.captions, second.captions) == ("a.wav", (), ("A bell.",))
    assert "a.json" in caplog.text


def test_numbered_files_with_different_captions_are_not_takes(tmp_path: Path) -> None:
    for number in range(4):
        put(tmp_path / "set" / f"clip_{number:04d}.ogg", number)
        write(tmp_path / "set" / f"clip_{number:04d}.txt", ["A dog.", "A bell.", "A dog.", ""][number])
    groups = [record.group for record in records("folder", tmp_path / "set")]
    assert groups == [f"set:./clip_{number:04d}" for number in range(4)]


def test_takes_with_equal_or_no_captions_share_a_group(tmp_path: Path) -> None:
    for name in ("bell_1", "bell_2", "bell_3", "door 1", "door 2"):
        put(tmp_path / "set" / "a" / f"{name}.ogg")
    for name in ("bell_1", "bell_2"):
        write(tmp_path / "set" / "a" / f"{name}.json", '{"caption": "A bell.", "tags": ["bell"]}')
    put(tmp_path / "set" / "b" / "bell_4.ogg")
    write(tmp_path / "set" / "b" / "bell_4.txt", "A large bell.")  # another folder is another session
    assert [record.group for record in records("folder", tmp_path / "set")] == [
        *["set:a/bell"] * 3,
        *["set:a/door"] * 2,
        "set:b/bell",
    ]


def test_different_labels_and_tags_make_separate_groups(tmp_path: Path) -> None:
    for number, said in enumerate(('{"label": "dog"}', '{"label": "cat"}', '{"group": "session"}')):
        put(tmp_path / "set" / f"{number} x {number}.ogg", number)
        put(tmp_path / "set" / f"rec{number}.ogg", number)
        write(tmp_path / "set" / f"rec{number}.json", said)
    groups = {record.id: record.group for record in records("folder", tmp_path / "set")}
    assert (groups["rec0.ogg"], groups["rec1.ogg"], groups["rec2.ogg"]) == ("set:./rec0", "set:./rec1", "session")
