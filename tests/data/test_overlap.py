"""Overlap with evaluation sets, against counts by hand on miniature sets with file names of the real ones."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars
import pytest

from openclap.data.overlap import (
    PUBLISHED,
    SplitIds,
    ids_of_file_names,
    ids_of_frame,
    ids_of_records,
    load_ids,
    overlap_table,
    overlapping,
    overlaps,
    save_ids,
    to_markdown,
)
from openclap.errors import DataError
from openclap.sources import Record
from support.errors import raises_naming

ESC50 = ids_of_file_names(
    ["1-17367-A-10.wav", "1-17367-B-10.wav", "2-500-A-3.wav", "5-9032-A-0.wav", "audio/5-777-A-1.wav"], "ESC-50"
)
"""Four uploads: 17367 twice, 500, 9032, 777."""
URBAN = ids_of_file_names(["500-3-0-0.wav", "500-3-0-1.wav", "500-3-1-0.wav", "31-5-0-0.wav"], "UrbanSound8K")
FSD_TRAIN = ids_of_file_names(["17367.wav", "500.wav", "64.wav"], "FSD50K", "train")
FSD_TEST = ids_of_file_names(["9032.wav", "65.wav"], "FSD50K", "test")
CLOTHO_TRAIN = ids_of_frame(polars.DataFrame({"sound_id": [500, 1], "freesound_id": [500, 1]}), "Clotho", "development")
CLOTHO_TEST = ids_of_frame(polars.DataFrame({"freesound_id": [65, 64, 2]}), "Clotho", "evaluation")


def record(name: str, **ids: object) -> Record:
    return Record(name, Path(name), ("One.", "Two.", "Three.", "Four.", "Five."), "test", **ids)  # type: ignore[arg-type]


def counts(held: SplitIds, *trained_on: SplitIds) -> list[int]:
    return [row.counted for row in overlap_table([held], trained_on)]


def test_counts_are_clips_of_the_evaluation_set() -> None:
    assert counts(ESC50, FSD_TRAIN, FSD_TEST, CLOTHO_TRAIN, CLOTHO_TEST) == [3, 1, 1, 0]
    assert counts(URBAN, FSD_TRAIN, FSD_TEST, CLOTHO_TRAIN, CLOTHO_TEST) == [3, 0, 3, 0]
    assert counts(CLOTHO_TEST, FSD_TRAIN, FSD_TEST) == [1, 1]
    assert counts(FSD_TEST, CLOTHO_TRAIN, CLOTHO_TEST) == [0, 1]


def test_audiocaps_is_counted_in_captions() -> None:
    audiocaps = ids_of_records(
        [record(name, youtube_id=name) for name in ("a" * 11, "b" * 11, "c" * 11)], "AudioCaps", "test"
    )
    audioset = ids_of_file_names(
        [f"Y{'a' * 11}.wav", f"{'b' * 11}_30_40.flac", f"{'x' * 11}.wav"], "AudioSet", "unbalanced"
    )
    [row] = overlap_table([audiocaps], [audioset])
    assert (row.clips, row.captions, row.counted, row.published) == (2, 10, 10, 4875)


def test_set_does_not_overlap_with_itself() -> None:
    named_otherwise = replace(CLOTHO_TEST, name="clotho", split="test")
    assert overlap_table([CLOTHO_TEST], [named_otherwise, CLOTHO_TRAIN])[0].split == "development"


def test_published_counts_are_matched_under_any_split_name() -> None:
    rows = overlap_table([ESC50], [CLOTHO_TRAIN, replace(CLOTHO_TRAIN, split="val"), CLOTHO_TEST, FSD_TRAIN])
    assert [row.published for row in rows] == [94, 27, 34, 399]
    assert overlap_table([URBAN], [replace(FSD_TRAIN, name="WavText5K")])[0].published is None
    assert len(PUBLISHED) == 19
    assert (
        sum(count for key, count in PUBLISHED.items() if key[0] == "urbansound8k") == 411 + 150 + 209 + 697 + 180 + 341
    )


def test_table_as_markdown() -> None:
    table = overlap_table([ESC50, CLOTHO_TEST], [FSD_TRAIN, FSD_TEST, replace(URBAN, name="Ours", split="train")])
    assert to_markdown(table) == (
        "| evaluation set | found in | splits | by id | published | other id, same sound |\n"
        "| --- | --- | --- | ---: | ---: | ---: |\n"
        "| ESC-50 | FSD50K | train / test | 3 / 1 | 399 / 171 | 0 / 0 |\n"
        "| ESC-50 | Ours | train | 1 | – | 0 |\n"
        "| Clotho evaluation | FSD50K | train / test | 1 / 1 | 54 / 33 | 0 / 0 |\n"
        "| Clotho evaluation | Ours | train | 0 | – | 0 |\n"
    )


def test_same_sound_under_another_id_is_counted_separately() -> None:
    held = ids_of_frame(polars.DataFrame({"freesound_id": [1, 2, None], "pcm_sha256": ["aa", "bb", "cc"]}), "SplitIds")
    ours = ids_of_frame(
        polars.DataFrame({"freesound_id": [1, 9, None], "pcm_sha256": ["aa", "bb", None]}), "Ours", "train"
    )
    [row] = overlap_table([held], [ours])
    assert (row.clips, row.same_sound) == (1, 1)


def test_overlaps_of_one_record() -> None:
    held = [ESC50, FSD_TRAIN, CLOTHO_TEST]
    assert overlaps(record("a", freesound_id=17367), held) == ("ESC-50", "FSD50K train")
    assert overlaps(record("a", freesound_id=64), held) == ("FSD50K train", "Clotho evaluation")
    assert overlaps(record("a", freesound_id=3), held) == overlaps(record("a"), held) == ()
    hashed = ids_of_frame(polars.DataFrame({"pcm_sha256": ["aa", None]}), "Hashed", "test")
    assert overlaps(record("a"), [hashed], "aa") == ("Hashed test",)
    assert overlaps(record("a"), [hashed]) == ()


def test_any_segment_of_an_excluded_video_overlaps() -> None:
    vggsound = ids_of_records([record("v", youtube_id="-Ab_cdefghi", start_s=30.0)], "VGGSound", "test")
    assert overlaps(record("a", youtube_id="-Ab_cdefghi", start_s=200.0), [vggsound]) == ("VGGSound test",)
    assert (
        overlaps(record("a", youtube_id="-Ab_cdefghI", start_s=30.0), [vggsound]) == ()
    )  # letters of both cases count


def test_overlapping_names_the_first_set() -> None:
    clips = polars.DataFrame(
        {
            "freesound_id": [500, 64, None, None, 3, None],
            "youtube_id": [None, None, "a" * 11, "b" * 11, None, None],
            "start_s": [0.0] * 6,
            "pcm_sha256": [None, None, None, None, "aa", None],
        }
    )
    held = [
        ESC50,
        FSD_TRAIN,
        ids_of_frame(polars.DataFrame({"youtube_id": ["a" * 11, None]}), "AudioCaps", "test"),
        ids_of_frame(polars.DataFrame({"pcm_sha256": ["aa", None]}), "Hashed"),
    ]
    assert overlapping(clips, held).to_list() == ["ESC-50", "FSD50K train", "AudioCaps test", None, "Hashed", None]
    assert overlapping(clips, []).to_list() == [None] * 6
    assert overlapping(clips.clear(), held).to_list() == []
    assert overlapping(clips.drop("start_s", "pcm_sha256", "youtube_id"), held).name == "overlap"


def test_reading_laion_audio_630k_takes_seconds() -> None:
    rng = np.random.default_rng(0)
    rows = 633_526
    ids = rng.permutation(2 * rows)[:rows]
    hashes = [f"{number:064x}" for number in ids]
    clips = polars.DataFrame({"freesound_id": ids, "pcm_sha256": hashes, "youtube_id": [None] * rows})
    held = [ids_of_frame(clips[start : start + 20_000], f"set {start}") for start in range(0, 200_000, 20_000)]
    begun = time.monotonic()
    found = overlapping(clips, held)
    assert time.monotonic() - begun < 20.0  # 1 s on a machine that is free
    assert found.null_count() == rows - 200_000
    assert found[0] == "set 0" and found[199_999] == "set 180000"


@pytest.mark.parametrize(
    ("name", "file", "ids"),
    [
        ("ESC-50", "1-100032-A-0.wav", (100032, None)),
        ("esc50", "fold1/1-100032-C-49.flac", (100032, None)),
        ("UrbanSound8K", "fold5/100032-3-0-12.wav", (100032, None)),
        ("FSD50K", "FSD50K.eval_audio/64.wav", (64, None)),
        ("AudioSet", "Y--aE2O5G5WE.wav", (None, "--aE2O5G5WE")),
        ("AudioSet", "--aE2O5G5WE_0.000_10.000.wav", (None, "--aE2O5G5WE")),
        ("AudioCaps", "YabcdefghijK.wav", (None, "abcdefghijK")),
        ("AudioCaps", "Yabcdefghij_30.wav", (None, "Yabcdefghij")),
        ("VGGSound", "---g-f_I2yQ_000001.mp4", (None, "---g-f_I2yQ")),
    ],
)
def test_ids_in_file_names(name: str, file: str, ids: tuple[int | None, str | None]) -> None:
    clips = ids_of_file_names([file], name).clips
    assert clips.select("freesound_id", "youtube_id").rows() == [ids]


@pytest.mark.parametrize(
    ("name", "file"),
    [("ESC-50", "readme.txt"), ("UrbanSound8K", "1-2-3.wav"), ("FSD50K", "a.wav"), ("AudioSet", "a.wav")],
)
def test_file_names_of_another_form(name: str, file: str) -> None:
    with raises_naming(DataError, file, name):
        ids_of_file_names([file], name)


def test_set_without_ids_in_file_names() -> None:
    with raises_naming(DataError, "MACS", "ESC-50"):
        ids_of_file_names(["a.wav"], "MACS")


def test_ids_round_trip_through_a_file(tmp_path: Path) -> None:
    hashed = ids_of_frame(polars.DataFrame({"pcm_sha256": ["aa", None], "captions": [5, 2]}), "Hashed", "test")
    held = [ESC50, hashed, FSD_TRAIN, FSD_TEST]
    save_ids(held, tmp_path / "held.parquet")
    back = load_ids(tmp_path / "held.parquet")
    assert [(each.name, each.split) for each in back] == [(each.name, each.split) for each in held]
    for before, after in zip(held, back, strict=True):
        assert before.clips.equals(after.clips)
    assert [path.name for path in tmp_path.iterdir()] == ["held.parquet"]


def test_invalid_files_of_ids(tmp_path: Path) -> None:
    with raises_naming(DataError, tmp_path / "held.parquet"):
        load_ids(tmp_path / "held.parquet")
    (tmp_path / "held.parquet").write_bytes(b"PAR1 not really")
    with raises_naming(DataError, tmp_path / "held.parquet"):
        load_ids(tmp_path / "held.parquet")
    polars.DataFrame({"id": [1]}).write_parquet(tmp_path / "other.parquet")
    with raises_naming(DataError, tmp_path / "other.parquet", "set", "split", "freesound_id"):
        load_ids(tmp_path / "other.parquet")
    with raises_naming(DataError, "freesound_id"):
        overlapping(polars.DataFrame({"id": [1]}), [ESC50])
    with raises_naming(DataError, "Mine"):
        ids_of_frame(polars.DataFrame({"freesound_id": ["17367", "a song"]}), "Mine")


def test_ids_may_be_text_or_floats() -> None:
    assert counts(ids_of_frame(polars.DataFrame({"freesound_id": ["500", None]}), "Mine"), FSD_TRAIN) == [1]
    assert counts(ids_of_frame(polars.DataFrame({"freesound_id": [500.0, None]}), "Mine"), FSD_TRAIN) == [1]
