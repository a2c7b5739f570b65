"""Hard text: does a model prefer the right caption of a sound to one that differs in one respect only?

The wrong captions are made by rule (`openclap.evals.hard_captions`). A pair is right where the sound is closer to the
right caption; a tie counts against the model. Chance is one half.

P pairs of a right and a wrong caption, U distinct captions, D embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from openclap.arrays import Floats, Ints
from openclap.errors import DataError
from openclap.evals.cached_embedder import CachedEmbedder, EmbeddedClips, embed_sentences
from openclap.evals.dataset import EvalClips, TaskClips
from openclap.evals.hard_captions import RULES, hard_captions
from openclap.evals.metrics import Measure, Metric, mean_of
from openclap.evals.ranks import TIE
from openclap.evals.results import TaskOutput

if TYPE_CHECKING:
    from openclap.evals.tasks import Task

ALL_KINDS = Metric("preference")
"""The share of all pairs in which the right caption is preferred."""
KIND_METRICS: Mapping[str, Metric] = {kind: Metric(f"{kind}_preference") for kind in RULES}


@dataclass(frozen=True, slots=True)
class HardPair:
    """A right caption of the clip at a position, and a wrong one of some kind in `RULES`."""

    clip: int
    kind: str
    right: str
    wrong: str


@dataclass(frozen=True, slots=True)
class HardText:
    """The pairs, and the cosine similarities of their sounds with the right and with the wrong caption."""

    pairs: tuple[HardPair, ...]
    right_P: Floats
    wrong_P: Floats

    @property
    def preferred_P(self) -> Floats:
        """1 where the right caption is clearly closer, 0 elsewhere."""
        return (self.right_P > self.wrong_P + TIE).astype(np.float64)

    def by_metric(self) -> dict[Metric, Ints]:
        """The positions of the pairs of each metric; kinds without pairs are left out."""
        kind_P = np.array([pair.kind for pair in self.pairs])
        kinds = {metric: np.flatnonzero(kind_P == kind) for kind, metric in KIND_METRICS.items()}
        return {ALL_KINDS: np.arange(len(self.pairs))} | {metric: at for metric, at in kinds.items() if len(at)}


def make_pairs(clips: EvalClips) -> tuple[HardPair, ...]:
    """The pairs of all captions to which a rule applies."""
    pairs = list[HardPair]()
    for position, clip in enumerate(clips.clips):
        for caption in clip.captions:
            # What another caption of the clip says is not wrong.
            made = {kind: wrong for kind, wrong in hard_captions(caption).items() if wrong not in clip.captions}
            pairs += [HardPair(position, kind, caption, wrong) for kind, wrong in made.items()]
    return tuple(pairs)


def clips_with_pairs(clips: EvalClips) -> EvalClips:
    """The clips that have a pair, usually few of them. Raises DataError where no rule applies to any caption."""
    pairs = make_pairs(clips)
    if not pairs:
        captions = sum(len(clip.captions) for clip in clips.clips)
        raise DataError(
            f"{clips.name}: no rule for wrong captions applies to any of {captions} captions. Expected some with two "
            "events (“followed by”), two sources, “with”, “and” or a number."
        )
    return clips.select(sorted({pair.clip for pair in pairs}))


def run_hard_text(task: Task, data: TaskClips, test: EmbeddedClips, model: CachedEmbedder, seed: int) -> TaskOutput:
    """Run the task of kind "hard_text" on clips that have pairs."""
    pairs = make_pairs(test.clips)
    lost = {key for key, _ in test.lost}
    captions = [caption for clip in data.test.clips if clip.key not in lost for caption in clip.captions]
    used = len({(pair.clip, pair.right) for pair in pairs})
    texts = [caption for pair in pairs for caption in (pair.right, pair.wrong)]
    text_UD, unique_T = embed_sentences(model, texts)
    right_PD, wrong_PD = (text_UD[unique_T[start::2]].astype(np.float64) for start in (0, 1))
    clip_P = np.array([pair.clip for pair in pairs])
    audio_ND = test.embedding_ND.astype(np.float64)
    hard = HardText(pairs, _cosines(audio_ND[clip_P], right_PD), _cosines(audio_ND[clip_P], wrong_PD))
    measures = {
        metric: Measure(mean_of(hard.preferred_P[position]), clip_P[position])
        for metric, position in hard.by_metric().items()
    }
    # The same question to a model that hears no sound: natural sentences may be closer to any sound than changed ones.
    mean_D = audio_ND.mean(axis=0)
    blind = (right_PD @ mean_D > wrong_PD @ mean_D + TIE).mean()
    notes = [
        f"{used} of {len(captions)} captions were used: {_counts(pairs)}. No rule applies to the others.",
        f"With the mean of these sounds in place of each one, {100 * blind:.1f} % of the right captions are preferred; "
        "the difference is due to the sounds.",
    ]
    if truncated := model.count_truncated(texts):
        notes.append(f"{truncated} of {len(texts)} captions are longer than the text context and were cut.")
    return TaskOutput(test.clips, measures, tuple(notes), hard_text=hard)


def _cosines(a_PD: Floats, b_PD: Floats) -> Floats:
    return np.asarray(np.einsum("pd,pd->p", a_PD, b_PD), np.float64)


def _counts(pairs: Sequence[HardPair]) -> str:
    return ", ".join(f"{sum(pair.kind == kind for pair in pairs)} {kind}" for kind in RULES)
