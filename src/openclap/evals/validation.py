"""Validation during training: one retrieval score after every epoch, and a table of figures before and after.

N captions or clips.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from openclap.data.shards import TEXT, Fields, ShardIndex
from openclap.errors import DataError
from openclap.evals.bootstrap import Estimate, measure_interval, paired_difference
from openclap.evals.cached_embedder import SoundEmbedder, embed_clips
from openclap.evals.dataset import EvalClips, StageProgress, clips_from_samples
from openclap.evals.metrics import AUDIO_TO_TEXT, TEXT_TO_AUDIO, Measure, Metric
from openclap.evals.retrieval import retrieve

SCORED = (Metric("mAP@10", TEXT_TO_AUDIO), Metric("mAP@10", AUDIO_TO_TEXT))
"""The metrics whose mean is the score."""
SHOWN = tuple(Metric(name, way) for way in (TEXT_TO_AUDIO, AUDIO_TO_TEXT) for name in ("R@1", "R@10", "mAP@10"))


@dataclass(frozen=True, slots=True)
class MetricChange:
    """A figure before and after training, and their difference, each with its 95 % interval over groups."""

    metric: Metric
    before: Estimate
    after: Estimate
    difference: Estimate


class RetrievalValidation:
    """Retrieval on validation clips. Raises DataError when fewer than two of them can be used.

    Args:
        fields: the fields of a sample's JSON that hold captions; a clip's captions are those of the first that it has.
    """

    def __init__(self, shards: ShardIndex, *, fields: Fields = TEXT, progress: StageProgress | None = None) -> None:
        read = partial(shards.read_sample, fields=fields)
        self.clips: EvalClips = clips_from_samples("validation pairs", len(shards), read, progress=progress)
        if len(self.clips) < 2:
            raise DataError("There is 1 validation pair, and retrieval needs at least two. Add sounds.")

    def score(self, embedder: SoundEmbedder) -> float:
        """The mean of mAP@10 from text to audio and from audio to text."""
        measures = self.measures(embedder)
        # mAP@10 moves with every rank within 10, where R@1 sees the first place alone.
        return float(np.mean([measures[metric].value for metric in SCORED]))

    def measures(self, embedder: SoundEmbedder) -> dict[Metric, Measure]:
        """Every retrieval figure."""
        return retrieve(embedder, self.clips, embed_clips(embedder, self.clips)).measures()

    def compare(self, before: SoundEmbedder, after: SoundEmbedder, *, seed: int = 0) -> list[MetricChange]:
        """Compare the figures of two models.

        Differences are paired: both models are resampled together, so their intervals are narrower than those of the
        figures suggest.
        """
        old, new, groups = self.measures(before), self.measures(after), self.clips.groups
        return [
            MetricChange(
                metric,
                measure_interval(old[metric], groups, seed=seed),
                measure_interval(new[metric], groups, seed=seed),
                paired_difference(new[metric], old[metric], groups, seed=seed).estimate,
            )
            for metric in SHOWN
        ]
