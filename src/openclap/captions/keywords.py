"""Choose the keywords among tags: those that describe the sound.

Users tag devices, formats, addresses and markup as well, from which a model writes "A h4n laughs nearby".
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable

from openclap.sources.columns import is_placeholder

MOST_LETTERS, MOST_WORDS, LONGEST_WORD = 60, 8, 25
"""Limits of a keyword. AudioSet's longest label has 45 letters and six words."""
_MARKUP = re.compile(r"<[^<>]*>")
_ADDRESS = re.compile(r"\w+://|www\.|^@|\.(?:com|org|net)\b", re.IGNORECASE)
_WORD = re.compile(r"[^\W_]+")
_MIXED = re.compile(r"(?!\d+(?:s|st|nd|rd|th)$)(?=\w*\d)(?=\w*[^\W\d_])\w+", re.IGNORECASE)
"""Letters and digits in one word, as in h4n, 48khz or a81f33, but not as in 80s or 2nd."""
_DEVICES = """
zoom tascam marantz edirol rode røde sennheiser neumann schoeps akg shure dpa mixpre nagra zaxcom iphone ipad gopro
audacity ableton reaper cubase protools
"""
"""Names of recorders, microphones and software. A tag with one of them is about equipment, whatever its other words."""
_TECHNICAL = """
wav wave flac ogg aiff sfx fx sample samples audio sound sounds recording recordings recorded stereo mono binaural xy
ortf ms bit khz hz mic mics microphone microphones recorder handheld portable field effect effects freesound free
royalty download cc pack library file files raw unprocessed normalized normalised sony olympus roland yamaha blue yeti
pcm contact hydrophone condenser preamp
"""
"""A tag of only these words is about the recording; beside other words each may describe the sound ("wave", "blue")."""
_ABOUT_DEVICES, _ABOUT_RECORDING = frozenset(_DEVICES.split()), frozenset(_TECHNICAL.split())


def keyword(tag: str) -> str | None:
    """Return a tag without markup; None for a tag about anything but the sound, and for a whole text."""
    if _ADDRESS.search(tag):
        return None
    # Twice: entities may hide markup ("&lt;b&gt;").
    text = " ".join(_MARKUP.sub(" ", html.unescape(_MARKUP.sub(" ", tag))).split()).strip("#\"'.,;:()[]{}*|/\\ ")
    words = _WORD.findall(text.lower())
    if is_placeholder(text) or not any(map(str.isalpha, text)):
        return None
    if len(text) > MOST_LETTERS or len(words) > MOST_WORDS or max(map(len, words)) > LONGEST_WORD:
        return None
    # "zoom h4n rain" is dropped as a whole: the rest of such a tag seldom describes the sound.
    if any(word in _ABOUT_DEVICES or _MIXED.fullmatch(word) for word in words):
        return None
    return None if all(word in _ABOUT_RECORDING or word.isdigit() for word in words) else text


def keywords(tags: Iterable[str]) -> tuple[str, ...]:
    """Return the keywords among tags, without repetitions in another case."""
    found: dict[str, str] = {}
    for tag in tags:
        if text := keyword(tag):
            found.setdefault(text.casefold(), text)
    return tuple(found.values())


def in_latin(text: str) -> bool:
    """Return whether all letters are of the Latin script."""
    return all("LATIN" in unicodedata.name(letter, "") for letter in text if letter.isalpha())
