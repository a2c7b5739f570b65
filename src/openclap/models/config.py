"""Configuration of the towers and of the training objective, without torch: `htsat`, `pann`, `text_tower` and
`objectives` build networks by it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Literal

from openclap.errors import ConfigError

FusionKind = Literal["daf_1d", "aff_1d", "iaff_1d", "daf_2d", "aff_2d", "iaff_2d", "channel_map"]
"""How the views of a long clip are fused: on the log-mel (1d), after the first layer (2d), or as input channels."""

Pooling = Literal["pooler", "mean", "cls", "eot", "mean_padded"]
"""How the states of a text encoder become one vector (see `TextTowerConfig`)."""


@dataclass(frozen=True, slots=True)
class HTSATConfig:
    """Sizes of an HTSAT audio tower.

    Attributes:
        width: channels of the first stage; each stage doubles them.
        depths, heads: blocks and attention heads of each stage.
        image: side of the square into which `n_mels` bins and the frames are folded.
        classes: of the tagging head (AudioSet has 527); 0 for none.
        fusion: how the views of a long clip are fused; None reads the first view alone.
    """

    width: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    n_mels: int = 64
    image: int = 256
    window: int = 8
    classes: int = 527
    fusion: FusionKind | None = None

    @property
    def embedding_size(self) -> int:
        return int(self.width * 2 ** (len(self.depths) - 1))


# LAION-CLAP's sizes by their names there. The weights it has published are tiny and base.
HTSAT_TINY = HTSATConfig(width=96, depths=(2, 2, 6, 2), heads=(4, 8, 16, 32))
HTSAT_BASE = HTSATConfig(width=128, depths=(2, 2, 12, 2), heads=(4, 8, 16, 32))
HTSAT_LARGE = HTSATConfig(width=256, depths=(2, 2, 12, 2), heads=(4, 8, 16, 32))


@dataclass(frozen=True, slots=True)
class PANNConfig:
    """Sizes of a convolutional audio tower: blocks, then pooling over the remaining time and frequency.

    Attributes:
        widths: channels of each block.
        pool: "max" or "average", over 2×2 after each block.
        pooled: number of blocks that are pooled; None for all but the last.
        kernels: side of each convolution of a block: two of 3×3, or one of 5×5 (PANN-6).
        n_mels: mel bins of a first batch norm; None for no such layer.
        over_time: the maximum, or maximum plus mean (PANN).
        dropout: between blocks and, more, around the last layer, in training.
        linear: a layer of the last width, with ReLU, after pooling.
        classes: of the tagging head; 0 for none.
        fusion: how the views of a long clip are fused; None reads the first view alone.
        categories: classes of each category head, whose probabilities follow the pooled values in the embedding.
    """

    widths: tuple[int, ...]
    pool: Literal["max", "average"]
    pooled: int | None = None
    kernels: tuple[int, ...] = (3, 3)
    n_mels: int | None = None
    over_time: Literal["max", "max+mean"] = "max"
    dropout: float = 0.0
    linear: bool = False
    classes: int = 0
    fusion: FusionKind | None = None
    # Not in the repr, from which digests of weights are made: those of older models stay as they were.
    categories: tuple[int, ...] = field(default=(), repr=False)

    @property
    def embedding_size(self) -> int:
        return self.widths[-1] + sum(self.categories)


def _pann(widths: tuple[int, ...], pooled: int, kernels: tuple[int, ...] = (3, 3)) -> PANNConfig:
    return PANNConfig(
        widths,
        pool="average",
        pooled=pooled,
        kernels=kernels,
        n_mels=64,
        over_time="max+mean",
        dropout=0.2,
        linear=True,
        classes=527,
    )


PANN_14 = _pann((64, 128, 256, 512, 1024, 2048), pooled=5)
PANN_10 = _pann((64, 128, 256, 512, 1024), pooled=5)
PANN_6 = _pann((64, 128, 256, 512), pooled=4, kernels=(5,))
"""LAION's sizes: its PANN-10 has five blocks, the published Cnn10 four (`PANN_10_AUDIOSET`)."""
PANN_10_AUDIOSET = _pann((64, 128, 256, 512), pooled=4)

AudioConfig = HTSATConfig | PANNConfig


@dataclass(frozen=True, slots=True)
class TextTowerConfig:
    """A text encoder by its transformers `model_type` and sizes.

    Attributes:
        model_type: "roberta", "bert", "bart", "clip_text_model", or any other type of transformers.
        pooling: "pooler", the encoder's own layer over the first token's state (BERT, RoBERTa); "mean" over the
            tokens that are not padding; "cls", the first token's state; "eot", the state at the highest token id
            (CLIP); "mean_padded", the mean over all `context` positions, padding included (LAION's BART).
        context: captions are cut to this many tokens.
        sizes: arguments of that type's configuration class (`vocab_size`, `num_hidden_layers`, …).
        tokenizer: the hub name of its tokenizer, for weights without a tokenizer file.
    """

    model_type: str
    pooling: Pooling
    context: int
    hidden_size: int
    sizes: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: str | None = None

    @property
    def padded(self) -> bool:
        """Whether captions must be padded to the whole context."""
        return self.pooling == "mean_padded"


OBJECTIVE_KINDS = ("infonce", "mlp", "siglip")
"""The keys of `openclap.models.objectives.OBJECTIVES`."""


@dataclass(frozen=True, slots=True)
class ObjectiveConfig:
    """The training objective and its settings; `openclap.models.objectives.build_objective` builds it.

    Attributes:
        kind: "infonce", "mlp" or "siglip" (see `InfoNCE`, `FourTerms`, `SigLIP`).
        kappa: weight of pairs in crowded regions of the space: the smaller, the heavier (see
            `openclap.models.contrast.SimilarityWeights`); 0 gives all pairs the same weight.
        label_smoothing: the share of each target that is spread evenly over all candidates.
        matryoshka: shorter embedding sizes that are trained together with the full size (see `Matryoshka`).
        spare_equal_captions: never use a clip as a negative of another clip with the same caption.
        initial_scale: the initial logit scale (10 in SigLIP's paper), which also resets SigLIP's bias to −10; 0 leaves
            both as the model has them.

    Raises ConfigError for values out of range and for combinations that nothing defines.
    """

    kind: str = "infonce"
    kappa: float = 0.0
    label_smoothing: float = 0.0
    matryoshka: tuple[int, ...] = ()
    spare_equal_captions: bool = False
    initial_scale: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in OBJECTIVE_KINDS:
            close = get_close_matches(self.kind, OBJECTIVE_KINDS, n=1)
            hint = f"Did you mean {close[0]!r}?" if close else f"There are: {', '.join(OBJECTIVE_KINDS)}."
            raise ConfigError(f"There is no objective {self.kind!r}. {hint}")
        if self.kappa and not 0.02 <= self.kappa < math.inf:  # e^(1/κ) overflows float32 below 0.02
            raise ConfigError(f"objective.kappa is {self.kappa}, expected 0.02 or more, or 0 (off).")
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(f"objective.label_smoothing is {self.label_smoothing}, expected 0 or more and below 1.")
        if any(size < 1 for size in self.matryoshka) or len(set(self.matryoshka)) < len(self.matryoshka):
            raise ConfigError(f"objective.matryoshka is {self.matryoshka}, expected different sizes, each 1 or more.")
        # The bounds within which `CLAP.scale` is clamped.
        if self.initial_scale and not 1 <= self.initial_scale <= 100:
            raise ConfigError(f"objective.initial_scale is {self.initial_scale}, expected 1 to 100, or 0 (unchanged).")
        if self.kind == "siglip" and (self.kappa or self.label_smoothing):
            raise ConfigError("objective.kappa and objective.label_smoothing are for softmaxes; siglip has none.")
        if self.kind == "mlp" and self.matryoshka:
            raise ConfigError("objective.matryoshka goes with infonce and siglip; mlp compares whole vectors only.")
