"""The configuration of the training objective, without torch, so that recipes can be read without it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from difflib import get_close_matches

from openclap.errors import ConfigError

OBJECTIVE_KINDS = ("infonce", "mlp", "siglip")
"""The keys of `openclap.models.objectives.OBJECTIVES`."""


@dataclass(frozen=True, slots=True)
class ObjectiveConfig:
    """The training objective and its settings; `openclap.models.objectives.build_objective` builds it.

    Attributes:
        kind: "infonce", "mlp" or "siglip" (see `InfoNCE`, `FourTerms`, `SigLIP`).
        kappa: weight of pairs in crowded regions of the space: the smaller, the heavier (see `Crowding`); 0 gives all
            pairs the same weight.
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
        if self.initial_scale and not 1 <= self.initial_scale <= 100:
            raise ConfigError(f"objective.initial_scale is {self.initial_scale}, expected 1 to 100, or 0 (unchanged).")
        if self.kind == "siglip" and (self.kappa or self.label_smoothing):
            raise ConfigError("objective.kappa and objective.label_smoothing are for softmaxes; siglip has none.")
        if self.kind == "mlp" and self.matryoshka:
            raise ConfigError("objective.matryoshka goes with infonce and siglip; mlp compares whole vectors only.")
