"""Join the records of one sound where a table names it more than once.

A sound with several captions is one record with all of them: as two records, one file would be decoded, packed and
drawn twice, and in a batch each would count as a wrong answer for the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from openclap.sources.files import LeftOut
from openclap.sources.record import Record
from openclap.types import Phrase


def join_repeated(ids: Iterable[str], records: Iterable[Record], table: Path) -> Iterator[Record]:
    """Yield `records`, those with one id as one record at the end; `ids` are the ids of the same records.

    The table is read twice: a first pass over its ids finds the repeated ones, so that only their records are in
    memory. Captions, tags and phrases are joined without repetitions; the other fields are those of the first record.
    The ids that occur more than once are counted in the log, with the first of them.
    """
    # Hashes, eight bytes each: four million ids as strings would be half a gigabyte.
    hashes = np.fromiter((hash(identity) for identity in ids), np.int64)
    values, counts = np.unique(hashes, return_counts=True)
    repeated = set(values[counts > 1].tolist())
    waiting: dict[str, list[Record]] = {}
    for record in records:
        if hash(record.id) in repeated:
            waiting.setdefault(record.id, []).append(record)
        else:
            yield record
    joined = LeftOut(table, "ids occur more than once, and their captions were joined")
    for identity, parts in waiting.items():
        if len(parts) > 1:  # one part: another id has the same hash
            joined.add(identity)
        yield _joined(parts)
    joined.log()


def _joined(parts: list[Record]) -> Record:
    return replace(
        parts[0],
        captions=tuple(dict.fromkeys(text for part in parts for text in part.captions)),
        tags=tuple(dict.fromkeys(tag for part in parts for tag in part.tags)),
        phrases=_joined_phrases(phrase for part in parts for phrase in part.phrases),
    )


def _joined_phrases(phrases: Iterable[Phrase]) -> tuple[Phrase, ...]:
    segments: dict[str, dict[tuple[float, float], None]] = {}
    for phrase in phrases:
        segments.setdefault(phrase.text, {}).update(dict.fromkeys(phrase.segments))
    return tuple(Phrase(text, tuple(of)) for text, of in segments.items())
