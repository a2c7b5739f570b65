"""From a caption back to keywords: what a captioner that goes the other way is trained on.

    "A small dog barks as a car horn honks"  →  "car horn, dog, bark, honk"

Content words are those that `stopwords.txt` does not list. Neighbours sometimes stay together as one keyword,
some words lose their ending, some keywords are left out, and the order is lost: so are the tags that people
write. `invent` swaps a word of the caption for another, known or made up, so that copying is learnt and not
only the words of this set.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

STOPWORDS = frozenset((Path(__file__).parent / "stopwords.txt").read_text(encoding="utf-8").split())
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
        self.common = sorted(
            word for word, count in self.counts.items() if count >= 3 and word not in STOPWORDS and len(word) > 2
        )

    def _bare(self, word: str) -> str:
        """Without its ending, where what is left is a word that occurs too: "barking" → "bark", "bus" → "bus"."""
        found = [form for form in _without_endings(word) if self.counts[form] >= 3 and form not in STOPWORDS]
        return max(found, key=lambda form: self.counts[form], default=word)

    def word(self, random: Random) -> str:
        """A word at random: known, or two halves of known ones."""
        if random.random() < 0.5:
            return random.choice(self.common)
        first, second = random.choice(self.common), random.choice(self.common)
        return first[: max(2, len(first) // 2)] + second[len(second) // 2 :]


def keywords(caption: str, vocabulary: Vocabulary, random: Random, habits: Habits) -> list[str]:
    """Keywords of a caption in a random order; at least one, unless the caption has no content words."""
    found = list(_phrases(caption, random, habits.join))
    kept = [phrase for phrase in found if random.random() >= habits.drop] or found[:1]
    random.shuffle(kept)
    return list(
        dict.fromkeys(
            " ".join(vocabulary.bare.get(word, word) if random.random() < habits.bare else word for word in phrase)
            for phrase in kept
        )
    )


def invent(caption: str, vocabulary: Vocabulary, random: Random) -> str:
    """The caption with one of its content words swapped for another."""
    candidates = content_words(caption)
    if not candidates:
        return caption
    old, new = random.choice(candidates), vocabulary.word(random)
    return re.sub(rf"(?<!\w){re.escape(old)}(?!\w)", new, caption, flags=re.IGNORECASE)


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
