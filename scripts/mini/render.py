"""Render the instruments of a General MIDI soundfont: notes, scales, chords, drum hits and beats, each with captions.

instruments.csv   bank, program, name, label, low, high, plays: an instrument's range in MIDI notes, and whether it
                  plays chords as well; a drum in bank 128 by its note; or an effect, named by its caption

Needs tinysoundfont (MIT), without its dependency pyaudio, which plays sounds aloud.
Everything follows from the tables, without randomness.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scripts.mini.words import Words, rows_of

INSTALL_TINYSOUNDFONT = "pip install --no-deps tinysoundfont==0.3.7"
RATE = 44_100
SOFT, MIDDLE, LOUD = 45, 85, 120
"""MIDI velocities."""
TAIL_S = 1.2
"""Seconds after the last note, in which it dies away; silence at the end is cut."""
SOFTEST = 10 ** (-45 / 20)
DRUM_BANK, KITS = 128, {0: "", 8: "roomy ", 16: "powerful ", 24: "electronic ", 25: "808 ", 32: "jazz ", 40: "brushed "}
"""Kits of bank 128 by program, and the adjective in their captions."""
KIT_DRUMS = range(35, 60)
"""Notes of the drums that kits other than the first have of their own."""


@dataclass(frozen=True)
class Note:
    start_s: float
    length_s: float
    key: int
    velocity: int


@dataclass(frozen=True)
class Phrase:
    """Notes with the caption's words for them, such as "a soft, long, low note on"."""

    name: str
    words: str
    notes: tuple[Note, ...]


def render(soundfont: Path) -> Iterator[tuple[str, Words, NDArray[np.float32], int]]:
    """Yield (key, words, samples, rate) of every phrase of every instrument."""
    import tinysoundfont

    synth = tinysoundfont.Synth(samplerate=RATE)
    font = synth.sfload(str(soundfont))
    for bank, program, key, phrase, words in scores():
        synth.sounds_off(0)
        synth.program_select(0, font, bank, program)
        wave_N = _play(synth, phrase.notes)
        if np.abs(wave_N).max(initial=0.0) > SOFTEST:
            yield key, words, wave_N, RATE


def scores() -> Iterator[tuple[int, int, str, Phrase, Words]]:
    """Yield bank, program, key, phrase and words of everything to render."""
    for row in rows_of("instruments.csv"):
        bank, program, low, high = (int(row[name]) for name in ("bank", "program", "low", "high"))
        if row["plays"] == "drum":
            yield from _drum(low, row["name"], row["label"])
            continue
        if row["plays"] == "effect":
            for place, key in enumerate((low, (low + high) // 2, high)):
                phrase = Phrase(str(place), row["name"], (Note(0.0, 3.0, key, MIDDLE),))
                words = Words((row["name"],), row["label"], f"fluidr3 {row['name']}", "rendered")
                yield bank, program, f"{row['name']}/{place}", phrase, words
            continue
        for phrase in [*notes(low, high), *lines(low, high), *(chords(low, high) if row["plays"] == "chords" else ())]:
            caption = f"{phrase.words} {article(row['name'])} {row['name']}"
            yield (
                bank,
                program,
                f"{row['name']}/{phrase.name}",
                phrase,
                Words(
                    (caption, f"{article(row['name'])} {row['name']}"),
                    row["label"],
                    f"fluidr3 {row['name']}",
                    "rendered",
                ),
            )
    for program, adjective in KITS.items():
        for phrase in beats():
            caption = f"{article(adjective + phrase.words)} {adjective}{phrase.words}"
            words = Words((caption, "a beat on a drum kit"), "drum beat", f"fluidr3 kit {program}", "rendered")
            yield DRUM_BANK, program, f"kit {program}/{phrase.name}", phrase, words


def notes(low: int, high: int) -> Iterator[Phrase]:
    """Single notes: each register with a length and a loudness of its own, so that every adjective is heard."""
    registers = (("low", low), ("", (low + high) // 2), ("high", high))
    lengths = (("staccato", 0.12), ("", 0.6), ("long", 2.5))
    for place, (register, key) in enumerate(registers):
        for length, length_s in lengths:
            loudness, velocity = (("soft", SOFT), ("", MIDDLE), ("loud", LOUD))[(place + len(length)) % 3]
            adjectives = [word for word in (loudness, register, length) if word]
            words = f"{', '.join(adjectives)} note on".lstrip()
            name = "-".join(adjectives) or "note"
            yield Phrase(name, f"{article(words)} {words}", (Note(0.0, length_s, key, velocity),))


def lines(low: int, high: int) -> Iterator[Phrase]:
    """Notes in a row."""
    root = (low + high) // 2 - 6
    major = [root + step for step in (0, 2, 4, 5, 7, 9, 11, 12)]
    yield Phrase("scale up", "a rising scale on", _row(major, 0.22))
    yield Phrase("scale down", "a falling scale on", _row(major[::-1], 0.22))
    yield Phrase("repeated", "a fast repeated note on", _row([root + 7] * 10, 0.13))
    yield Phrase("melody", "a slow melody on", _row([major[step] for step in (0, 2, 4, 3, 1, 0)], 0.55))
    yield Phrase("trill", "a trill on", _row([root + 5, root + 7] * 9, 0.085))


def chords(low: int, high: int) -> Iterator[Phrase]:
    """Notes at once, and broken chords."""
    root = (low + high) // 2 - 8
    major, minor = [root, root + 4, root + 7, root + 12], [root, root + 3, root + 7, root + 12]
    yield Phrase("major chord", "a major chord on", tuple(Note(0.0, 1.8, key, MIDDLE) for key in major))
    yield Phrase("minor chord", "a sad minor chord on", tuple(Note(0.0, 1.8, key, MIDDLE) for key in minor))
    yield Phrase("arpeggio", "an arpeggio on", _row([*major, *major[-2::-1]], 0.17))
    yield Phrase(
        "short chords",
        "short loud chords on",
        tuple(Note(0.4 * beat, 0.15, key, LOUD) for beat in range(4) for key in major),
    )


def beats() -> Iterator[Phrase]:
    """Two bars of drums: kick 36, snare 38, hi-hat 42 and 46, toms, ride 51, crash 49."""
    yield Phrase("rock", "rock drum beat", _pattern(0.25, {36: "x...x...", 38: "..x...x.", 42: "xxxxxxxx"}))
    yield Phrase("fast", "fast drum beat", _pattern(0.11, {36: "x..x..x.", 38: "..x...xx", 42: "xxxxxxxx"}))
    yield Phrase("dance", "dance drum beat", _pattern(0.23, {36: "x.x.x.x.", 46: ".x.x.x.x", 38: "..x...x."}))
    yield Phrase(
        "swing",
        "swing rhythm on a drum kit",
        _pattern(0.17, {51: "x..x.xx..x.x", 44: "...x.....x..", 36: "x..........."}),
    )
    yield Phrase(
        "fill",
        "drum fill",
        _pattern(
            0.12,
            {
                38: "xxxx............",
                48: "....xxxx........",
                45: "........xxxx....",
                41: "............xxxx",
                49: "...............x",
            },
        ),
    )


def article(words: str) -> str:
    return "an" if words.lower().startswith(("a", "e", "i", "o", "808")) else "a"


def _drum(key: int, name: str, label: str) -> Iterator[tuple[int, int, str, Phrase, Words]]:
    for program, adjective in KITS.items() if key in KIT_DRUMS else [(0, "")]:
        for loudness, velocity in (("soft", SOFT), ("", LOUD)) if program == 0 else (("", LOUD),):
            words = " ".join(filter(None, (loudness, f"hit on {article(adjective + name)} {adjective}{name}")))
            phrase = Phrase(loudness or "hit", words, (Note(0.0, 0.5, key, velocity),))
            captions = (f"a {words}", f"{article(adjective + name)} {adjective}{name}")
            group = f"fluidr3 kit {program} {name}"
            yield (
                DRUM_BANK,
                program,
                f"{key} {name}/{program} {phrase.name}",
                phrase,
                Words(captions, label, group, "rendered"),
            )


def _row(keys: Sequence[int], step_s: float) -> tuple[Note, ...]:
    return tuple(Note(step_s * place, 0.9 * step_s, key, MIDDLE) for place, key in enumerate(keys))


def _pattern(step_s: float, voices: dict[int, str]) -> tuple[Note, ...]:
    return tuple(
        Note(step_s * (len(steps) * bar + place), 0.1, key, LOUD if place == 0 else MIDDLE)
        for key, steps in voices.items()
        for bar in range(2)
        for place, step in enumerate(steps)
        if step == "x"
    )


def _play(synth, phrase: Sequence[Note]) -> NDArray[np.float32]:
    """Play notes, and return mono samples without the silence at the end."""
    events = sorted(
        [(note.start_s, 1, note) for note in phrase] + [(note.start_s + note.length_s, 0, note) for note in phrase],
        key=lambda event: event[:2],
    )
    parts, now = [], 0
    for at_s, begins, note in events:
        parts.append(_samples(synth, round(at_s * RATE) - now))
        now = round(at_s * RATE)
        if begins:
            synth.noteon(0, note.key, note.velocity)
        else:
            synth.noteoff(0, note.key)
    wave_N = np.concatenate([*parts, _samples(synth, round(TAIL_S * RATE))])
    loud = np.flatnonzero(np.abs(wave_N) > SOFTEST / 10)
    wave_N = wave_N[: loud[-1] + 1] if loud.size else wave_N[:0]
    return wave_N / np.float32(max(1.0, np.abs(wave_N).max(initial=0.0) / 0.99))


def _samples(synth, count: int) -> NDArray[np.float32]:
    if count <= 0:
        return np.zeros(0, np.float32)
    return np.frombuffer(bytes(synth.generate(count)), np.float32).reshape(-1, 2).mean(axis=1)
