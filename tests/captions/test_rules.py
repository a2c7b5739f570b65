"""The rules of each source against cases written by hand, including the examples of LAION's data card."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclap.captions.rules import RULES, captions_of, labels_of
from openclap.sources.record import Record


def record(source: str, **said: Any) -> Record:
    return Record(**{"id": "1", "audio": "https://example.org/1", "captions": (), "source": source, **said})


def texts(source: str, **said: Any) -> list[str]:
    return [caption.text for caption in captions_of(record(source, **said))]


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("futuresoundfx-795.mp3", "futuresoundfx-795."),  # the card's example
        ("Dog_barking_far_away.WAV", "Dog barking far away."),
        ("no extension at all", "no extension at all."),
        ("1.5 kHz tone", "1.5 kHz tone."),
        ("door.v2.aiff", "door.v2."),
        ("It is raining!.ogg", "It is raining!"),
        ("ends with a stop..flac", "ends with a stop."),
        ("Glöckchen_雨の音.wav", "Glöckchen 雨の音."),
        ("  spaces\tand\nlines .wav", "spaces and lines."),
        ("808", "808."),
    ],
)
def test_freesound_titles(title: str, expected: str) -> None:
    assert texts("freesound", title=title) == [expected]


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        ("Rain on a tin roof. Recorded in May.", "Rain on a tin roof."),
        ("Rain without an end", "Rain without an end."),
        ("Two\nlines, one sentence. More", "Two lines, one sentence."),
        ("Recorded at 44.1 kHz", "Recorded at 44."),  # the first full stop, whatever it stands for
        ("<b>Rain</b>. Recorded in May.", None),
        ("louder > softer. Plain.", None),
        ("Plain. <a href='x'>link</a>", "Plain."),
        (". starts with a stop", None),
        ("...", None),
        ("", None),
        ("bell\x00 and\x1b[0m\udc80 whistle. x", "bell and [0m whistle."),
    ],
)
def test_freesound_descriptions(description: str, expected: str | None) -> None:
    found = captions_of(record("freesound", title="a.wav", description=description))
    assert [(c.text, c.made) for c in found] == [("a.", "title")] + ([(expected, "description")] if expected else [])


def test_freesound_captions_are_distinct_and_fall_back_to_tags() -> None:
    assert texts("freesound", title="Dog bark.wav", description="Dog bark. Loud.") == ["Dog bark."]
    assert texts("freesound", title="....wav", description="<p>", tags=("rain", "roof")) == [
        "The sounds of rain and roof"
    ]
    assert texts("freesound", title="___", description=" . ") == []
    assert texts("freesound") == []


def test_epidemic() -> None:
    tags = ("household", "door", "creak")
    assert texts("epidemic_sound_effects", title="Door Creak 12", tags=tags) == [
        "Door Creak",
        "the sounds of household, door, and creak.",
    ]
    assert texts("epidemic_sound_effects", title="Door", tags=("a", "b")) == ["Door", "the sounds of a, and b."]
    assert texts("epidemic_sound_effects", title="Door3", tags=("creak",)) == ["Door", "the sounds of creak."]
    assert texts("epidemic_sound_effects", title="12", tags=()) == []
    assert texts("epidemic_sound_effects", title="4x4 Car 7", tags=(" ", "")) == ["4x4 Car"]


@pytest.mark.parametrize(
    ("title", "said", "expected"),
    [
        ("Rivers: Water - Small stream, babbling", {"tags": ("Water", "Rivers")}, "Small stream, babbling"),
        ("Nature, Wind: Strong wind in trees.", {"label": "Nature: Wind"}, "Strong wind in trees."),
        ("Two engines, start and stop - Engines", {"label": "Engines"}, "Two engines, start and stop"),
        ("Wind howling in wires", {"tags": ("Wind",)}, "Wind howling in wires"),
        ("Wind", {"tags": ("Wind",)}, "Wind"),
        ("Wet shovelling.", {}, "Wet shovelling."),
    ],
)
def test_bbc(title: str, said: dict[str, Any], expected: str) -> None:
    assert texts("bbc_sound_effects", title=title, **said) == [expected]


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("1150592 Wind in the trees", "Wind in the trees"),
        ("01. Wind", "Wind"),
        ("3D printer", "3D printer"),
        ("Wind 2", "Wind 2"),
        ("42", "42"),
        ("007\n Bell", "Bell"),
    ],
)
def test_audiostock(title: str, expected: str) -> None:
    assert texts("audiostock", title=title, tags=("x",)) == [expected]


@pytest.mark.parametrize(
    "source", ["free_to_use_sounds", "sonniss_game_effects", "paramount_motion", "we_sound_effects"]
)
@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("WolfHowl_distant-02.wav", "Wolf Howl distant"),
        ("AMBIENCE_Rain, heavy 01.wav", "AMBIENCE Rain, heavy"),
        ("DSGNImpt_EXPLOSION-Big Boom_001.flac", "DSGN Impt EXPLOSION Big Boom"),
        ("door", "door"),
        ("Überfall.mp3", "Überfall"),
    ],
)
def test_file_names(source: str, title: str, expected: str) -> None:
    assert texts(source, title=title) == [expected]
    assert texts(source, id=f"pack one/{title}") == [expected]


def test_class_labels() -> None:
    tags = ("Dog", "Bark", "Inside, small_room")
    assert texts("audioset", tags=tags) == ["The sounds of Dog, Bark and Inside, small room"]
    assert texts("fsd50k", tags=("Dog", "Dog")) == ["The sound of Dog"]
    assert texts("esc50", label="door_wood_knock") == ["The sound of door wood knock"]
    assert texts("urbansound8k", label="dog_bark", tags=("foreground",)) == ["The sound of dog bark"]
    assert texts("vggsound", tags=("a", "b")) == ["The sounds of a and b"]
    assert texts("gtzan") == []
    assert labels_of(record("audioset", label="Dog")) == ("Dog",)


def test_speech() -> None:
    found = captions_of(record("speech", description=' He said "no"\n twice. '))
    assert [(c.text, c.made) for c in found] == [("The person is saying \"He said 'no' twice.\"", "transcript")]
    assert texts("ljspeech", title="in being") == ['The person is saying "in being"']
    assert texts("speech", description='"…"') == []


def test_folder_and_unknown_sources() -> None:
    assert texts("folder", title="heavy_rain-3.wav", label="Rain") == [
        "heavy rain",
        "The sound of Rain",
    ]
    assert texts("folder", id="sub\\deep\\DoorCreak.wav") == ["Door Creak"]
    assert texts("mine", title="sawmill_1.wav", description="A saw. Loud.", tags=("saw",)) == [
        "sawmill",
        "A saw.",
        "The sound of saw",
    ]
    assert texts("mine", captions=("A saw.",), title="sawmill.wav") == ["A saw."]


def test_written_captions_come_first_and_once() -> None:
    found = captions_of(record("freesound", captions=("A  dog\nbarks", "", " a."), title="a.wav"))
    assert [(c.text, c.made) for c in found] == [("A dog barks", "given"), ("a.", "given")]
    assert texts("audiocaps", captions=("x y",), tags=("Dog",)) == ["x y"]


@given(
    st.sampled_from([*RULES, "unknown"]),
    st.builds(dict, title=st.none() | st.text(), description=st.none() | st.text(), label=st.none() | st.text()),
    st.lists(st.text()),
    st.lists(st.text(st.characters(exclude_categories=()))),
)
def test_any_text_gives_clean_distinct_captions(
    source: str, said: dict[str, Any], tags: list[str], captions: list[str]
) -> None:
    found = texts(source, tags=tuple(tags), captions=tuple(captions), **said)
    assert len(set(found)) == len(found)
    for text in found:
        assert text and text == " ".join(text.split())
        assert text.encode("utf-8").decode("utf-8") == text


def test_half_a_million_records_take_seconds() -> None:
    records = [
        record("freesound", title=f"Dog_bark-{n}.wav", description="A dog barks. Twice.", tags=("dog", "bark"))
        for n in range(5000)
    ] + [record("bbc_sound_effects", title=f"Nature: Bird {n}", label="Nature", tags=("Nature",)) for n in range(5000)]
    fastest = min(_seconds(records) for _ in range(5))
    assert len(records) / fastest > 50_000 * 0.5  # half the rate it has alone on a core: others use this one too


def _seconds(records: list[Record]) -> float:
    start = time.process_time()
    for one in records:
        captions_of(one)
    return time.process_time() - start
