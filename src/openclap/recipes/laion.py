"""The training runs of LAION-CLAP's paper (Wu et al. 2023, arXiv:2211.06687), a row each.

Command:   openclap init PRESET --audio-tower FILE --text-tower NAME --out START
           torchrun --nproc-per-node 8 --module openclap train ROW --start START --data SHARDS/train --out RUN
Hardware:  the row's number of GPUs, with 96 pairs on each; `openclap train ROW --dry-run` estimates memory and time on
           this machine
Time:      not measured: these were never run here
Expected:  the row's published figures are the paper's; rows without a figure are in its table of encoders

`PRESET` and `NAME` (roberta-base, bert-base-uncased, openai/clip-vit-base-patch32) are the row's. `FILE` is HTSAT-tiny
or PANN-14 trained on AudioSet, from its authors. Adam without decay, a learning rate of 1e-4 for all parts, 3,200 steps
of warm-up, 45 epochs, no gradient clipping, two SpecAugment stripes in time and in frequency. The paper states betas of
0.99 and 0.9; its scripts use the ones here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from openclap import paths
from openclap.audio.augment import LAION_STRIPES
from openclap.training.config import ExpectedInputs, OptimConfig, TrainConfig

PAIRS_PER_GPU = 96
_AUDIOCAPS_CLOTHO = 49_274 + 3_839
"""Training clips of AudioCaps and of Clotho."""
_630K = 414_127 + round(0.9 * (633_526 - 515_581))
"""Training clips of LAION-Audio-630K: Freesound's training split without clips of evaluation sets, and nine tenths of
the other sources."""
_AUDIOSET = 1_912_024 - 4_875
"""Clips of AudioSet's unbalanced part without AudioCaps' test clips."""
PAIRS = {
    "audiocaps-clotho": _AUDIOCAPS_CLOTHO,
    "audiocaps-clotho-630k": _AUDIOCAPS_CLOTHO + _630K,
    "audiocaps-clotho-630k-audioset": _AUDIOCAPS_CLOTHO + _630K + _AUDIOSET,
}
"""Training sets and their numbers of clips; an epoch takes one pair of each clip."""


@dataclass(frozen=True, slots=True)
class PaperRun:
    """One training run of the paper.

    Attributes:
        preset: the name of the model's preset.
        data: the training set, a name in PAIRS. AudioSet's captions are made from its labels (`--caption` of
            `openclap dataset build`).
        gpus: GPUs over which the batch is distributed.
        published: R@1, R@5 and R@10 from text to audio, on AudioCaps and on Clotho.
    """

    preset: str
    data: str
    gpus: int
    published: str = ""

    def config(self) -> TrainConfig:
        """Return the run's configuration."""
        return TrainConfig(
            start=str(paths.home() / "starts" / self.preset),
            data=str(paths.home() / "sets" / self.data / "train"),
            epochs=45,
            # On each GPU: 96 on each of 24 are the paper's 2,304.
            batch_size=PAIRS_PER_GPU,
            augment=LAION_STRIPES,
            optim=OptimConfig(
                lr=1e-4, tower_lr=1e-4, betas=(0.9, 0.999), weight_decay=0.0, warmup_steps=3200, clip_norm=math.inf
            ),
            save_every=1000,
            workers=6,
        )

    def expected_inputs(self) -> ExpectedInputs:
        """Return the preset and the number of pairs, for planning without start and data."""
        from openclap.presets import PRESETS  # here, since presets import the networks, and these torch

        return ExpectedInputs(PRESETS[self.preset], PAIRS[self.data])


SMALL, MIDDLE, LARGE = PAIRS
RUNS = {
    "pann-clip": PaperRun("pann-14-clip", SMALL, 8),
    "pann-bert": PaperRun("pann-14-bert", SMALL, 8),
    "pann-roberta": PaperRun("pann-14-roberta", SMALL, 8),
    "htsat-clip": PaperRun("htsat-tiny-clip", SMALL, 8),
    "htsat-bert": PaperRun("htsat-tiny-bert", SMALL, 8),
    "htsat-roberta": PaperRun("htsat-tiny-roberta", SMALL, 8),
    "htsat-roberta-630k": PaperRun("htsat-tiny-roberta", MIDDLE, 24),
    "htsat-roberta-630k-fusion": PaperRun(
        "htsat-tiny-fusion-roberta", MIDDLE, 24, "AudioCaps 36.2 70.3 82.5, Clotho 17.2 42.9 55.4"
    ),
    "htsat-roberta-630k-audioset": PaperRun("htsat-tiny-roberta", LARGE, 48),
    "htsat-roberta-630k-audioset-fusion": PaperRun(
        "htsat-tiny-fusion-roberta", LARGE, 48, "AudioCaps 35.1 71.5 83.6, Clotho 18.2 42.5 54.4"
    ),
}
