"""From a caption back to keywords: what a captioner that goes the other way is trained on.

    "A small dog barks as a car horn honks"  →  "car horn, dog, bark, honk"

Content words are those that `stopwords.txt` does not list. Neighbours sometimes stay together as one keyword,
some words lose their ending, some keywords are left out, and the order is lost: so are the tags that people
write. Words may be hidden behind stand-ins, in keywords and caption alike, which a captioner then only has to place.
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
    """How people are thought to write tags: the chance of each habit, for each word or keyword."""

    join: float = 0.3
    bare: float = 0.5
    drop: float = 0.2


def content_words(caption: str) -> list[str]:
    """The caption's words in order, in lower case, without stop words."""
    return [word for word in words(caption) if word not in STOPWORDS]


def words(caption: str) -> list[str]:
    """All words, in lower case."""
    return _WORD.findall(caption.lower())


class Vocabulary:
    """The words of all captions, and the bare form of each."""

    def __init__(self, captions: Iterable[str]) -> None:
        self.counts = Counter(word for caption in captions for word in words(caption))
        self.bare = {word: self._bare(word) for word in self.counts}

    def _bare(self, word: str) -> str:
        """Without its ending, where what is left is a word that occurs too: "barking" → "bark", "bus" → "bus"."""
        found = [form for form in _without_endings(word) if self.counts[form] >= 3 and form not in STOPWORDS]
        return max(found, key=lambda form: self.counts[form], default=word)


def keywords(
    caption: str, vocabulary: Vocabulary, random: Random, habits: Habits, hidden: Mapping[str, str] = NOTHING
) -> list[str]:
    """Keywords of a caption in a random order; at least one, unless the caption has no content words.

    What is hidden behind a stand-in keeps its ending and is never left out: nobody could guess it.
    """

    def written(word: str) -> str:
        return hidden.get(word) or (vocabulary.bare.get(word, word) if random.random() < habits.bare else word)

    found = list(_phrases(caption, random, habits.join))
    kept = [phrase for phrase in found if hidden.keys() & set(phrase) or random.random() >= habits.drop] or found[:1]
    random.shuffle(kept)
    return list(dict.fromkeys(" ".join(map(written, phrase)) for phrase in kept))


def hide(caption: str, hidden: Mapping[str, str]) -> str:
    """The caption with words behind their stand-ins."""
    return _WORD.sub(lambda match: hidden.get(match[0].lower(), match[0]), caption)


def _phrases(caption: str, random: Random, join: float) -> Iterator[list[str]]:
    """Content words, each alone or with its neighbour where nothing but a space parts them."""
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
