"""Measure when a model hears what: spans of time against the segments of phrases, by intersection.

Intersection F1 as in the polyphonic sound detection score (Bilen et al. 2020, arXiv:1910.08440): a span is right if at
least half of it lies in segments of its label (detection tolerance), a segment is found if at least half of it is
covered by right spans (ground truth intersection). Precision counts spans, recall counts segments, both over all labels
of all clips. Unlike event-based F1 with collars it does not depend on how annotators split a sound into segments.

N clips, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from openclap.arrays import Floats
from openclap.embedder import Embedder
from openclap.errors import AudioError, ConfigError, DataError
from openclap.evals.cached_embedder import CachedEmbedder, EmbeddedClips
from openclap.evals.dataset import EvalClip, EvalClips, TaskClips
from openclap.evals.metrics import Measure, Metric
from openclap.evals.results import TaskOutput
from openclap.location import locate
from openclap.types import Phrase, Span

if TYPE_CHECKING:
    from openclap.evals.tasks import Task

TOLERANCE = 0.5
"""Detection tolerance and ground truth intersection."""
INTERSECTION_F1, PRECISION, RECALL = Metric("intersection_F1"), Metric("span_precision"), Metric("segment_recall")

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class IntersectionCounts:
    """Of one clip: its spans, and how many are right; its segments, and how many were found."""

    spans: int
    right: int
    segments: int
    found: int


def count_intersections(
    spans: Sequence[Span], phrases: Sequence[Phrase], tolerance: float = TOLERANCE
) -> IntersectionCounts:
    """Count right spans and found segments of one clip. Spans of a label that no phrase has are wrong."""
    truth = {phrase.text: merged(phrase.segments) for phrase in phrases}
    right_by_label: dict[str, list[Interval]] = {}
    right = 0
    for span in spans:
        inside = overlap((span.start_s, span.end_s), truth.get(span.label, []))
        if inside >= tolerance * (span.end_s - span.start_s) and inside > 0:
            right += 1
            right_by_label.setdefault(span.label, []).append((span.start_s, span.end_s))
    segments = [(label, segment) for label, parts in truth.items() for segment in parts]
    found = sum(
        overlap(segment, merged(right_by_label.get(label, []))) >= tolerance * (segment[1] - segment[0])
        for label, segment in segments
    )
    return IntersectionCounts(len(spans), right, len(segments), found)


def merged(intervals: Sequence[Interval]) -> list[Interval]:
    """Join intervals that overlap or touch."""
    joined: list[Interval] = []
    for start, end in sorted(intervals):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], end)
        else:
            joined.append((start, end))
    return joined


def overlap(interval: Interval, others: Sequence[Interval]) -> float:
    """Seconds of an interval inside others, which do not overlap."""
    return sum(max(0.0, min(interval[1], end) - max(interval[0], start)) for start, end in others)


def intersection_measures(counts: Sequence[IntersectionCounts]) -> dict[Metric, Measure]:
    """F1, precision and recall over clips, as weighted statistics. Items are clips."""
    table_N4 = np.array([(each.spans, each.right, each.segments, each.found) for each in counts], np.float64)
    clip_N = np.arange(len(counts), dtype=np.int64)
    return {
        metric: Measure(partial(statistic, table_N4), clip_N)
        for metric, statistic in ((INTERSECTION_F1, _f1), (PRECISION, _precision), (RECALL, _recall))
    }


def _precision(table_N4: Floats, weight_RN: Floats) -> Floats:
    total_R4 = weight_RN @ table_N4
    return np.asarray(total_R4[:, 1] / np.maximum(total_R4[:, 0], 1.0))


def _recall(table_N4: Floats, weight_RN: Floats) -> Floats:
    total_R4 = weight_RN @ table_N4
    return np.asarray(total_R4[:, 3] / np.maximum(total_R4[:, 2], 1.0))


def _f1(table_N4: Floats, weight_RN: Floats) -> Floats:
    precision_R, recall_R = _precision(table_N4, weight_RN), _recall(table_N4, weight_RN)
    return np.asarray(2 * precision_R * recall_R / np.maximum(precision_R + recall_R, 1e-12))


def clips_with_phrases(clips: EvalClips) -> EvalClips:
    """The clips whose phrases have segments. Raises DataError where there is none."""
    timed = [place for place, clip in enumerate(clips.clips) if clip.phrases]
    if not timed:
        raise DataError(f"{clips.name}: no clip has phrases with segments. Build the set from a source that has them.")
    return clips.select(timed)


def run_locating(task: Task, data: TaskClips, test: EmbeddedClips, model: CachedEmbedder, seed: int) -> TaskOutput:
    """Locate each phrase of each clip in its sound, and compare the spans with the segments.

    Raises ConfigError for models without moments.
    """
    embedder = model.embedder
    if not isinstance(embedder, Embedder):
        raise ConfigError(f"{task.name}: {model.name} has no moments. Load it with the torch runtime of openclap.")
    clips = test.clips
    counts, kept, lost = [], [], []
    for place, clip in enumerate(clips.clips):
        try:
            counts.append(_counts(embedder, clips.audio(place), clip, model.batch_size))
            kept.append(place)
        except AudioError as error:
            lost.append((clip.key, str(error)))
        if model.progress:
            model.progress("locating", place + 1, len(clips))
    return TaskOutput(clips.select(kept), intersection_measures(counts), lost=tuple(lost))


def _counts(embedder: Embedder, sound: bytes, clip: EvalClip, batch_size: int) -> IntersectionCounts:
    labels = list(dict.fromkeys(phrase.text for phrase in clip.phrases))
    same = {label: tuple(s for each in clip.phrases if each.text == label for s in each.segments) for label in labels}
    found = locate(embedder, sound, labels, batch_size=batch_size)
    return count_intersections(found.spans, [Phrase(label, segments) for label, segments in same.items()])
