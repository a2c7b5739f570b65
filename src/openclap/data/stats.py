"""What a data set is made of, in numbers."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openclap.data.layout import IDENTITY, MANIFEST, SKIPPED, identity, read_table
from openclap.errors import DataError, require
from openclap.storage import Place

if TYPE_CHECKING:
    import polars

LENGTHS_S = (0, 1, 2, 5, 10, 20, 30, 60, 120, 300, float("inf"))
"""The edges of the histogram of lengths."""


@dataclass(frozen=True, slots=True)
class Stats:
    """Figures of a finished data set.

    Attributes:
        sources: of each source, samples, hours and captions.
        shards: of each folder of shards, samples and tars.
        licences: samples of each.
        lengths: samples in each of the stretches between LENGTHS_S.
        captions: how many there are, how many differ, words in each at the least, in the middle and at the most,
            and different words.
        made: how many captions were made in which way.
        left_out: records left out, by source and kind.
        records: how many there were at first.
    """

    sources: dict[str, tuple[int, float, int]]
    shards: dict[str, tuple[int, int]]
    licences: dict[str, int]
    lengths: tuple[int, ...]
    captions: dict[str, float]
    made: dict[str, int]
    left_out: dict[str, dict[str, int]]
    records: int

    @property
    def samples(self) -> int:
        return sum(samples for samples, _, _ in self.sources.values())

    @property
    def hours(self) -> float:
        return sum(hours for _, hours, _ in self.sources.values())


def stats_of(folder: Place) -> Stats:
    """Count. Raises DataError for a folder that is no finished data set."""
    pl = require("polars", "data")
    if not (folder / MANIFEST).exists():
        begun = (folder / IDENTITY).exists() and any(folder.glob("*/*.tar"))
        command = f"openclap dataset check {folder} --repair" if begun else "openclap dataset build"
        raise DataError(f"{folder}: has no {MANIFEST}, expected a finished data set. Run: {command}")
    rows = read_table(folder / MANIFEST)
    captions = rows["captions"].list.len()
    by_source = rows.group_by("source").agg(
        pl.len(), (pl.col("seconds").sum() / 3600).alias("hours"), pl.col("captions").list.len().sum().alias("captions")
    )
    by_shards = rows.group_by("shards").agg(pl.len(), pl.col("tar").n_unique())
    place = rows["seconds"].cut(
        list(LENGTHS_S[1:-1]), labels=[str(n) for n in range(len(LENGTHS_S) - 1)], left_closed=True
    )
    lengths = Counter(place.cast(pl.String).to_list())
    return Stats(
        sources={name: (int(n), float(hours), int(texts)) for name, n, hours, texts in by_source.sort("source").rows()},
        shards={name: (int(n), int(tars)) for name, n, tars in by_shards.sort("shards").rows()},
        licences=_counted(rows["licence"].fill_null("unknown")),
        lengths=tuple(lengths[str(n)] for n in range(len(LENGTHS_S) - 1)),
        captions=_texts(rows["captions"].explode().drop_nulls()) | {"most for a sample": _number(captions.max())},
        made=_counted(rows["made"].explode().drop_nulls()),
        left_out=_left_out(folder),
        records=int(identity(folder)["records"]),
    )


def _texts(texts: polars.Series) -> dict[str, float]:
    words = texts.str.split(" ").list.len()
    different = texts.str.to_lowercase().str.extract_all(r"[\p{L}\p{N}']+").explode().n_unique()
    return {
        "captions": len(texts),
        "different captions": texts.n_unique(),
        "fewest words": _number(words.min()),
        "median words": _number(words.median()),
        "most words": _number(words.max()),
        "different words": different,
    }


def _number(value: Any) -> float:
    return float(value or 0)


def _counted(column: polars.Series) -> dict[str, int]:
    return dict(column.value_counts(sort=True).rows())


def _left_out(folder: Place) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = {}
    path = folder / SKIPPED
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        row = json.loads(line)
        counts.setdefault(row["source"], Counter())[row["kind"]] += 1
    return {source: dict(of.most_common()) for source, of in sorted(counts.items())}
