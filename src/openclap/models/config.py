"""Configuration of the towers and of the training objective, without torch: `htsat`, `pann`, `text_tower` and
`objectives` build networks by it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, ClassVar, Literal

from openclap.errors import ConfigError

FusionKind = Literal["daf_1d", "aff_1d", "iaff_1d", "daf_2d", "aff_2d", "iaff_2d", "channel_map"]
"""How the views of a long clip are fused: on the log-mel (1d), after the first layer (2d), or as input channels."""

Pooling = Literal["pooler", "mean", "cls", "eot", "mean_padded", "map", "eos", "last_nonzero"]
"""How the states of a text encoder become one vector (see `TextTowerConfig`)."""

HeadKind = Literal["mlp_relu", "mlp_gelu", "mlp_gelu_narrow", "linear", "linear_bias", "residual_norm"]
"""The projection of a tower's output to the shared space (see `openclap.models.clap.HEADS`)."""


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

    def moment_frames(self, frames: int) -> float:
        """Frames of a log-mel from one moment to the next (see `openclap.models.clap.CLAP.encode_moments`)."""
        # The last map has 1/32 of the pixels of the stretched log-mel, which has `image` of them in each folded piece.
        moments = self.image * (self.image // self.n_mels) // HTSAT_PATCH // (1 << len(self.depths) - 1)
        return (frames - 1) / float(moments)


HTSAT_PATCH = 4
"""Side of a patch of HTSAT in pixels of the image."""

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

    @property
    def halvings(self) -> int:
        """Number of blocks that halve time and frequency."""
        return len(self.widths) - 1 if self.pooled is None else self.pooled

    def moment_frames(self, frames: int) -> float:
        """Frames of a log-mel from one moment to the next."""
        return float(2**self.halvings)


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


@dataclass(frozen=True, slots=True)
class NaFlexConfig:
    """Sizes of a NaFlex audio tower: a transformer over patches of a log-mel of any length.

    Attributes:
        patch_freq, patch_time: mel bins and frames of a patch.
        mlp_ratio: hidden size of an MLP in widths, also that of the pooling if `pool_mlp_ratio` is 0.
        registers: learned tokens before the patches, which are not pooled.
        pre_norm: a layer norm of patches and registers before the first block.
        gated: multiply the output of attention by a gate.
        qk_norm: layer norms of queries and keys.
        swiglu: MLPs with SwiGLU in place of GELU.
        layer_scale: initial gain of a block's branches; 0 for no gains.
        padding: the value that completes a last column of patches: "floor", the lowest of the clip's log-mel;
            "silence", −100 dB; "repeat", the last frame.
    """

    width: int
    depth: int
    heads: int
    patch_freq: int
    patch_time: int
    n_mels: int = 64
    mlp_ratio: float = 4.0
    pool_mlp_ratio: float = 0.0
    registers: int = 0
    pre_norm: bool = False
    gated: bool = False
    qk_norm: bool = False
    swiglu: bool = False
    layer_scale: float = 0.0
    padding: Literal["floor", "silence", "repeat"] = "floor"

    def __post_init__(self) -> None:
        """Raises ValueError for sizes that do not divide."""
        if self.n_mels % self.patch_freq:
            raise ValueError(f"{self.n_mels} mel bins are no multiple of patches of {self.patch_freq}")
        if self.width % self.heads or self.width // self.heads % 4:
            raise ValueError(f"a width of {self.width} in {self.heads} heads is no multiple of 4 in each")

    fusion: ClassVar[None] = None
    classes: ClassVar[int] = 0

    @property
    def embedding_size(self) -> int:
        return self.width

    def moment_frames(self, frames: int) -> float:
        """Frames of a log-mel from one moment to the next: those of a patch."""
        return float(self.patch_time)

    @property
    def rows(self) -> int:
        """Patches of one column: the mel bins divided."""
        return self.n_mels // self.patch_freq

    def columns(self, frames: int) -> int:
        """Columns of patches of a clip; the last one may be filled in part."""
        # Not −(−frames // time): in exported graphs the division of negative numbers rounds towards zero.
        return (frames + self.patch_time - 1) // self.patch_time

    def tokens(self, frames: int) -> int:
        """Patches of a clip."""
        return self.rows * self.columns(frames)

    def frames_within(self, tokens: int) -> int:
        """The frames of the whole columns that fit `tokens` patches, at least one column.

        Raises ConfigError for fewer tokens than a column has.
        """
        if tokens < self.rows:
            raise ConfigError(f"A cap of {tokens} patches is less than one column, which has {self.rows}.")
        return tokens // self.rows * self.patch_time


@dataclass(frozen=True, slots=True)
class WhisperConfig:
    """Sizes of Whisper's encoder, and of the embedding that its states are projected to."""

    width: int
    layers: int
    heads: int
    embedding_size: int
    n_mels: int = 80
    positions: int = 1500
    fusion: ClassVar[None] = None
    classes: ClassVar[int] = 0

    def moment_frames(self, frames: int) -> float:
        """Frames of a log-mel from one moment to the next: a position has two, and positions are averaged in pairs."""
        return 4.0


AudioConfig = HTSATConfig | PANNConfig | NaFlexConfig | WhisperConfig


@dataclass(frozen=True, slots=True)
class ModernTextSizes:
    """Sizes of the modern text transformer, `TextTowerConfig.sizes` of the model type "modern".

    Attributes:
        gated, qk_norm, causal: see `openclap.models.attention.GatedAttention`.
        bos_id, eos_id, pad_id: ids of the markers of beginning and end, and of padding.
    """

    num_hidden_layers: int
    heads: int
    vocab_size: int
    mlp_ratio: float
    norm_eps: float
    gated: bool
    qk_norm: bool
    causal: bool
    attention_bias: bool
    mlp_bias: bool
    gate_bias: bool
    bos_id: int
    eos_id: int
    pad_id: int


MODERN = "modern"
"""The model type of `openclap.models.modern_text`; all others are encoders of transformers."""


@dataclass(frozen=True, slots=True)
class TextTowerConfig:
    """A text encoder by its transformers `model_type` and sizes.

    Attributes:
        model_type: "roberta", "bert", "bart", "clip_text_model", or any other type of transformers; or "modern", the
            transformer of `openclap.models.modern_text`.
        pooling: "pooler", the encoder's own layer over the first token's state (BERT, RoBERTa); "mean" over the
            tokens that are not padding; "cls", the first token's state; "eot", the state at the highest token id
            (CLIP); "mean_padded", the mean over all `context` positions, padding included (LAION's BART);
            "last_nonzero", the last token's state as Microsoft's CLAP of 2023 counts tokens. The type "modern" has
            "map", attention with a learned query, "eos", the state at the first end marker, and "mean".
        context: captions are cut to this many tokens.
        sizes: arguments of that type's configuration class (`vocab_size`, `num_hidden_layers`, …); `ModernTextSizes`
            for "modern".
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
        teacher_share: the share of each target that a teacher's softmax over the candidates has, in training with one.
        teacher_temperature: divides the teacher's logits: above 1 its targets are softer.
        frames: weight of the frame loss (see `openclap.models.frame_loss`), for data with phrases that have on- and
            offsets; 0 for none.
        initial_scale: the initial logit scale (10 in SigLIP's paper), which also resets SigLIP's bias to −10; 0 leaves
            both as the model has them.

    Raises ConfigError for values out of range and for combinations that nothing defines.
    """

    kind: str = "infonce"
    kappa: float = 0.0
    label_smoothing: float = 0.0
    matryoshka: tuple[int, ...] = ()
    spare_equal_captions: bool = False
    # The published recipe adds both losses with equal weights.
    teacher_share: float = 0.5
    teacher_temperature: float = 1.0
    initial_scale: float = 0.0
    frames: float = 0.0

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
        if not 0 <= self.frames < math.inf:
            raise ConfigError(f"objective.frames is {self.frames}, expected 0 or more.")
        # The bounds within which `CLAP.scale` is clamped.
        if self.initial_scale and not 1 <= self.initial_scale <= 100:
            raise ConfigError(f"objective.initial_scale is {self.initial_scale}, expected 1 to 100, or 0 (unchanged).")
        if not 0 < self.teacher_share <= 1:
            raise ConfigError(f"objective.teacher_share is {self.teacher_share}, expected more than 0, up to 1.")
        if not 0 < self.teacher_temperature < math.inf:
            raise ConfigError(f"objective.teacher_temperature is {self.teacher_temperature}, expected more than 0.")
        if self.kind == "siglip" and (self.kappa or self.label_smoothing):
            raise ConfigError("objective.kappa and objective.label_smoothing are for softmaxes; siglip has none.")
        if self.kind == "mlp" and self.matryoshka:
            raise ConfigError("objective.matryoshka goes with infonce and siglip; mlp compares whole vectors only.")
