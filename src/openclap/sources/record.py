"""What every source yields."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Record:
    """One sound and what is said of it, as its source has it.

    Attributes:
        id: its name in the source; need not be unique (a file may have several rows).
        audio: a file, or the URL that it is fetched from ("https://…").
        captions: the sentences that people wrote of it, none blank; () where the source has none. Sentences that are
            made of the title, description and tags are made later (`openclap.captions`).
        group: sounds of one group (a recording session, an author) never cross splits; None is a group
            of this file alone.
        source: the name of the collection.
        split: where the source itself puts it ("train", "valid", "test"); None where it has no splits.
        title, description: as the source writes them, extensions and markup included.
        start_s: where in `audio` the sound begins, which then lasts `length_s`; None for the whole of `audio`.
        length_s: seconds of it, as the source states; None where it does not say.
        rate: of the recording, in Hz, as the source states.
        freesound_id, youtube_id: of the original upload, by which sets overlap.
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
