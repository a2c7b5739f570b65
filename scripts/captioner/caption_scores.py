"""Score generated captions against the captions that people wrote: BLEU, CIDEr-D, and coverage of keywords.

BLEU follows Papineni et al. 2002 (corpus level, one reference each, no smoothing), CIDEr-D Vedantam et al. 2015 with
sigma 6 and the usual factor of 10; document frequencies are those of the references. Words are runs of letters in lower
case and nothing is stemmed, so CIDEr-D is comparable within this project only. Coverage is `openclap.captions`' own:
the share of the keywords' words that a caption has, endings aside.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from caption_keywords import words

from openclap.captions.keyword_to_caption import coverage

Grams = Counter[tuple[str, ...]]
SIGMA = 6.0


def scores(made: Sequence[str], references: Sequence[str], keywords: Sequence[Sequence[str]]) -> dict[str, float]:
    """Return BLEU-1 to BLEU-4 and coverage from 0 to 1, CIDEr-D from 0 to 10."""
    return {
        **{f"BLEU-{order}": round(bleu(made, references, order), 4) for order in range(1, 5)},
        "CIDEr-D": round(cider(made, references), 4),
        "coverage": round(sum(map(coverage, keywords, made)) / len(made), 4),
    }


def bleu(made: Sequence[str], references: Sequence[str], order: int) -> float:
    """Return the geometric mean of clipped n-gram precisions up to `order`, times the brevity penalty."""
    pairs = [(words(one), words(other)) for one, other in zip(made, references, strict=True)]
    logs = 0.0
    for n in range(1, order + 1):
        same = sum((grams(one, n) & grams(other, n)).total() for one, other in pairs)
        of = sum(max(len(one) - n + 1, 0) for one, _ in pairs)
        if not same:
            return 0.0
        logs += math.log(same / of) / order
    length, wanted = sum(len(one) for one, _ in pairs), sum(len(other) for _, other in pairs)
    return math.exp(logs + min(0.0, 1 - wanted / length))


def cider(made: Sequence[str], references: Sequence[str]) -> float:
    """Return the mean clipped cosine of tf-idf vectors of 1- to 4-grams, times a Gaussian of the length difference."""
    pairs = [(words(one), words(other)) for one, other in zip(made, references, strict=True)]
    total = 0.0
    for n in range(1, 5):
        documents = Counter(gram for _, other in pairs for gram in set(grams(other, n)))
        idf = {gram: math.log(len(pairs) / documents[gram]) for gram in documents}
        total += sum(_likeness(one, other, n, idf, math.log(len(pairs))) for one, other in pairs)
    return 10 * total / 4 / len(pairs)


def grams(sentence: Sequence[str], n: int) -> Grams:
    return Counter(tuple(sentence[start : start + n]) for start in range(len(sentence) - n + 1))


def _likeness(one: list[str], other: list[str], n: int, idf: dict[tuple[str, ...], float], unseen: float) -> float:
    first = {gram: count * idf.get(gram, unseen) for gram, count in grams(one, n).items()}
    second = {gram: count * idf[gram] for gram, count in grams(other, n).items()}
    norms = math.sqrt(sum(x * x for x in first.values())) * math.sqrt(sum(x * x for x in second.values()))
    if not norms:
        return 0.0
    dot = sum(min(first[gram], second[gram]) * second[gram] for gram in first if gram in second)
    return dot / norms * math.exp(-((len(one) - len(other)) ** 2) / (2 * SIGMA**2))
