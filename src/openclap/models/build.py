"""Build the networks of a preset."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from openclap.models.clap import CLAP
from openclap.models.config import HTSATConfig
from openclap.models.htsat import HTSAT
from openclap.models.pann import PANN
from openclap.models.text_tower import TextTower

if TYPE_CHECKING:
    from openclap.presets import Preset


def build_clap(preset: Preset) -> CLAP:
    """Build the networks of `preset` with random weights from torch's generator.

    A new audio tower needs a case here, and two methods: `forward(AudioBatch)` returns (B, `embedding_size`), and
    `features(AudioBatch)` returns AudioFeatures.
    """
    tower: nn.Module = HTSAT(preset.audio) if isinstance(preset.audio, HTSATConfig) else PANN(preset.audio)
    return CLAP(
        tower,
        TextTower(preset.text),
        preset.audio.embedding_size,
        preset.text.hidden_size,
        preset.embedding_size,
        temperatures=preset.temperatures,
        transforms=preset.transforms,
    )
