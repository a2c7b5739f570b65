"""A data set as its recipe says it: which sources, by which choices, held apart from which other sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from openclap.data.config import DataConfig
from openclap.data.decode import facts_of
from openclap.data.held import ALL, Held, held_in
from openclap.data.work import each
from openclap.errors import AudioError, ConfigError, DataError, require
from openclap.sources import SOURCES, Record

if TYPE_CHECKING:
    import polars

Told = Callable[[DataError], None]
"""Told of what is not there."""


@dataclass(frozen=True, slots=True)
class DataRecipe:
    """What `openclap dataset build` follows.

    Attributes:
        name: of the data set.
        sources: where each source lies, by its name: a place under the root.
        config: the choices.
        apart: sets that are measured on, by source and place; what they hold is left out, by id and by samples.
    """

    name: str
    sources: Mapping[str, str]
    config: DataConfig = field(default_factory=DataConfig)
    apart: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for what, places in (("sources", self.sources), ("apart", self.apart)):
            if not isinstance(places, Mapping) or (strange := [name for name in places if name not in SOURCES]):
                named = "" if not isinstance(places, Mapping) else f" names {', '.join(strange)}, but"
                raise ConfigError(
                    f"{self.name}: {what}{named} must be a mapping of places by names from: {', '.join(SOURCES)}."
                )

    @property
    def choices(self) -> DataConfig:
        """The choices, with the names of the sets to stay apart from."""
        return replace(self.config, apart=tuple(sorted(self.apart)))

    def records(self, root: Path, missing: Told | None = None) -> Iterator[Record]:
        """Every record of every source under `root`.

        Raises DataError for a source that is not there; `missing`, where it is given, is told instead.
        """
        return chain.from_iterable(_opened(self.sources, root, missing).values())

    def held(self, root: Path, missing: Told | None = None, *, processes: int = 1) -> list[Held]:
        """What is known of the sets to stay apart from, split by split; sounds that are there are decoded for their
        hashes. Raises as `records`."""
        found = _opened(self.apart, root, missing)
        return [
            held for name, records in found.items() for held in _held(SOURCES[name].title, list(records), processes)
        ]


def _held(title: str, records: Sequence[Record], processes: int) -> list[Held]:
    pl = require("polars", "data")
    places = [str(record.audio) for record in records]
    parts = [places[start : start + AT_ONCE] for start in range(0, len(places), AT_ONCE)]
    hashes = dict(chain.from_iterable(each(_hashes, parts, processes)))
    frame = pl.DataFrame(
        {
            "split": [record.split or ALL for record in records],
            "freesound_id": pl.Series([record.freesound_id for record in records], dtype=pl.Int64),
            "youtube_id": pl.Series([record.youtube_id for record in records], dtype=pl.String),
            "pcm_sha256": pl.Series([hashes.get(place) for place in places], dtype=pl.String),
            "captions": [max(1, len(record.captions)) for record in records],
        }
    )
    splits: dict[tuple[object, ...], polars.DataFrame] = frame.partition_by("split", as_dict=True, maintain_order=True)
    return [held_in(part, title, str(split)) for (split,), part in splits.items()]


AT_ONCE = 64
"""Sounds that are hashed as one piece of work."""


def _hashes(places: Sequence[str]) -> list[tuple[str, str]]:
    """The hash of each sound that is there and decodes."""
    found = []
    for place in places:
        if Path(place).is_file():
            try:
                found.append((place, facts_of(place).pcm_sha256))
            except AudioError:
                continue
    return found


def _opened(places: Mapping[str, str], root: Path, missing: Told | None) -> dict[str, Iterator[Record]]:
    """All that are there, before the first is read: what is missing is told at once."""
    found = {}
    for name, place in places.items():
        try:
            found[name] = SOURCES[name].read(root / place)
        except DataError as error:
            if missing is None:
                raise
            missing(error)
    return found
