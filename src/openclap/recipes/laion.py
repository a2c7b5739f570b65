"""The runs of LAION-CLAP's paper (Wu et al. 2023, arXiv:2211.06687), a row each.

Command:   openclap init PRESET --audio-tower FILE --text-tower NAME --out START
           torchrun --nproc-per-node 8 --module openclap train ROW --start START --data SHARDS/train --out RUN
Hardware:  as many GPUs as the row says, with 96 pairs on each; `openclap train ROW --dry-run` says what a row takes
           on the machine at hand
Time:      not measured: nobody here has run these
Expected:  what the row says is the paper's; rows without a figure stand in its table of encoders

`PRESET` and `NAME` (roberta-base, bert-base-uncased, openai/clip-vit-base-patch32) are the row's. `FILE` is HTSAT-tiny
or PANN-14 as trained on AudioSet, from its authors. Adam without decay, the rate 1e-4 for all parts, 3,200 steps of
warm-up, 45 passes, no clipping of the gradient, two stripes of SpecAugment each way. The paper says betas of 0.99 and
0.9; its scripts take the ones here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from openclap import paths
from openclap.audio.augment import LAION_STRIPES
from openclap.presets import PRESETS
from openclap.training.config import OptimConfig, TrainConfig
from openclap.training.plan import Given

PAIRS_ON_A_GPU = 96
_CAPTIONED = 49_274 + 3_839
"""Clips of AudioCaps and of Clotho that are trained on."""
_630K = 414_127 + round(0.9 * (633_526 - 515_581))
"""Of LAION-Audio-630K: Freesound's training split, without clips that evaluation sets hold, and nine tenths of the
other sources."""
_AUDIOSET = 1_912_024 - 4_875
"""AudioSet's unbalanced part without AudioCaps' test clips."""
PAIRS = {
    "audiocaps-clotho": _CAPTIONED,
    "audiocaps-clotho-630k": _CAPTIONED + _630K,
    "audiocaps-clotho-630k-audioset": _CAPTIONED + _630K + _AUDIOSET,
}
"""Training sets, with how many clips they have; an epoch takes one pair of each."""


@dataclass(frozen=True, slots=True)
class Row:
    """One run.

    Attributes:
        preset: what the model is made of.
        data: the training set, a name in PAIRS. AudioSet's captions are made from its labels (`--caption` of
            `openclap dataset build`).
        gpus: how many the batch is spread over.
        published: R@1, R@5 and R@10 from text to audio, on AudioCaps and on Clotho.
    """

    preset: str
    data: str
    gpus: int
    published: str = ""

    def config(self) -> TrainConfig:
        return TrainConfig(
            start=str(paths.home() / "starts" / self.preset),
            data=str(paths.home() / "sets" / self.data / "train"),
            epochs=45,
            batch_size=PAIRS_ON_A_GPU,
            augment=LAION_STRIPES,
            optim=OptimConfig(
                lr=1e-4, tower_lr=1e-4, betas=(0.9, 0.999), weight_decay=0.0, warmup_steps=3200, clip_norm=math.inf
            ),
            save_every=1000,
            workers=6,
        )

    def given(self) -> Given:
        """What is known without start and data."""
        return Given(PRESETS[self.preset], PAIRS[self.data])


SMALL, MIDDLE, LARGE = PAIRS
ROWS = {
    "pann-clip": Row("pann-14-clip", SMALL, 8),
    "pann-bert": Row("pann-14-bert", SMALL, 8),
    "pann-roberta": Row("pann-14-roberta", SMALL, 8),
    "htsat-clip": Row("htsat-tiny-clip", SMALL, 8),
    "htsat-bert": Row("htsat-tiny-bert", SMALL, 8),
    "htsat-roberta": Row("htsat-tiny-roberta", SMALL, 8),
    "htsat-roberta-630k": Row("htsat-tiny-roberta", MIDDLE, 24),
    "htsat-roberta-630k-fusion": Row(
        "htsat-tiny-fusion-roberta", MIDDLE, 24, "AudioCaps 36.2 70.3 82.5, Clotho 17.2 42.9 55.4"
    ),
    "htsat-roberta-630k-audioset": Row("htsat-tiny-roberta", LARGE, 48),
    "htsat-roberta-630k-audioset-fusion": Row(
        "htsat-tiny-fusion-roberta", LARGE, 48, "AudioCaps 35.1 71.5 83.6, Clotho 18.2 42.5 54.4"
    ),
}
