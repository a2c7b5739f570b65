from __future__ import annotations

from pathlib import Path

import pytest
from evals_helpers import SOUNDS, facts, flac, make_wave, write_shard

from openclap.errors import DataError
from openclap.evals.clips import load_clips


def test_clips_hold_what_the_shards_say(shard_folder: Path) -> None:
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
    with pytest.raises(DataError, match="none of 1 samples"):
        load_clips(write_shard(tmp_path, [("bad", b"fLaCxxxx", facts("rain", "g", ["rain"]))]))


def test_the_digest_changes_with_sound_words_labels_and_groups(tmp_path: Path) -> None:
    def digest(name: str, audio: bytes, told: dict[str, object]) -> str:
        return load_clips(write_shard(tmp_path / name, [("key", audio, told)])).digest

    sound, other = flac(make_wave("rain", 1)), flac(make_wave("rain", 2))
    told = facts("rain", "g", ["rain"])
    same = digest("a", sound, told)
    assert digest("b", sound, told | {"tag": ["unused"]}) == same
    changed = [
        digest("c", other, told),
        digest("d", sound, facts("rain", "g", ["rain."])),
        digest("e", sound, facts("snow", "g", ["rain"])),
        digest("f", sound, facts("rain", "h", ["rain"])),
    ]
    assert len({same, *changed}) == 5


def test_a_clip_without_a_group_is_its_own(tmp_path: Path) -> None:
    told = facts("rain", "g", ["rain"])
    told["original_data"]["group"] = None
    clip = load_clips(write_shard(tmp_path, [("key", flac(make_wave("rain", 1)), told)])).clips[0]
    assert clip.group == "key"
