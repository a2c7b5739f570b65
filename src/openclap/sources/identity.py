"""What tells that two sounds come from one upload, one author or one session, whatever set they are in.

Groups have the name of the site in front, so that a Freesound user is one group in Freesound, FSD50K and Clotho, and a
YouTube video one group in AudioSet, AudioCaps and VGGSound.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path

_FREESOUND_URL = re.compile(r"freesound\.org/(?:apiv2/sounds|s|people/[^/]+/sounds)/(\d+)")
_TAKE = re.compile(r"(?:[\s_.#(-]*(?:(?<![a-z])(?:take|tk))?[\s_.#(-]*\d+\)?)+\s*$", re.IGNORECASE)


def freesound_page(freesound_id: int) -> str:
    """The address of a sound; its user need not be known."""
    return f"https://freesound.org/s/{freesound_id}/"


def freesound_id(text: str | None) -> int | None:
    """The id in an address of Freesound (page, short page or API); None where there is none."""
    found = _FREESOUND_URL.search(text or "")
    return int(found[1]) if found else None


def freesound_user(name: str | None) -> str | None:
    """The group of what one user uploaded."""
    return f"freesound:{name}" if name else None


def youtube_page(youtube_id: str, start_s: float = 0.0) -> str:
    """The address of a video, from the second where the sound begins."""
    return f"https://www.youtube.com/watch?v={youtube_id}&t={int(start_s)}s"


def youtube_video(youtube_id: str) -> str:
    """The group of what was cut from one video."""
    return f"youtube:{youtube_id}"


def youtube_clip(found: Mapping[str, Path], youtube_id: str, start_s: float, end_s: float) -> Path | None:
    """The file of a clip among files by stem, under the names that are in use; None where it is not there.

    They are, for ten seconds from 30 s on: ID_000030 (VGGSound), ID_30 (AudioCaps), ID_30000_40000 and ID_30000
    (AudioSet with strong labels), ID, and YID (with a Y in front, since names should not begin with "-").
    """
    second, first_ms, last_ms = int(start_s), round(start_s * 1000), round(end_s * 1000)
    names = (
        youtube_id,
        f"Y{youtube_id}",
        f"{youtube_id}_{second:06d}",
        f"{youtube_id}_{second}",
        f"{youtube_id}_{first_ms}_{last_ms}",
        f"{youtube_id}_{first_ms}",
    )
    return next((found[name] for name in names if name in found), None)


def without_take(title: str) -> str:
    """A title without the number of the take at its end: "Door Creak-01_take2" → "Door Creak".

    Numbered takes are mostly one session. A title of numbers alone stays as it is.
    """
    return _TAKE.sub("", title).strip() or title


Take = tuple[str, str, Hashable]
"""A name without the number of the take, the whole name, and what people wrote of it (something false for nothing)."""


def groups_of_takes(recordings: Iterable[Take]) -> list[str]:
    """The group of each recording: its name without the number where it is a take, otherwise its whole name.

    Recordings of one name are takes while nothing different is written of them. Where two of them have captions (or
    tags, or labels) of their own, the numbers only count files, as in clip_0000 … clip_0088, and no two belong
    together.
    """
    listed = list(recordings)
    written: dict[str, set[Hashable]] = defaultdict(set)
    for name, _, what in listed:
        if what:
            written[name].add(what)
    return [name if len(written[name]) < 2 else whole for name, whole, _ in listed]
