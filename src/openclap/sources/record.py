"""What every source yields."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Record:
    """One sound file and what is said of it.

    Attributes:
        id: its name in the source; need not be unique (a file may have several rows).
        captions: sentences, none blank; () where the source has none, and packing then leaves it out.
        group: sounds of one group (a recording session, an author) never cross splits; None is a group
            of this file alone.
        source: the name of the collection.
    """

    id: str
    audio: Path
    captions: tuple[str, ...]
    source: str
    tags: tuple[str, ...] = ()
    label: str | None = None
    group: str | None = None
    title: str | None = None
    licence: str | None = None
    author: str | None = None
    link: str | None = None
