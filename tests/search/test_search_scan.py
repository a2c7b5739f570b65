"""A scan reads what is new, follows what moved, forgets what is gone, and touches no sound."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from openclap.errors import AudioError, ConfigError, DataError, IndexMismatchError
from openclap.search.index import Index
from openclap.search.scan import add
from openclap.types import FileContent, Recording
from support.errors import raises_naming
from support.search_helpers import (
    RATE,
    SpectrumEmbedder,
    describe,
    fingerprint,
    one_window,
    paths_in,
    report,
    spectrum,
    tone,
    write_tone,
)


def names(index: Index) -> set[str]:
    return {Path(path).name for path in paths_in(index)}


def test_a_sound_is_found_by_what_it_sounds_like(index: Index, embed: SpectrumEmbedder, sounds: Path) -> None:
    assert add(index, [sounds], embed, describe) == report(added=4)
    assert index.count() == (4, 4)
    for name, hertz in (("low", 200), ("middle", 900), ("high", 2500), ("deep/whistle", 3600)):
        (hit,) = index.search(spectrum(tone(hertz)), 1)
        assert hit.path == str(sounds / f"{name}.wav")
        assert (hit.duration_s, hit.start_s, hit.end_s) == (1.0, 0.0, 1.0)
        assert hit.score == pytest.approx(1.0, abs=1e-3)


def test_a_hit_inside_a_long_recording_says_when(index: Index, embed: SpectrumEmbedder, tmp_path: Path) -> None:
    waves = [tone(200), tone(200), tone(2500), tone(200, 0.5)]
    (tmp_path / "s").mkdir()
    soundfile.write(tmp_path / "s" / "long.flac", np.concatenate(waves), RATE)
    add(index, tmp_path / "s", embed, describe)
    (hit,) = index.search(spectrum(tone(2500)), 3)
    assert (hit.start_s, hit.end_s, hit.duration_s) == (2.0, 3.0, 3.5)


def test_a_second_scan_reads_nothing(index: Index, embed: SpectrumEmbedder, sounds: Path) -> None:
    add(index, [sounds], embed, describe)

    def describe_none(_: Path) -> tuple[float, int, int]:
        raise AssertionError("an unchanged file was read")

    def embed_none(files: Iterable[Path | FileContent]) -> Iterator[Recording | Exception]:
        assert list(files) == []
        return iter(())

    assert add(index, [sounds], embed_none, describe_none) == report(unchanged=4)


def test_a_touched_file_is_hashed_but_not_embedded(index: Index, embed: SpectrumEmbedder, sounds: Path) -> None:
    add(index, [sounds], embed, describe)
    os.utime(sounds / "low.wav", ns=(1, 1))
    assert add(index, [sounds], embed, describe) == report(unchanged=4)
    assert len(embed.seen) == 4


def test_moved_renamed_and_copied_files_are_not_embedded(index: Index, embed: SpectrumEmbedder, sounds: Path) -> None:
    add(index, [sounds], embed, describe)
    (sounds / "deep").rename(sounds / "deeper")
    (sounds / "low.wav").rename(sounds / "bass.wav")
    shutil.copy(sounds / "high.wav", sounds / "high (2).wav")
    assert add(index, [sounds], embed, describe) == report(unchanged=2, moved=2, added=1)
    assert len(embed.seen) == 4
    assert index.count() == (5, 4)
    assert names(index) == {"bass.wav", "middle.wav", "high.wav", "high (2).wav", "whistle.wav"}


def test_two_files_that_swap_names_keep_their_vectors(index: Index, embed: SpectrumEmbedder, sounds: Path) -> None:
    add(index, [sounds], embed, describe)
    (sounds / "low.wav").rename(sounds / "x")
    (sounds / "high.wav").rename(sounds / "low.wav")
    (sounds / "x").rename(sounds / "high.wav")
    for name in ("low", "high"):
        os.utime(sounds / f"{name}.wav")
    add(index, [sounds], embed, describe, batch=1)
    assert len(embed.seen) == 4
    assert index.search(spectrum(tone(200)), 1)[0].path == str(sounds / "high.wav")


def test_an_edited_file_is_embedded_again_and_its_old_vectors_go(
    index: Index, embed: SpectrumEmbedder, sounds: Path
) -> None:
    add(index, [sounds], embed, describe)
    write_tone(sounds / "low.wav", 1500, seconds=2)
    assert add(index, [sounds], embed, describe) == report(unchanged=3, added=1)
    assert index.count() == (4, 5)
    assert index.search(spectrum(tone(1500)), 1)[0].path == str(sounds / "low.wav")


def test_deleted_files_leave_with_their_vectors(index: Index, embed: SpectrumEmbedder, sounds: Path) -> None:
    add(index, [sounds], embed, describe)
    (sounds / "low.wav").unlink()
    shutil.rmtree(sounds / "deep")
    assert add(index, [sounds], embed, describe) == report(unchanged=2, removed=2)
    assert index.count() == (2, 2)


def test_a_scan_of_one_folder_leaves_the_others_alone(index: Index, embed: SpectrumEmbedder, sounds: Path) -> None:
    add(index, [sounds], embed, describe)
    (sounds / "low.wav").unlink()
    assert add(index, [sounds / "deep"], embed, describe) == report(unchanged=1)
    assert add(index, [sounds / "high.wav"], embed, describe) == report(unchanged=1)
    assert index.count() == (4, 4)


def test_a_drive_that_is_not_there_loses_nothing(index: Index, embed: SpectrumEmbedder, tmp_path: Path) -> None:
    here, away, bare = tmp_path / "here", tmp_path / "away", tmp_path / "bare"
    for number, folder in enumerate((here, away, bare)):
        write_tone(folder / f"{number}.wav", 300 + 700 * number)
    add(index, [here, away, bare], embed, describe)
    away.rename(tmp_path / ".unplugged")
    (bare / "2.wav").unlink()
    second = add(index, [here, away, bare], embed, describe)
    assert (second.unchanged, second.removed) == (1, 0)
    assert [path for path, _ in second.skipped] == [str(away), str(bare)]
    assert index.count() == (3, 3)
    with raises_naming(DataError, away):
        add(index, [away], embed, describe)
    with raises_naming(DataError, bare):
        add(index, [bare], embed, describe)
    assert index.remove([away, bare]) == 2


def test_damaged_files_are_named_and_the_rest_is_done(index: Index, embed: SpectrumEmbedder, sounds: Path) -> None:
    (sounds / "empty.wav").touch()
    (sounds / "noise.mp3").write_bytes(bytes(range(256)) * 20)
    (sounds / "half.wav").write_bytes((sounds / "low.wav").read_bytes()[:20])
    (sounds / "gone.wav").symlink_to(sounds / "nowhere.wav")
    os.mkfifo(sounds / "pipe.wav")
    first = add(index, [sounds], embed, describe, batch=2)
    assert first.added == 4
    assert {Path(path).name for path, _ in first.skipped} == {
        "empty.wav",
        "noise.mp3",
        "half.wav",
        "gone.wav",
        "pipe.wav",
    }
    assert all(reason and "\n" not in reason for _, reason in first.skipped)
    assert index.count() == (4, 4)


def test_a_file_that_breaks_leaves_the_index_and_returns_when_it_is_whole(
    index: Index, embed: SpectrumEmbedder, sounds: Path
) -> None:
    add(index, [sounds], embed, describe)
    whole = (sounds / "low.wav").read_bytes()
    (sounds / "low.wav").write_bytes(whole[:20])
    second = add(index, [sounds], embed, describe)
    assert (second.removed, len(second.skipped)) == (1, 1)
    assert index.count() == (3, 3)
    (sounds / "low.wav").write_bytes(whole)
    assert add(index, [sounds], embed, describe) == report(unchanged=3, added=1)


def test_invalid_windows_skip_their_file(index: Index, sounds: Path) -> None:
    def embed(files: Iterable[Path | FileContent]) -> Iterator[Recording | Exception]:
        results = {
            "low.wav": one_window(np.full(64, np.nan)),
            "high.wav": Recording([], 1.0, RATE, 1),
            "middle.wav": ValueError(""),
            "whistle.wav": one_window(spectrum(tone(3600))),
        }
        return (results[file.name] for file in files)

    found = add(index, [sounds], embed, describe)
    reasons = {Path(path).name: reason for path, reason in found.skipped}
    assert found.added == 1
    assert "NaN" in reasons["low.wav"] and "no window" in reasons["high.wav"]
    assert reasons["middle.wav"] == "ValueError"


def test_a_file_with_an_error_of_several_lines_is_skipped_with_the_first(
    index: Index, embed: SpectrumEmbedder, sounds: Path
) -> None:
    def picky(files: Iterable[Path | FileContent]) -> Iterator[Recording | Exception]:
        for file in files:
            error = AudioError("low.wav: no header.\nAnd more.")
            yield error if file.name == "low.wav" else next(embed([file]))

    found = add(index, [sounds], picky, describe)
    assert found.skipped == [(str(sounds / "low.wav"), "low.wav: no header.")]
    assert index.count() == (3, 3)


def test_failing_facts_skip_a_file(index: Index, embed: SpectrumEmbedder, sounds: Path) -> None:
    def facts(path: Path) -> None:
        if path.name == "low.wav":
            raise AudioError("low.wav: no row.\nAnd more.")

    found = add(index, [sounds], embed, describe, facts=facts)
    assert found.skipped == [(str(sounds / "low.wav"), "low.wav: no row.")]
    assert index.count() == (3, 3)


def test_an_embedder_that_breaks_its_contract_stops_the_scan(index: Index, sounds: Path) -> None:
    with raises_naming(DataError, "embed", 0):
        add(index, [sounds], lambda _: [], describe)
    with raises_naming(DataError, "embed"):
        add(index, [sounds], lambda files: [one_window(spectrum(tone(300))) for _ in range(9)], describe)
    with raises_naming(IndexMismatchError, 3, 64):
        add(index, [sounds], lambda files: (one_window(np.ones(3)) for _ in files), describe)
    with raises_naming(ConfigError, "batch", 0):
        add(index, [sounds], lambda _: [], describe, batch=0)
    assert index.count() == (0, 0)


def test_a_file_that_is_still_being_written_waits(index: Index, embed: SpectrumEmbedder, sounds: Path) -> None:
    def while_recording(files: Iterable[Path | FileContent]) -> Iterator[Recording | Exception]:
        for recording in embed(files):
            write_tone(sounds / "low.wav", 200, seconds=3)
            yield recording

    first = add(index, [sounds], while_recording, describe)
    assert [(Path(path).name, reason[:10]) for path, reason in first.skipped] == [("low.wav", "it changed")]
    assert add(index, [sounds], embed, describe) == report(unchanged=3, added=1)
    assert index.count() == (4, 6)


def test_equal_new_files_are_embedded_once(index: Index, embed: SpectrumEmbedder, sounds: Path) -> None:
    for copy in range(5):
        shutil.copy(sounds / "low.wav", sounds / f"copy {copy}.wav")
    assert add(index, [sounds], embed, describe, batch=3).added == 9
    assert (len(embed.seen), index.count()) == (4, (9, 4))


def test_facts_come_with_hits(index: Index, embed: SpectrumEmbedder, sounds: Path) -> None:
    def facts(path: Path) -> tuple[str | None, list[str], str | None]:
        return (f"a {path.stem} tone", ["tone", path.stem], "CC0") if path.stem == "low" else (None, [], None)

    add(index, [sounds], embed, describe, facts=facts)
    (hit,) = index.search(spectrum(tone(200)), 1)
    assert (hit.caption, hit.tags, hit.licence) == ("a low tone", ("tone", "low"), "CC0")


def test_progress_counts_the_files_that_are_read(index: Index, embed: SpectrumEmbedder, sounds: Path) -> None:
    ticks: list[tuple[int, int]] = []
    add(index, [sounds], embed, describe, batch=3, progress=lambda done, total: ticks.append((done, total)))
    assert ticks == [(done, 4) for done in range(5)]


def test_sounds_are_never_written(index: Index, embed: SpectrumEmbedder, sounds: Path) -> None:
    before = fingerprint(sounds)
    modes = {path: path.stat().st_mode for path in sounds.rglob("*")}
    for path in modes:
        path.chmod(0o555 if path.is_dir() else 0o444)
    sounds.chmod(0o555)
    try:
        add(index, [sounds], embed, describe)
        index.search(spectrum(tone(200)), 2)
        index.remove([sounds / "low.wav"])
        assert fingerprint(sounds) == before
    finally:
        sounds.chmod(0o755)
        for path, mode in modes.items():
            path.chmod(mode)
