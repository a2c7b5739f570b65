"""Locate sounds in a recording by describing them: spans of time from the similarity of its moments to descriptions.

T moments, C labels, M moments of a window, D embedding, B background descriptions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from openclap.arrays import Floats
from openclap.audio.inputs import Sound
from openclap.embedder import Embedder, Vectors, distinct_labels
from openclap.errors import ConfigError
from openclap.search.background import descriptions
from openclap.text.prompts import LABEL, prompts
from openclap.types import SecondsProgress, Span, Timeline

if TYPE_CHECKING:
    pass

FRAMES_SCALE, FRAMES_BIAS = "frames.scale", "frames.bias"
"""What the frame loss learns (`openclap.models.frame_loss`), beside the weights of a model."""


@dataclass(frozen=True, slots=True)
class SpanRule:
    """How scores over time become spans.

    Attributes:
        threshold: the least score of a span; -inf for none.
        rise: a span must also reach this part of the way from the label's median score in the recording to its highest;
            0 for no such condition.
        smoothing_s: scores are smoothed by a median of so many seconds.
        shortest_s: shorter spans are left out.
        gap_s: spans that are closer are joined.
    """

    threshold: float
    rise: float = 0.0
    smoothing_s: float = 0.4
    shortest_s: float = 0.2
    gap_s: float = 0.2

    def __post_init__(self) -> None:
        """Raises ConfigError for numbers out of range."""
        if math.isnan(self.threshold) or self.threshold == math.inf:
            raise ConfigError(f"threshold is {self.threshold}, expected a number.")
        if not 0 <= self.rise < 1:
            raise ConfigError(f"rise is {self.rise}, expected 0 to below 1.")
        for name in ("smoothing_s", "shortest_s", "gap_s"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected seconds from 0 on.")


TRAINED = SpanRule(threshold=0.5)
"""For models that were trained with the frame loss: the probability is at least as high as not."""
UNTRAINED = SpanRule(threshold=1.0, rise=0.6)
"""For all other models, whose scores are compared with a background; chosen on scenes of training sounds
(docs/LOG.md). More smoothing loses sounds shorter than half a second."""

PRESENT = SpanRule(threshold=-math.inf, rise=0.3)
"""For a sound that is known to be in the recording: where it fits best, however little that is. Chosen on scenes of
training sounds, too."""


@dataclass(frozen=True, slots=True)
class Location:
    """Where labels are heard in a recording.

    Attributes:
        spans: by label, in the order of the labels, then by time.
        timeline: of probabilities, or of scores against the background.
        is_trained: whether the model was trained to tell when (with the frame loss).
    """

    spans: tuple[Span, ...]
    timeline: Timeline
    is_trained: bool

    @property
    def unit(self) -> str:
        """The unit of the scores."""
        return "probability" if self.is_trained else "standard deviations above the background"


def locate(
    embedder: Embedder,
    sound: Sound,
    labels: Sequence[str],
    *,
    template: str = LABEL,
    rule: SpanRule | None = None,
    batch_size: int = 16,
    progress: SecondsProgress | None = None,
) -> Location:
    """Find the spans of a recording in which each label is heard.

    A model that was trained with the frame loss gives probabilities. With any other model, the cosine of a moment and a
    label is compared with those of the moment and the descriptions that the fit of a search uses (`search.background`):
    its score is how many of their standard deviations it lies above their mean. A moment that is similar to everything
    is then similar to nothing. Such scores say where a label fits best, and not reliably whether it is there at all
    (docs/howto/locate.md).

    Args:
        labels: descriptions, each different and not empty.
        template: a prompt template in which {} stands for the label.
        rule: how scores become spans; `TRAINED` or `UNTRAINED` by default; `PRESENT` for sounds that are known to be
            there.

    Raises as `Embedder.timeline`.

    Examples:
        >>> found = openclap.locate(openclap.load("mini"), "dog.ogg", ["a dog barks"])
        >>> [round(span.start_s) for span in found.spans]
        [0]
    """
    names = distinct_labels(labels)
    is_trained = has_frame_loss(embedder)
    score = _probability(embedder, names, template) if is_trained else above_background(embedder, names, template)
    timeline = embedder.compare_moments(sound, names, score, batch_size, progress)
    return Location(spans_of(timeline, rule or rule_of(embedder)), timeline, is_trained)


def rule_of(embedder: Embedder, *, is_present: bool = False) -> SpanRule:
    """The rule of a model; `is_present` for sounds that are known to be there. Raises ConfigError without moments."""
    is_trained = has_frame_loss(embedder)
    return PRESENT if is_present else TRAINED if is_trained else UNTRAINED


def has_frame_loss(embedder: Embedder) -> bool:
    """Whether a model was trained with the frame loss. Raises ConfigError for models without moments."""
    embedder.check_moments()
    return FRAMES_SCALE in embedder.objective


def _probability(embedder: Embedder, names: Sequence[str], template: str) -> Callable[[Vectors], Vectors]:
    text_CD = embedder.embed_text(prompts(names, template))
    scale, bias = (float(embedder.objective[name]) for name in (FRAMES_SCALE, FRAMES_BIAS))

    def score(vectors_MD: Vectors) -> Vectors:
        logits_MC = math.exp(scale) * (vectors_MD @ text_CD.T) + bias
        probability_MC: Vectors = (1 / (1 + np.exp(-logits_MC))).astype(np.float32)
        return probability_MC

    return score


def above_background(embedder: Embedder, names: Sequence[str], template: str = LABEL) -> Callable[[Vectors], Vectors]:
    """The function from unit vectors (M, D) to their scores (M, C): cosines, as standard deviations of the background's
    cosines above their mean."""
    text_CD, background_BD = embedder.embed_text(prompts(names, template)), _background(embedder)

    def score(vectors_MD: Vectors) -> Vectors:
        background_MB = vectors_MD @ background_BD.T
        mean_M1 = background_MB.mean(axis=1, keepdims=True)
        above_MC: Vectors = (vectors_MD @ text_CD.T - mean_M1) / np.maximum(
            background_MB.std(axis=1, keepdims=True), 1e-6
        )
        return above_MC

    return score


_BACKGROUNDS: dict[tuple[str, str], Vectors] = {}
"""The embedded backgrounds of the latest models, for many recordings, by runtime and digest: weights may be trained."""
_MOST_BACKGROUNDS = 4


def _background(embedder: Embedder) -> Vectors:
    key = embedder.runtime.name, embedder.runtime.weights_digest()
    background_BD = _BACKGROUNDS.get(key)
    if background_BD is None:
        background_BD = embedder.embed_text(descriptions())
        for oldest in [*_BACKGROUNDS][: 1 - _MOST_BACKGROUNDS]:
            _BACKGROUNDS.pop(oldest, None)
        _BACKGROUNDS[key] = background_BD
    return background_BD


def spans_of(timeline: Timeline, rule: SpanRule) -> tuple[Span, ...]:
    """Turn scores over time into spans: smooth, cut at the threshold, join what is close, leave out what is short.

    Labels come in their order, and the spans of each by time.
    """
    half = timeline.resolution_s / 2
    width = max(1, 2 * round((rule.smoothing_s / timeline.resolution_s - 1) / 2) + 1)  # odd
    spans = []
    for label, scores_T in zip(timeline.labels, median_smoothed(timeline.scores, width).T, strict=True):
        low, high = float(np.median(scores_T)), float(scores_T.max())
        is_on_T = scores_T >= max(rule.threshold, low + rule.rise * (high - low) if rule.rise else -math.inf)
        for first, last in _runs(is_on_T, round(rule.gap_s / timeline.resolution_s)):
            start_s = max(timeline.times_s[first] - half, 0.0)
            end_s = min(timeline.times_s[last] + half, max(timeline.duration_s, start_s))
            if end_s - start_s >= rule.shortest_s or timeline.duration_s < rule.shortest_s:
                peak = float(scores_T[first : last + 1].max())
                spans.append(Span(label, round(float(start_s), 3), round(float(end_s), 3), peak))
    return tuple(spans)


def median_smoothed(scores_TC: NDArray[np.floating], width: int) -> Floats:
    """The median of `width` moments around each one (T, C); at the ends, of those that are there."""
    half, rows = width // 2, len(scores_TC)
    padded = np.pad(scores_TC.astype(np.float64), ((half, half), (0, 0)), constant_values=np.nan)
    if not rows or width == 1:
        return padded[half : half + rows]
    smoothed: Floats = np.nanmedian(np.lib.stride_tricks.sliding_window_view(padded, width, axis=0), axis=-1)
    return smoothed


def _runs(is_on_T: NDArray[np.bool_], gap: int) -> list[tuple[int, int]]:
    """The first and last moment of each run; runs with at most `gap` moments between them are one."""
    runs: list[tuple[int, int]] = []
    for moment in np.flatnonzero(is_on_T).tolist():
        if runs and moment - runs[-1][1] - 1 <= gap:
            runs[-1] = runs[-1][0], moment
        else:
            runs.append((moment, moment))
    return runs
