"""Tags that describe the sound, and tags that do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from openclap.captions.keywords import keyword
from openclap.captions.rules import captions_of
from openclap.sources import Record


@pytest.mark.parametrize(
    "tag",
    [
        *("zoom h4n", "Zoom-H4n", "tascam dr-40", "Rode NT1", "Sony PCM-D50", "mkh8040", "iPhone", "sennheiser me66"),
        *("24bit", "24-bit", "48 kHz", "48khz", "stereo", "field-recording", "field recording", "WAV", "sfx", "120bpm"),
        *("nan", "None", "N/A", "null", "-", "1234", "a81f33", "@ada", "http://x.org/a", "www.x.org", "mysite.com"),
        *("<b></b>", "&nbsp;", "x" * 500, "one two three four five six seven eight nine", "z" * 26, "sound effects"),
    ],
)
def test_tags_about_recording_are_not_keywords(tag: str) -> None:
    assert keyword(tag) is None


@pytest.mark.parametrize(
    ("tag", "text"),
    [
        ("dog", "dog"),
        ("<b>rain</b>", "rain"),
        ("rock &amp; roll", "rock & roll"),
        ("#thunder", "thunder"),
        ("80s synth", "80s synth"),
        ("boeing 747", "boeing 747"),
        ("tr-808 kick", "tr-808 kick"),
        ("sound of rain", "sound of rain"),
        ("собака", "собака"),
        ("Stringed instrument: plucked string instrument", "Stringed instrument: plucked string instrument"),
    ],
)
def test_tags_about_the_sound_are_keywords(tag: str, text: str) -> None:
    assert keyword(tag) == text


def test_plain_sentence_uses_keywords_except_for_published_sets() -> None:
    tags = ("zoom h4n", "<b>rain</b>", "nan", "dog")
    assert captions_of(Record("1", Path("a"), (), "mine", tags=tags))[0].text == "The sounds of rain and dog"
    assert captions_of(Record("1", Path("a"), (), "mine", tags=("zoom h4n",))) == ()
    assert captions_of(Record("1", Path("a"), (), "mine", label="TR808"))[0].text == "The sound of TR808"
    label = Record("1", Path("a"), (), "audioset", tags=("Field recording", "Dog"))
    assert captions_of(label)[0].text == "The sounds of Field recording and Dog"


def test_labels_of_audioset_stay_keywords() -> None:
    for label in ("Rail transport", "Ice cream truck, ice cream van", "Livestock, farm animals, working animals"):
        assert keyword(label) == label
