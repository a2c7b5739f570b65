"""Statistics of a data set, and its data card: Markdown with a YAML head, and two charts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from openclap.data.filters import excluded_ids
from openclap.data.layout import IDENTITY, MANIFEST, SKIPPED, identity, read_all, read_table, records, work
from openclap.data.overlap import ALL, ids_of_frame, overlap_table, to_markdown
from openclap.errors import DataError, require
from openclap.formatting import markdown_table
from openclap.pages.charts import bar_chart
from openclap.sources import SOURCES
from openclap.storage import Place, write_bytes

if TYPE_CHECKING:
    import polars

LENGTHS_S = (0, 1, 2, 5, 10, 20, 30, 60, 120, 300, float("inf"))
"""The edges of the histogram of lengths."""


@dataclass(frozen=True, slots=True)
class DatasetStats:
    """Statistics of a finished data set.

    Attributes:
        sources: samples, hours and captions of each source.
        shards: samples and tars of each folder of shards.
        licences: samples of each licence.
        lengths: samples in each interval between LENGTHS_S.
        captions: number of captions, of different ones and of different words; words in the shortest, median and
            longest caption.
        made: captions by their origin.
        left_out: records left out, by source and kind.
        records: number of all records.
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


def stats_of(folder: Place) -> DatasetStats:
    """Compute the statistics. Raises DataError for a folder that is not a finished data set."""
    pl = require("polars", "data")
    if not (folder / MANIFEST).exists():
        begun = (folder / IDENTITY).exists() and any(folder.glob("*/*.tar"))
        command = f"openclap dataset check {folder} --repair" if begun else "openclap dataset build"
        raise DataError(f"{folder}: has no {MANIFEST}, expected a finished data set. Run '{command}'.")
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
    return DatasetStats(
        sources={name: (int(n), float(hours), int(texts)) for name, n, hours, texts in by_source.sort("source").rows()},
        shards={name: (int(n), int(tars)) for name, n, tars in by_shards.sort("shards").rows()},
        licences=_counted(rows["licence"].fill_null("unknown")),
        lengths=tuple(lengths[str(n)] for n in range(len(LENGTHS_S) - 1)),
        captions=_texts(rows["captions"].explode().drop_nulls()) | {"most for a sample": _number(captions.max())},
        made=_counted(rows["made"].explode().drop_nulls()),
        left_out=_read_left_out(folder),
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


def _read_left_out(folder: Place) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = {}
    path = folder / SKIPPED
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        row = json.loads(line)
        counts.setdefault(row["source"], Counter())[row["kind"]] += 1
    return {source: dict(of.most_common()) for source, of in sorted(counts.items())}


CARD, LENGTHS_CHART, SOURCES_CHART = "README.md", "card/lengths.svg", "card/sources.svg"
ALTERNATIVE_CARD = "DATASET.md"
MARK = b"<!-- written by openclap dataset card: changes are lost when it is written again -->"


def write_card(folder: Place, name: str) -> Place:
    """Write README.md and its charts into a finished data set.

    An existing README.md of another author is not touched; the card is then DATASET.md. Raises DataError for a folder
    that is not a finished data set.
    """
    stats = stats_of(folder)
    # A card of a person's own is never replaced; ours has a mark in it.
    free = [
        name
        for name in (CARD, ALTERNATIVE_CARD)
        if not (folder / name).exists() or MARK in (folder / name).read_bytes()
    ]
    if not free:
        raise DataError(f"{folder}: contains a {CARD} and an {ALTERNATIVE_CARD} of your own. Move one of them away.")
    place = folder / free[0]
    (folder / LENGTHS_CHART).parent.mkdir(exist_ok=True)
    write_bytes(folder / LENGTHS_CHART, _lengths_chart(stats).encode())
    write_bytes(folder / SOURCES_CHART, _sources_chart(stats).encode())
    write_bytes(place, card(stats, name, identity(folder)["config"], overlaps_of(folder)).encode())
    return place


def card(stats: DatasetStats, name: str, config: Mapping[str, object], overlap: str = "") -> str:
    """Build the card as Markdown."""
    parts = [
        _head(stats),
        MARK.decode(),
        f"# {name}",
        f"{stats.samples:,} pairs of sound and text, {stats.hours:,.2f} hours: 48 kHz mono FLAC with JSON in "
        "WebDataset tars, as LAION-CLAP's loader and openclap read them.",
        "## Sources\n\n" + _sources(stats),
        "![Hours by source](card/sources.svg)",
        "## Shards\n\n"
        + markdown_table(
            [["folder", "samples", "tars"], *[[k, f"{n:,}", f"{t:,}"] for k, (n, t) in stats.shards.items()]]
        ),
        "## Licences\n\n" + _shares(stats.licences, "licence", "samples"),
        "## Lengths\n\n" + _lengths(stats) + "\n\n![Lengths](card/lengths.svg)",
        "## Captions\n\n"
        + markdown_table([["", ""], *[[key, f"{value:,.6g}"] for key, value in stats.captions.items()]]),
        "Their origin:\n\n" + _shares(stats.made, "origin", "captions"),
        "## Left out\n\n" + _left_out(stats),
        *(["## Overlap with evaluation sets\n\n" + OVERLAP + overlap] if overlap else []),
        "## How it was made\n\n"
        + markdown_table([["option", "value"], *[[key, str(value)] for key, value in config.items()]]),
    ]
    return "\n\n".join(parts) + "\n"


OVERLAP = (
    "Clips of each evaluation set among the records, before they were left out; published counts are those of "
    "LAION-Audio-630K's data card.\n\n"
)


def overlaps_of(folder: Place) -> str:
    """The overlap of all records, included or not, with the evaluation sets; "" without evaluation sets."""
    pl = require("polars", "data")
    excluded = excluded_ids(folder)
    if not excluded:
        return ""
    facts = read_all(work(folder, "examined"))
    rows = records(folder, identity(folder)["digest"]).select("n", "source", "split", "freesound_id", "youtube_id")
    if facts is not None:
        rows = rows.join(facts.select("n", "pcm_sha256"), on="n", how="left")
    parts = rows.with_columns(pl.col("split").fill_null(ALL)).partition_by("source", "split", as_dict=True)
    titles = {name: SOURCES[name].title if name in SOURCES else name for name, _ in parts}
    ours = [ids_of_frame(part, titles[name], str(split)) for (name, split), part in sorted(parts.items())]
    return to_markdown([row for row in overlap_table(excluded, ours) if row.clips or row.same_sound or row.published])


def _head(stats: DatasetStats) -> str:
    # The hub's own categories; the head is the metadata that it reads.
    size = next(text for limit, text in SIZES if stats.samples < limit)
    configs = "\n".join(
        f'  - split: {split}\n    path: "{shards}/*.tar"'
        for shards in stats.shards
        for split in [shards.replace("/", "_")]
    )
    return (
        "---\nlicense: other\nlanguage:\n- en\ntask_categories:\n- text-to-audio\n- audio-classification\n"
        f"size_categories:\n- {size}\nconfigs:\n- config_name: default\n  data_files:\n{configs}\n---"
    )


SIZES: Sequence[tuple[float, str]] = (
    (1e3, "n<1K"),
    (1e4, "1K<n<10K"),
    (1e5, "10K<n<100K"),
    (1e6, "100K<n<1M"),
    (1e7, "1M<n<10M"),
    (float("inf"), "10M<n<100M"),
)


def _sources(stats: DatasetStats) -> str:
    """Samples and hours of each source beside its published numbers."""
    rows, published = [], [0, 0.0]
    for name, (samples, hours, captions) in stats.sources.items():
        known = SOURCES[name].published if name in SOURCES else None
        title = SOURCES[name].title if name in SOURCES else name
        theirs = [f"{known.samples:,}", f"{known.hours:,.2f}" if known.hours else "–"] if known else ["–", "–"]
        # The sum of the rows, since LAION's stated total of hours differs from it.
        published[0] += known.samples if known else 0
        published[1] += known.hours or 0.0 if known else 0.0
        rows.append([title, f"{samples:,}", f"{hours:,.2f}", f"{captions:,}", *theirs])
    total = [f"{stats.samples:,}", f"{stats.hours:,.2f}", f"{sum(c for _, _, c in stats.sources.values()):,}"]
    rows.append(["**sum**", *total, f"{int(published[0]):,}", f"{published[1]:,.2f}"])
    head = ["source", "samples", "hours", "captions", "published samples", "published hours"]
    return markdown_table([head, *rows])


def _shares(counts: Mapping[str, int], name: str, unit: str) -> str:
    total = sum(counts.values()) or 1
    rows = [[key, f"{count:,}", f"{count / total:.1%}"] for key, count in counts.items()]
    return markdown_table([[name, unit, "share"], *rows])


def _lengths(stats: DatasetStats) -> str:
    names = [f"{low:g}–{high:g} s" if high < float("inf") else f"over {low:g} s" for low, high in _intervals()]
    return _shares(dict(zip(names, stats.lengths, strict=True)), "length", "samples")


def _intervals() -> list[tuple[float, float]]:
    return list(pairwise(LENGTHS_S))


def _left_out(stats: DatasetStats) -> str:
    gone = sum(sum(of.values()) for of in stats.left_out.values())
    if not gone:
        return f"None of {stats.records:,} records."
    rows = [[source, kind, f"{count:,}"] for source, of in stats.left_out.items() for kind, count in of.items()]
    return f"{gone:,} of {stats.records:,} records; each is listed in `skipped.jsonl`.\n\n" + markdown_table(
        [["source", "reason", "records"], *rows]
    )


def _lengths_chart(stats: DatasetStats) -> str:
    names = [f"{low:g}–{high:g} s" if high < float("inf") else f"> {low:g} s" for low, high in _intervals()]
    bars = [(name, count, f"{count:,}") for name, count in zip(names, stats.lengths, strict=True)]
    return bar_chart(bars, alt="Samples by length", x_label="samples by length")


def _sources_chart(stats: DatasetStats) -> str:
    names = sorted(stats.sources, key=lambda name: stats.sources[name][1], reverse=True)
    bars = []
    for name in names:
        samples, hours = stats.sources[name][:2]
        bars.append((name, hours, f"{samples:,} samples, {hours:,.2f} h"))
    return bar_chart(bars, alt="Hours by source", x_label="hours by source")
