"""Ids of YouTube clips in all forms that data sets write."""

from __future__ import annotations

from pathlib import Path
from string import ascii_letters, digits

import polars
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openclap.data.overlap import ids_of_frame, overlapping
from openclap.sources.youtube import ClipId, clip_id, normalised_ids, video_id, youtube_clip

VIDEOS = st.text(ascii_letters + digits + "-_", min_size=11, max_size=11) | st.text("Y_-01", min_size=11, max_size=11)
STEADY = settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
TIMES = st.sampled_from(["", "_0", "_30", "_000883", "_30_10", "_30000_40000", "_30.0_40.0", "_12.345"])


@STEADY
@given(VIDEOS, TIMES, st.sampled_from(["", "Y"]), st.sampled_from(["", ".wav", ".flac", ".mp4", ".M4A"]))
def test_every_form_gives_the_videos_id(video: str, times: str, prefix: str, suffix: str) -> None:
    """Also of ids that begin with Y or "-", and that hold "_" and digits where times could begin."""
    expected = ClipId(video, tuple(float(time) for time in times.split("_")[1:]))
    for name in (f"{prefix}{video}{times}{suffix}", f"audio/train/{prefix}{video}{times}{suffix}"):
        assert clip_id(name) == expected
    assert video_id(video) == video


@STEADY
@given(st.lists(st.tuples(st.sampled_from(["", "Y"]), VIDEOS, TIMES), min_size=1, max_size=20))
def test_columns_are_normalised_like_single_ids(parts: list[tuple[str, str, str]]) -> None:
    names = ["".join(part) for part in parts]
    column = polars.DataFrame({"id": [*names, "an id", None]}).select(normalised_ids(polars.col("id")))["id"]
    assert column.to_list() == [*(part[1] for part in parts), "an id", None]


@pytest.mark.parametrize(
    "text",
    ["", " ", "91139", "#NAME?", "r1nicOVtvk", "r1nicOVtvkQQ", "r1nicOVtvkQ_", "r1nicOVtvkQ_a", "rain.wav", None],
)
def test_other_texts_are_no_clip(text: str | None) -> None:
    assert clip_id(text) is None
    assert video_id(text) == ((text or "").strip() or None)


@pytest.mark.parametrize(
    "address",
    [
        "https://www.youtube.com/watch?v=-0RWZT-miFs&t=30s",
        "https://www.youtube.com/watch?t=30s&v=-0RWZT-miFs",
        "https://youtu.be/-0RWZT-miFs?t=30",
        "http://www.youtube.com/embed/-0RWZT-miFs",
    ],
)
def test_addresses_are_read(address: str) -> None:
    assert clip_id(address) == ClipId("-0RWZT-miFs")
    assert clip_id("https://freesound.org/people/someone/sounds/123/") is None


@pytest.mark.parametrize(
    "stem",
    [
        *("-0RWZT-miFs", "-0RWZT-miFs_000030", "-0RWZT-miFs_30", "-0RWZT-miFs_30000_40000", "-0RWZT-miFs_30000"),
        *("-0RWZT-miFs_30_40", "-0RWZT-miFs_30_10", "-0RWZT-miFs_30.0_40.0", "-0RWZT-miFs_30.000_40.000", "91139"),
    ],
)
def test_clips_are_found_under_the_usual_names(stem: str) -> None:
    path = Path(f"audio/{stem}.wav")
    assert youtube_clip({stem: path}, "-0RWZT-miFs", 30.0, 40.0, "91139") == path
    assert youtube_clip({stem: path}, "-0RWZT-miFt", 30.0, 40.0) is None
    if stem.startswith("-"):
        assert youtube_clip({f"Y{stem}": path}, "-0RWZT-miFs", 30.0, 40.0) == path


def test_overlap_is_found_whatever_form_either_side_has() -> None:
    forms = ["Yabcdefghij", "YYabcdefghij", "Yabcdefghij_000030", "Yabcdefghij_30_10", "YYabcdefghij_30"]
    clips = polars.DataFrame({"youtube_id": [*forms, "abcdefghij0", "Yother_video"]})
    for form in forms:
        held_out = ids_of_frame(polars.DataFrame({"youtube_id": [form]}), "VGGSound", "test")
        assert overlapping(clips, [held_out]).to_list() == [*["VGGSound test"] * len(forms), None, None]
