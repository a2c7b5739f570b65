"""What every format is read into and written from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from openclap.presets import Preset


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Weights under our names, and what they need to be used.

    Attributes:
        format: where it was read from: "openclap", "huggingface" or "laion".
        weights: every tensor that the preset's networks read, by the names of their state dict.
        unused: learned tensors that came along and nothing here reads (LAION's second global branch of iAFF, BART's
            decoder), under the names of LAION's files; kept so that the way back loses nothing.
        tokenizer: a `tokenizer.json`, or a `vocab.json` with merges beside it; None where it must be fetched by the
            preset's `text.tokenizer`.
        source: the file or folder that it was read from.
        objective: what its objective learned beside the networks (SigLIP's bias), from which training goes on; our own
            folder alone has a place for it.
    """

    format: str
    preset: Preset
    weights: dict[str, Tensor]
    unused: dict[str, Tensor] = field(default_factory=dict)
    tokenizer: Path | None = None
    source: Path | None = None
    objective: dict[str, Tensor] = field(default_factory=dict)
