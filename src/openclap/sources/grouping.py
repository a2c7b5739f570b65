"""Group recordings by upload, author or session, across data sets.

Clips of one group never cross splits. A group begins with the name of the site, so that a Freesound user is one group
in Freesound, FSD50K and Clotho, and a YouTube video one group in AudioSet, AudioCaps and VGGSound.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Hashable, Iterable

_FREESOUND_URL = re.compile(r"freesound\.org/(?:apiv2/sounds|s|people/[^/]+/sounds)/(\d+)")
_TAKE = re.compile(r"(?:[\s_.#(-]*(?:(?<![a-z])(?:take|tk))?[\s_.#(-]*\d+\)?)+\s*$", re.IGNORECASE)


def freesound_page(freesound_id: int) -> str:
    """Return the address of a sound's page. This short form works without the user's name."""
    return f"https://freesound.org/s/{freesound_id}/"


def freesound_id(text: str | None) -> int | None:
    """Return the id in an address of Freesound (page, short page or API); None for other texts."""
    found = _FREESOUND_URL.search(text or "")
    return int(found[1]) if found else None


def freesound_user(name: str | None) -> str | None:
    """Return the group of all uploads of a user; None without a name."""
    return f"freesound:{name}" if name else None


def strip_take_number(title: str) -> str:
    """Remove the number of the take from the end of a title: "Door Creak-01_take2" → "Door Creak".

    Numbered takes are mostly recorded in one session. A title of numbers only stays as it is.
    """
    return _TAKE.sub("", title).strip() or title


Take = tuple[str, str, Hashable]
"""A name without the number of the take, the full name, and the notes about the recording (falsy for none)."""


def group_takes(recordings: Iterable[Take]) -> list[str]:
    """Return the group of each recording: its name without the number for a take, otherwise its full name.

    Recordings of one name are takes unless their notes differ. Where two have captions (or tags, or labels) of their
    own, the numbers only count files, as in clip_0000 … clip_0088, and each file is its own group.
    """
    takes = list(recordings)
    notes_by_name: dict[str, set[Hashable]] = defaultdict(set)
    for name, _, notes in takes:
        if notes:
            notes_by_name[name].add(notes)
    return [name if len(notes_by_name[name]) < 2 else full_name for name, full_name, _ in takes]
