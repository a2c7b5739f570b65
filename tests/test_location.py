"""Spans of time from scores over time, and `openclap locate`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import soundfile
import torch

import openclap
from openclap.cli import run
from openclap.errors import ConfigError
from openclap.location import PRESENT, TRAINED, UNTRAINED, SpanRule, locate, median_smoothed, spans_of
from openclap.pages.location_chart import location_chart
from openclap.types import Timeline
from support.numpy_runtime import NumpyRuntime

RATE = 16000


def timeline(scores: list[float], *more: list[float], step: float = 0.1) -> Timeline:
    columns = np.array([scores, *more], np.float32).T
    times = (np.arange(len(columns)) + 0.5) * step
    return Timeline(times, columns, tuple("abc"[: columns.shape[1]]), step, len(columns) * step)


PLAIN = SpanRule(threshold=0.5, smoothing_s=0.0, shortest_s=0.0, gap_s=0.0)


def times(given: Timeline, rule: SpanRule) -> list[tuple[str, float, float]]:
    return [(span.label, round(span.start_s, 2), round(span.end_s, 2)) for span in spans_of(given, rule)]


def test_spans_cover_the_moments_above_the_threshold() -> None:
    scores = [0, 0.6, 0.9, 0, 0, 0.7, 0, 0.8]
    assert times(timeline(scores), PLAIN) == [("a", 0.1, 0.3), ("a", 0.5, 0.6), ("a", 0.7, 0.8)]
    assert [span.score for span in spans_of(timeline(scores), PLAIN)] == pytest.approx([0.9, 0.7, 0.8])


def test_spans_come_by_label_then_by_time() -> None:
    given = timeline([0, 1, 0, 1], [1, 0, 0, 0])
    assert [span.label for span in spans_of(given, PLAIN)] == ["a", "a", "b"]


def test_short_spans_are_left_out_and_close_ones_joined() -> None:
    scores = [1, 0, 1, 0, 0, 0, 1, 0, 0, 0]
    assert times(timeline(scores), replace(PLAIN, shortest_s=0.15)) == []
    assert times(timeline(scores), replace(PLAIN, gap_s=0.1)) == [("a", 0.0, 0.3), ("a", 0.6, 0.7)]
    assert times(timeline(scores), replace(PLAIN, gap_s=0.1, shortest_s=0.15)) == [("a", 0.0, 0.3)]


def test_a_span_rises_above_the_median_of_its_recording() -> None:
    scores = [1.0, 1.1, 1.0, 3.0, 2.5, 1.2, 1.0]
    assert times(timeline(scores), PLAIN) == [("a", 0.0, 0.7)]
    assert times(timeline(scores), replace(PLAIN, rise=0.5)) == [("a", 0.3, 0.5)]


def test_the_median_takes_what_is_there_at_the_ends() -> None:
    scores = np.random.default_rng(0).random((20, 3))
    smoothed = median_smoothed(scores, 5)
    for at in range(20):
        expected = np.median(scores[max(at - 2, 0) : at + 3], axis=0)
        np.testing.assert_allclose(smoothed[at], expected)
    assert np.array_equal(median_smoothed(scores, 1), scores)
    assert median_smoothed(scores[:0], 5).shape == (0, 3)


def test_smoothing_removes_single_moments() -> None:
    scores = [0, 0, 1, 0, 0, 0, 1, 1, 1, 0, 0]
    assert times(timeline(scores), replace(PLAIN, smoothing_s=0.3)) == [("a", 0.6, 0.9)]


@pytest.mark.parametrize(
    "values",
    [{"threshold": float("nan")}, {"rise": 1.0}, {"rise": -0.1}, {"smoothing_s": -1.0}, {"shortest_s": float("inf")}],
)
def test_rules_out_of_range_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        replace(UNTRAINED, **values)


def test_scores_without_frame_loss_are_above_the_background(tiny_model: Path) -> None:
    from openclap.search.background import descriptions

    embedder = openclap.load(tiny_model, runtime="torch")
    sound = 0.1 * np.random.default_rng(0).standard_normal(8000).astype(np.float32), RATE
    found = locate(embedder, sound, ["a dog", "rain"])
    assert not found.is_trained
    labels, background = embedder.embed_text(["a dog", "rain"]), embedder.embed_text(descriptions())
    with torch.inference_mode():
        batch = embedder.frontend([torch.from_numpy(sound[0])])
        moments = embedder.clap.encode_moments(batch)[0].numpy()[: len(found.timeline.times_s)]
    cosines = moments @ background.T
    expected = (moments @ labels.T - cosines.mean(1, keepdims=True)) / cosines.std(1, keepdims=True)
    np.testing.assert_allclose(found.timeline.scores, expected, rtol=1e-3, atol=1e-3)


def test_scores_with_frame_loss_are_probabilities(tiny_model: Path) -> None:
    embedder = openclap.load(tiny_model, runtime="torch")
    embedder.objective = {"frames.scale": torch.tensor(1.5), "frames.bias": torch.tensor(-0.5)}
    sound = 0.1 * np.random.default_rng(0).standard_normal(8000).astype(np.float32), RATE
    found = locate(embedder, sound, ["a dog"])
    cosine = embedder.timeline(sound, ["a dog"]).scores
    assert found.is_trained and found.unit == "probability"
    np.testing.assert_allclose(found.timeline.scores, 1 / (1 + np.exp(-(np.exp(1.5) * cosine - 0.5))), rtol=1e-4)


def test_what_the_frame_loss_learned_is_saved_with_the_model(tiny_model: Path, tmp_path: Path) -> None:
    embedder = openclap.load(tiny_model, runtime="torch")
    embedder.objective = {"frames.scale": torch.tensor(1.5), "frames.bias": torch.tensor(-0.5)}
    embedder.save(tmp_path / "model")
    sound = np.ones(8000, np.float32) / 10, RATE
    assert locate(openclap.load(tmp_path / "model", runtime="torch"), sound, ["a dog"]).is_trained


# -- the picture and the command


def test_the_picture_shows_waveform_curves_and_spans() -> None:
    given = timeline([0, 0.6, 0.9, 0], [1, 0, 0, 0])
    spans = spans_of(given, PLAIN)
    labels = replace(given, labels=("<b>", "rain & wind"))
    spans = tuple(replace(span, label=labels.labels["ab".index(span.label)]) for span in spans)
    low, high = -np.ones(10), np.ones(10)
    root = ElementTree.fromstring(location_chart(low, high, labels, spans, unit="probability"))
    kinds = [element.tag.rpartition("}")[2] + "." + element.get("class", "") for element in root.iter()]
    assert kinds.count("polygon.wave") == 1 and kinds.count("polyline.curve") == 2 and kinds.count("rect.span") == 2
    texts = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert "<b>" in texts and "rain & wind" in texts
    first = next(element for element in root.iter() if element.get("class") == "span")
    width = 960 - 14 - 150
    assert float(first.get("x", 0)) == pytest.approx(150 + width * 0.1 / 0.4, abs=0.1)
    assert float(first.get("width", 0)) == pytest.approx(width * 0.2 / 0.4, abs=0.1)


def test_a_long_timeline_keeps_its_peaks_in_the_picture() -> None:
    scores = [0.0] * 10_000
    scores[7003] = 1.0
    chart = location_chart(np.zeros(1), np.zeros(1), timeline(scores), (), unit="x")
    curve = next(each for each in ElementTree.fromstring(chart).iter() if each.get("class") == "curve")
    heights = [float(point.split(",")[1]) for point in curve.get("points", "").split()]
    assert len(heights) <= 2000 and min(heights) < max(heights)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    file = tmp_path / "recording.wav"
    soundfile.write(file, 0.1 * np.random.default_rng(0).standard_normal(2 * RATE), RATE)
    return file


def test_the_command_prints_spans_and_draws_them(
    tiny_model: Path, recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    svg = recording.with_name("picture.svg")
    words = ["locate", str(recording), "a dog", "rain", "--model", str(tiny_model), "--svg", str(svg)]
    assert run([*words, "--json", "--scores", "--threshold", "-100"]) == 0
    printed = capsys.readouterr()
    facts = json.loads(printed.out)
    assert facts["duration_s"] == 2.0 and facts["score"].startswith("standard deviations")
    assert {span["label"] for span in facts["spans"]} == {"a dog", "rain"}
    assert all(0 <= span["start_s"] < span["end_s"] <= 2.0 for span in facts["spans"])
    assert len(facts["scores"]["rain"]) == len(facts["times_s"])
    assert "not trained to tell when" in printed.err
    assert svg.read_text(encoding="utf-8").startswith("<svg")


def test_the_command_prints_a_table_and_names_what_has_no_span(
    tiny_model: Path, recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["locate", str(recording), "a dog", "--model", str(tiny_model), "--threshold", "100"]) == 0
    printed = capsys.readouterr()
    assert printed.out.split() == ["start", "end", "score", "description"]
    assert "No span for: a dog" in printed.err


@pytest.mark.parametrize(
    "words",
    [
        ["SOUND"],
        ["SOUND", ""],
        ["SOUND", "a dog", "a dog"],
        ["SOUND", "a dog", "--threshold", "nan"],
        ["SOUND", "a dog", "--shortest", "-1"],
        ["SOUND", "a dog", "--scores"],
        ["SOUND", "a dog", "--template", "no place"],
        ["SOUND", "a dog", "--svg", "no/such/folder/picture.svg"],
        ["missing.wav", "a dog"],
        ["DAMAGED", "a dog"],
        ["TEXT", "a dog"],
        ["EMPTY", "a dog"],
    ],
)
def test_mistakes_are_one_sentence_and_exit_code_2(
    tiny_model: Path, recording: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = recording.parent
    (folder / "damaged.wav").write_bytes(recording.read_bytes()[:30])
    (folder / "notes.txt").write_text("no sound", encoding="utf-8")
    (folder / "empty.wav").write_bytes(b"")
    names = {"SOUND": "recording.wav", "DAMAGED": "damaged.wav", "TEXT": "notes.txt", "EMPTY": "empty.wav"}
    words = [str(folder / names[word]) if word in names else word for word in words]
    assert run(["locate", *words, "--model", str(tiny_model)]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error and error.count("openclap:") == 1


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["locate", "SOUND", "rain", "--template", "no place"], "no place"),
        (["locate", "SOUND", "rain", "--batch-size", "0"], "--batch-size"),
        (["locate", "missing.wav", "rain"], "missing.wav"),
        (["score", "missing.wav", "rain"], "missing.wav"),
        (["score", "SOUND", "rain", "--batch-size", "0"], "--batch-size"),
        (["classify", "SOUND", "--labels", "rain,wind", "--batch-size", "0"], "--batch-size"),
        (["embed", "SOUND", "-o", "vectors.npy", "--batch-size", "0"], "--batch-size"),
        (["fad", "FOLDER", "FOLDER", "--batch-size", "0"], "--batch-size"),
    ],
)
def test_mistakes_are_found_before_a_model_is_loaded(
    recording: Path, words: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"SOUND": str(recording), "FOLDER": str(recording.parent)}
    # No such model: its error would come first if it were loaded.
    assert run([*(names.get(word, word) for word in words), "--model", str(recording.with_name("no-model"))]) == 2
    error = capsys.readouterr().err
    assert named in error and "no-model" not in error


def test_the_background_is_that_of_the_weights_of_now(tiny_model: Path, tmp_path: Path) -> None:
    embedder = openclap.load(tiny_model, runtime="torch")
    sound = 0.1 * np.random.default_rng(0).standard_normal(8000).astype(np.float32), RATE
    before = locate(embedder, sound, ["a dog"]).timeline.scores
    with torch.no_grad():  # as an optimizer updates weights: in place
        for parameter in embedder.clap.text_head.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    embedder.save(tmp_path / "trained")
    fresh = locate(openclap.load(tmp_path / "trained", runtime="torch"), sound, ["a dog"]).timeline.scores
    after = locate(embedder, sound, ["a dog"]).timeline.scores
    np.testing.assert_allclose(after, fresh, rtol=1e-3, atol=1e-3)
    assert not np.allclose(after, before, atol=1e-2)


def test_rules_of_both_kinds_of_models() -> None:
    assert TRAINED.threshold == 0.5 and TRAINED.rise == 0.0
    assert UNTRAINED.rise > 0


@pytest.mark.parametrize("rule", [TRAINED, UNTRAINED, PRESENT])
def test_a_sound_of_three_tenths_of_a_second_is_kept(rule: SpanRule) -> None:
    scores = [0.0] * 20 + [2.0] * 3 + [0.0] * 20
    assert times(timeline(scores), rule) == [("a", 2.0, 2.3)]
    assert times(timeline([0.0] * 20 + [2.0] + [0.0] * 20), replace(rule, threshold=0.5)) == []


def test_many_descriptions_without_a_span_are_one_note(
    tiny_model: Path, recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"sound {number}" for number in range(30)] + ["x" * 500]
    command = ["locate", str(recording), *words, "--model", str(tiny_model), "--threshold", "100"]
    assert run(command) == 0
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("No span for: sound 0, ")]
    assert " and 21 more. " in line and line.endswith("--present shows where it fits best.")


def test_a_missing_file_is_named_before_the_model_is_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["locate", str(tmp_path / "missing.wav"), "a dog", "--model", str(tmp_path / "no-model")]) == 2
    assert "missing.wav: no such file." in capsys.readouterr().err


def test_a_model_without_moments_is_named_in_one_sentence() -> None:
    with pytest.raises(ConfigError, match=r"^This model has .*, and moments need openclap's own networks in torch\."):
        locate(openclap.Embedder(NumpyRuntime()), (np.zeros(RATE, np.float32), RATE), ["a dog"])
