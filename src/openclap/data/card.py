"""The data card: what a data set is made of, as Markdown under a YAML head, and two charts beside it."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from openclap.data.held import ALL, held_in
from openclap.data.layout import identity, read_all, records, work
from openclap.data.overlap import overlap_table, to_markdown
from openclap.data.plan import held_apart
from openclap.data.stats import LENGTHS_S, Stats, stats_of
from openclap.errors import DataError, require
from openclap.sources import SOURCES
from openclap.storage import Place, write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CARD, LENGTHS, PARTS = "README.md", "card/lengths.svg", "card/sources.svg"
INSTEAD = "DATASET.md"
MARK = b"<!-- written by openclap dataset card: changes are lost when it is written again -->"


def write_card(folder: Place, name: str) -> Place:
    """Write README.md and its charts into a finished data set; a README that is somebody's own is left alone, and the
    card goes to DATASET.md. Raises DataError for a folder that is no finished data set."""
    stats = stats_of(folder)
    free = [name for name in (CARD, INSTEAD) if not (folder / name).exists() or MARK in (folder / name).read_bytes()]
    if not free:
        raise DataError(f"{folder}: holds a {CARD} and an {INSTEAD} of your own. Move one of them to make room.")
    place = folder / free[0]
    (folder / LENGTHS).parent.mkdir(exist_ok=True)
    write_bytes(folder / LENGTHS, _lengths_chart(stats))
    write_bytes(folder / PARTS, _sources_chart(stats))
    write_bytes(place, card(stats, name, identity(folder)["config"], overlaps_of(folder)).encode())
    return place


def card(stats: Stats, name: str, config: Mapping[str, object], overlap: str = "") -> str:
    """The text."""
    parts = [
        _head(stats),
        MARK.decode(),
        f"# {name}",
        f"{stats.samples:,} pairs of sound and text, {stats.hours:,.2f} hours: 48 kHz mono FLAC with JSON in "
        "WebDataset tars, as LAION-CLAP's loader and openclap read them.",
        "## Sources\n\n" + _sources(stats),
        "![Hours by source](card/sources.svg)",
        "## Shards\n\n"
        + table(["folder", "samples", "tars"], [[k, f"{n:,}", f"{t:,}"] for k, (n, t) in stats.shards.items()]),
        "## Licences\n\n" + _shares(stats.licences, "licence", "samples"),
        "## Lengths\n\n" + _lengths(stats) + "\n\n![Lengths](card/lengths.svg)",
        "## Captions\n\n" + table(["", ""], [[key, f"{value:,.6g}"] for key, value in stats.captions.items()]),
        "How they were made:\n\n" + _shares(stats.made, "made of", "captions"),
        "## Left out\n\n" + _left_out(stats),
        *(["## Overlap with sets that are measured on\n\n" + OVERLAP + overlap] if overlap else []),
        "## How it was made\n\n" + table(["choice", "value"], [[key, str(value)] for key, value in config.items()]),
    ]
    return "\n\n".join(parts) + "\n"


OVERLAP = (
    "How many clips of each such set were among the records, before they were left out; published counts are those of "
    "LAION-Audio-630K's data card.\n\n"
)


def overlaps_of(folder: Place) -> str:
    """The table of overlaps of all records, used or not, with the sets to stay apart from; "" where there are none."""
    pl = require("polars", "data")
    apart = held_apart(folder)
    if not apart:
        return ""
    found = read_all(work(folder, "examined"))
    rows = records(folder, identity(folder)["digest"]).select("n", "source", "split", "freesound_id", "youtube_id")
    if found is not None:
        rows = rows.join(found.select("n", "pcm_sha256"), on="n", how="left")
    parts = rows.with_columns(pl.col("split").fill_null(ALL)).partition_by("source", "split", as_dict=True)
    titles = {name: SOURCES[name].title if name in SOURCES else name for name, _ in parts}
    ours = [held_in(part, titles[name], str(split)) for (name, split), part in sorted(parts.items())]
    return to_markdown([row for row in overlap_table(apart, ours) if row.clips or row.same_sound or row.published])


def _head(stats: Stats) -> str:
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


def _sources(stats: Stats) -> str:
    """Samples and hours of each source beside what is published of it."""
    rows, published = [], [0, 0.0]
    for name, (samples, hours, captions) in stats.sources.items():
        known = SOURCES[name].published if name in SOURCES else None
        title = SOURCES[name].title if name in SOURCES else name
        theirs = [f"{known.samples:,}", f"{known.hours:,.2f}" if known.hours else "–"] if known else ["–", "–"]
        published[0] += known.samples if known else 0
        published[1] += known.hours or 0.0 if known else 0.0
        rows.append([title, f"{samples:,}", f"{hours:,.2f}", f"{captions:,}", *theirs])
    total = [f"{stats.samples:,}", f"{stats.hours:,.2f}", f"{sum(c for _, _, c in stats.sources.values()):,}"]
    rows.append(["**sum**", *total, f"{int(published[0]):,}", f"{published[1]:,.2f}"])
    return table(["source", "samples", "hours", "captions", "published samples", "published hours"], rows)


def _shares(counts: Mapping[str, int], what: str, of: str) -> str:
    total = sum(counts.values()) or 1
    return table([what, of, "share"], [[name, f"{count:,}", f"{count / total:.1%}"] for name, count in counts.items()])


def _lengths(stats: Stats) -> str:
    names = [f"{low:g}–{high:g} s" if high < float("inf") else f"over {low:g} s" for low, high in _stretches()]
    return _shares(dict(zip(names, stats.lengths, strict=True)), "length", "samples")


def _stretches() -> list[tuple[float, float]]:
    return list(pairwise(LENGTHS_S))


def _left_out(stats: Stats) -> str:
    gone = sum(sum(of.values()) for of in stats.left_out.values())
    if not gone:
        return f"None of {stats.records:,} records."
    rows = [[source, kind, f"{count:,}"] for source, of in stats.left_out.items() for kind, count in of.items()]
    return f"{gone:,} of {stats.records:,} records; each stands in `skipped.jsonl`.\n\n" + table(
        ["source", "why", "records"], rows
    )


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    plain = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [heads, ["---"] * len(heads), *plain])


def _lengths_chart(stats: Stats) -> bytes:
    names = [f"{low:g}–{high:g}" if high < float("inf") else f">{low:g}" for low, high in _stretches()]
    figure = _figure(7, 3)
    axes = figure.subplots()
    axes.bar(names, stats.lengths, color="#3b6ea5")
    axes.set(xlabel="seconds", ylabel="samples")
    axes.spines[["top", "right"]].set_visible(False)
    return _svg(figure)


def _sources_chart(stats: Stats) -> bytes:
    names = sorted(stats.sources, key=lambda name: stats.sources[name][1])
    figure = _figure(7, 0.8 + 0.35 * len(names))
    axes = figure.subplots()
    bars = axes.barh(names, [stats.sources[name][1] for name in names], color="#3b6ea5")
    axes.bar_label(bars, [f" {stats.sources[name][0]:,} samples" for name in names])
    axes.margins(x=0.25)
    axes.set(xlabel="hours")
    axes.spines[["top", "right"]].set_visible(False)
    return _svg(figure)


def _figure(width: float, height: float) -> Figure:
    require("matplotlib", "data")
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _svg(figure: Figure) -> bytes:
    """The same bytes every time."""
    import matplotlib

    file = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "openclap", "svg.fonttype": "none"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()
