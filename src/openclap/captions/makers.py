"""Augment records with one more caption each, which a caption maker writes from keywords."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

from openclap.captions.cache import CaptionCache, Keywords
from openclap.captions.debias import debias
from openclap.captions.keywords import keywords
from openclap.captions.rules import Caption, captions_of, clean, labels_of
from openclap.sources.record import Record

SHORTEST_S = 2.0
"""LAION-Audio-630K writes no captions for shorter clips."""
MOST_KEYWORDS = 12
CHUNK = 256
"""Records between two writes to the cache: what a kill may lose."""
REPLACED = {"audioset": "labels"}
"""Sources in which a generated caption replaces the one that a rule made from labels, as on LAION's data card."""


class CaptionMaker(Protocol):
    """Writes captions from keywords."""

    @property
    def name(self) -> str:
        """A readable name, recorded in Caption.made as "keywords:NAME"."""
        ...

    @property
    def identity(self) -> str:
        """A digest of weights and settings, the key of the cache: makers of equal identity write equal captions."""
        ...

    def make(self, keywords: Sequence[Keywords]) -> list[str | None]:
        """Write a caption for each, in order; None where that failed."""
        ...


@dataclass(frozen=True, slots=True)
class CaptioningCounts:
    """Progress of `augment`: records done, by outcome."""

    done: int = 0
    made: int = 0
    cached: int = 0
    failed: int = 0
    left_out: int = 0
    """Records shorter than two seconds or without keywords."""

    def plus(self, outcomes: Iterable[str]) -> CaptioningCounts:
        """Return the counts with records added, given by the names of their fields."""
        more = Counter(outcomes)
        fields = {name: getattr(self, name) + more[name] for name in ("made", "cached", "failed", "left_out")}
        return CaptioningCounts(self.done + more.total(), **fields)


def augment(
    records: Iterable[Record],
    maker: CaptionMaker,
    *,
    cache: Path | None = None,
    neutral: bool = True,
    progress: Callable[[CaptioningCounts], None] | None = None,
) -> Iterator[Caption | None]:
    """Yield a caption from the keywords of each record, in order; None for one that is left out or failed.

    A record of unknown length counts as long enough. Raises DataError when `cache` is not usable.

    Args:
        cache: a file of captions; those in it are not made again, so that a stopped run resumes. Failures are not
            stored, and are tried again by the next run.
        neutral: write "person" for "man" and "woman" (`debias`); the cache stores captions before that.
        progress: called after every 256 records.
    """
    cached = CaptionCache(cache, maker.identity)
    counts = CaptioningCounts()
    source = iter(records)
    while chunk := list(islice(source, CHUNK)):
        wanted = [keywords_of(record) for record in chunk]
        # Equal keywords of several records are written once.
        new = list(dict.fromkeys(keywords for keywords in wanted if keywords and cached.get(keywords) is None))
        made = dict(zip(new, maker.make(new) if new else [], strict=True))
        cached.add((keywords, text) for keywords, text in made.items() if text)
        texts = [cached.get(keywords) if keywords else None for keywords in wanted]
        counts = counts.plus(_outcome(keywords, text, made) for keywords, text in zip(wanted, texts, strict=True))
        if progress:
            progress(counts)
        for text in texts:
            yield Caption(debias(text) if neutral else text, f"keywords:{maker.name}") if text else None


def keywords_of(record: Record) -> Keywords:
    """Return the keywords for a caption: the first dozen tags that describe the sound, or the label; () for short
    clips."""
    if record.length_s is not None and record.length_s < SHORTEST_S:
        return ()
    return keywords(labels_of(record))[:MOST_KEYWORDS]


def with_generated(record: Record, generated: Caption | None) -> tuple[Caption, ...]:
    """Return all captions of a record, the one from `augment` last; on AudioSet it replaces the caption from labels."""
    captions = captions_of(record)
    if generated is None:
        return captions
    others = tuple(caption for caption in captions if caption.made != REPLACED.get(record.source))
    is_repeated = clean(generated.text) in {caption.text for caption in others}
    return others if is_repeated else (*others, generated)


def _outcome(keywords: Keywords, text: str | None, made: Mapping[Keywords, str | None]) -> str:
    if not keywords:
        return "left_out"
    if text is None:
        return "failed"
    return "made" if keywords in made else "cached"
