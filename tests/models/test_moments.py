"""Latent vectors of moments: each is what the tower's pooling gives for that moment alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from openclap import presets
from openclap.models.build import build_audio_tower, build_clap
from openclap.models.config import AudioConfig, HTSATConfig, NaFlexConfig, PANNConfig, WhisperConfig
from openclap.models.fusion import LOCAL_VIEWS
from openclap.types import AudioBatch
from support.tiny_models import TINY_HTSAT, TINY_PANN, TINY_PRESET, TINY_SWIN_PRESET

NAFLEX = NaFlexConfig(width=16, depth=2, heads=2, patch_freq=8, patch_time=4, n_mels=16, registers=1)
WHISPER = WhisperConfig(width=16, layers=1, heads=2, embedding_size=8, n_mels=16, positions=20)


def tower(config: AudioConfig) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_audio_tower(config).eval()


def clips(frames: int, bins: int = 16, clips: int = 2, views: int = 1) -> AudioBatch:
    mel = torch.randn(clips, views, frames, bins, generator=torch.Generator().manual_seed(frames))
    return AudioBatch(mel, torch.zeros(clips, dtype=torch.bool))


def moments_of(network: torch.nn.Module, batch: AudioBatch) -> torch.Tensor:
    """The latent vectors of moments; the embedding beside them is the tower's own."""
    embedding, moments = network.with_moments(batch)
    torch.testing.assert_close(embedding, network(batch))
    return moments


@torch.inference_mode()
def test_the_moments_of_htsat_are_the_means_of_its_last_map() -> None:
    network, batch = tower(TINY_HTSAT), clips(100)
    moments, features = moments_of(network, batch), network.features(batch)
    assert moments.shape == (2, 32, 32)
    # LAION-CLAP repeats moments to the frames of the image.
    torch.testing.assert_close(features.fine, moments.repeat_interleave(8, dim=1))
    torch.testing.assert_close(moments.mean(dim=1), network(batch))


@torch.inference_mode()
@pytest.mark.parametrize("fusion", ["aff_2d", "aff_1d", "channel_map"])
def test_fusion_models_have_moments_of_clips_that_are_not_long(fusion: str) -> None:
    for config in (replace(TINY_HTSAT, fusion=fusion), replace(TINY_PANN, fusion=fusion)):
        one = clips(64)
        batch = AudioBatch(one.mel_BVTF.expand(-1, 1 + LOCAL_VIEWS, -1, -1), one.is_long_B)
        assert torch.isfinite(moments_of(tower(config), batch)).all()


@torch.inference_mode()
@pytest.mark.parametrize(
    "config",
    [
        replace(TINY_PANN, classes=0),
        PANNConfig(widths=(4, 8), pool="max", categories=(3, 2)),
        PANNConfig(widths=(4, 8, 8), pool="average", pooled=2, linear=True, over_time="max+mean"),
    ],
)
def test_a_moment_of_pann_is_pooled_as_a_clip_of_one_moment(config: PANNConfig) -> None:
    network = tower(config)
    one = clips(2**config.halvings)  # so short that its last map has one moment
    torch.testing.assert_close(moments_of(network, one)[:, 0], network(one))
    long = clips(40)
    assert moments_of(network, long).shape == (2, 40 // 2**config.halvings, config.embedding_size)
    if not config.linear and not config.categories:
        torch.testing.assert_close(moments_of(network, long).amax(dim=1), network(long))


@torch.inference_mode()
def test_a_moment_of_naflex_is_one_column_under_the_attention_pool() -> None:
    network, one = tower(NAFLEX), clips(4)
    torch.testing.assert_close(moments_of(network, one)[:, 0], network(one))
    assert moments_of(network, clips(10)).shape == (2, 3, 16)


@torch.inference_mode()
def test_with_one_patch_in_a_column_attention_leaves_its_value() -> None:
    network, batch = tower(replace(NAFLEX, patch_freq=16)), clips(12)
    states, _ = network.states(batch)
    pool = network.pool
    value = pool.proj(pool.kv(states)[..., 16:])
    torch.testing.assert_close(moments_of(network, batch), value + pool.mlp(pool.norm(value)), rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_the_moments_of_naflex_do_not_depend_on_padding() -> None:
    network, short = tower(NAFLEX), clips(13, clips=1)
    frames_B = torch.tensor([13, 40])
    padded = torch.cat([F.pad(short.mel_BVTF, (0, 0, 0, 27)), clips(40, clips=1).mel_BVTF])
    together = moments_of(network, AudioBatch(padded, torch.zeros(2, dtype=torch.bool), frames_B))
    alone = moments_of(network, replace(short, frames_B=frames_B[:1]))
    torch.testing.assert_close(together[:1, :4], alone, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_the_mean_of_whispers_moments_is_its_embedding() -> None:
    network, batch = tower(WHISPER), clips(40)
    assert moments_of(network, batch).shape == (2, 10, 8)
    torch.testing.assert_close(moments_of(network, batch).mean(dim=1), network(batch))


@torch.inference_mode()
@pytest.mark.parametrize("preset", [TINY_PRESET, TINY_SWIN_PRESET])
def test_moments_go_through_the_head_and_are_unit_vectors(preset: presets.Preset) -> None:
    torch.manual_seed(0)
    network = build_clap(preset).eval()
    batch = clips(32, preset.frontend.mel.n_mels)
    moments = network.encode_moments(batch)
    expected = F.normalize(network.audio_head(moments_of(network.audio_tower, batch)), dim=-1)
    torch.testing.assert_close(moments, expected)
    torch.testing.assert_close(moments.norm(dim=-1), torch.ones(moments.shape[:2]))


@pytest.mark.parametrize(
    ("preset", "seconds"),
    [
        ("mini", 0.1858),
        ("htsat-tiny-roberta", 0.3125),
        ("pann-14-roberta", 0.32),
        ("pann-6-roberta", 0.16),
    ],
)
def test_the_resolution_of_published_towers(preset: str, seconds: float) -> None:
    chosen = presets.named(preset)
    assert chosen.moment_samples / chosen.frontend.mel.rate == pytest.approx(seconds, abs=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("config", [TINY_HTSAT, TINY_PANN, NAFLEX, WHISPER, TINY_SWIN_PRESET.audio])
def test_the_stated_resolution_is_that_of_the_tower(config: AudioConfig) -> None:
    frames = 2 * config.positions if isinstance(config, WhisperConfig) else 64
    stated = (frames - 1 if isinstance(config, HTSATConfig) else frames) / config.moment_frames(frames)
    assert moments_of(tower(config), clips(frames)).shape[1] == int(stated)
