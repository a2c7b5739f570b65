"""Duplicates in an index: copies of real sounds beside takes, judged groups, and files that changed."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr

import openclap
from openclap.audio.inputs import blocks
from openclap.errors import DataError
from openclap.recording_comparison import duplicates_of
from openclap.search import duplicates as module
from openclap.search.duplicates import (
    DuplicateGroup,
    add_judgement,
    as_judgement,
    candidate_pairs,
    is_judged,
    judged_file,
    page_of,
    read_judged,
)
from openclap.search.index import FileRow, Index
from openclap.search.scan import add
from openclap.types import Recording, Window
from support.errors import raises_naming
from support.search_helpers import DIM, describe, spectrum

SOUNDS = Path(openclap.__file__).parent / "demo" / "sounds"
RATE = 8000
TAKES = [f"scratch-{name}{take}" for name in ("dog", "singer", "laugh-male") for take in "12"]
OTHERS = ["scratch-duck", "scratch-water-running", "supersonic-tabla-na-s", "opensfx-horse"]


def embed(sounds: Iterable[Any]) -> Iterator[Recording]:
    """The shape of the spectrum of each second, at one rate."""
    for sound in sounds:
        mono = blocks(sound, RATE)
        wave_S = np.concatenate(list(mono))
        parts = [wave_S[first : first + RATE] for first in range(0, len(wave_S), RATE)]
        windows = [Window(float(n), n + len(part) / RATE, spectrum(part)) for n, part in enumerate(parts)]
        yield Recording(windows, mono.duration_s, mono.source_rate, mono.source_channels)


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """Real sounds and takes, five of them with copies."""
    folder = tmp_path / "collection"
    (folder / "copies").mkdir(parents=True)
    for name in TAKES + OTHERS:
        wave_NC, rate = soundfile.read(SOUNDS / f"{name}.ogg", always_2d=True)
        soundfile.write(folder / f"{name}.wav", 0.45 * wave_NC, rate, subtype="PCM_16")
    shutil.copyfile(folder / "scratch-duck.wav", folder / "copies" / "bytes.wav")
    wave_NC, rate = soundfile.read(folder / "scratch-water-running.wav", dtype="int16")
    soundfile.write(folder / "copies" / "samples.flac", wave_NC, rate)
    wave_NC, rate = soundfile.read(folder / "scratch-dog1.wav", always_2d=True)
    soundfile.write(folder / "copies" / "loud.mp3", 2 * wave_NC, rate)
    soundfile.write(folder / "copies" / "cut.ogg", 0.5 * wave_NC[int(0.08 * rate) :], rate)
    wave_NC, rate = soundfile.read(folder / "opensfx-horse.wav", always_2d=True)
    soundfile.write(folder / "copies" / "low.wav", soxr.resample(wave_NC, rate, 16000), 16000)
    return folder


@pytest.fixture
def filled(index: Index, collection: Path) -> Index:
    report = add(index, [collection], embed, describe)
    assert report.added == len(TAKES + OTHERS) + 5 and not report.skipped
    return index


def names(group: DuplicateGroup) -> list[str]:
    return [Path(each.file.path).name for each in group.files]


def test_copies_are_found_and_takes_are_not(filled: Index) -> None:
    seen: list[tuple[int, int]] = []
    groups, failed = duplicates_of(filled, progress=lambda done, total: seen.append((done, total)))
    pairs = [each for each in seen if each[1]]
    assert not failed and (0, 0) in seen and pairs[-1][0] == pairs[-1][1] == len(pairs)
    assert [group.kind for group in groups] == ["identical bytes", "identical samples", *["same recording"] * 2]
    assert sorted((group.kind, sorted(names(group))) for group in groups) == [
        ("identical bytes", ["bytes.wav", "scratch-duck.wav"]),
        ("identical samples", ["samples.flac", "scratch-water-running.wav"]),
        ("same recording", ["cut.ogg", "loud.mp3", "scratch-dog1.wav"]),
        ("same recording", ["low.wav", "opensfx-horse.wav"]),
    ]
    [dog] = [group for group in groups if "cut.ogg" in names(group)]
    found = {Path(each.file.path).name: each.comparison for each in dog.files}
    assert found[names(dog)[0]].kind == "" and found["cut.ogg"].similarity > 0.9
    assert 0.07 < found["cut.ogg"].offset_s < 0.14  # an MP3, which is longer by the delay of its encoder, comes first
    again = [(group.id, names(group)) for group in duplicates_of(filled)[0]]
    assert again == [(group.id, names(group)) for group in groups]


def test_comparisons_are_cached_and_changed_files_are_named(
    filled: Index, collection: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups, _ = duplicates_of(filled)
    with monkeypatch.context() as patch:
        patch.setattr("openclap.recording_comparison.align", None)
        assert [names(group) for group in duplicates_of(filled)[0]] == [names(group) for group in groups]
    monkeypatch.setenv("OPENCLAP_CACHE_SIZE", "0")
    (collection / "copies" / "low.wav").write_bytes(b"changed")
    (collection / "copies" / "samples.flac").unlink()
    found, failed = duplicates_of(filled)
    assert len(found) == 2 and failed
    assert {"was changed", "No such file"} <= {
        part for _, why in failed for part in ("was changed", "No such file") if part in why
    }


@pytest.mark.parametrize("without_snapshot", [False, True])
def test_candidates_are_the_nearest_windows_of_other_contents(
    index: Index, monkeypatch: pytest.MonkeyPatch, without_snapshot: bool
) -> None:
    """Against a product of all windows at once; one content has no file any more."""
    monkeypatch.setattr(module, "_BLOCK", 7)
    monkeypatch.setattr(module, "NEIGHBOURS", 4)
    rng = np.random.default_rng(0)
    middle_CD = rng.standard_normal((6, DIM))
    rows, windows, flat = [], {}, []
    for content in range(20):
        digest = f"{content:064x}"
        rows.append(FileRow(f"/{content}.wav", digest, 1, 1, 3.0, RATE, 1))
        own = [middle_CD[content % 6] + 0.4 * rng.standard_normal(DIM) for _ in range(1 + content % 3)]
        windows[digest] = [Window(n, n + 1, (v / np.linalg.norm(v)).astype(np.float32)) for n, v in enumerate(own)]
        flat += [(content, window.start_s, window.vector.astype(np.float16)) for window in windows[digest]]
    index.add(rows, windows)
    index.remove(["/7.wav"])
    flat = [each for each in flat if each[0] != 7]
    wanted: dict[tuple[int, int], tuple[float, float, float]] = {}
    for content, start, vector in flat:
        others = sorted(
            ((float(vector.astype(float) @ v.astype(float)), other, s) for other, s, v in flat if other != content),
            reverse=True,
        )
        for cosine, other, other_s in others[:4]:
            if cosine >= module.LEAST_COSINE:
                (first, first_s), (second, second_s) = sorted([(content, start), (other, other_s)])
                wanted[first, second] = max(wanted.get((first, second), (-1, 0, 0)), (cosine, first_s, second_s))
    if without_snapshot:
        shutil.rmtree(index.folder / "snapshot")
        assert index._current() is None
    view = index.view()
    pairs = candidate_pairs(view, module._files_by_hash(view.live_facts))
    found = {(int(p.first.hash, 16), int(p.second.hash, 16)): (p.first_s, p.second_s) for p in pairs}
    found = {tuple(sorted(key)): starts if key[0] < key[1] else starts[::-1] for key, starts in found.items()}
    assert found == {key: value[1:] for key, value in wanted.items()} and len(found) > 20


def test_judgements_outlive_renames_and_deletions(filled: Index) -> None:
    groups, _ = duplicates_of(filled)
    largest = max(groups, key=lambda group: len(group.hashes))
    judged = [frozenset(as_judgement(largest)["hashes"])]
    renamed = [replace(each, file=replace(each.file, path=f"/new{each.file.path}")) for each in largest.files]
    assert is_judged(replace(largest, files=tuple(renamed)), judged)
    assert is_judged(replace(largest, files=largest.files[:2]), judged)
    joined = replace(largest.files[0], file=replace(largest.files[0].file, hash="0" * 64))
    assert not is_judged(replace(largest, files=(*largest.files, joined)), judged)
    assert not any(is_judged(group, judged) for group in groups if group != largest)


def test_the_newest_judgement_counts_and_a_torn_line_is_left_out(filled: Index, home: Path) -> None:
    [one, other, *_] = duplicates_of(filled)[0]
    place = judged_file(filled)
    assert place.is_relative_to(home) and read_judged(place) == []
    for group in (one, other):
        add_judgement(place, group)
    assert read_judged(place) == [one.hashes, other.hashes]
    add_judgement(place, one, judged=False)
    assert read_judged(place) == [other.hashes]
    place.write_bytes(place.read_bytes() + b'{"id": "0", "hash')
    assert read_judged(place) == [other.hashes]
    add_judgement(place, one)
    assert read_judged(place) == [other.hashes, one.hashes]
    shown = page_of([one, other], [], read_judged(place)[:1], with_judged=True)
    assert (shown.groups, shown.judged, shown.listed) == (1, 1, (one, other))


def test_judged_groups_are_found_where_their_index_moves(filled: Index, home: Path, tmp_path: Path) -> None:
    digest = hashlib.sha256(os.fsencode(filled.folder)).hexdigest()[:12]
    place = judged_file(filled)
    assert place == home / "judged" / f"{filled.folder.name}-{digest}.jsonl"
    assert judged_file(Index.open(filled.folder.rename(tmp_path / "elsewhere"))) == place


@pytest.mark.parametrize("content", [b"a note\n", b"\xff\n", b"[1]\n", b'{"hashes": 3}\n'])
def test_another_file_is_no_file_of_judged_groups(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(content)
    with raises_naming(DataError, str(tmp_path / "other")):
        read_judged(tmp_path / "other")
    with raises_naming(DataError, str(tmp_path)):
        read_judged(tmp_path)


def test_an_empty_index_has_no_duplicates(index: Index) -> None:
    assert duplicates_of(index) == ([], [])
