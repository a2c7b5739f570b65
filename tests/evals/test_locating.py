"""Intersection F1: worked by hand, and against a count on a fine grid of time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import openclap
from openclap.evals.locating import (
    INTERSECTION_F1,
    PRECISION,
    RECALL,
    IntersectionCounts,
    count_intersections,
    intersection_measures,
)
from openclap.evals.runner import evaluate
from openclap.evals.tasks import Task
from openclap.types import Phrase, Span


def span(label: str, start: float, end: float) -> Span:
    return Span(label, start, end, 1.0)


def test_a_case_by_hand() -> None:
    truth = [Phrase("dog", ((1.0, 3.0), (5.0, 6.0))), Phrase("rain", ((0.0, 10.0),))]
    spans = [
        span("dog", 1.5, 2.7),  # inside the first: right, and 60 % of it
        span("dog", 5.8, 7.0),  # a sixth of it is right: wrong, so the second is not found
        span("rain", 0.0, 2.0),  # right, and a fifth of the segment
        span("rain", 4.0, 7.5),  # right; with the other, 55 %
        span("cat", 0.0, 1.0),  # nobody heard a cat
    ]
    assert count_intersections(spans, truth) == IntersectionCounts(spans=5, right=3, segments=3, found=2)
    measures = intersection_measures([count_intersections(spans, truth)])
    assert measures[PRECISION].value == pytest.approx(3 / 5)
    assert measures[RECALL].value == pytest.approx(2 / 3)
    assert measures[INTERSECTION_F1].value == pytest.approx(2 * 0.6 * (2 / 3) / (0.6 + 2 / 3))


def test_nothing_found_and_nothing_there() -> None:
    assert count_intersections([], [Phrase("dog", ((0.0, 1.0),))]) == IntersectionCounts(0, 0, 1, 0)
    assert count_intersections([span("dog", 0, 1)], []) == IntersectionCounts(1, 0, 0, 0)
    measures = intersection_measures([IntersectionCounts(0, 0, 0, 0)])
    assert {measure.value for measure in measures.values()} == {0.0}


def test_segments_that_overlap_are_one() -> None:
    truth = [Phrase("dog", ((0.0, 2.0), (1.0, 4.0)))]
    assert count_intersections([span("dog", 0.0, 4.0)], truth) == IntersectionCounts(1, 1, 1, 1)


@pytest.mark.parametrize("seed", range(20))
def test_counts_equal_those_on_a_fine_grid(seed: int) -> None:
    rng = np.random.default_rng(seed)
    grid = 1000  # of hundredths of a second

    def intervals(number: int) -> list[tuple[int, int]]:
        edges = np.sort(rng.choice(grid, 2 * number, replace=False)).reshape(-1, 2)
        return [(int(a), int(b)) for a, b in edges if (b - a) % 2]  # odd lengths: never exactly half

    truth, spans = {label: intervals(4) for label in "ab"}, {label: intervals(5) for label in "ab"}
    right = found = 0
    for label in "ab":
        is_true, is_right = np.zeros(grid, bool), np.zeros(grid, bool)
        for a, b in truth[label]:
            is_true[a:b] = True
        for a, b in spans[label]:
            if is_true[a:b].mean() >= 0.5:
                right += 1
                is_right[a:b] = True
        found += sum(is_right[a:b].mean() >= 0.5 for a, b in truth[label])
    counts = count_intersections(
        [span(label, a / 100, b / 100) for label in "ab" for a, b in spans[label]],
        [Phrase(label, tuple((a / 100, b / 100) for a, b in truth[label])) for label in "ab"],
    )
    assert (counts.right, counts.found) == (right, found)


def test_weights_count_clips_several_times() -> None:
    one, two = IntersectionCounts(3, 1, 2, 1), IntersectionCounts(4, 4, 4, 3)
    measures = intersection_measures([one, two])
    for metric in (INTERSECTION_F1, PRECISION, RECALL):
        weighted = measures[metric].statistic(np.array([[2.0, 1.0]]))[0]
        assert weighted == pytest.approx(intersection_measures([one, one, two])[metric].value)


def test_a_task_measures_segments_of_any_set_with_phrases(tiny_model: Path, tmp_path: Path) -> None:
    """A model whose probability is always high gives one span a phrase over the whole clip."""
    embedder = openclap.load(tiny_model, runtime="torch")
    embedder.objective = {"frames.scale": torch.tensor(0.0), "frames.bias": torch.tensor(9.0)}
    embedder.save(tmp_path / "model")
    from openclap.data.build import pack
    from openclap.sources.record import Record

    records = []
    for number in range(4):
        file = tmp_path / f"{number}.wav"
        soundfile.write(file, 0.1 * np.random.default_rng(number).standard_normal(16000), 16000)
        # Half of the clips have a phrase in most of the clip, the others in a small part of it.
        segment = (0.0, 0.8) if number % 2 else (0.2, 0.4)
        records.append(Record(str(number), file, ("rain",), "made", phrases=(Phrase("a dog", (segment,)),)))
    pack(records, tmp_path / "shards", splits={"test": 1.0})
    task = Task(name="made", kind="locating", source="collection")
    results = evaluate(tmp_path / "model", tmp_path / "shards", suite=[task])
    assert not results.skipped, results.skipped
    figures = {row.metric.name: row.estimate.value for row in results.rows}
    assert figures["span_precision"] == 0.5 and figures["segment_recall"] == 0.5
    assert figures["intersection_F1"] == 0.5
    assert "intersection F1" in json.dumps(json.loads(results.to_json()))


def test_a_set_without_segments_is_skipped_with_the_reason(tiny_model: Path, sounds: Path) -> None:
    task = Task(name="made", kind="locating", source="collection")
    results = evaluate(tiny_model, sounds / "sounds.csv", suite=[task])
    assert "segments" in results.skipped["made"]
