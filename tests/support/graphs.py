"""Small models of every kind of tower, and their graphs for onnxruntime."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from openclap.checkpoints.checkpoint import Checkpoint
from openclap.embedder import Embedder
from openclap.interop import onnx
from openclap.models.config import HTSATConfig, NaFlexConfig, PANNConfig, TextTowerConfig, WhisperConfig
from openclap.presets import Preset
from openclap.runtimes.onnx import OnnxLoader
from openclap.runtimes.torch import TorchRuntime
from openclap.text.tokenizer import Tokenizer
from support.tiny_models import TINY_PRESET, tiny_clap, tiny_tokenizer

HTSAT = HTSATConfig(width=8, depths=(1, 2), heads=(1, 2), n_mels=32, image=64, window=8, classes=0)
MEL_32 = replace(TINY_PRESET.frontend, mel=replace(TINY_PRESET.frontend.mel, n_mels=32))
"""A front end of 32 bands, as the tower above reads them."""
ANY_LENGTH = replace(MEL_32, mel=replace(MEL_32.mel, compression="db"), fill="none", longest=16000)
NAFLEX = NaFlexConfig(16, 2, 2, 8, 4, n_mels=32, registers=1, pre_norm=True, gated=True, layer_scale=0.5)
LAYERS = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 64}
MODERN_SIZES = (
    {"num_hidden_layers": 2, "heads": 2, "vocab_size": 64, "mlp_ratio": 2.0, "norm_eps": 1e-5, "gated": True}
    | dict.fromkeys(("attention_bias", "mlp_bias", "gate_bias", "causal"), False)
    | {"qk_norm": True, "bos_id": 2, "eos_id": 3, "pad_id": 0}
)
TEXTS = {
    "roberta": TextTowerConfig(
        "roberta", "pooler", 16, 16, LAYERS | {"max_position_embeddings": 34, "pad_token_id": 1}
    ),
    "bert": TextTowerConfig("bert", "pooler", 16, 16, LAYERS | {"max_position_embeddings": 16}),
    "bert cls": TextTowerConfig("bert", "cls", 16, 16, LAYERS | {"max_position_embeddings": 16}),
    "minilm": TINY_PRESET.text,
    "clip": TextTowerConfig(
        "clip_text_model", "eot", 16, 16, LAYERS | {"max_position_embeddings": 16, "bos_token_id": 2, "eos_token_id": 3}
    ),
    "modern": TextTowerConfig("modern", "map", 16, 16, MODERN_SIZES),
    "modern causal": TextTowerConfig("modern", "eos", 16, 16, MODERN_SIZES | {"causal": True, "qk_norm": False}),
    "bart": TextTowerConfig(
        "bart",
        "mean_padded",
        16,
        16,
        {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
        | {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "vocab_size": 64, "max_position_embeddings": 32},
    ),
    "gpt2": TextTowerConfig(
        "gpt2",
        "last_nonzero",
        16,
        16,
        {"num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 64, "max_position_embeddings": 32}
        | {"use_cache": False},
    ),
}
AUDIO = {
    "pann": (TINY_PRESET.frontend, TINY_PRESET.audio),
    "pann repeat": (replace(TINY_PRESET.frontend, fill="repeat"), TINY_PRESET.audio),
    "htsat": (replace(MEL_32, int16=True, fill="repeatpad"), HTSAT),
    **{
        f"{name} {fusion}": (replace(MEL_32, long="fusion"), replace(tower, fusion=fusion))
        for name, tower in {"htsat": HTSAT, "pann": replace(TINY_PRESET.audio, n_mels=32)}.items()
        for fusion in ("aff_2d", "iaff_2d", "daf_2d", "aff_1d", "channel_map")
    },
    "naflex": (ANY_LENGTH, NAFLEX),
    "naflex swiglu": (
        ANY_LENGTH,
        replace(NAFLEX, swiglu=True, qk_norm=True, gated=False, pre_norm=False, registers=0, padding="repeat"),
    ),
    "whisper": (
        replace(TINY_PRESET.frontend, mel=replace(TINY_PRESET.frontend.mel, compression="whisper"), fill="repeatpad"),
        WhisperConfig(16, 1, 2, 16, n_mels=24, positions=16),
    ),
    "htsat antialias": (
        replace(MEL_32, long="fusion", int16=True, fill="repeatpad", antialias=True),
        replace(HTSAT, fusion="aff_2d"),
    ),
}


MICROSOFT = {
    2022: replace(
        TINY_PRESET,
        name="microsoft-2022",
        frontend=replace(MEL_32, fill="repeat"),
        audio=PANNConfig(widths=(4, 8), pool="average", n_mels=32, over_time="max+mean", linear=True),
        text=TEXTS["bert cls"],
        audio_head="residual_norm",
        text_head="residual_norm",
    ),
    2023: replace(
        TINY_PRESET,
        name="microsoft-2023",
        frontend=replace(MEL_32, fill="repeat", mel=replace(MEL_32.mel, filterbank_rate=12000, f_max=6000.0)),
        audio=HTSAT,
        text=TEXTS["gpt2"],
        audio_head="residual_norm",
        text_head="residual_norm",
    ),
}
"""The shapes of Microsoft's CLAP."""
NEW = {
    "naflex, modern text": replace(
        TINY_PRESET, frontend=ANY_LENGTH, audio=NAFLEX, text=TEXTS["modern"], audio_head="mlp_gelu", text_head="linear"
    ),
    "naflex, CLIP's text": replace(
        TINY_PRESET, frontend=ANY_LENGTH, audio=NAFLEX, text=TEXTS["clip"], audio_head="mlp_gelu", text_head="linear"
    ),
    "whisper, RoBERTa": replace(
        TINY_PRESET, frontend=AUDIO["whisper"][0], audio=AUDIO["whisper"][1], text=TEXTS["roberta"]
    ),
    "Microsoft 2022": MICROSOFT[2022],
    "Microsoft 2023": MICROSOFT[2023],
}
"""Presets of the towers that LAION-CLAP lacks."""


def in_torch(preset: Preset) -> Embedder:
    """A model with fresh weights, in torch."""
    words = Tokenizer(tiny_tokenizer().definition, preset.text.context, padded=preset.text.padded)
    return Embedder(TorchRuntime(tiny_clap(preset), preset, words, device=torch.device("cpu")))


def in_onnx(embedder: Embedder, place: Path) -> Embedder:
    """The same model in onnxruntime; its graphs are written to `place`."""
    weights = dict(embedder.clap.state_dict())
    onnx.write(Checkpoint("openclap", embedder.preset, weights), place, embedder.tokenizer)
    return read(place)


def read(place: Path) -> Embedder:
    """The model of a folder of graphs."""
    loader = OnnxLoader(None, "fp32", compile=False)
    return Embedder(loader.read(place, preset=None, tokenizer=None, offline=True))
