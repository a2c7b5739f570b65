"""Captions that rules make wrong, and whether a model prefers the right ones."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from openclap.cli import run
from openclap.evals.bootstrap import chance_preference
from openclap.evals.cached_embedder import embed_clips
from openclap.evals.dataset import Collection, EvalClips
from openclap.evals.hard_captions import RULES, hard_captions
from openclap.evals.hard_text import ALL_KINDS, KIND_METRICS, make_pairs
from openclap.evals.runner import evaluate
from support.evals_helpers import BandEmbedder

BUNDLED = Path(__file__).parents[2] / "src" / "openclap" / "demo" / "sounds" / "sounds.csv"


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        ("order", "a snap followed by a crash", "a crash followed by a snap"),
        ("order", "A dog barks, then a door closes.", "A door closes, then a dog barks."),
        ("order", "Rain is shortly followed by thunder", "Thunder is shortly followed by rain"),
        ("order", "a man speaks after a bell rings", "a bell rings after a man speaks"),
        ("source", "a dog barks and a cat meows", "a dog meows and a cat barks"),
        ("source", "A small dog barking loudly while a crow calls", None),
        ("source", "A bird chirping while a man whistling nearby", "A bird whistling while a man chirping nearby"),
        ("source", "two dogs bark as a man speaks", None),
        ("source", "a dog barks and a wolf barks", None),
        ("negation", "rain with thunder", "rain without thunder"),
        ("negation", "a female voice sings without words", "a female voice sings with words"),
        ("negation", "a whistle and a bell", "a whistle but no bell"),
        ("negation", "A dog barks and a man speaks.", "A dog barks but no man speaks."),
        ("negation", "a jar filled with water", None),
        ("negation", "a lock being opened with a key", None),
        ("negation", "thunder with rain and wind", None),
        ("negation", "a dog barks and it growls", None),
        ("count", "two dogs bark", "five dogs bark"),
        ("count", "Three beeps, a pause.", "Six beeps, a pause."),
        ("count", "a horn toots twice", "a horn toots five times"),
        ("count", "a dog barking once", "a dog barking four times"),
        ("count", "a beep of two seconds", None),
        ("count", "two or three dogs bark", None),
        ("count", "a two-stroke engine", None),
        ("count", "everybody talks at once", None),
        ("count", "one of the dogs barks twice", None),
        ("order", "an engine sputters and then dies", None),
        ("order", "a dog barks and then it growls", None),
        ("order", "a dog barks followed by a bang followed by rain", None),
        ("order", "a dog barks while rain falls followed by a bang", None),
        ("order", "a bell just before a man speaks", None),
        ("order", "a bell followed by a bell", None),
    ],
)
def test_rules_by_hand(kind: str, right: str, wrong: str | None) -> None:
    assert hard_captions(right).get(kind) == wrong


@pytest.mark.parametrize(
    "caption", ["", "   ", ".", "rain", "with", "two", "and a", "followed by ", "é" * 5000, "a " * 5000]
)
def test_captions_to_which_no_rule_applies_are_left_alone(caption: str) -> None:
    assert hard_captions(caption) == {}


def test_rules_do_not_touch_most_bundled_captions_and_never_return_them() -> None:
    with BUNDLED.open(encoding="utf-8") as file:
        captions = {caption.strip() for row in csv.DictReader(file) for caption in row["captions"].split("|")}
    made = {caption: hard_captions(caption) for caption in captions}
    assert 10 < sum(bool(wrong) for wrong in made.values()) < len(captions) / 10
    for caption, wrong in made.items():
        assert caption not in wrong.values() and set(wrong) <= set(RULES)
        # Rules change words they know, and never lose or add others.
        known = {"without", "with", "but", "no", "and", "a", "an", "times", "once", "twice", "four", "five", "two"}
        for text in wrong.values():
            assert set(text.lower().split()) ^ set(caption.lower().split()) <= known, (caption, text)


@pytest.fixture
def described(test_clips: EvalClips) -> EvalClips:
    """One caption for each clip, to which one rule applies, and one caption more to which none does."""
    captions = [f"a {str(clip.label).replace('_', ' ')} with an echo" for clip in test_clips.clips]
    clips = [replace(clip, captions=(caption,)) for clip, caption in zip(test_clips.clips, captions, strict=True)]
    plain = replace(clips[0], captions=("plain words", *clips[0].captions))
    return replace(test_clips, clips=(plain, *clips[1:]))


def test_figures_equal_comparing_pair_by_pair(embedder: BandEmbedder, described: EvalClips) -> None:
    result = evaluate({"bands": embedder}, Collection(described), suite="hard-text")
    audio_ND = embed_clips(embedder, described)
    right = []
    for vector, clip in zip(audio_ND, described.clips, strict=True):
        caption = clip.captions[-1]
        ours, theirs = embedder.embed_text([caption, caption.replace(" with ", " without ")]).astype(np.float64)
        right.append(vector @ ours > vector @ theirs + 1e-5)
    row = result.row(ALL_KINDS)
    assert row is not None and row.estimate.value == pytest.approx(np.mean(right)) and row.n == len(described)
    assert row.chance is not None and row.chance.value == 0.5 and row.chance.low < 0.5 < row.chance.high
    assert row.estimate.low <= row.estimate.value <= row.estimate.high
    kinds = {each.metric for each in result.rows}
    assert kinds == {ALL_KINDS, KIND_METRICS["negation"]}  # kinds without pairs have no figure
    notes = [note for _, note in result.notes]
    assert "60 of 61 captions were used: 0 order, 0 source, 60 negation, 0 count." in notes[0]
    mean_D = audio_ND.astype(np.float64).mean(0)
    pairs = make_pairs(described)
    blind = [np.diff(embedder.embed_text([pair.right, pair.wrong]) @ mean_D)[0] < -1e-5 for pair in pairs]
    assert len(pairs) == 60 and f"{100 * np.mean(blind):.1f} % of the right captions are preferred" in notes[1]


class Constant:
    """Gives every sound and sentence one vector."""

    def embed_audio(self, sounds: list[object], /, *, batch_size: int = 16) -> np.ndarray:
        return np.tile(np.eye(1, 4, dtype=np.float32), (len(sounds), 1))

    def embed_text(self, texts: list[str], /) -> np.ndarray:
        return np.tile(np.eye(1, 4, dtype=np.float32), (len(texts), 1))


def test_ties_count_against_the_model(described: EvalClips) -> None:
    row = evaluate({"constant": Constant()}, Collection(described), suite="hard-text").row(ALL_KINDS)
    assert row is not None and row.estimate.value == 0.0 and row.above_chance == "no"


def test_a_wrong_caption_that_another_one_confirms_is_not_used(test_clips: EvalClips) -> None:
    both = replace(test_clips.clips[0], captions=("rain with thunder", "rain without thunder"))
    assert make_pairs(replace(test_clips, clips=(both,))) == ()


def test_data_without_usable_captions_is_refused_before_a_sound_is_embedded(test_clips: EvalClips) -> None:
    plain = tuple(replace(clip, captions=("rain",)) for clip in test_clips.clips)
    embedder = BandEmbedder()
    result = evaluate({"bands": embedder}, Collection(replace(test_clips, clips=plain)), suite="hard-text")
    assert "no rule for wrong captions applies to any of 60 captions" in result.skipped["hard text"]
    assert not embedder.calls


def test_only_sounds_with_usable_captions_are_embedded(described: EvalClips) -> None:
    plain = tuple(replace(clip, captions=("rain",)) if i % 3 else clip for i, clip in enumerate(described.clips))
    embedder = BandEmbedder()
    result = evaluate({"bands": embedder}, Collection(replace(described, clips=plain)), suite="hard-text")
    row = result.row(ALL_KINDS)
    assert row is not None and row.n == sum(embedder.calls) == 20
    assert "20 of 61 captions were used" in result.notes[0][1]
    # The figure is that of the sounds with pairs in a set of their own.
    alone = Collection(described.select(range(0, len(described), 3)))
    expected = evaluate({"bands": BandEmbedder()}, alone, suite="hard-text").row(ALL_KINDS)
    assert expected is not None and row.estimate == expected.estimate


def test_chance_is_that_of_a_coin() -> None:
    estimate = chance_preference(100, draws=5000)
    assert estimate.value == 0.5 and estimate.low == pytest.approx(0.4, abs=0.02)
    assert estimate.high == pytest.approx(0.6, abs=0.02)


def test_the_command_writes_pairs_and_a_page(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [line for line in BUNDLED.read_text(encoding="utf-8").splitlines() if "maglev-train-station-dep" in line]
    rows += [line for line in BUNDLED.read_text(encoding="utf-8").splitlines() if line.startswith("opensfx-explosion")]
    head = BUNDLED.read_text(encoding="utf-8").splitlines()[0]
    (tmp_path / "sounds.csv").write_text("\n".join([head, *rows]), encoding="utf-8")
    for row in rows:
        name = row.partition(",")[0]
        (tmp_path / name).write_bytes((BUNDLED.parent / name).read_bytes())
    out, page = tmp_path / "out.json", tmp_path / "out.html"
    command = [
        "eval",
        str(tiny_model),
        "--suite",
        "hard-text",
        "--source",
        "table",
        "--data",
        str(tmp_path / "sounds.csv"),
    ]
    assert run([*command, "--json", str(out), "--html", str(page)]) == 0
    assert "negation preference" in capsys.readouterr().out
    pairs = json.loads(out.read_text())["answers"][0]["pairs"]
    assert {pair["kind"] for pair in pairs} == {"negation"}
    text = page.read_text(encoding="utf-8")
    assert "The hardest pairs of captions" in text and pairs[0]["wrong"] in text and "CompA" not in text
