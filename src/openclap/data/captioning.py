"""The step that adds a sentence made of keywords to each record, by a model. It may be left out.

work/captioned/0.parquet … hold what was made, CHUNK records a file; work/captions.jsonl what makers wrote, so that no
sentence is made twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from openclap.captions import Caption, CaptioningCounts, CaptionMaker, augment
from openclap.data.decode import chunks
from openclap.data.layout import CHUNK, identity, read_table, records, work, write_table
from openclap.data.records import captioned
from openclap.data.work import ALL, Share
from openclap.errors import DataError, require
from openclap.sources.record import Record
from openclap.storage import Place

if TYPE_CHECKING:
    import polars

CAPTIONED, CACHE = "captioned", "captions.jsonl"


def caption(
    folder: Place,
    maker: CaptionMaker,
    share: Share = ALL,
    *,
    progress: Callable[[CaptioningCounts], None] = lambda counts: None,
) -> CaptioningCounts:
    """Make the sentences of a share of the records; what the cache holds is not made again.

    Raises DataError while records of the share are still to be gathered: lengths decide which clips get a sentence.
    """
    pl = require("polars", "data")
    last = [CaptioningCounts()]

    def tell(counts: CaptioningCounts) -> None:
        last.append(counts)
        progress(counts)

    waiting: deque[int] = deque()
    cache = work(folder, CACHE) if isinstance(folder, Path) else None  # other stores cannot append
    made = augment(_records(folder, share, waiting), maker, cache=cache, progress=tell)
    of_each = ((waiting.popleft(), sentence) for sentence in made)
    for chunk, part in groupby(of_each, key=lambda pair: pair[0] // CHUNK):
        rows = [(n, each.text, each.made) for n, each in part if each is not None]
        schema = {"n": pl.UInt32, "text": pl.String, "made": pl.String}
        write_table(work(folder, CAPTIONED, f"{chunk}.parquet"), pl.DataFrame(rows, schema, orient="row"))
    return last[-1]


def _records(folder: Place, share: Share, waiting: deque[int]) -> Iterator[Record]:
    """The records of a share that decoded, as long as they were found to be; `waiting` gets their numbers."""
    pl = require("polars", "data")
    whole = records(folder, identity(folder)["digest"])
    for chunk in chunks(folder, share):
        place = work(folder, "examined", f"{chunk}.parquet")
        if not place.exists():
            raise DataError(f"{folder}: part of the records is still to be fetched. Run: openclap dataset fetch")
        found = read_table(place).filter(pl.col("kind").is_null())
        for (n, row), seconds in zip(captioned(whole[found["n"]]), found["seconds"], strict=True):
            waiting.append(n)
            yield replace(row.record, length_s=seconds)


def sentences(folder: Place, numbers: polars.Series) -> dict[int, Caption]:
    """What was made for these records, by their numbers."""
    places = [work(folder, CAPTIONED, f"{chunk}.parquet") for chunk in (numbers // CHUNK).unique().sort()]
    tables = [read_table(place) for place in places if place.exists()]
    return {n: Caption(text, made) for table in tables for n, text, made in table.iter_rows()}
