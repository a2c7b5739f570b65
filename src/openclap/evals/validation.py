"""Held-out pairs while a model learns: one score after every epoch, and a table of before and after.

N captions or clips.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from openclap.data.shards import ShardIndex
from openclap.errors import DataError
from openclap.evals.bootstrap import Estimate, bootstrap_interval
from openclap.evals.clips import EvalClips, Progress, SoundEmbedder, clips_from, embed_clips
from openclap.evals.metrics import Measure
from openclap.evals.ranks import Floats
from openclap.evals.retrieval import retrieve, too_few

SCORED = ("text_to_audio_mAP@10", "audio_to_text_mAP@10")
SHOWN = ("text_to_audio_R@1", "text_to_audio_R@10", SCORED[0], "audio_to_text_R@1", "audio_to_text_R@10", SCORED[1])


@dataclass(frozen=True, slots=True)
class Change:
    """A figure before and after, and their difference, each with its 95 % interval over groups."""

    task: str
    metric: str
    before: Estimate
    after: Estimate
    difference: Estimate


class HeldOut:
    """Clips that are not learned from. Raises DataError when none of them can be used, or they are too few."""

    def __init__(self, shards: ShardIndex, *, progress: Progress | None = None) -> None:
        self.clips: EvalClips = clips_from("held-out pairs", len(shards), shards.read_sample, progress=progress)
        if len(self.clips) < 2:
            raise DataError("1 pair is held out, and two at least are needed to tell one from another. Add sounds.")

    def score(self, embedder: SoundEmbedder) -> float:
        """The mean of mAP@10 from text to audio and from audio to text."""
        measures = self.measures(embedder)
        return float(np.mean([measures[name].value for name in SCORED]))

    def measures(self, embedder: SoundEmbedder) -> dict[str, Measure]:
        """Every retrieval figure."""
        found = retrieve(embedder, self.clips, embed_clips(embedder, self.clips))
        if found is None:
            raise DataError(f"The held-out pairs cannot be ranked: {too_few(self.clips)}")
        return found.measures()

    def compare(self, before: SoundEmbedder, after: SoundEmbedder, *, seed: int = 0) -> list[Change]:
        """Both models' figures. Differences resample both models' answers together, so they are surer than the
        figures themselves."""
        old, new = self.measures(before), self.measures(after)
        return [self._change(name, old[name], new[name], seed) for name in SHOWN]

    def _change(self, name: str, old: Measure, new: Measure, seed: int) -> Change:
        groups_N = np.asarray(self.clips.groups)[old.clip_N]
        task, metric = name.rsplit("_", 1)

        def difference(weight_RN: Floats) -> Floats:
            return new.statistic(weight_RN) - old.statistic(weight_RN)

        three = [bootstrap_interval(one, groups_N, seed=seed) for one in (old.statistic, new.statistic, difference)]
        return Change(task, metric, *three)
