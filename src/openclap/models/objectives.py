"""Training objectives over the two towers' features.

B clips, T captions, D embedding. An objective takes the features of this process (`own`) and of the whole global batch
(`everyone`) and returns this process's share of the loss: the shares of all processes sum to the loss of the
global batch. Anchors are own clips and own captions, candidates are everyone's, so no process computes what another one
does. With one process, `own` is `everyone` and the share is the loss.

A clip may have several captions, and all of them are its positives: its target is spread evenly over them, so its loss
is the mean of their cross-entropies, each against all captions of the batch. A caption's target is its one clip. The
loss is the mean over clips plus the mean over captions, halved.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openclap.errors import ConfigError
from openclap.models.clap import CLAP
from openclap.models.config import ObjectiveConfig
from openclap.models.contrast import (
    AllNegatives,
    Contrast,
    EqualWeights,
    ExcludeEqualCaptions,
    NegativeFilter,
    PairWeights,
    SimilarityWeights,
    SoftTargets,
)
from openclap.types import Features

FRAMES_PREFIX = "frames."
"""Before the names of the tensors that the frame loss learns."""


class Objective(nn.Module, ABC):
    """The contract: `forward(own, everyone)` is a scalar, this process's share of the global batch's loss."""

    transforms = False
    """Whether it reads `scale_text`, `audio_mlp_BD` and `text_mlp_TD`."""

    @abstractmethod
    def forward(self, own: Features, everyone: Features) -> Tensor: ...

    def learned(self) -> dict[str, Tensor]:
        """The objective's own learned tensors, not copies."""
        return dict(self.state_dict())


class InfoNCE(Objective):
    """Each clip picks its captions among all captions, each caption its clip (Radford et al. 2021, figure 3)."""

    def __init__(self, config: ObjectiveConfig) -> None:
        super().__init__()
        self.contrast = _contrast(config)
        self.weights = _weights(config)

    def forward(self, own: Features, everyone: Features) -> Tensor:
        return self.contrast(own, everyone, self.weights.by_audio(own, everyone), self.weights.by_text(own, everyone))


class FourTerms(Objective):
    """LAION's two-temperature loss over MLP transforms: audio against transformed text at one scale, transformed audio
    against text at the other, each in both directions; the mean of the four (LAION-CLAP's `ClipLoss`, `mlp_loss`)."""

    transforms = True

    def __init__(self, config: ObjectiveConfig) -> None:
        super().__init__()
        self.contrast = _contrast(config)
        self.weights = _weights(config)

    def forward(self, own: Features, everyone: Features) -> Tensor:
        by_audio, by_text = self.weights.by_audio(own, everyone), self.weights.by_text(own, everyone)
        # LAION: weights come from the audio for the terms at the first scale, and from the text for those at the second
        # (test_the_weighted_four_terms_are_the_references).
        plain = self.contrast(_text_transformed(own), _text_transformed(everyone), by_audio, by_audio)
        return (plain + self.contrast(_audio_transformed(own), _audio_transformed(everyone), by_text, by_text)) / 2


def _text_transformed(features: Features) -> Features:
    assert features.text_mlp_TD is not None
    return replace(features, text_TD=features.text_mlp_TD)


def _audio_transformed(features: Features) -> Features:
    assert features.audio_mlp_BD is not None and features.scale_text is not None
    return replace(features, audio_BD=features.audio_mlp_BD, scale=features.scale_text)


class SigLIP(Objective):
    """A binary decision for every caption and clip (Zhai et al. 2023, arXiv:2303.15343): −log σ(±(s·similarity + b)),
    summed over all pairs and divided by the number of captions. `bias`, b, is learned; it starts at −10 where a model
    has none, and the paper starts the scale at 10."""

    def __init__(self, config: ObjectiveConfig) -> None:
        super().__init__()
        # Nearly all pairs of a batch are negatives, and at −10 their initial loss is small.
        self.bias = nn.Parameter(torch.tensor(-10.0))
        self.negatives = _negatives(config)

    def forward(self, own: Features, everyone: Features) -> Tensor:
        logits_TB = own.scale * own.text_TD @ everyone.audio_BD.T + self.bias
        is_pair_TB = own.owner_T[:, None] == everyone.clip_B
        losses_TB = -F.logsigmoid(torch.where(is_pair_TB, logits_TB, -logits_TB))
        excluded_TB = self.negatives.of_captions(own, everyone)
        # By the global number of captions: shares of processes then sum to the loss, whatever number each one has.
        return losses_TB.masked_fill(excluded_TB, 0.0).sum() / max(1, len(everyone.owner_T))


class Matryoshka(Objective):
    """The mean of an objective over several sizes: the first n numbers of each vector, at unit length again (Kusupati
    et al. 2022). It is a mean and not the paper's sum so that the loss and its gradient stay as large as without."""

    def __init__(self, inner: Objective, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.inner, self.sizes = inner, sizes

    def forward(self, own: Features, everyone: Features) -> Tensor:
        return torch.stack([self.inner(_first(own, size), _first(everyone, size)) for size in self.sizes]).mean()

    def learned(self) -> dict[str, Tensor]:
        return self.inner.learned()


def _first(features: Features, size: int) -> Features:
    audio_BD = F.normalize(features.audio_BD[:, :size], dim=-1)
    return replace(features, audio_BD=audio_BD, text_TD=F.normalize(features.text_TD[:, :size], dim=-1))


def _contrast(config: ObjectiveConfig) -> Contrast:
    soft_targets = SoftTargets(config.teacher_share, config.teacher_temperature)
    return Contrast(config.label_smoothing, _negatives(config), soft_targets)


def _weights(config: ObjectiveConfig) -> PairWeights:
    return SimilarityWeights(config.kappa) if config.kappa else EqualWeights()


def _negatives(config: ObjectiveConfig) -> NegativeFilter:
    return ExcludeEqualCaptions() if config.spare_equal_captions else AllNegatives()


# A new kind is also named in OBJECTIVE_KINDS (models/config.py), which checks options without importing torch.
OBJECTIVES: dict[str, Callable[[ObjectiveConfig], Objective]] = {
    "infonce": InfoNCE,
    "mlp": FourTerms,
    "siglip": SigLIP,
}


def build_objective(config: ObjectiveConfig, clap: CLAP, learned: Mapping[str, Tensor] | None = None) -> Objective:
    """Build the objective and prepare `clap` for it. Call it before optimizer and processes are set up.

    Parts of `clap` that the objective does not read are frozen (data-parallel training waits for every gradient), and
    its scales are set to the configured start. The objective's own parameters must be optimised too; they start as
    `learned`, where its shapes match.

    Raises ConfigError when `clap` lacks parts that the objective reads.
    """
    objective = OBJECTIVES[config.kind](config)
    # `clap.scale` is read by every objective; these parts only by the four-term loss.
    extras = (clap.audio_transform, clap.text_transform, clap.logit_scale_text)
    if objective.transforms and any(extra is None for extra in extras):
        raise ConfigError(
            "objective.kind is mlp, which needs a model with transforms and two temperatures. "
            "Choose infonce or siglip, or start from a LAION-CLAP checkpoint."
        )
    for extra in extras:
        if extra is not None and not objective.transforms:
            extra.requires_grad_(False)
    # A start trained with another objective has other parameters, or none; they are then left at their initial values.
    frames, learned = _split_frames(learned or {})
    if learned and not config.initial_scale and _shapes(learned) == _shapes(objective.learned()):
        objective.load_state_dict(learned)
    if config.initial_scale:
        with torch.no_grad():
            for scale in (clap.logit_scale, clap.logit_scale_text):
                if scale is not None:
                    scale.fill_(math.log(config.initial_scale))
    # Last, because a nested objective has other names for the parameters that are loaded above.
    objective = _nested(objective, config.matryoshka, clap)
    if config.frames:
        from openclap.models.frame_loss import WithFrames  # which is an Objective

        objective = WithFrames(objective, config.frames, frames)
    return objective.to(clap.logit_scale.device)


def _split_frames(learned: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The learned tensors of the frame loss, and those of the objective beside it."""
    frames = {name: value for name, value in learned.items() if name.startswith(FRAMES_PREFIX)}
    return frames, {name: value for name, value in learned.items() if name not in frames}


def _shapes(learned: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in learned.items()}


def _nested(objective: Objective, sizes: tuple[int, ...], clap: CLAP) -> Objective:
    """`objective` over these sizes and the whole size; `objective` itself without sizes."""
    whole = clap.embedding_size
    if not sizes:
        return objective
    if max(sizes) > whole:
        raise ConfigError(f"objective.matryoshka has {max(sizes)}, but the model's vectors have {whole} numbers.")
    return Matryoshka(objective, tuple(sorted({*sizes, whole})))
