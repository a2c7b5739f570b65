"""Captions that do not say whether a person is a man or a woman, which is a guess more often than it is heard.

LAION-Audio-630K does so to the sentences that a language model made of tags (Wu et al. 2023,
https://arxiv.org/abs/2211.06687). Which words are put in place of which stands in `debias.csv`; longer
entries come before shorter ones. Whole words are matched: "mankind", "German", "human", "mango" and "man-made" stay.
Pronouns stay too, and so do animals: "male" and "female" are replaced before the words that people are named with.
"""

from __future__ import annotations

import csv
import re
from functools import cache
from importlib import resources


def debias(text: str) -> str:
    """ "A man's voice; WOMEN laugh" → "A person's voice; PEOPLE laugh"."""
    instead, pattern = _words()
    return pattern.sub(lambda match: _replaced(match, instead), text)


@cache
def _words() -> tuple[dict[str, str], re.Pattern[str]]:
    table = resources.files("openclap.captions").joinpath("debias.csv").read_text(encoding="utf-8")
    instead = {row["words"]: row["instead"] for row in csv.DictReader(table.splitlines())}
    longest_first = sorted(instead, key=len, reverse=True)
    words = "|".join(re.escape(word).replace(r"\ ", r"\s+") for word in longest_first)
    return instead, re.compile(rf"(?<![\w-])({words})(['’]s?)?(?![\w-])", re.IGNORECASE)


def _replaced(match: re.Match[str], instead: dict[str, str]) -> str:
    words, possessive = match[1], match[2] or ""
    new = _in_the_case_of(words, instead[" ".join(words.lower().split())])
    if len(possessive) == 1 and words[-1] in "sS" and new[-1] not in "sS":  # "ladies'" → "people's"
        possessive += "S" if words.isupper() else "s"
    return new + possessive


def _in_the_case_of(old: str, new: str) -> str:
    if old.isupper() and len(old) > 1:
        return new.upper()
    return new[0].upper() + new[1:] if old[0].isupper() else new
