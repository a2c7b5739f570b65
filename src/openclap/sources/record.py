"""The record of one sound, which every source yields."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from openclap.types import Phrase


@dataclass(frozen=True, slots=True)
class Record:
    """One sound with its captions and metadata, as its source has them.

    Attributes:
        id: its name in the source; not necessarily unique (a file may have several rows).
        audio: a file, or the URL that it is downloaded from ("https://…").
        captions: sentences that people wrote about the sound, none blank; () where the source has none. Captions from
            the title, description and tags are made later (`openclap.captions`).
        source: the name of the collection.
        group: sounds of one group (a recording session, an author) never cross splits; None makes the file its own
            group.
        title, description: as the source writes them, file extensions and markup included.
        split: the source's own split ("train", "valid", "test"); None where it has none.
        start_s: start of the sound within `audio` in seconds, which then lasts `length_s`; None for all of `audio`.
        length_s: duration in seconds, as the source states it; None where it does not.
        rate: sample rate of the recording in Hz, as the source states it.
        freesound_id, youtube_id: ids of the original upload, by which overlaps between data sets are found.
        phrases: phrases with their segments, as the source states them: segments that cannot be in the clip are left
            out when the clip is packed (`openclap.sources.phrases`).
    """

    id: str
    audio: Path | str
    captions: tuple[str, ...]
    source: str
    tags: tuple[str, ...] = ()
    label: str | None = None
    group: str | None = None
    title: str | None = None
    licence: str | None = None
    author: str | None = None
    link: str | None = None
    description: str | None = None
    split: str | None = None
    start_s: float | None = None
    length_s: float | None = None
    rate: int | None = None
    freesound_id: int | None = None
    youtube_id: str | None = None
    phrases: tuple[Phrase, ...] = ()
