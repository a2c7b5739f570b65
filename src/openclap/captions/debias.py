"""Replace gendered words in captions: the gender of a person is more often guessed than audible.

LAION-Audio-630K does so with the captions that a language model wrote from tags (Wu et al. 2023,
https://arxiv.org/abs/2211.06687). `debias.csv` lists the words and their replacements; longer entries take precedence.
Only whole words are matched: "mankind", "German", "human", "mango" and "man-made" stay. Pronouns stay, and so do
animals: "male" and "female" are replaced only before words for people.
"""

from __future__ import annotations

import csv
import re
from functools import cache
from importlib import resources


def debias(text: str) -> str:
    """Replace gendered words, in the case of the original: "A man's voice; WOMEN" → "A person's voice; PEOPLE"."""
    instead, pattern = _words()
    return pattern.sub(lambda match: _replaced(match, instead), text)


@cache
def _words() -> tuple[dict[str, str], re.Pattern[str]]:
    table = resources.files("openclap.captions").joinpath("debias.csv").read_text(encoding="utf-8")
    instead = {row["words"]: row["instead"] for row in csv.DictReader(table.splitlines())}
    # The alternatives of a regular expression are tried in order: "young men" before "men".
    longest_first = sorted(instead, key=len, reverse=True)
    words = "|".join(re.escape(word).replace(r"\ ", r"\s+") for word in longest_first)
    # No hyphen on either side: "man-made" and "one-man band" are no persons. A possessive ending is kept.
    return instead, re.compile(rf"(?<![\w-])({words})(['’]s?)?(?![\w-])", re.IGNORECASE)


def _replaced(match: re.Match[str], instead: dict[str, str]) -> str:
    words, possessive = match[1], match[2] or ""
    new = _match_case(words, instead[" ".join(words.lower().split())])
    if len(possessive) == 1 and words[-1] in "sS" and new[-1] not in "sS":  # "ladies'" → "people's"
        possessive += "S" if words.isupper() else "s"
    return new + possessive


def _match_case(old: str, new: str) -> str:
    if old.isupper() and len(old) > 1:
        return new.upper()
    return new[0].upper() + new[1:] if old[0].isupper() else new
