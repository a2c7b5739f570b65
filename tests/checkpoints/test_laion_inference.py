from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from openclap import presets
from openclap.audio.config import MelConfig
from openclap.audio.mel import mel_filterbank
from openclap.checkpoints.laion import infer_audio_tower, infer_front_end, infer_preset
from openclap.errors import CheckpointError
from support.errors import is_named, raises_naming
from support.tiny_models import TINY_PANN, tiny_laion_state

BANK, STFT = "audio_branch.logmel_extractor.melW", "audio_branch.spectrogram_extractor.stft.conv_real.weight"

RANKS = {
    "audio_branch.patch_embed.proj.weight": 1,
    "audio_branch.bn0.weight": 0,
    "audio_branch.tscam_conv.weight": 0,
    "audio_branch.layers.0.blocks.1.attn_mask": 0,
    "audio_branch.layers.0.blocks.0.attn.relative_position_bias_table": 1,
    BANK: 1,
    STFT: 1,
    "text_branch.embeddings.word_embeddings.weight": 1,
    "text_branch.embeddings.token_type_embeddings.weight": 1,
    "text_branch.embeddings.position_embeddings.weight": 3,
    "text_branch.encoder.layer.0.intermediate.dense.weight": 0,
    "audio_projection.2.weight": 0,
}


def bare(name: str) -> str:
    """As a tower alone calls it, but for what is no tower's."""
    return name if name in (BANK, STFT) else name.removeprefix("audio_branch.")


@pytest.mark.parametrize("name", RANKS)
def test_tensor_of_wrong_rank_is_named(name: str) -> None:
    state = tiny_laion_state()
    assert name in state
    with raises_naming(CheckpointError, "a.pt", bare(name), (3,) * RANKS[name]):
        infer_preset(state | {name: torch.zeros([3] * RANKS[name])}, "a.pt")


@pytest.mark.parametrize("name", [name for name in RANKS if name not in (BANK, STFT) and "mask" not in name])
def test_missing_tensor_is_named(name: str) -> None:
    state = tiny_laion_state()
    del state[name]
    if "tscam" in name:
        assert infer_preset(state, "a.pt").audio.classes == 0
        return
    with raises_naming(CheckpointError, "a.pt") as caught:
        infer_preset(state, "a.pt")
    assert any(is_named(each, str(caught.value)) for each in (bare(name), "audio_branch"))


def test_tower_without_layers_is_refused() -> None:
    state = {name: tensor for name, tensor in tiny_laion_state().items() if ".layers." not in name}
    with pytest.raises(CheckpointError, match=r"layers\.0\.blocks\.0\."):
        infer_preset(state, "a.pt")


def test_huge_layer_number_costs_no_time() -> None:
    wild = {f"audio_branch.layers.{number}.blocks.{number}.x": torch.zeros(1) for number in (0, 300_000_000, 10**30)}
    with pytest.raises(CheckpointError, match=r"layers\.2\.blocks\.0\."):
        infer_preset(tiny_laion_state() | wild, "a.pt")


def test_pann_without_tagging_head_has_no_classes() -> None:
    state = {name: tensor for name, tensor in tiny_laion_state(TINY_PANN).items() if "fc_audioset" not in name}
    assert infer_audio_tower(state, "a.pt") == replace(TINY_PANN, classes=0)


RATES = {  # what the published files of LAION-CLAP and PANN compute their filterbanks from
    48000: (1024, 480, 14000.0),
    32000: (1024, 320, 14000.0),
    16000: (512, 160, 8000.0),
    8000: (256, 80, 4000.0),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("rate", RATES)
def test_sample_rate_is_inferred_from_the_filterbank(rate: int, dtype: torch.dtype) -> None:
    n_fft, hop, f_max = RATES[rate]
    mel = MelConfig(rate, n_fft, hop, 64, 50.0, f_max, scale="slaney", norm="area", compression="db")
    state = {BANK: mel_filterbank(mel).to(dtype), STFT: torch.zeros(n_fft // 2 + 1, 1, n_fft)}
    found = infer_front_end(state, False, "a.pt")
    assert found.mel == mel and found.samples == 10 * rate
    fused = infer_front_end(state, True, "a.pt")
    assert (fused.mel.scale, fused.mel.norm, fused.long) == ("htk", "none", "fusion")


@pytest.mark.parametrize(
    "bank",
    [
        mel_filterbank(replace(presets.LAION_PLAIN.mel, rate=22050, f_max=11025.0)),
        mel_filterbank(replace(presets.LAION_PLAIN.mel, f_min=0.0)),
        mel_filterbank(replace(presets.LAION_PLAIN.mel, scale="htk")),
        torch.zeros(257, 16),
        torch.zeros(513, 64),
    ],
)
def test_unknown_filterbank_is_refused(bank: torch.Tensor) -> None:
    with raises_naming(CheckpointError, "a.pt", tuple(bank.shape)):
        infer_front_end({BANK: bank}, False, "a.pt")


def test_sample_rate_without_filterbank_is_48_khz() -> None:
    found: Any = infer_front_end({}, False, "a.pt")
    assert found == presets.LAION_PLAIN
