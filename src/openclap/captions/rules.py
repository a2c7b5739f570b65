"""Make captions from a record's title, description, tags and labels.

The rules are those of LAION-Audio-630K (its data card, https://github.com/LAION-AI/audio-dataset, and Wu et al. 2023,
https://arxiv.org/abs/2211.06687). `RULES` lists them by source. Unlike there, a rule that would give no words, as for a
title of dots, gives no caption.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from openclap.captions.keywords import keywords
from openclap.sources.columns import is_placeholder
from openclap.sources.record import Record


@dataclass(frozen=True, slots=True)
class Caption:
    """A caption and its origin.

    Attributes:
        text: one line, never blank.
        made: "given" (written by people), "title", "description", "tags", "labels", "file name", "transcript" or
            "keywords:MAKER".
    """

    text: str
    made: str


Rule = Callable[[Record], Iterator[Caption]]


def captions_of(record: Record) -> tuple[Caption, ...]:
    """Return all captions of a record, those that people wrote first, without repetitions.

    Where there are none, and the rules of its source give none, general rules use title, description and tags; () where
    those give none either.
    """
    written = [text for caption in record.captions if not is_placeholder(text := clean(caption))]
    captions = {text: Caption(text, "given") for text in written}
    # Rules of the source first; a data set of mixed sources gets the captions that LAION gave each.
    for rules in (RULES.get(record.source, ()), _GENERAL):
        for caption in (caption for rule in rules for caption in rule(record)):
            text = clean(caption.text)
            if _HAS_WORD.search(text) and not is_placeholder(text.rstrip(".")):
                captions.setdefault(text, Caption(text, caption.made))
        if captions:
            break  # general rules only for records that are left without any caption
    return tuple(captions.values())


def labels_of(record: Record) -> tuple[str, ...]:
    """Return the tags, or else the label, with spaces for underscores and without repetitions."""
    named = record.tags or ((record.label,) if record.label else ())
    return tuple(dict.fromkeys(text for name in named if not is_placeholder(text := clean(name.replace("_", " ")))))


def clean(text: str) -> str:
    """Return a text as one line of valid UTF-8: runs of white space and control characters become one space."""
    if not text.isprintable():
        text = _UNPRINTABLE.sub(" ", text)
    return " ".join(text.split())


_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]+")
_HAS_WORD = re.compile(r"[^\W_]")
_LETTER = re.compile(r"[^\W\d_]")
_EXTENSION = re.compile(
    r"\.(?:wave?|w64|rf64|bwf|aiff?|aifc|flac|mp[1234]|m4a|aac|wma|og[ga]|opus|weba|webm|au|snd|caf|amr|gsm|ape|alac)$",
    re.IGNORECASE,
)
_LAST_NUMBER = re.compile(r"[\s_#-]*\d+\s*$")
_FIRST_NUMBER = re.compile(r"^\s*\d+[\s._:)-]+(?=\S)")
# Boundaries as in "DogBark", "BBCNews" and "Rain02".
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]{2})|(?<=[^\W\d_]{3})(?=\d)")
_PARTING = re.compile(r"[_\-.]+")
_SEGMENTS = re.compile(r"(\s*[:;]\s*|\s*,\s+|\s+[-–—]\s+)")


def _freesound_title(record: Record) -> Iterator[Caption]:
    """Remove the extension, end with a full stop: "futuresoundfx-795.mp3" → "futuresoundfx-795."."""
    title = clean(_EXTENSION.sub("", (record.title or "").strip()).replace("_", " "))
    yield Caption(title if title.endswith((".", "!", "?")) else f"{title}.", "title")


def _first_sentence(record: Record) -> Iterator[Caption]:
    """Take the description up to its first full stop, unless it holds markup."""
    sentence = (record.description or "").split(".", 1)[0].strip()
    if "<" not in sentence and ">" not in sentence:
        yield Caption(f"{sentence}.", "description")


def _epidemic_title(record: Record) -> Iterator[Caption]:
    """Remove the last number: "Door Creak 12" → "Door Creak"."""
    yield Caption(_LAST_NUMBER.sub("", record.title or ""), "title")


def _epidemic_tags(record: Record) -> Iterator[Caption]:
    """List the tags: "the sounds of door, creak, and wood."."""
    *others, last = labels_of(record) or ("",)
    if last:
        yield Caption(f"the sounds of {', '.join(others)}, and {last}." if others else f"the sounds of {last}.", "tags")


def _bbc_title(record: Record) -> Iterator[Caption]:
    """Remove class names at either end: "Rivers: Water - Small stream, babbling" → "Small stream, babbling"."""
    title = record.title or ""
    classes = {name.strip().casefold() for name in (*record.tags, *_SEGMENTS.split(record.label or ""))}
    parts = _SEGMENTS.split(title)  # segment, separator, segment, …
    # The separator after a removed class goes with it, hence two parts at a time.
    while len(parts) > 1 and parts[0].strip().casefold() in classes:
        parts = parts[2:]
    while len(parts) > 1 and parts[-1].strip(" .").casefold() in classes:
        parts = parts[:-2]
    yield Caption("".join(parts), "title")


def _audiostock_title(record: Record) -> Iterator[Caption]:
    """Remove the first number: "1150 Wind in the trees" → "Wind in the trees"."""
    yield Caption(_FIRST_NUMBER.sub("", record.title or ""), "title")


def _file_name(record: Record) -> Iterator[Caption]:
    """Split a file name into words: "WolfHowl_distant-02.wav" → "Wolf Howl distant"."""
    name = record.title or re.split(r"[/\\]", record.id)[-1]
    words = _CAMEL.sub(" ", _PARTING.sub(" ", _EXTENSION.sub("", name.strip())))
    text = _LAST_NUMBER.sub("", words)  # after splitting: "Howl02" has become "Howl 02"
    if _LETTER.search(text):
        yield Caption(text, "file name")


def _title(record: Record) -> Iterator[Caption]:
    """Take the title without its extension; one without spaces is treated as a file name."""
    title = _EXTENSION.sub("", (record.title or "").strip())
    if " " in title:
        yield Caption(title.replace("_", " "), "title")
    elif title:
        yield from _file_name(record)


def _labels(record: Record) -> Iterator[Caption]:
    """List the labels: "The sounds of A, B and C", or "The sound of A"."""
    if names := labels_of(record):
        yield Caption(sounds_of(names), "labels")


def _tags(record: Record) -> Iterator[Caption]:
    """List the tags that describe the sound, as `_labels` does."""
    if names := keywords(labels_of(record)) if record.tags else labels_of(record):
        yield Caption(sounds_of(names), "labels")


def sounds_of(names: Sequence[str]) -> str:
    """Write the plain sentence about one name or several."""
    *others, last = names
    return f"The sounds of {', '.join(others)} and {last}" if others else f"The sound of {last}"


def _label(record: Record) -> Iterator[Caption]:
    """Name the label, "The sound of A", for data sets with one class per clip, whatever the tags."""
    if record.label:
        yield Caption(f"The sound of {record.label.replace('_', ' ')}", "labels")
    else:
        yield from _labels(record)


def _transcript(record: Record) -> Iterator[Caption]:
    """Quote the transcript, 'The person is saying "…"', which is the description or else the title."""
    # Double quotes would end the quotation early.
    transcript = clean(record.description or record.title or "").replace('"', "'")
    if _HAS_WORD.search(transcript):
        yield Caption(f'The person is saying "{transcript}"', "transcript")


_GENERAL: tuple[Rule, ...] = (_title, _first_sentence, _tags)

RULES: dict[str, tuple[Rule, ...]] = {
    "freesound": (_freesound_title, _first_sentence),
    "epidemic_sound_effects": (_epidemic_title, _epidemic_tags),
    "bbc_sound_effects": (_bbc_title,),
    "audiostock": (_audiostock_title,),
    "free_to_use_sounds": (_file_name,),
    "sonniss_game_effects": (_file_name,),
    "paramount_motion": (_file_name,),
    "we_sound_effects": (_file_name,),
    "audioset": (_labels,),
    "fsd50k": (_labels,),
    "vggsound": (_label,),
    "esc50": (_label,),
    "urbansound8k": (_label,),
    "gtzan": (_label,),
    "nsynth": (_label,),
    "speech": (_transcript,),
    "common_voice": (_transcript,),
    "gigaspeech": (_transcript,),
    "librispeech": (_transcript,),
    "ljspeech": (_transcript,),
    "vctk": (_transcript,),
    "folder": (_file_name, _tags),
    # People wrote these captions, so nothing is made from their tags.
    "audiocaps": (),
    "clotho": (),
    "macs": (),
    "wavtext5k": (),
}
"""The rules by source, in the order of their captions. () where every record has written captions."""
