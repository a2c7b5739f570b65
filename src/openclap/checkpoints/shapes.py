"""What names and shapes tell of a model in LAION-CLAP's names: towers, sizes, front end.

What no name or shape can tell (activation, epsilon, heads of a text tower that are not 64 wide) is LAION's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from openclap import presets
from openclap.audio.config import FrontEndConfig, MelConfig
from openclap.audio.mel import mel_filterbank
from openclap.checkpoints.names import count, shape
from openclap.errors import CheckpointError
from openclap.models.config import PANN_6, PANN_14, AudioConfig, FusionKind, HTSATConfig, PANNConfig, TextTowerConfig
from openclap.presets import Preset

State = Mapping[str, Tensor]

MEL = "audio_branch.logmel_extractor."
STFT = "audio_branch.spectrogram_extractor."
"""Buffers of torchlibrosa, the front end of LAION-CLAP and of PANN."""
RATES = (48000, 32000, 44100, 16000, 8000)
"""LAION-CLAP's, PANN's and those of PANN's models for narrower sound."""


def preset_of(state: State, source: str) -> Preset:
    """Towers, sizes and front end from names and shapes."""
    audio = audio_of(state, source)
    text = text_of(state, source)
    embedding = shape(state, "audio_projection.2.weight", source, 2)[0]
    return Preset(
        name=f"{tower_name(audio)}-{text.model_type.removesuffix('_text_model')}",
        frontend=frontend_of(state, audio.fusion is not None, source),
        audio=audio,
        text=text,
        embedding_size=embedding,
        temperatures=2 if "logit_scale_t" in state else 1,
        transforms="audio_transform.sequential.0.weight" in state,
    )


def audio_of(state: State, source: str) -> AudioConfig:
    """The audio tower from names that begin with `audio_branch.`."""
    tower = {name.removeprefix("audio_branch."): t for name, t in state.items() if name.startswith("audio_branch.")}
    if "patch_embed.proj.weight" in tower:
        return _htsat_of(tower, source)
    if "conv_block1.conv1.weight" in tower:
        return _pann_of(tower, source)
    raise CheckpointError(f"{source}: its audio_branch is neither HTSAT nor PANN; it has {', '.join(list(tower)[:3])}.")


def _htsat_of(tower: State, source: str) -> HTSATConfig:
    width, views, _, _ = shape(tower, "patch_embed.proj.weight", source, 4)
    stages = range(count(tower, r"layers\.(\d+)\."))
    depths = tuple(count(tower, rf"layers\.{stage}\.blocks\.(\d+)\.") for stage in stages)
    tables = [
        shape(tower, f"layers.{stage}.blocks.0.attn.relative_position_bias_table", source, 2)
        for stage in stages or range(1)
    ]
    window = (math.isqrt(tables[0][0]) + 1) // 2
    mask = "layers.0.blocks.1.attn_mask"
    side = math.isqrt(shape(tower, mask, source, 3)[0]) * window if mask in tower else 64
    return HTSATConfig(
        width=width,
        depths=depths,
        heads=tuple(heads for _, heads in tables),
        n_mels=shape(tower, "bn0.weight", source, 1)[0],
        image=4 * side,
        window=window,
        classes=_classes(tower, "tscam_conv.weight", source, 4),
        fusion=_fusion_of(tower, views, "patch_embed."),
    )


def _pann_of(tower: State, source: str) -> PANNConfig:
    blocks = range(1, 1 + count(tower, r"conv_block(\d+)\."))
    widths = tuple(shape(tower, f"conv_block{block}.conv1.weight", source, 4)[0] for block in blocks)
    _, views, _, _ = shape(tower, "conv_block1.conv1.weight", source, 4)
    like = PANN_14 if "conv_block1.conv2.weight" in tower else PANN_6
    return replace(
        like,
        widths=widths,
        pooled=min(len(widths), 5),
        n_mels=shape(tower, "bn0.weight", source, 1)[0],
        classes=_classes(tower, "fc_audioset.weight", source, 2),
        fusion=_fusion_of(tower, views, ""),
    )


def _classes(tower: State, name: str, source: str, dimensions: int) -> int:
    """Of the tagging head, which a tower need not have."""
    return shape(tower, name, source, dimensions)[0] if name in tower else 0


def _fusion_of(tower: State, views: int, where: str) -> FusionKind | None:
    if views == 4:
        return "channel_map"
    for conv, prefix, dimensions in (("mel_conv1d.", "", "1d"), (f"{where}mel_conv2d.", where, "2d")):
        if any(name.startswith(conv) for name in tower):
            attention = any(name.startswith(f"{prefix}fusion_model.local_att.") for name in tower)
            iterated = any(name.startswith(f"{prefix}fusion_model.local_att2.") for name in tower)
            kind = "iaff" if iterated else "aff" if attention else "daf"
            return f"{kind}_{dimensions}"  # type: ignore[return-value]
    return None


def text_of(state: State, source: str) -> TextTowerConfig:
    """The text tower from its names: CLIP's transformer, BART, RoBERTa (one token type) or BERT."""
    if "token_embedding.weight" in state:
        vocabulary, hidden = shape(state, "token_embedding.weight", source, 2)
        layers = count(state, r"text_branch\.resblocks\.(\d+)\.")
        sizes = {
            "vocab_size": vocabulary,
            "num_hidden_layers": layers,
            "num_attention_heads": max(1, hidden // 64),
            "intermediate_size": shape(state, "text_branch.resblocks.0.mlp.c_fc.weight", source, 2)[0],
            "max_position_embeddings": shape(state, "positional_embedding", source, 2)[0],
        }
        return _sized(presets.CLIP_TEXT, hidden, sizes)
    if "text_branch.decoder.embed_tokens.weight" in state:
        vocabulary, hidden = shape(state, "text_branch.decoder.embed_tokens.weight", source, 2)
        heads, inner = max(1, hidden // 64), shape(state, "text_branch.encoder.layers.0.fc1.weight", source, 2)[0]
        sizes = {
            "vocab_size": vocabulary,
            "encoder_layers": count(state, r"text_branch\.encoder\.layers\.(\d+)\."),
            "decoder_layers": count(state, r"text_branch\.decoder\.layers\.(\d+)\."),
            "encoder_attention_heads": heads,
            "decoder_attention_heads": heads,
            "encoder_ffn_dim": inner,
            "decoder_ffn_dim": inner,
            "max_position_embeddings": shape(state, "text_branch.encoder.embed_positions.weight", source, 2)[0] - 2,
        }
        return _sized(presets.BART, hidden, sizes)
    embeddings = "text_branch.embeddings."
    vocabulary, hidden = shape(state, f"{embeddings}word_embeddings.weight", source, 2)
    types, _ = shape(state, f"{embeddings}token_type_embeddings.weight", source, 2)
    sizes = {
        "vocab_size": vocabulary,
        "num_hidden_layers": count(state, r"text_branch\.encoder\.layer\.(\d+)\."),
        "num_attention_heads": max(1, hidden // 64),
        "intermediate_size": shape(state, "text_branch.encoder.layer.0.intermediate.dense.weight", source, 2)[0],
        "max_position_embeddings": shape(state, f"{embeddings}position_embeddings.weight", source, 2)[0],
        "type_vocab_size": types,
    }
    return _sized(presets.ROBERTA if types == 1 else presets.BERT, hidden, sizes)


def _sized(like: TextTowerConfig, hidden: int, sizes: dict[str, int]) -> TextTowerConfig:
    return replace(like, hidden_size=hidden, sizes=dict(like.sizes) | sizes)


def frontend_of(state: State, fusion: bool, source: str) -> FrontEndConfig:
    """LAION's front end, at the rate whose filterbank is stored; 48 kHz where none is.

    Raises CheckpointError for a filterbank of another front end.
    """
    bank, window = f"{MEL}melW", f"{STFT}stft.conv_real.weight"
    mel = presets.LAION_PLAIN.mel
    if bank in state:
        n_fft = shape(state, window, source, 3)[2] if window in state else mel.n_fft
        found = state[bank].float()
        known = (at_rate(rate, n_fft, shape(state, bank, source, 2)[1]) for rate in RATES)
        near = [one for one in known if _same(mel_filterbank(one), found)]
        if not near:
            raise CheckpointError(
                f"{source}: its filterbank {tuple(found.shape)} is of no front end that is known (windows of {n_fft} "
                f"samples, 50 Hz to 14 kHz, at {', '.join(map(str, RATES))} Hz); only a preset can say which it is."
            )
        mel = near[0]
    like = presets.LAION_FUSION if fusion else presets.LAION_PLAIN
    return replace(like, mel=replace(mel, scale=like.mel.scale, norm=like.mel.norm), samples=10 * mel.rate)


def _same(bank: Tensor, other: Tensor) -> bool:
    """Up to what storing in half precision does to it."""
    return bank.shape == other.shape and torch.allclose(bank, other, rtol=1e-2, atol=1e-5)


def at_rate(rate: int, n_fft: int = 1024, n_mels: int = 64) -> MelConfig:
    """The plain log-mel with a hundred frames a second."""
    return replace(
        presets.LAION_PLAIN.mel, rate=rate, hop=rate // 100, n_fft=n_fft, n_mels=n_mels, f_max=min(14000.0, rate / 2)
    )


def tower_name(audio: AudioConfig) -> str:
    """What people call a tower: "htsat-tiny", "pann-14", or its widths; "-fusion" behind it where it fuses."""
    plain = replace(audio, fusion=None)
    known = [name for name, config in presets.AUDIO_TOWERS.items() if config == plain]
    size = audio.width if isinstance(audio, HTSATConfig) else len(audio.widths)
    name = known[0] if known else f"{'htsat' if isinstance(audio, HTSATConfig) else 'pann'}-{size}"
    return f"{name}-fusion" if audio.fusion else name
