"""Configuration of a data set, and recipes: where its sources are, and the evaluation sets to decontaminate from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openclap.audio.mono import Channels, MonoConfig
from openclap.data.decode import facts_of
from openclap.data.overlap import ALL, SplitIds, ids_of_frame
from openclap.data.parallel import run
from openclap.data.split import TRAIN_AND_TEST, check_shares
from openclap.errors import AudioError, ConfigError, DataError, require
from openclap.sources import SOURCES, Record

if TYPE_CHECKING:
    import polars

ANY_SOURCE = "*"

OnMissing = Callable[[DataError], None]
"""Called with the error of a source that is not there."""


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Which records a data set includes, and their layout.

    Attributes:
        splits: the shares of splits, for records whose source has no splits of its own.
        by_source: put shards into `<source>/<split>`, as LAION does, rather than into `<split>`.
        licences: allowed families, such as ("cc0", "by"); () for any, unknown ones included.
        shortest_s, longest_s: seconds; `longest_s` by source, with "*" for all others.
        lowest_rate: Hz; recordings below it are left out.
        quietest_db: lowest peak in dB relative to full scale; quieter recordings are left out.
        most_clipped: the largest share of samples at full scale.
        channels: of multichannel recordings: "mean", "left", "right" or "loudest" (see `openclap.audio.mono`). With
            "mean", recordings whose channels cancel each other are left out.
        drop_duplicates: leave out clips with the same samples as an earlier one.
        decontaminate: names of the evaluation sets whose clips are left out.
        shard_size: samples in each tar.
        seed: of the split.
    """

    splits: Mapping[str, float] = field(default_factory=lambda: dict(TRAIN_AND_TEST))
    by_source: bool = False
    licences: tuple[str, ...] = ()
    shortest_s: float = 0.0
    # By source, because LAION-Audio-630K limits Freesound alone (three minutes).
    longest_s: Mapping[str, float] = field(default_factory=dict)
    lowest_rate: int = 0
    quietest_db: float | None = None
    most_clipped: float = 1.0
    channels: Channels = "mean"
    drop_duplicates: bool = False
    decontaminate: tuple[str, ...] = ()
    # LAION's number of pairs in a tar.
    shard_size: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        check_shares(self.splits)
        MonoConfig(self.channels)  # raises for an unknown channel
        if isinstance(self.licences, str) or not all(self.licences):
            raise ConfigError(f"licences are {self.licences!r}, expected families such as cc0, by, by-sa.")
        if self.shard_size < 1:
            raise ConfigError(f"shard_size {self.shard_size}: expected at least 1 sample in each tar.")
        if self.shortest_s < 0 or any(not self.shortest_s < seconds for seconds in self.longest_s.values()):
            raise ConfigError(
                f"shortest_s {self.shortest_s}, longest_s {dict(self.longest_s)}: expected lengths from 0 on, and "
                "the shortest below the longest."
            )

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain data, to be written beside the records."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: dict(value) if isinstance(value, Mapping) else value for name, value in values.items()}


_NAMES = ", ".join(SOURCES)


@dataclass(frozen=True, slots=True)
class SourceSplits:
    """A source, and the splits to read of it; () for all."""

    source: str
    splits: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> SourceSplits:
        """Parse "clotho" or "audiocaps:valid,test". Raises ConfigError for an unknown source and for empty splits."""
        source, colon, names = text.partition(":")
        splits = tuple(name.strip() for name in names.split(",")) if colon else ()
        if source not in SOURCES:
            raise ConfigError(f"There is no source {source!r}. Expected one of: {_NAMES}.")
        if not all(splits):
            raise ConfigError(f"{text!r} names a split without letters, expected such as {source}:train or {source}.")
        return cls(source, splits)

    def read(self, folder: Path) -> Iterator[Record]:
        """Read the records of these splits, and those without a split. Raises DataError as the source's `read`."""
        records = SOURCES[self.source].read(folder)
        if not self.splits:
            return records
        return (record for record in records if record.split is None or record.split in self.splits)


@dataclass(frozen=True, slots=True)
class DataRecipe:
    """Sources, configuration and evaluation sets of a data set: the input of `openclap dataset build`.

    A source is named alone ("esc50") or with the splits to read of it ("clotho:train", "audiocaps:valid,test"); clips
    without a split are in every one.

    Attributes:
        name: of the data set.
        sources: the folder of each source under the root, by the source's name.
        config: which records to include, and their layout.
        decontaminate: evaluation sets by source and folder; their clips are left out, by id and by samples.
    """

    name: str
    sources: Mapping[str, str]
    config: DataConfig = field(default_factory=DataConfig)
    decontaminate: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, places in (("sources", self.sources), ("decontaminate", self.decontaminate)):
            if not isinstance(places, Mapping):
                raise ConfigError(f"{self.name}: {name} must be a mapping of folders by names from: {_NAMES}.")
            for each in places:
                SourceSplits.parse(each)

    @property
    def full_config(self) -> DataConfig:
        """The configuration with the names of the evaluation sets."""
        return replace(self.config, decontaminate=tuple(sorted(self.decontaminate)))

    def records(self, root: Path, on_missing: OnMissing | None = None) -> Iterator[Record]:
        """Read every record of every source under `root`.

        Raises DataError for a missing source, or calls `on_missing` instead.
        """
        return chain.from_iterable(_open_all(self.sources, root, on_missing).values())

    def evaluation_sets(self, root: Path, on_missing: OnMissing | None = None, *, processes: int = 1) -> list[SplitIds]:
        """Collect the ids of the evaluation sets, split by split; existing sounds are decoded for their hashes.

        Raises as `records`.
        """
        return [
            ids
            for name, records in _open_all(self.decontaminate, root, on_missing).items()
            for ids in _ids_by_split(SOURCES[SourceSplits.parse(name).source].title, list(records), processes)
        ]


def _open_all(places: Mapping[str, str], root: Path, on_missing: OnMissing | None) -> dict[str, Iterator[Record]]:
    """Open every source before the first is read, so that a missing one is reported at once."""
    readers = {}
    for name, place in places.items():
        try:
            readers[name] = SourceSplits.parse(name).read(root / place)
        except DataError as error:
            if on_missing is None:
                raise
            on_missing(error)
    return readers


def _ids_by_split(title: str, records: Sequence[Record], processes: int) -> list[SplitIds]:
    pl = require("polars", "data")
    # Ids alone would miss copies: the same sound may be uploaded again under another id.
    places = [str(record.audio) for record in records]
    parts = [places[start : start + HASHED_TOGETHER] for start in range(0, len(places), HASHED_TOGETHER)]
    hashes = dict(chain.from_iterable(run(_hashes, parts, processes)))
    frame = pl.DataFrame(
        {
            "split": [record.split or ALL for record in records],
            "freesound_id": pl.Series([record.freesound_id for record in records], dtype=pl.Int64),
            "youtube_id": pl.Series([record.youtube_id for record in records], dtype=pl.String),
            # Null for a sound that is not there: its ids still count.
            "pcm_sha256": pl.Series([hashes.get(place) for place in places], dtype=pl.String),
            # A clip without captions counts as one in the table of overlaps.
            "captions": [max(1, len(record.captions)) for record in records],
        }
    )
    splits: dict[tuple[object, ...], polars.DataFrame] = frame.partition_by("split", as_dict=True, maintain_order=True)
    return [ids_of_frame(part, title, str(split)) for (split,), part in splits.items()]


HASHED_TOGETHER = 64
"""Sounds that are hashed as one item of work."""


def _hashes(places: Sequence[str]) -> list[tuple[str, str]]:
    """The hash of each sound that exists and can be decoded."""
    hashes = []
    for place in places:
        if Path(place).is_file():
            try:
                hashes.append((place, facts_of(place).pcm_sha256))
            except AudioError:
                continue
    return hashes
