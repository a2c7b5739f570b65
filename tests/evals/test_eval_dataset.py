"""Clips of shards and of published data sets, and clips that were trained on."""

from __future__ import annotations

from pathlib import Path

import polars
import pytest
import soundfile

from openclap.data.decode import facts_of
from openclap.errors import DataError
from openclap.evals.dataset import clips_of_task, load_clips
from openclap.evals.decontamination import read_trained_clips
from openclap.evals.metrics import AUDIO_TO_TEXT
from openclap.evals.runner import run_suite
from openclap.evals.suites import PAPER
from support.errors import raises_naming
from support.evals_helpers import SOUNDS, cached, facts, flac, make_wave, write_shard

TASKS = {task.name: task for task in PAPER}


def test_clips_hold_the_facts_of_shards(shard_folder: Path) -> None:
    clips = load_clips(shard_folder)
    assert len(clips) == 24 and clips.skipped == ()
    first = clips.clips[0]
    assert first.label == "low_hum" and first.group == "low_hum-50"
    assert first.captions[0] == SOUNDS["low_hum"]
    assert (first.licence, first.author, first.source) == ("CC0-1.0", "A. Recordist", "field recordings")
    assert first.duration_s == pytest.approx(0.6)
    assert clips.audio(3) == flac(make_wave("low_hum", 511))
    assert clips.select([3, 0]).audio(0) == clips.audio(3)


def test_unreadable_clips_are_listed_and_left_out(tmp_path: Path) -> None:
    good = flac(make_wave("rain", 1))
    samples = [
        ("good", good, facts("rain", "g", ["rain"])),
        ("damaged", good[: len(good) // 2], facts("rain", "g", ["rain"])),
        ("no-caption", good, facts("rain", "g", [])),
        ("also-good", good, facts(None, "g", ["rain"])),
    ]
    clips = load_clips(write_shard(tmp_path, samples))
    assert [clip.key for clip in clips.clips] == ["good", "also-good"]
    assert clips.audio(1) == good and clips.clips[1].label is None
    assert len(clips.skipped) == 2
    assert "damaged" in clips.skipped[0] and "no-caption" in clips.skipped[1]


def test_a_split_without_a_usable_clip_is_refused(tmp_path: Path) -> None:
    with raises_naming(DataError, "none of 1", "bad"):
        load_clips(write_shard(tmp_path, [("bad", b"fLaCxxxx", facts("rain", "g", ["rain"]))]))


def test_digest_changes_with_sounds_captions_labels_and_groups(tmp_path: Path) -> None:
    def digest(name: str, audio: bytes, sample: dict[str, object]) -> str:
        return load_clips(write_shard(tmp_path / name, [("key", audio, sample)])).digest

    sound, other = flac(make_wave("rain", 1)), flac(make_wave("rain", 2))
    sample = facts("rain", "g", ["rain"])
    same = digest("a", sound, sample)
    assert digest("b", sound, sample | {"tag": ["unused"]}) == same
    changed = [
        digest("c", other, sample),
        digest("d", sound, facts("rain", "g", ["rain."])),
        digest("e", sound, facts("snow", "g", ["rain"])),
        digest("f", sound, facts("rain", "h", ["rain"])),
    ]
    assert len({same, *changed}) == 5


def test_a_clip_without_a_group_is_a_group(tmp_path: Path) -> None:
    sample = facts("rain", "g", ["rain"])
    sample["original_data"]["group"] = None
    clip = load_clips(write_shard(tmp_path, [("key", flac(make_wave("rain", 1)), sample)])).clips[0]
    assert clip.group == "key"


def test_clips_of_the_training_data_are_left_out(tiny_model: Path, sets: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.parquet"
    polars.DataFrame({"freesound_id": [7000, 7001, 99], "youtube_id": [None, None, "x"]}).write_parquet(manifest)
    model = [cached(tiny_model, tmp_path)]
    result = run_suite("one", [TASKS["Clotho"]], model, sets, training=manifest)
    assert {row.n for row in result.rows if row.metric.direction == AUDIO_TO_TEXT} == {4}
    assert "2 of 6 clips come from uploads that the model was trained on" in result.notes[0][1]
    assert "sample for sample" not in result.notes[0][1]
    (tmp_path / "bad").write_text("no table")
    polars.DataFrame({"caption": ["rain"]}).write_parquet(tmp_path / "other.parquet")
    polars.DataFrame({"freesound_id": [None]}).write_parquet(tmp_path / "empty.parquet")
    for name in ("bad", "none", "other.parquet", "empty.parquet"):
        with raises_naming(DataError, name):
            run_suite("one", [TASKS["Clotho"]], model, tmp_path / "no sets", training=tmp_path / name)


def test_sounds_of_the_training_data_are_left_out_under_any_name(tiny_model: Path, sets: Path, tmp_path: Path) -> None:
    clips = clips_of_task(TASKS["Clotho"], sets).test.clips
    wave, rate = soundfile.read(clips[2].path, dtype="int16")
    soundfile.write(tmp_path / "copy.flac", wave, rate)
    known = facts_of(tmp_path / "copy.flac").pcm_sha256
    manifest = tmp_path / "manifest.parquet"
    polars.DataFrame({"freesound_id": [7000, None], "pcm_sha256": ["other", known]}).write_parquet(manifest)
    found = clips_of_task(TASKS["Clotho"], sets, read_trained_clips(manifest))
    assert [clip.key for clip in found.test.clips] == [clip.key for clip in (clips[1], *clips[3:])]
    assert "1 of 6 clips come from uploads that the model was trained on, and 1 more have a sound" in found.notes[0]
    polars.DataFrame({"freesound_id": range(7000, 7006)}).write_parquet(manifest)
    with raises_naming(DataError, manifest.name, "6 clips"):
        clips_of_task(TASKS["Clotho"], sets, read_trained_clips(manifest))
