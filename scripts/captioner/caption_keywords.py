"""Reduce a caption to keywords, the input from which a captioner is trained to write it.

    "A small dog barks as a car horn honks"  →  "car horn, dog, bark, honk"

Content words are all words that `stopwords.txt` does not list. To resemble the tags that people write, neighbours
sometimes form one keyword, some words lose their ending, some keywords are dropped, and the order is random. Words may
be replaced by placeholders in keywords and caption, which the captioner then only has to put in the right place.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import MappingProxyType

STOPWORDS = frozenset((Path(__file__).parent / "stopwords.txt").read_text(encoding="utf-8").split())
NOTHING: Mapping[str, str] = MappingProxyType({})
_WORD = re.compile(r"[^\W\d_]+(?:['-][^\W\d_]+)*")
_ENDINGS = (("ies", "y"), ("ing", ""), ("ing", "e"), ("ed", ""), ("ed", "e"), ("es", ""), ("s", ""))


@dataclass(frozen=True, slots=True)
class Habits:
    """A model of how people write tags: the probability of each habit per word or keyword.

    Attributes:
        join: neighbours form one keyword.
        bare: a word loses its ending.
        drop: a keyword is left out.
    """

    join: float = 0.3
    bare: float = 0.5
    drop: float = 0.2


def content_words(caption: str) -> list[str]:
    """Return the caption's words in order, in lower case, without stop words."""
    return [word for word in words(caption) if word not in STOPWORDS]


def words(caption: str) -> list[str]:
    """Return all words in lower case."""
    return _WORD.findall(caption.lower())


class Vocabulary:
    """The words of all captions, and the bare form of each."""

    def __init__(self, captions: Iterable[str]) -> None:
        self.counts = Counter(word for caption in captions for word in words(caption))
        self.bare = {word: self._bare(word) for word in self.counts}

    def _bare(self, word: str) -> str:
        """Remove the ending if the rest is itself a frequent word: "barking" → "bark", but "bus" → "bus"."""
        found = [form for form in _without_endings(word) if self.counts[form] >= 3 and form not in STOPWORDS]
        return max(found, key=lambda form: self.counts[form], default=word)


def keywords(
    caption: str, vocabulary: Vocabulary, random: Random, habits: Habits, hidden: Mapping[str, str] = NOTHING
) -> list[str]:
    """Return the keywords of a caption in random order; at least one, unless the caption has no content words.

    Words behind placeholders keep their ending and are never dropped: the captioner could not guess them.
    """

    def spelling(word: str) -> str:
        return hidden.get(word) or (vocabulary.bare.get(word, word) if random.random() < habits.bare else word)

    phrases = list(_phrases(caption, random, habits.join))
    chosen = [phrase for phrase in phrases if hidden.keys() & set(phrase) or random.random() >= habits.drop]
    chosen = chosen or phrases[:1]
    random.shuffle(chosen)
    return list(dict.fromkeys(" ".join(map(spelling, phrase)) for phrase in chosen))


def hide(caption: str, hidden: Mapping[str, str]) -> str:
    """Replace words of a caption by their placeholders."""
    return _WORD.sub(lambda match: hidden.get(match[0].lower(), match[0]), caption)


def _phrases(caption: str, random: Random, join: float) -> Iterator[list[str]]:
    """Yield content words, alone or with neighbours that only a space separates."""
    phrase: list[str] = []
    end = -1
    for match in _WORD.finditer(caption.lower()):
        if match[0] in STOPWORDS:
            continue
        neighbours = caption[end : match.start()] == " "
        if phrase and neighbours and len(phrase) < 3 and random.random() < join:
            phrase.append(match[0])
        else:
            if phrase:
                yield phrase
            phrase = [match[0]]
        end = match.end()
    if phrase:
        yield phrase


def _without_endings(word: str) -> Iterator[str]:
    for ending, instead in _ENDINGS:
        stem = word.removesuffix(ending)
        if stem != word and len(stem) > 2:
            yield stem + instead
            if not instead and stem[-1] == stem[-2]:
                yield stem[:-1]
