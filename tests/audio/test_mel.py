from __future__ import annotations

import numpy as np
import pytest
import torch

from openclap.audio.config import MelConfig
from openclap.audio.mel import LogMel, mel_filterbank
from openclap.presets import MINI
from support.reference import GOLDEN, wave

LAION = {"rate": 48000, "n_fft": 1024, "hop": 480, "n_mels": 64, "f_min": 50.0, "f_max": 14000.0}


@pytest.mark.parametrize(("name", "scale", "norm"), [("plain", "slaney", "area"), ("fusion", "htk", "none")])
def test_log_mels_are_the_references(name: str, scale: str, norm: str) -> None:
    expected_TF = np.load(GOLDEN / "mel.npz")[name]
    logmel = LogMel(MelConfig(**LAION, scale=scale, norm=norm, compression="db"))  # type: ignore[arg-type]
    ours_TF = logmel(torch.from_numpy(wave("ten", 480000))[None])[0].numpy()
    audible = expected_TF > -70  # power above 1e-7
    assert np.abs(ours_TF - expected_TF)[audible].max() < 1e-3


def test_the_filterbank_is_the_references() -> None:
    ours = mel_filterbank(MelConfig(**LAION, scale="slaney", norm="area", compression="db"))
    np.testing.assert_allclose(ours, np.load(GOLDEN / "mel.npz")["plain_filterbank"], atol=1e-7)


@pytest.mark.parametrize("scale", ["htk", "slaney"])
def test_filterbanks_agree_with_transformers(scale: str) -> None:
    from transformers.audio_utils import mel_filter_bank

    mel = MINI.frontend.mel
    ours = mel_filterbank(
        MelConfig(mel.rate, mel.n_fft, mel.hop, mel.n_mels, 0.0, 22050.0, scale, "none", "db")  # type: ignore[arg-type]
    )
    theirs = mel_filter_bank(1025, 96, 0.0, 22050.0, 44100, norm=None, mel_scale=scale)
    np.testing.assert_allclose(ours, theirs, atol=1e-3 if scale == "htk" else 1e-7)  # theirs: float64


def test_unit_sum_bands_add_up_to_one() -> None:
    np.testing.assert_allclose(mel_filterbank(MINI.frontend.mel).sum(dim=0), 1.0, rtol=1e-5)


def test_the_ceiling_is_a_full_scale_tone() -> None:
    """9.4578 is about log10(1 + 10⁴ (n_fft/4)²): a full-scale tone whose power falls into one bin, as it does in the
    narrow bands of low tones."""
    hz = 3 * 44100 / 2048
    tone = torch.sin(2 * torch.pi * hz * torch.arange(44100) / 44100)
    assert 0.9 < LogMel(MINI.frontend.mel)(tone[None]).max().item() < 1.0


@pytest.mark.parametrize("shift", [-513, -1, 0, 1, 255, 512])
def test_long_waveforms_give_in_blocks_what_they_give_as_a_whole(monkeypatch: pytest.MonkeyPatch, shift: int) -> None:
    logmel = LogMel(MelConfig(**LAION, scale="htk", norm="none", compression="db"))  # type: ignore[arg-type]
    wave_BN = 0.1 * torch.randn(2, 64 * 480 + shift, generator=torch.Generator().manual_seed(0))
    spectrum = torch.stft(wave_BN, 1024, 480, window=torch.hann_window(1024), return_complex=True)  # centred, reflected
    wanted = 10 * (spectrum.abs().square().transpose(1, 2) @ logmel.filterbank_KF).clamp_min(1e-10).log10()
    whole = logmel(wave_BN)
    for frames in (7, 16, 61):
        monkeypatch.setattr("openclap.audio.mel.FRAMES", frames)
        torch.testing.assert_close(logmel(wave_BN), whole, rtol=0, atol=1e-5)
        torch.testing.assert_close(logmel(wave_BN), wanted, rtol=0, atol=1e-4)


def test_frames_and_short_clips() -> None:
    logmel = LogMel(MINI.frontend.mel)
    for samples in (1, 500, 1024, 1025, 99 * 1024):
        frames = logmel(torch.zeros(2, samples)).shape[1]
        assert frames == MINI.frontend.mel.frames(samples)
    assert not logmel.state_dict()
