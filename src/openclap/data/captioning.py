"""Add a sentence that a model writes from keywords to each record; an optional step.

work/captioned/0.parquet … contain the sentences, CHUNK records a file; work/captions.jsonl caches them, so that none is
written twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from openclap.captions import Caption, CaptioningCounts, CaptionMaker, Endpoint, augment, load
from openclap.data.decode import chunk_numbers
from openclap.data.layout import CHUNK, identity, read_table, records, work, write_table
from openclap.data.parallel import ALL, Share
from openclap.data.records import captioned
from openclap.errors import DataError, require
from openclap.sources.record import Record
from openclap.storage import Place

if TYPE_CHECKING:
    import polars

CAPTIONED, CACHE = "captioned", "captions.jsonl"
ENDPOINT = "endpoint"


def caption(
    folder: Place,
    maker: CaptionMaker,
    share: Share = ALL,
    *,
    progress: Callable[[CaptioningCounts], None] = lambda counts: None,
) -> CaptioningCounts:
    """Write the sentences of a share of the records; those in the cache are not written again.

    Raises DataError while records of the share are still to be decoded: lengths decide which clips get a sentence.
    """
    pl = require("polars", "data")
    last = [CaptioningCounts()]

    def report(counts: CaptioningCounts) -> None:
        last.append(counts)
        progress(counts)

    waiting: deque[int] = deque()
    cache = work(folder, CACHE) if isinstance(folder, Path) else None  # object stores cannot append
    made = augment(_records(folder, share, waiting), maker, cache=cache, progress=report)
    # `augment` reads ahead in batches and keeps the order, so numbers wait in a queue beside it.
    sentence_of = ((waiting.popleft(), sentence) for sentence in made)
    # One file per chunk, so that a stopped run loses at most one.
    for chunk, part in groupby(sentence_of, key=lambda pair: pair[0] // CHUNK):
        rows = [(n, each.text, each.made) for n, each in part if each is not None]
        schema = {"n": pl.UInt32, "text": pl.String, "made": pl.String}
        write_table(work(folder, CAPTIONED, f"{chunk}.parquet"), pl.DataFrame(rows, schema, orient="row"))
    return last[-1]


def _records(folder: Place, share: Share, waiting: deque[int]) -> Iterator[Record]:
    """Yield the decoded records of a share, with their measured lengths; append their numbers to `waiting`."""
    pl = require("polars", "data")
    whole = records(folder, identity(folder)["digest"])
    for chunk in chunk_numbers(folder, share):
        place = work(folder, "examined", f"{chunk}.parquet")
        if not place.exists():
            raise DataError(f"{folder}: part of the records is still to be fetched. Run 'openclap dataset fetch'.")
        facts = read_table(place).filter(pl.col("kind").is_null())
        for (n, row), seconds in zip(captioned(whole[facts["n"]]), facts["seconds"], strict=True):
            waiting.append(n)
            # Measured lengths, because the sources of many records state none.
            yield replace(row.record, length_s=seconds)


def sentences(folder: Place, numbers: polars.Series) -> dict[int, Caption]:
    """Read the sentences of these records, by `n`."""
    places = [work(folder, CAPTIONED, f"{chunk}.parquet") for chunk in (numbers // CHUNK).unique().sort()]
    tables = [read_table(place) for place in places if place.exists()]
    return {n: Caption(text, made) for table in tables for n, text, made in table.iter_rows()}


def caption_maker(maker: str | CaptionMaker, revision: str | None = None, device: str | None = None) -> CaptionMaker:
    """Load a caption maker by name: "bundled", "endpoint", or a sequence-to-sequence model's folder or hub name.

    A maker is returned unchanged. Raises CheckpointError and ConfigError for one that cannot be loaded.
    """
    if not isinstance(maker, str):
        return maker
    return Endpoint.from_environment() if maker == ENDPOINT else load(maker, revision=revision, device=device)
