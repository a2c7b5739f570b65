"""Build the networks of a preset."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from torch import nn

from openclap.models.clap import CLAP
from openclap.models.config import AudioConfig, HTSATConfig, PANNConfig
from openclap.models.htsat import HTSAT
from openclap.models.pann import PANN
from openclap.models.text_tower import TextTower

if TYPE_CHECKING:
    from openclap.presets import Preset


def build_audio_tower(config: AudioConfig) -> nn.Module:
    """Build an audio tower with random weights from torch's generator.

    A new audio tower needs a case here, and two methods: `forward(AudioBatch)` returns (B, `embedding_size`), and
    `features(AudioBatch)` returns AudioFeatures. `assert_never` makes the type checker name this and every other place
    that tells the towers apart, once `AudioConfig` has a new member.
    """
    if isinstance(config, HTSATConfig):
        return HTSAT(config)
    if isinstance(config, PANNConfig):
        return PANN(config)
    assert_never(config)


def build_clap(preset: Preset) -> CLAP:
    """Build the networks of `preset` with random weights from torch's generator."""
    return CLAP(
        build_audio_tower(preset.audio),
        TextTower(preset.text),
        preset.audio.embedding_size,
        preset.text.hidden_size,
        preset.embedding_size,
        temperatures=preset.temperatures,
        transforms=preset.transforms,
    )
