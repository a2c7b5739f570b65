"""One sentence more for each sound, which a maker writes from its keywords."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

from openclap.captions.cache import Cache, Keywords
from openclap.captions.debias import debias
from openclap.captions.keywords import keywords
from openclap.captions.rules import Caption, captions_of, clean, labels_of
from openclap.sources.record import Record

SHORTEST_S = 2.0
"""LAION-Audio-630K writes no sentences for clips that are shorter."""
MOST_KEYWORDS = 12
CHUNK = 256
REPLACED = {"audioset": "labels"}
"""Where a made sentence takes the place of the one that a rule made of the labels (same data card)."""


class Maker(Protocol):
    """Keywords to sentences."""

    @property
    def name(self) -> str:
        """For people; goes into Caption.made as "keywords:NAME"."""
        ...

    @property
    def identity(self) -> str:
        """Names weights and settings: two makers of one identity write the same. It keys the cache."""
        ...

    def make(self, keywords: Sequence[Keywords]) -> list[str | None]:
        """A sentence for each, in order; None where it could not be had."""
        ...


@dataclass(frozen=True, slots=True)
class Counts:
    """How far `augment` is: records done, and what became of them."""

    done: int = 0
    made: int = 0
    cached: int = 0
    failed: int = 0
    left_out: int = 0
    """Shorter than two seconds, or without keywords."""

    def plus(self, outcomes: Iterable[str]) -> Counts:
        """With records added, each by the name of the field it counts for."""
        more = Counter(outcomes)
        fields = {name: getattr(self, name) + more[name] for name in ("made", "cached", "failed", "left_out")}
        return Counts(self.done + more.total(), **fields)


def augment(
    records: Iterable[Record],
    maker: Maker,
    *,
    cache: Path | None = None,
    neutral: bool = True,
    progress: Callable[[Counts], None] | None = None,
) -> Iterator[Caption | None]:
    """For each record, in order, a caption made of its keywords; None where there is none.

    Args:
        cache: a file of sentences made before; what it holds is not made again, so a stopped run goes on. What
            failed is not kept, and is tried again by the next run.
        neutral: say "person" for "man" and "woman" (`debias`); the cache keeps sentences as they were made.
        progress: called after every 256 records.

    A record whose length is not known is taken to be long enough. Raises DataError when `cache` is not usable.
    """
    known = Cache(cache, maker.identity)
    counts = Counts()
    source = iter(records)
    while chunk := list(islice(source, CHUNK)):
        wanted = [keywords_of(record) for record in chunk]
        new = list(dict.fromkeys(keywords for keywords in wanted if keywords and known.get(keywords) is None))
        made = dict(zip(new, maker.make(new) if new else [], strict=True))
        known.add((keywords, text) for keywords, text in made.items() if text)
        texts = [known.get(keywords) if keywords else None for keywords in wanted]
        counts = counts.plus(_outcome(keywords, text, made) for keywords, text in zip(wanted, texts, strict=True))
        if progress:
            progress(counts)
        for text in texts:
            yield Caption(debias(text) if neutral else text, f"keywords:{maker.name}") if text else None


def keywords_of(record: Record) -> Keywords:
    """What a sentence is made of: the first dozen tags that say what is heard, or the label; () for clips under two
    seconds."""
    if record.length_s is not None and record.length_s < SHORTEST_S:
        return ()
    return keywords(labels_of(record))[:MOST_KEYWORDS]


def with_made(record: Record, made: Caption | None) -> tuple[Caption, ...]:
    """All captions of a record, with the one that `augment` made as the last; on AudioSet, in place of its labels'."""
    captions = captions_of(record)
    if made is None:
        return captions
    kept = tuple(caption for caption in captions if caption.made != REPLACED.get(record.source))
    same = clean(made.text) in {caption.text for caption in kept}
    return kept if same else (*kept, made)


def _outcome(keywords: Keywords, text: str | None, made: Mapping[Keywords, str | None]) -> str:
    if not keywords:
        return "left_out"
    if text is None:
        return "failed"
    return "made" if keywords in made else "cached"
