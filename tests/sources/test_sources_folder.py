"""Any folder of sounds, with and without files beside them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from layouts import decodable, put, records, write

from openclap.sources import Record


def test_names_alone(tmp_path: Path) -> None:
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


def test_files_beside_the_sounds(tmp_path: Path) -> None:
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
def test_a_damaged_file_does_not_take_its_sound_away(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path / "a.wav")
    put(tmp_path / "b.wav")
    write(tmp_path / "a.json", text)
    write(tmp_path / "b.txt", "A bell.")
    first, second = records("folder", tmp_path)
    assert (first.title, first.captions, second.captions) == ("a.wav", (), ("A bell.",))
    assert "a.json" in caplog.text
