"""Build the networks of a preset."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from torch import nn

from openclap.models.clap import CLAP
from openclap.models.config import (
    MODERN,
    AudioConfig,
    HTSATConfig,
    NaFlexConfig,
    PANNConfig,
    TextTowerConfig,
    WhisperConfig,
)
from openclap.models.htsat import HTSAT
from openclap.models.modern_text import ModernText
from openclap.models.naflex import NaFlex
from openclap.models.pann import PANN
from openclap.models.text_tower import TextTower
from openclap.models.whisper import WhisperTower

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
    if isinstance(config, NaFlexConfig):
        return NaFlex(config)
    if isinstance(config, WhisperConfig):
        return WhisperTower(config)
    assert_never(config)


def build_text_tower(config: TextTowerConfig) -> nn.Module:
    """Build a text tower with random weights from torch's generator."""
    return ModernText(config) if config.model_type == MODERN else TextTower(config)


def build_clap(preset: Preset) -> CLAP:
    """Build the networks of `preset` with random weights from torch's generator."""
    return CLAP(
        build_audio_tower(preset.audio),
        build_text_tower(preset.text),
        preset.audio.embedding_size,
        preset.text.hidden_size,
        preset.embedding_size,
        temperatures=preset.temperatures,
        transforms=preset.transforms,
        audio_head=preset.audio_head,
        text_head=preset.text_head,
        unit_audio=preset.unit_audio,
    )
