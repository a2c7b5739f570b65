"""What a walk takes, whatever it is called and however it is linked."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from openclap.search.index import Index
from openclap.search.scan import add
from support.search_helpers import SpectrumEmbedder, describe, paths_in, report, spectrum, tone, write_tone


def test_hidden_files_and_other_files_are_left_out(index: Index, embed: SpectrumEmbedder, sounds: Path) -> None:
    write_tone(sounds / ".hidden.wav", 100)
    write_tone(sounds / ".trash" / "old.wav", 150)
    (sounds / "notes.txt").write_text("nothing")
    write_tone(sounds / "LOUD.WAV", 1200)
    (sounds / "folder.wav").mkdir()
    add(index, [sounds], embed, describe)
    assert {Path(path).name for path in paths_in(index)} == {
        "low.wav",
        "middle.wav",
        "high.wav",
        "whistle.wav",
        "LOUD.WAV",
    }


def test_single_files_are_taken_whatever_they_are_called(
    index: Index, embed: SpectrumEmbedder, sounds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tone(sounds / ".odd.dat", 1200)
    monkeypatch.chdir(sounds)
    assert add(index, ["deep/../low.wav", Path(".odd.dat")], embed, describe).added == 2
    assert paths_in(index) == {str(sounds / "low.wav"), str(sounds / ".odd.dat")}
    assert add(index, ".", embed, describe) == report(added=3, unchanged=1)
    assert index.count() == (5, 5)


def test_links_are_followed_once_and_never_in_circles(
    index: Index, embed: SpectrumEmbedder, sounds: Path, tmp_path: Path
) -> None:
    write_tone(tmp_path / "elsewhere" / "far.wav", 1200)
    (sounds / "deep" / "up").symlink_to(sounds)
    (sounds / "a link").symlink_to(tmp_path / "elsewhere")
    (sounds / "z link").symlink_to(sounds / "deep")
    (sounds / "self").symlink_to(sounds / "self")
    assert add(index, [sounds, sounds / "deep", sounds], embed, describe) == report(added=5)
    assert str(sounds / "a link" / "far.wav") in paths_in(index)
    assert str(sounds / "deep" / "whistle.wav") in paths_in(index)


STRANGE = [
    'it\'s "x".wav',
    "雨 naïve 🎧.wav",
    "100%_\\'.wav",
    "'; DELETE.wav",
    "a\nb.wav",
    "`--{}$.wav",
    "e\u0301.wav",
]


def test_any_name_can_be_added_found_moved_and_removed(index: Index, embed: SpectrumEmbedder, tmp_path: Path) -> None:
    folder = tmp_path / 'it\'s "odd" 音'
    for number, name in enumerate(STRANGE):
        write_tone(folder / name, 250 + 500 * number)
    assert add(index, [folder], embed, describe) == report(added=len(STRANGE))
    for number, name in enumerate(STRANGE):
        (hit,) = index.search(spectrum(tone(250 + 500 * number)), 1)
        assert hit.path == str(folder / name)
        assert index.similar_to(hit.path, 1)[0].path != hit.path
    (folder / STRANGE[0]).rename(folder / STRANGE[0].replace("x", "y's"))
    (folder / STRANGE[2]).unlink()
    assert add(index, [folder], embed, describe) == report(unchanged=5, moved=1, removed=1)
    assert index.remove([folder / STRANGE[3]]) == 1
    assert index.count() == (5, 5)


def test_a_name_that_is_not_text_is_skipped(index: Index, embed: SpectrumEmbedder, sounds: Path) -> None:
    raw = os.path.join(os.fsencode(sounds), b"caf\xe9.wav")  # noqa: PTH118 (bytes)
    shutil.copy(sounds / "low.wav", raw)
    found = add(index, [sounds], embed, describe)
    assert found.added == 4
    (skipped,) = found.skipped
    assert skipped[0].endswith("caf\\udce9.wav") and "UTF-8" in skipped[1]
