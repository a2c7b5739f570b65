"""Zero-shot classification and tagging against computations by hand, and the calibration of their answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import openclap
from openclap.errors import DataError
from openclap.evals.cached_embedder import embed_clips
from openclap.evals.dataset import Collection, EvalClips, clips_of_task
from openclap.evals.metrics import classify
from openclap.evals.ranks import TIE
from openclap.evals.results import Results
from openclap.evals.runner import evaluate
from openclap.evals.suites import PAPER, QUICK
from openclap.evals.tagging import tag, tagging_measures
from openclap.evals.zero_shot import reliability, zero_shot_reliability
from support.errors import raises_naming
from support.evals_helpers import SOUNDS, BandEmbedder, with_labels

TASKS = {task.name: task for task in (*PAPER, *QUICK)}


def test_prompts_read_underscores_as_spaces(embedder: BandEmbedder, test_clips: EvalClips) -> None:
    prompts: list[str] = []

    class Recording(BandEmbedder):
        def embed_audio(self, sounds: list[object], batch_size: int = 16) -> np.ndarray:
            return embedder.embed_audio(sounds)

        def embed_text(self, texts: list[str]) -> np.ndarray:
            prompts.extend(texts)
            return embedder.embed_text(texts)

    results = evaluate({"model": Recording()}, Collection(test_clips), suite=[TASKS["zero-shot"]])
    assert "This is a sound of low hum." in prompts and len(prompts) == 6
    classes = results.outputs["model", "zero-shot"].classes
    text_CD = embedder.embed_text([f"This is a sound of {label.replace('_', ' ')}." for label in classes])
    predicted = (embed_clips(embedder, test_clips) @ text_CD.T).argmax(1)
    accuracy = np.mean([classes[p] == c.label for p, c in zip(predicted, test_clips.clips, strict=True)])
    row = results.row("accuracy")
    assert row is not None and row.estimate.value == pytest.approx(accuracy)


def test_a_label_scores_as_the_best_of_its_alternatives(embedder: BandEmbedder, test_clips: EvalClips) -> None:
    named = dict(zip(SOUNDS, ("a hum or other drone", "hiss, click", *[*SOUNDS][2:]), strict=True))
    task = replace(TASKS["zero-shot"], alternatives=True)
    results = evaluate(embedder, Collection(with_labels(test_clips, named)), suite=[task])
    classified = results.outputs["model", "zero-shot"].classified
    assert classified is not None
    sound_ND = embed_clips(embedder, test_clips).astype(np.float64)
    for number, label in enumerate(results.outputs["model", "zero-shot"].classes):
        parts = {"a hum or other drone": ["a hum", "drone"], "hiss, click": ["hiss", "click"]}.get(label, [label])
        text_AD = embedder.embed_text([f"This is a sound of {part.replace('_', ' ')}." for part in parts])
        best_N = (sound_ND @ text_AD.T.astype(np.float64)).max(axis=1)
        np.testing.assert_allclose(classified.score_NC[:, number], best_N, atol=1e-6)


def test_a_single_label_is_no_task(embedder: BandEmbedder, test_clips: EvalClips) -> None:
    one = with_labels(test_clips, dict.fromkeys(SOUNDS, "sound"))
    results = evaluate(embedder, Collection(one), suite=[TASKS["zero-shot"]])
    assert not results.rows and "at least two" in results.skipped["zero-shot"]


def test_figures_equal_a_computation_by_hand(paper: Results, tiny_model: Path, sets: Path) -> None:
    model = openclap.load(tiny_model)
    ours = {(row.task, row.metric.key): row.estimate.value for row in paper.rows if row.model == "tiny"}
    found = clips_of_task(TASKS["UrbanSound8K"], sets)
    score = model.embed_audio([clip.path for clip in found.test.clips]) @ model.embed_text(
        [f"This is a sound of {label}." for label in found.classes]
    ).T  # fmt: skip
    right = np.array([found.classes[score[n].argmax()] == clip.label for n, clip in enumerate(found.test.clips)])
    fold = np.array([clip.fold for clip in found.test.clips])
    assert ours["UrbanSound8K", "accuracy"] == pytest.approx(np.mean([right[fold == f].mean() for f in set(fold)]))
    found = clips_of_task(TASKS["FSD50K"], sets)
    assert found.classes == ("Animal", "Bell", "Dog", "Rain", "Wolf")
    score = model.embed_audio([clip.path for clip in found.test.clips]) @ model.embed_text(
        [f"This is a sound of {label}." for label in found.classes]
    ).T  # fmt: skip
    truth = np.array([[label in clip.tags for label in found.classes] for clip in found.test.clips])
    for metric, measure in tagging_measures(tag(score.astype(np.float64), truth, tie=TIE)).items():
        assert ours["FSD50K", metric.key] == pytest.approx(measure.value)


def test_reliability_by_hand() -> None:
    found = reliability([0.05, 0.95, 0.95, 1.0], [0, 1, 0, 1], bins=10)
    assert found.count_B.tolist() == [1, *[0] * 8, 3]
    assert found.accuracy_B[9] == pytest.approx(2 / 3) and found.confidence_B[9] == pytest.approx(2.9 / 3)
    assert found.error == pytest.approx((0.05 + 3 * (2.9 / 3 - 2 / 3)) / 4)


def test_a_calibrated_model_has_a_small_calibration_error() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.random(40_000)
    assert reliability(confidence, rng.random(40_000) < confidence).error < 0.015


def test_confidence_is_the_softmax_of_scaled_cosines() -> None:
    found = zero_shot_reliability(classify([[0.3, 0.1], [0.2, 0.1]], [0, 1]), scale=10.0)
    chances = 1 / (1 + np.exp([-2.0, -1.0]))
    assert np.nansum(found.confidence_B * found.count_B) == pytest.approx(chances.sum())
    assert np.nansum(found.accuracy_B * found.count_B) == 1


@pytest.mark.parametrize(("confidence", "right"), [([0.5, 1.2], [1, 0]), ([], []), ([0.5], [1, 0])])
def test_invalid_confidences_are_refused(confidence: list[float], right: list[int]) -> None:
    with raises_naming(DataError):
        reliability(confidence, right)
