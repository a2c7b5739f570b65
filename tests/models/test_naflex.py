"""The towers of NaFlexCLAP and CLAP-Whisper against what open_clip computes with the same weights."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from openclap.audio.config import MelConfig
from openclap.audio.frontend import FrontEnd
from openclap.audio.mel import mel_filterbank
from openclap.checkpoints import open_clip
from openclap.checkpoints.checkpoint import Checkpoint, build_network
from openclap.errors import ConfigError
from openclap.models.clap import CLAP
from openclap.models.config import NaFlexConfig
from openclap.models.naflex import NaFlex, complete_column, fill_padding, patches, valid_patches
from openclap.models.whisper import sinusoids
from openclap.presets import LAION_FUSION
from openclap.types import AudioBatch, TextBatch
from support.open_clip import captions, golden, write_folder
from support.reference import wave

SAMPLES = {"s0.3": 14400, "s1": 48000, "s10": 480000, "s37.3": 1790400, "short": 480}
TINY = ("tiny", "tiny-siglip", "tiny-causal")
NAFLEX = (*TINY, "naflexclap_test", "naflexclap_little")


def close(ours: torch.Tensor, expected: np.ndarray, *, atol: float = 1e-5) -> None:
    torch.testing.assert_close(ours, torch.from_numpy(np.asarray(expected)), rtol=1e-4, atol=atol)


@functools.cache
def checkpoint(model: str) -> Checkpoint:
    with tempfile.TemporaryDirectory() as scratch:
        return open_clip.read(write_folder(Path(scratch) / model, model))


@functools.cache
def network(model: str) -> CLAP:
    return build_network(checkpoint(model), model)


@functools.cache
def batch(model: str, *names: str) -> AudioBatch:
    frontend = FrontEnd(checkpoint(model).preset.frontend)
    return frontend([torch.from_numpy(wave(name, SAMPLES[name])) for name in names])


@functools.cache
def text_batch(model: str, count: int) -> TextBatch:
    """The golden ids, padded to the context as open_clip's tokenizer pads them."""
    if checkpoint(model).preset.text.model_type == "modern":
        ids = torch.from_numpy(golden("text_ids")["tiktoken"][:count]).long()
        return TextBatch(ids, (ids != 50258).long())
    ids = golden(model).get("text_ids", golden("text_ids")["simple"])[:count]
    ids_BL = torch.from_numpy(ids).long()
    return TextBatch(ids_BL, torch.ones_like(ids_BL))


@pytest.mark.parametrize("model", NAFLEX)
@torch.inference_mode()
def test_audio_embeddings_are_open_clips(model: str) -> None:
    expected, clap = golden(model), network(model)
    for name in SAMPLES:
        if f"unit_{name}" in expected:
            pooled = clap.audio_tower(batch(model, name))
            close(pooled[0], expected[f"pooled_{name}"])
            features = clap.audio_head(pooled)
            close(features[0], expected[f"features_{name}"])
            close(F.normalize(features, dim=-1)[0], expected[f"unit_{name}"])


@pytest.mark.parametrize("model", NAFLEX)
@torch.inference_mode()
def test_clips_of_different_lengths_share_a_batch(model: str) -> None:
    expected, clap = golden(model), network(model)
    mixed = batch(model, "s0.3", "s10", "s1")
    config = clap.audio_tower.config
    columns = config.columns(mixed.mel_BVTF.shape[2])
    valid_BN = valid_patches(columns, mixed.frames_B, config)
    assert valid_BN.sum(dim=1).tolist() == expected["batch_valid_count"].tolist()
    close(clap.encode_audio(mixed), expected["batch_unit"])


@pytest.mark.parametrize("model", NAFLEX)
@torch.inference_mode()
def test_text_embeddings_and_logits_are_open_clips(model: str) -> None:
    expected, clap = golden(model), network(model)
    text_TD = clap.encode_text(text_batch(model, len(expected["text_unit"])))
    close(text_TD, expected["text_unit"])
    audio = torch.cat([clap.encode_audio(batch(model, n)) for n in SAMPLES if f"unit_{n}" in expected])
    bias = checkpoint(model).objective.get("bias", torch.zeros(()))
    close(clap.logit_scale.exp() * audio @ text_TD.T + bias, expected["logits"], atol=1e-4)


@pytest.mark.parametrize("model", [model for model in NAFLEX if model != "tiny-siglip"])
@torch.inference_mode()
def test_a_cap_keeps_the_first_whole_columns(model: str) -> None:
    clap, whole = network(model), batch(model, "s37.3")
    config = clap.audio_tower.config
    cap = {"tiny": 816, "tiny-causal": 408, "naflexclap_test": 251, "naflexclap_little": 252}[model]
    mel_BVTF = whole.mel_BVTF[:, :, : config.frames_within(cap)]
    capped = AudioBatch(mel_BVTF, whole.is_long_B)
    close(clap.encode_audio(capped)[0], golden(model)["unit_s37.3_capped"])
    with pytest.raises(ConfigError, match=str(config.rows)):
        replace(config).frames_within(config.rows - 1)


@torch.inference_mode()
def test_every_stage_of_the_audio_tower_is_open_clips() -> None:
    expected, tower, clip = golden("tiny"), network("tiny").audio_tower, batch("tiny", "s0.3")
    assert isinstance(tower, NaFlex) and tower.registers is not None
    patches_BNP = patches(complete_column(clip.mel_BVTF[:, 0], tower.config), tower.config)
    embedded = torch.cat([tower.registers, tower.embed(patches_BNP)], dim=1)
    close(embedded[0], expected["stage_embeds"])
    by = tower.positions(2, torch.device("cpu"))
    close(torch.cat([by.sin_LE, by.cos_LE], dim=1)[1:], expected["rope_s0.3"])
    x_BND = tower.tokens(patches_BNP)
    close(x_BND[0], expected["stage_norm_pre"])
    for number, block in enumerate(tower.blocks):
        x_BND = block(x_BND, by, None)
        close(x_BND[0], expected[f"stage_block{number}"])
    close(tower.norm(x_BND)[0], expected["stage_norm"])


@torch.inference_mode()
def test_every_block_of_the_text_tower_is_open_clips() -> None:
    expected, tower = golden("tiny"), network("tiny").text_tower
    ids_BL = torch.from_numpy(golden("text_ids")["tiktoken"][1:2, :12]).long()
    x_BLD, by = tower.token_embedding(ids_BL), tower.positions(12, torch.device("cpu"))
    for number, block in enumerate(tower.blocks):
        x_BLD = block(x_BLD, by, None)
        close(x_BLD[0], expected[f"text_block{number}"])


@torch.inference_mode()
def test_a_caption_of_padding_alone_reads_its_first_token() -> None:
    clap, ids_BL = network("tiny"), torch.full((1, 5), 50258)
    features = clap.text_head(clap.text_tower(TextBatch(ids_BL, torch.zeros_like(ids_BL))))
    close(features[0], golden("tiny")["text_allpad_features"])


@torch.inference_mode()
def test_the_mean_pool_ignores_padding() -> None:
    text = replace(checkpoint("tiny-causal").preset.text, pooling="mean")
    from openclap.models.modern_text import ModernText

    tower = ModernText(text).eval()
    ids_BL, mask_BL = torch.randint(50000, (1, 6)), torch.tensor([[1, 1, 1, 1, 0, 0]])
    torch.testing.assert_close(
        tower(TextBatch(ids_BL, mask_BL)), tower(TextBatch(ids_BL[:, :4], mask_BL[:, :4])), rtol=1e-4, atol=1e-5
    )


def test_log_mels_are_open_clips() -> None:
    expected, front = golden("mel"), checkpoint("tiny").preset.frontend
    close(mel_filterbank(front.mel), expected["filterbank"])
    frontend = FrontEnd(front)
    for name, stride in {"s0.3": 1, "s1": 1, "s10": 5, "s37.3": 37, "short": 1}.items():
        mel = batch("tiny", name).mel_BVTF[0, 0]
        np.testing.assert_allclose(mel[::stride], expected[f"mel_{name}"], rtol=0, atol=2e-3)
    mono = np.stack([wave("s1", 48000), wave("right", 48000)]).mean(axis=0)
    mel = frontend([torch.from_numpy(mono)]).mel_BVTF[0, 0]
    np.testing.assert_allclose(mel[::7], expected["stereo_mean"], rtol=0, atol=2e-3)
    np.testing.assert_allclose(frontend([torch.zeros(2048)]).mel_BVTF[0, 0, 0], expected["silence"], atol=2e-3)


def test_patches_their_padding_and_their_order_are_open_clips() -> None:
    expected, mel = golden("patches"), batch("tiny", "s0.3").mel_BVTF[:, 0]
    config = NaFlexConfig(64, 1, 4, patch_freq=4, patch_time=20)

    def made(config: NaFlexConfig, mel_BTF: torch.Tensor = mel) -> torch.Tensor:
        return patches(complete_column(mel_BTF, config), config)[0]

    np.testing.assert_allclose(made(config), expected["p4x20_s0.3_floor"], atol=2e-3)
    for padding in ("silence", "repeat"):
        odd = made(replace(config, padding=padding))[1::2]
        np.testing.assert_allclose(odd, expected[f"p4x20_s0.3_{padding}"], atol=2e-3)
    square = replace(config, patch_freq=16, patch_time=16)
    np.testing.assert_allclose(made(square), expected["p16x16_s0.3"], atol=2e-3)
    capped = batch("tiny", "s1").mel_BVTF[:, 0, : config.frames_within(50)]
    np.testing.assert_allclose(made(config, capped)[::5], expected["cap50_s1_patches"], atol=2e-3)


@pytest.mark.parametrize("padding", ["floor", "silence", "repeat"])
def test_padding_looks_at_its_own_clip_alone(padding: str) -> None:
    config = NaFlexConfig(64, 1, 4, patch_freq=4, patch_time=20, padding=padding)
    mel_BTF = torch.randn(2, 55, 64) * 10
    alone = complete_column(mel_BTF[:1, :33], config)
    together = complete_column(fill_padding(mel_BTF, torch.tensor([33, 55]), config), config)
    assert torch.equal(together[0, :40], alone[0])


def test_the_number_of_patches_is_open_clips() -> None:
    mel = checkpoint("tiny").preset.frontend.mel
    for freq, time, *counts in golden("patches")["token_counts"].tolist():
        config = NaFlexConfig(64, 1, 4, patch_freq=freq, patch_time=time)
        lengths = [max(SAMPLES[name], mel.n_fft) for name in ("short", "s0.3", "s1", "s10", "s37.3")]
        assert [config.tokens(mel.frames(n)) for n in [*lengths, 480000]] == counts


@torch.inference_mode()
def test_whisper_is_open_clips_with_the_clamp_of_each_clip() -> None:
    expected, clap = golden("whisper-tiny-roberta"), network("whisper-tiny-roberta")
    front = checkpoint("whisper-tiny-roberta").preset.frontend
    loud = [wave("w160000", 160000), wave("w480000", 480000)]
    quiet = (np.roll(loud[1], 999) * 1e-3).astype(np.float32)
    close(mel_filterbank(front.mel).T, expected["filterbank"], atol=1e-9)
    # The last digit of a frequency, which processors compute differently, is 1e-4 in an angle of 1,500.
    close(sinusoids(1500, 384)[::100], expected["positional"], atol=2e-4)
    clips = FrontEnd(front)([torch.from_numpy(each) for each in (*loud, quiet)])
    np.testing.assert_allclose(clips.mel_BVTF[:2, 0].mT[:, :, ::40], expected["mel"], rtol=0, atol=1e-5)
    close(clap.audio_tower.states(clips)[:2, ::75], expected["encoder"], atol=1e-4)
    unit = clap.encode_audio(clips)
    close(unit[:2], expected["unit"])
    # In open_clip a quiet clip's embedding depends on its neighbours (`quiet_in_batch_unit`); here it never does.
    close(unit[2], expected["quiet_alone_unit"])
    assert abs(unit[2].numpy() - expected["quiet_in_batch_unit"]).max() > 0.01
    ids_BL = torch.from_numpy(expected["text_ids"])
    close(clap.encode_text(TextBatch(ids_BL, (ids_BL != 1).long())), expected["text_unit"])


@torch.inference_mode()
def test_htsat_is_open_clips() -> None:
    expected, clap = golden("htsat-tiny-roberta"), network("htsat-tiny-roberta")
    # open_clip reads the first ten seconds; the front end here would take the middle.
    waves = [torch.from_numpy(wave(f"len{n}", n)[:480000]) for n in (100001, 480000, 504000)]
    clips = FrontEnd(checkpoint("htsat-tiny-roberta").preset.frontend)(waves)
    close(clap.audio_tower(clips), expected["embedding"])
    close(clap.encode_audio(clips), expected["unit"])
    ids_BL = torch.from_numpy(expected["text_ids"])
    close(clap.encode_text(TextBatch(ids_BL, (ids_BL != 1).long())), expected["text_unit"])


def test_a_whisper_mel_has_no_last_frame() -> None:
    config = MelConfig(16000, 400, 160, 80, 0.0, 8000.0, scale="htk64", norm="area", compression="whisper")
    assert config.frames(480000) == 3000


def test_captions_of_the_golden_files_are_all_used() -> None:
    assert len(captions()) == len(golden("text_ids")["tiktoken"])


@pytest.mark.parametrize("n", [100001, 480000, 480240])
def test_fused_views_of_clips_that_are_not_long_are_open_clips(n: int) -> None:
    """Four equal ones. Those of long clips are LAION's here, and random crops in open_clip."""
    expected = golden("fusion_views")
    clip = FrontEnd(replace(LAION_FUSION, int16=False))([torch.from_numpy(wave(f"len{n}", n))])
    assert bool(clip.is_long_B[0]) == bool(expected[f"n{n}_longer"]) is False
    np.testing.assert_allclose(clip.mel_BVTF[0, :, ::50], expected[f"n{n}_views"], rtol=0, atol=2e-3)
