"""Phrases with segments: reading their form, and which segments can be in a clip."""

from __future__ import annotations

import json
import math

import pytest

from openclap.sources.phrases import TOLERANCE_S, phrases_of_json, phrases_to_json, usable_phrases
from openclap.types import Phrase

DOG = Phrase("a dog barks", ((0.5, 1.25), (4.0, 6.5)))


def test_form_is_finelaps_both_ways() -> None:
    form = [{"phrase": "a dog barks", "segments": [[0.5, 1.25], [4.0, 6.5]]}]
    assert phrases_of_json(form) == phrases_of_json(json.dumps(form)) == (DOG,)
    assert phrases_to_json([DOG]) == form


@pytest.mark.parametrize(
    "value", [None, "", "a dog", "[not json", 3, {}, [3], [{"segments": [[0, 1]]}], [{"phrase": " "}]]
)
def test_anything_else_is_no_phrase(value: object) -> None:
    assert phrases_of_json(value) == ()


def test_single_segments_and_numbers_in_text_are_read() -> None:
    value = [{"phrase": " a\ndog ", "segments": [0, "1.5"]}]
    assert phrases_of_json(value) == (Phrase("a dog", ((0.0, 1.5),)),)


@pytest.mark.parametrize(
    ("segment", "reason"),
    [
        ((-0.1, 1.0), "begins before the clip"),
        ((2.0, 1.0), "does not end after its beginning"),
        ((1.0, 1.0), "does not end after its beginning"),
        ((9.0, 12.0), "goes on after the end of the clip, at 10.00 s"),
        ((10.0, 10.01), "goes on after the end of the clip, at 10.00 s"),
        ((math.nan, 1.0), "its times are no numbers"),
        ((0.0, math.inf), "its times are no numbers"),
    ],
)
def test_segment_that_cannot_be_in_the_clip_is_named_and_left_out(segment: tuple[float, float], reason: str) -> None:
    phrases, reasons = usable_phrases([Phrase("rain", (segment, (0.0, 1.0)))], 10.0)
    assert phrases == (Phrase("rain", ((0.0, 1.0),)),)
    assert len(reasons) == 1 and reasons[0].startswith("'rain' from ") and reasons[0].endswith(reason)
    assert usable_phrases([Phrase("rain", (segment,))], 10.0)[0] == ()


def test_offset_just_beyond_the_end_is_the_end() -> None:
    assert usable_phrases([Phrase("rain", ((1.0, 10.0 + TOLERANCE_S / 2),))], 10.0) == (
        (Phrase("rain", ((1.0, 10.0),)),),
        (),
    )


def test_phrase_without_segments_is_named_and_left_out() -> None:
    assert usable_phrases([Phrase("rain", ()), DOG], 10.0) == ((DOG,), ("'rain': has no segment",))


def test_unreadable_times_become_named_segments() -> None:
    phrases = phrases_of_json([{"phrase": "rain", "segments": [["x", 1], [1], None, [True, 2], [1, 2]]}])
    usable, reasons = usable_phrases(phrases, 10.0)
    assert usable == (Phrase("rain", ((1.0, 2.0),)),)
    assert len(reasons) == 4
