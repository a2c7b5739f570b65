"""Check that captions describe the sounds, before hours are spent on a data set whose captions are codes like "NHU".

Three problems are reported: no sound has a caption; nearly all captions are equal (those made from names: but for
numbers and codes); most captions are identifiers, such as file names that were used in place of captions.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from openclap.captions.rules import Caption

FEWEST_SOUNDS = 5
"""Fewer sounds are not checked: they may have equal captions for good reason."""
MOST_EQUAL, MOST_IDENTIFIERS = 0.9, 0.5
"""Shares of the sounds above which captions are reported."""
SHORT_CODE = 4
"""Up to this many capitals in a file name may be a code (NHU) as well as a word (DOG)."""
LONG_CODE = 4
"""From this length a token with digits is ignored when names are compared; shorter ones may be notes (C4, F#3)."""
NAMES = ("file name", "title")
"""Origins of captions that nobody wrote as captions (`Caption.made`)."""
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_CONSONANTS = re.compile(r"[bcdfghjklmnpqrstvwxz]{6}", re.IGNORECASE)
_VOWEL = re.compile(r"[aeiouyà-öø-ÿ]", re.IGNORECASE)
_LATIN = re.compile(r"[a-zà-öø-ÿ]+", re.IGNORECASE)
_TOKEN = re.compile(r"[^\s_\-.,;:!?/()\[\]\"]+")
_SHORTEST_WORD = 3


@dataclass(slots=True)
class CaptionCheck:
    """Collects the captions of one sound after the other and reports problems.

    Attributes:
        stop: called by `finish` with the problem in a sentence, and whether there are any captions at all; may raise.
    """

    stop: Callable[[str, bool], None]
    _sounds: int = 0
    _texts: Counter[str] = field(default_factory=Counter)
    _made: Counter[str] = field(default_factory=Counter)
    _names: set[str] = field(default_factory=set)
    """Captions that were made from names."""

    def add(self, captions: Sequence[Caption]) -> None:
        """Add all captions of a sound."""
        self._sounds += 1
        if captions:
            # Sorted, because the same captions in another order are equal, too.
            text = " | ".join(sorted(caption.text for caption in captions))
            self._texts[text] += 1
            self._made[captions[0].made] += 1
            if captions[0].made in NAMES:
                self._names.add(text)

    def finish(self) -> None:
        """Call `stop` if there is a problem."""
        if problem := self.problem():
            self.stop(problem, bool(self._texts))

    def problem(self) -> str | None:
        """Return the problem in a sentence; None where there is none."""
        captioned = self._texts.total()
        if self._sounds and not captioned:
            return f"None of the {self._sounds} sounds has a caption."
        if captioned < FEWEST_SOUNDS:
            return None
        # Identifiers first: they are the most common mistake, and often differ, so that equality does not show it.
        ids = Counter({text: count for text, count in self._texts.items() if self._is_identifier(text, count)})
        if ids.total() > MOST_IDENTIFIERS * captioned:
            examples = ", ".join(f"'{text}'" for text, _ in ids.most_common(3))
            return (
                f"{ids.total()} of {captioned} captions look like identifiers ({examples}; {self._origin()}). Expected "
                "sentences that describe the sounds."
            )
        text, count = self._texts.most_common(1)[0]
        if count > MOST_EQUAL * captioned:
            return f"{count} of {captioned} sounds have the same caption ('{text}'; {self._origin()})."
        # "clip 1", "clip 2", … differ only in their numbers.
        words: Counter[str] = Counter()
        for name in self._names:
            words[_without_codes(name)] += self._texts[name]
        text, count = words.most_common(1)[0] if words else ("", 0)
        if count > MOST_EQUAL * captioned:
            return (
                f"{count} of {captioned} sounds have the same caption but for numbers and codes ('{text}'; "
                f"{self._origin()})."
            )
        return None

    def _origin(self) -> str:
        made = self._made.most_common(1)[0][0]
        return "as given" if made == "given" else f"made from the {made}"

    def _is_identifier(self, text: str, count: int) -> bool:
        """Return whether a caption has no word.

        Short codes in capitals count as words unless several sounds share one.
        """
        shared = count > 1 and text in self._names
        # The first word decides, so that of a million sentences only the beginnings are read.
        return not any(_is_word(token[0], shared=shared) for token in _TOKEN.finditer(text.replace(" | ", " ")))


def _without_codes(name: str) -> str:
    """Return a name without numbers and codes."""
    return " ".join(token for token in _TOKEN.findall(name) if not _is_code(token))


def _is_code(token: str) -> bool:
    return token[0].isdigit() or (len(token) >= LONG_CODE and any(map(str.isdigit, token)))


def _is_word(token: str, *, shared: bool) -> bool:
    letters = token.strip("0123456789'’")
    if not letters.replace("'", "").replace("’", "").isalpha():
        return False
    if not _LATIN.fullmatch(letters.replace("'", "").replace("’", "")):
        return True  # the rules below hold for Latin script only
    # English words have vowels and no six consonants in a row; codes often break either rule.
    if len(letters) < _SHORTEST_WORD or not _VOWEL.search(letters) or _CONSONANTS.search(letters):
        return False
    if letters.isupper() and len(letters) <= SHORT_CODE:
        return not shared
    if letters.islower() or letters.istitle() or letters.isupper() or "'" in letters or "’" in letters:
        return True
    parts = _CAMEL.split(letters)  # DogBark
    return len(parts) > 1 and all(_is_word(part, shared=shared) for part in parts)
