"""Do captions say what is heard? A look at all of them, before hours of work go into sounds that are called "NHU".

Three things are doubted: that no sound has a caption, that nearly all have the same (those made of names, but for
numbers and codes), and that most are identifiers, such as names of files that were taken for want of captions.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from openclap.captions.rules import Caption

FEWEST = 5
"""Sounds; fewer may well be called the same."""
EQUAL, IDENTIFIERS = 0.9, 0.5
"""Shares of the sounds."""
SHORT_CODE = 4
"""Capitals in a row that may, in the name of a file, as well be a code (NHU) as a word (DOG)."""
LONG_CODE = 4
"""Letters of a code with digits that is passed over when names are compared; shorter ones may be notes (C4, F#3)."""
NAMES = ("file name", "title")
"""What nobody wrote as a caption."""
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_CONSONANTS = re.compile(r"[bcdfghjklmnpqrstvwxz]{6}", re.IGNORECASE)
_VOWEL = re.compile(r"[aeiouyà-öø-ÿ]", re.IGNORECASE)
_LATIN = re.compile(r"[a-zà-öø-ÿ]+", re.IGNORECASE)
_TOKEN = re.compile(r"[^\s_\-.,;:!?/()\[\]\"]+")
_SHORTEST_WORD = 3


@dataclass(slots=True)
class CaptionCheck:
    """Looks at the captions of one sound after the other.

    Attributes:
        stop: called by `finish` with a sentence where captions are to be doubted, and whether there are any to go on
            with; may raise.
    """

    stop: Callable[[str, bool], None]
    _sounds: int = 0
    _texts: Counter[str] = field(default_factory=Counter)
    _made: Counter[str] = field(default_factory=Counter)
    _names: set[str] = field(default_factory=set)
    """Those of the texts that were made of names."""

    def see(self, captions: Sequence[Caption]) -> None:
        """All captions of a sound."""
        self._sounds += 1
        if captions:
            text = " | ".join(sorted(caption.text for caption in captions))
            self._texts[text] += 1
            self._made[captions[0].made] += 1
            if captions[0].made in NAMES:
                self._names.add(text)

    def finish(self) -> None:
        """Say what is doubtful, if anything is."""
        if doubt := self.doubt():
            self.stop(doubt, bool(self._texts))

    def doubt(self) -> str | None:
        """What is doubtful, in a sentence; None where nothing is."""
        captioned = self._texts.total()
        if self._sounds and not captioned:
            return f"None of the {self._sounds} sounds has a caption."
        if captioned < FEWEST:
            return None
        ids = Counter({text: count for text, count in self._texts.items() if self._is_identifier(text, count)})
        if ids.total() > IDENTIFIERS * captioned:
            some = ", ".join(f"'{text}'" for text, _ in ids.most_common(3))
            return (
                f"{ids.total()} of {captioned} captions look like identifiers ({some}; {self._origin()}). Expected "
                "sentences that say what is heard."
            )
        text, count = self._texts.most_common(1)[0]
        if count > EQUAL * captioned:
            return f"{count} of {captioned} sounds have the same caption ('{text}'; {self._origin()})."
        words: Counter[str] = Counter()
        for name in self._names:
            words[_without_codes(name)] += self._texts[name]
        text, count = words.most_common(1)[0] if words else ("", 0)
        if count > EQUAL * captioned:
            return (
                f"{count} of {captioned} sounds have the same caption but for numbers and codes ('{text}'; "
                f"{self._origin()})."
            )
        return None

    def _origin(self) -> str:
        made = self._made.most_common(1)[0][0]
        return "as given" if made == "given" else f"made of the {made}"

    def _is_identifier(self, text: str, count: int) -> bool:
        """Has it no word? Short codes in capitals are words unless several sounds are named by one."""
        shared = count > 1 and text in self._names
        return not any(_is_word(token, shared=shared) for token in _TOKEN.findall(text.replace(" | ", " ")))


def _without_codes(name: str) -> str:
    """The name without numbers and codes."""
    return " ".join(token for token in _TOKEN.findall(name) if not _is_code(token))


def _is_code(token: str) -> bool:
    return token[0].isdigit() or (len(token) >= LONG_CODE and any(map(str.isdigit, token)))


def _is_word(token: str, *, shared: bool) -> bool:
    letters = token.strip("0123456789'’")
    if not letters.replace("'", "").replace("’", "").isalpha():
        return False
    if not _LATIN.fullmatch(letters.replace("'", "").replace("’", "")):
        return True  # other scripts: nothing is known of their words
    if len(letters) < _SHORTEST_WORD or not _VOWEL.search(letters) or _CONSONANTS.search(letters):
        return False
    if letters.isupper() and len(letters) <= SHORT_CODE:
        return not shared
    if letters.islower() or letters.istitle() or letters.isupper() or "'" in letters or "’" in letters:
        return True
    parts = _CAMEL.split(letters)  # DogBark
    return len(parts) > 1 and all(_is_word(part, shared=shared) for part in parts)
