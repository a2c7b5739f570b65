"""Ids of YouTube clips in one form, however a data set or a file name writes them.

    r1nicOVtvkQ                    the video's id: eleven letters, digits, "-" and "_"; it may begin with "-" or "Y"
    Yr1nicOVtvkQ                   with a Y in front, since names should not begin with "-"  (AudioSet's tools, WavCaps)
    r1nicOVtvkQ_000130             with the second where the clip begins                     (VGGSound)
    r1nicOVtvkQ_130_10             with beginning and duration, or beginning and end         (YouTube-8M, AudioSetCaps)
    r1nicOVtvkQ_130000_140000      the same in milliseconds                                  (AudioSet's strong labels)

Any of them may have folders in front and the suffix of an audio or video file, and addresses of YouTube are read too.
The forms never overlap: with the Y the id ends at the twelfth character, without it at the eleventh, and times follow
only after "_". So a Y that belongs to the id is never taken off. All clips of one video have one id, by which overlaps
between data sets are found.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from openclap.sources.files import AUDIO_AND_VIDEO_SUFFIXES

_VIDEO = "[A-Za-z0-9_-]{11}"
_TIME = r"\d+(?:\.\d+)?"
_FORM = rf"Y?({_VIDEO})(?:_({_TIME}))?(?:_({_TIME}))?"
_CLIP = re.compile(_FORM)
_ADDRESS = re.compile(rf"(?:[?&]v=|/(?:embed|shorts|live|v)/|youtu\.be/)({_VIDEO})(?![A-Za-z0-9_-])")


class ClipId(NamedTuple):
    """A clip's video, and the numbers that its id states after it (seconds, in most data sets)."""

    video: str
    times: tuple[float, ...] = ()


def clip_id(text: str | None) -> ClipId | None:
    """Read the id of a clip in any of the forms above; None for another text."""
    name = (text or "").strip()
    if "/" in name:
        if urlsplit(name).scheme in ("http", "https"):
            found = _ADDRESS.search(name)
            return ClipId(found[1]) if found else None
        name = name.rpartition("/")[2]
    if "." in name and PurePosixPath(name).suffix.lower() in AUDIO_AND_VIDEO_SUFFIXES:
        name = name.rpartition(".")[0]
    found = _CLIP.fullmatch(name)
    return ClipId(found[1], tuple([float(time) for time in found.groups()[1:] if time])) if found else None


def video_id(text: str | None) -> str | None:
    """Return the id of the video in any of the forms above; another text as it is, and None for a blank one."""
    clip = clip_id(text)
    return clip.video if clip else (text or "").strip() or None


def normalised_ids(column: Any) -> Any:
    """Return the polars expression that does as `video_id` for a column of ids without suffixes."""
    return column.str.extract(f"^{_FORM}$").fill_null(column)


def youtube_page(youtube_id: str, start_s: float = 0.0) -> str:
    """Return the address of a video at the second where the clip begins."""
    return f"https://www.youtube.com/watch?v={youtube_id}&t={int(start_s)}s"


def youtube_video(youtube_id: str) -> str:
    """Return the group of all clips from a video."""
    return f"youtube:{youtube_id}"


def youtube_clip(found: Mapping[str, Path], youtube_id: str, start_s: float, end_s: float, *names: str) -> Path | None:
    """Find the file of a clip among files by stem, under the usual names or `names`; None where there is none."""
    if not found:
        return None
    return next((found[name] for name in (*_usual_names(youtube_id, start_s, end_s), *names) if name in found), None)


def _usual_names(youtube_id: str, start_s: float, end_s: float) -> Iterator[str]:
    second, first_ms, last_ms = int(start_s), round(start_s * 1000), round(end_s * 1000)
    for video in (youtube_id, f"Y{youtube_id}"):
        yield f"{video}_{second:06d}"
        yield f"{video}_{second}"
        yield f"{video}_{first_ms}_{last_ms}"
        yield f"{video}_{first_ms}"
        yield f"{video}_{second}_{int(end_s)}"
        yield f"{video}_{second}_{int(end_s - start_s)}"
        yield f"{video}_{start_s:.1f}_{end_s:.1f}"
        yield f"{video}_{start_s:.3f}_{end_s:.3f}"
        yield video
