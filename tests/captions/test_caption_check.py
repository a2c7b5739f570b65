"""Useless captions are reported, and ordinary ones are not."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from openclap.captions.check import CaptionCheck
from openclap.captions.rules import Caption, captions_of
from openclap.sources import Record

TABLE = Path(__file__).parents[2] / "src" / "openclap" / "demo" / "sounds" / "sounds.csv"


def doubt(texts: list[str], made: str = "given") -> str | None:
    check = CaptionCheck(lambda sentence, usable: None)
    for text in texts:
        check.add([Caption(text, made)] if text else [])
    return check.problem()


def from_names(*names: str) -> str | None:
    check = CaptionCheck(lambda sentence, usable: None)
    for name in names:
        check.add(captions_of(Record(name, Path(name), (), "folder", title=name)))
    return check.problem()


def test_wavcaps_file_names_are_identifiers() -> None:
    said = from_names(*[f"NHU050240{n}.flac" for n in range(10, 20)])
    assert said == (
        "10 of 10 captions look like identifiers ('NHU'; made from the file name). Expected sentences that "
        "describe the sounds."
    )


@pytest.mark.parametrize(
    "names",
    [
        ["Y--3nRN7yzxk.wav", "Y-0RWZT-miFs.wav", "YdQw4w9WgXcQ.wav", "Y7fmOlUlwoNg.wav", "Y0rh8TzyKjvM.wav"],
        [
            "3f2504e0-4f89-11d3-9a0c-0305e82c3301.wav",
            "9b2e-77aa-0001.wav",
            "c0ffee12-90ab.wav",
            "1a2b3c.wav",
            "9f8e7d.wav",
        ],
        ["1-100032-A-0.wav", "1-100038-A-14.wav", "2-77-B-3.wav", "3-5-C-7.wav", "4-8-D-9.wav"],
        ["zxcv_0001.wav", "zxcv_0002.wav", "qwrt_0003.wav", "qwrt_0004.wav", "qwrt_0005.wav"],
    ],
)
def test_other_identifiers_are_detected(names: list[str]) -> None:
    assert "look like identifiers" in (from_names(*names) or "")


def test_id_column_as_captions_is_detected() -> None:
    assert "as given" in (doubt(["a81f33", "b19c02", "77d0e1", "0042ff", "9a8b7c"]) or "")


@pytest.mark.parametrize(
    "texts",
    [
        ["DOG", "CAT", "RAIN", "BELL", "WIND"],
        ["DOG", "CAT", "RAIN", "CAR"] * 3,
        ["DogBark", "AirConditioner", "StreetMusic", "childrenPlaying"] * 2,
        ["Hund", "Katze", "Regen", "Brücke", "Fluß"],
        ["собака лает", "дождь", "ветер", "кот", "поезд"],
        ["犬", "猫", "雨", "風", "鐘"],
        ["TR-808 kick", "TR-808 snare", "DX7 bass", "SP404 vinyl", "M1 piano"],
        ["The sound of dog", "The sound of cat", "The sound of cow", "The sound of hen", "The sound of dog"],
        ["it's raining", "o'clock chimes", "rock 'n' roll", "a B-52 flies by", "7 dogs"],
    ],
)
def test_ordinary_captions_pass(texts: list[str]) -> None:
    assert doubt(texts) is None


def test_nearly_equal_captions_are_detected() -> None:
    assert doubt(["A dog barks."] * 19 + ["A cat."]) == (
        "19 of 20 sounds have the same caption ('A dog barks.'; as given)."
    )
    assert doubt(["A dog barks."] * 8 + ["A cat."] * 2) is None
    assert doubt(["A dog barks."] * 4) is None  # too few to tell
    assert "clip" in (from_names(*[f"clip_{n:04d}.wav" for n in range(10)]) or "")


def test_names_that_differ_only_in_codes_are_detected() -> None:
    names = [f"{n * 2654435761 % 2**32:08x}_nohash_{n % 3}.wav" for n in range(1, 41)]  # as in Speech Commands
    assert "have the same caption but for numbers and codes ('nohash'; made from the file name)" in (
        from_names(*names) or ""
    )
    assert from_names(*[f"Piano {note}.wav" for note in ("C4", "D4", "E4", "F#4", "G4", "A4")]) is None
    assert doubt([f"{n} dogs bark" for n in range(2, 12)]) is None  # people wrote so


def test_missing_captions_are_detected() -> None:
    assert from_names(*[f"{n}.wav" for n in range(7)]) == "None of the 7 sounds has a caption."
    assert doubt([]) is None
    assert doubt(["", "", "A dog barks.", "A bell rings."]) is None


def test_bundled_sounds_pass() -> None:
    with TABLE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 300
    assert doubt([row["captions"].split(" | ")[0] for row in rows]) is None
    assert from_names(*[Path(row["file"]).name for row in rows]) is None


def test_finish_calls_stop() -> None:
    said: list[tuple[str, bool]] = []
    check = CaptionCheck(lambda sentence, usable: said.append((sentence, usable)))
    check.add([])
    check.finish()
    assert said == [("None of the 1 sounds has a caption.", False)]
    for _ in range(9):
        check.add([Caption("clip", "file name")])
    check.finish()
    assert said[1] == ("9 of 9 sounds have the same caption ('clip'; made from the file name).", True)


@pytest.mark.parametrize("word", ["nan", "None", "NULL", " n/a "])
def test_placeholders_are_not_captions(word: str) -> None:
    record = Record("a", Path("a.wav"), (word, "A dog."), "folder", tags=(word, "dog"), title=f"{word.strip()}.wav")
    assert [caption.text for caption in captions_of(record)] == ["A dog.", "The sound of dog"]
    assert captions_of(Record("a", Path("a.wav"), (word,), "anything", label=word)) == ()
