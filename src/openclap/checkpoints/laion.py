"""LAION-CLAP's checkpoints: `.pt` files of its releases and of its training, read and written.

What a file holds is found out from its names and shapes. Filterbanks, window masks and position indices are
computed, not read; they are written again, because LAION-CLAP's own loader asks for every name.
"""

from __future__ import annotations

import math
import tempfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from openclap import presets
from openclap.audio.frontend import FrontEndConfig
from openclap.audio.mel import MelConfig, mel_filterbank
from openclap.checkpoints.checkpoint import Checkpoint
from openclap.checkpoints.names import Table, count, shape, translate
from openclap.errors import CheckpointError
from openclap.models.fusion import FusionKind
from openclap.models.htsat import HTSATConfig
from openclap.models.pann import PANN_6, PANN_14, PANNConfig
from openclap.models.swin import relative_positions, shift_mask
from openclap.models.text_tower import TextTowerConfig
from openclap.presets import AudioConfig, Preset

State = Mapping[str, Tensor]

SHARED: Table = (
    ("^audio_projection.", "^audio_head."),
    ("^text_projection.", "^text_head."),
    ("^audio_transform.sequential.", "^audio_transform."),
    ("^text_transform.sequential.", "^text_transform."),
    ("^logit_scale_t", "^logit_scale_text"),
    ("^logit_scale_a", "^logit_scale"),
)
HTSAT: Table = (
    ("^audio_branch.tscam_conv.", "^audio_tower.tagger."),
    ("^audio_branch.mel_conv1d.", "^audio_tower.views.mel_conv1d."),
    ("^audio_branch.fusion_model.", "^audio_tower.views.fusion_model."),
    ("^audio_branch.", "^audio_tower."),
)
PANN: Table = (
    *((f"^audio_branch.conv_block{block}.", f"^audio_tower.blocks.{block - 1}.") for block in range(1, 7)),
    ("^audio_branch.fc1.", "^audio_tower.linear."),
    ("^audio_branch.fc_audioset.", "^audio_tower.tagger."),
    ("^audio_branch.mel_conv2d.", "^audio_tower.fuse.mel_conv2d."),
    ("^audio_branch.mel_conv1d.", "^audio_tower.views.mel_conv1d."),
    ("^audio_branch.", "^audio_tower."),
)
PANN_2D: Table = (("^audio_branch.fusion_model.", "^audio_tower.fuse.fusion_model."), *PANN)
PANN_1D: Table = (("^audio_branch.fusion_model.", "^audio_tower.views.fusion_model."), *PANN)
BERT: Table = (("^text_branch.", "^text_tower.encoder."),)
BART: Table = (
    ("^text_branch.decoder.embed_tokens.", "^text_tower.encoder.embed_tokens."),
    ("^text_branch.encoder.", "^text_tower.encoder."),
)
CLIP: Table = (
    ("^token_embedding.", "^text_tower.encoder.embeddings.token_embedding."),
    ("^positional_embedding", "^text_tower.encoder.embeddings.position_embedding.weight"),
    ("^ln_final.", "^text_tower.encoder.final_layer_norm."),
    ("^text_branch.resblocks.", "^text_tower.encoder.encoder.layers."),
)
CLIP_BLOCK: Table = (
    (".attn.out_proj.", ".self_attn.out_proj."),
    (".ln_1.", ".layer_norm1."),
    (".ln_2.", ".layer_norm2."),
    (".mlp.c_fc.", ".mlp.fc1."),
    (".mlp.c_proj.", ".mlp.fc2."),
)
TEXT: dict[str, tuple[Table, ...]] = {
    "roberta": (BERT,),
    "bert": (BERT,),
    "bart": (BART,),
    "clip_text_model": (CLIP, CLIP_BLOCK),
}

COMPUTED = (".attn_mask", ".relative_position_index", ".position_ids", ".token_type_ids")
FIXED = ("audio_branch.spectrogram_extractor.", "audio_branch.logmel_extractor.")
UNUSED = ("audio_branch.head.", "text_branch.decoder.", "text_branch.shared.", "text_branch.pooler.")
TIED = ("text_branch.shared.weight", "text_branch.encoder.embed_tokens.weight")
"""BART's embedding stands under three names; the decoder's counts."""
SECOND_GLOBAL = ".global_att2."
IN_PROJ = ".attn.in_proj_"


def is_laion(state: Mapping[str, Any]) -> bool:
    """Do these names belong to a whole LAION-CLAP model?"""
    return any(name.removeprefix("module.").startswith("audio_branch.") for name in state)


def read(state: State, source: str, preset: Preset | None = None) -> Checkpoint:
    """A state dict, its names with or without `module.`.

    `preset` says what no name or shape can (activation, epsilon, hop). Raises CheckpointError for a file that lacks
    what tells its size; names that are not known are kept as unused.
    """
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    preset = preset or preset_of(state, source)
    if preset.text.model_type not in TEXT:
        raise CheckpointError(f"LAION's format has no {preset.text.model_type} text tower, expected {', '.join(TEXT)}.")
    weights: dict[str, Tensor] = {}
    unused: dict[str, Tensor] = {}
    embedding = state.get("text_branch.decoder.embed_tokens.weight") if preset.text.model_type == "bart" else None
    for name, tensor in state.items():
        if name.endswith(COMPUTED) or name.startswith(FIXED):
            continue
        if name in TIED and embedding is not None:
            if tensor is not embedding and not torch.equal(tensor, embedding):
                unused[name] = tensor
        elif _is_unused(name, preset):
            unused[name] = tensor
        elif IN_PROJ in name:
            kind = name.rsplit("_", 1)[1]
            base = rename(name.split(IN_PROJ)[0] + ".", preset)
            parts = zip("qkv", tensor.chunk(3), strict=True)
            weights |= {f"{base}self_attn.{part}_proj.{kind}": piece for part, piece in parts}
        else:
            weights[rename(name, preset)] = tensor
    return Checkpoint("laion", preset, weights, unused)


def to_state(checkpoint: Checkpoint) -> OrderedDict[str, Tensor]:
    """The state dict that LAION-CLAP's loader asks for, learned tensors as they are and buffers computed."""
    preset = checkpoint.preset
    state: dict[str, Tensor] = {}
    for name, tensor in checkpoint.weights.items():
        if preset.text.model_type == "clip_text_model" and ".self_attn." in name and "out_proj" not in name:
            base, kind = name.split(".self_attn.")[0], name.rsplit(".", 1)[1]
            pieces = [checkpoint.weights[f"{base}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
            state[rename(f"{base}.", preset, back=True) + f"attn.in_proj_{kind}"] = torch.cat(pieces)
        else:
            state[rename(name, preset, back=True)] = tensor
    if preset.text.model_type == "bart":
        state |= dict.fromkeys(TIED, state["text_branch.decoder.embed_tokens.weight"])
    return OrderedDict(state | checkpoint.unused | computed(preset))


def write(checkpoint: Checkpoint, path: Path) -> list[str]:
    """A `.pt` file for LAION-CLAP; it drops nothing. Raises CheckpointError for what it cannot hold."""
    if checkpoint.preset.text.model_type not in TEXT or checkpoint.preset.frontend.mel.n_fft != 1024:
        raise CheckpointError(
            f"LAION's format has no place for a {checkpoint.preset.text.model_type} text tower with the front end of "
            f"{checkpoint.preset.name}. Convert to openclap instead."
        )
    state = OrderedDict((f"module.{name}", tensor) for name, tensor in to_state(checkpoint).items())
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        draft = Path(scratch) / path.name
        torch.save({"epoch": 0, "name": checkpoint.preset.name, "state_dict": state}, draft)
        draft.replace(path)
    return []


def rename(name: str, preset: Preset, *, back: bool = False) -> str:
    """A name of theirs as ours, or, `back`, the other way."""
    tables = (audio_table(preset.audio),) if name.startswith("audio_") else TEXT[preset.text.model_type]
    return translate(name, (SHARED, *tables), back=back)


def audio_table(audio: AudioConfig) -> Table:
    """The translation of an audio tower's names."""
    if isinstance(audio, HTSATConfig):
        return HTSAT
    return PANN_1D if (audio.fusion or "").endswith("_1d") else PANN_2D


def _is_unused(name: str, preset: Preset) -> bool:
    if name == "text_branch.decoder.embed_tokens.weight":
        return False
    if name.startswith("text_branch.pooler."):
        return preset.text.pooling != "pooler"
    return name.startswith(UNUSED) or SECOND_GLOBAL in name


def preset_of(state: State, source: str) -> Preset:
    """Towers, sizes and front end from names and shapes."""
    audio = audio_of(state, source)
    text = text_of(state, source)
    embedding = shape(state, "audio_projection.2.weight", source)[0]
    return Preset(
        name=f"{tower_name(audio)}-{text.model_type.removesuffix('_text_model')}",
        frontend=frontend_of(state, audio.fusion is not None),
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
    width, views, _, _ = shape(tower, "patch_embed.proj.weight", source)
    depths = tuple(
        count(tower, rf"layers\.{stage}\.blocks\.(\d+)\.") for stage in range(count(tower, r"layers\.(\d+)\."))
    )
    tables = [
        shape(tower, f"layers.{stage}.blocks.0.attn.relative_position_bias_table", source)
        for stage in range(len(depths))
    ]
    window = (math.isqrt(tables[0][0]) + 1) // 2
    mask = tower.get("layers.0.blocks.1.attn_mask")
    side = 64 if mask is None else math.isqrt(len(mask)) * window
    return HTSATConfig(
        width=width,
        depths=depths,
        heads=tuple(heads for _, heads in tables),
        n_mels=shape(tower, "bn0.weight", source)[0],
        image=4 * side,
        window=window,
        classes=len(tower["tscam_conv.weight"]) if "tscam_conv.weight" in tower else 0,
        fusion=_fusion_of(tower, views, "patch_embed."),
    )


def _pann_of(tower: State, source: str) -> PANNConfig:
    blocks = range(1, count(tower, r"conv_block(\d+)\."))
    widths = tuple(shape(tower, f"conv_block{block}.conv1.weight", source)[0] for block in blocks)
    _, views, _, _ = shape(tower, "conv_block1.conv1.weight", source)
    like = PANN_14 if "conv_block1.conv2.weight" in tower else PANN_6
    return replace(
        like,
        widths=widths,
        pooled=min(len(widths), 5),
        n_mels=shape(tower, "bn0.weight", source)[0],
        classes=shape(tower, "fc_audioset.weight", source)[0],
        fusion=_fusion_of(tower, views, ""),
    )


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
        vocabulary, hidden = shape(state, "token_embedding.weight", source)
        layers = count(state, r"text_branch\.resblocks\.(\d+)\.")
        sizes = {
            "vocab_size": vocabulary,
            "num_hidden_layers": layers,
            "num_attention_heads": max(1, hidden // 64),
            "intermediate_size": shape(state, "text_branch.resblocks.0.mlp.c_fc.weight", source)[0],
            "max_position_embeddings": shape(state, "positional_embedding", source)[0],
        }
        return _sized(presets.CLIP_TEXT, hidden, sizes)
    if "text_branch.decoder.embed_tokens.weight" in state:
        vocabulary, hidden = shape(state, "text_branch.decoder.embed_tokens.weight", source)
        heads, inner = max(1, hidden // 64), shape(state, "text_branch.encoder.layers.0.fc1.weight", source)[0]
        sizes = {
            "vocab_size": vocabulary,
            "encoder_layers": count(state, r"text_branch\.encoder\.layers\.(\d+)\."),
            "decoder_layers": count(state, r"text_branch\.decoder\.layers\.(\d+)\."),
            "encoder_attention_heads": heads,
            "decoder_attention_heads": heads,
            "encoder_ffn_dim": inner,
            "decoder_ffn_dim": inner,
            "max_position_embeddings": shape(state, "text_branch.encoder.embed_positions.weight", source)[0] - 2,
        }
        return _sized(presets.BART, hidden, sizes)
    embeddings = "text_branch.embeddings."
    vocabulary, hidden = shape(state, f"{embeddings}word_embeddings.weight", source)
    types, _ = shape(state, f"{embeddings}token_type_embeddings.weight", source)
    sizes = {
        "vocab_size": vocabulary,
        "num_hidden_layers": count(state, r"text_branch\.encoder\.layer\.(\d+)\."),
        "num_attention_heads": max(1, hidden // 64),
        "intermediate_size": shape(state, "text_branch.encoder.layer.0.intermediate.dense.weight", source)[0],
        "max_position_embeddings": shape(state, f"{embeddings}position_embeddings.weight", source)[0],
        "type_vocab_size": types,
    }
    return _sized(presets.ROBERTA if types == 1 else presets.BERT, hidden, sizes)


def _sized(like: TextTowerConfig, hidden: int, sizes: dict[str, int]) -> TextTowerConfig:
    return replace(like, hidden_size=hidden, sizes=dict(like.sizes) | sizes)


def frontend_of(state: State, fusion: bool) -> FrontEndConfig:
    """LAION's front end; at another rate where the stored filterbank is that rate's."""
    plain = presets.LAION_PLAIN.mel
    bank = state.get("audio_branch.logmel_extractor.melW")
    window = state.get("audio_branch.spectrogram_extractor.stft.conv_real.weight")
    n_fft = plain.n_fft if window is None else window.shape[-1]
    n_mels = plain.n_mels if bank is None else bank.shape[1]
    rates = (plain,) if bank is None else tuple(at_rate(rate, n_fft, n_mels) for rate in (48000, 32000, 44100, 16000))
    near = [mel for mel in rates if bank is None or torch.allclose(mel_filterbank(mel), bank.float(), atol=1e-5)]
    mel = near[0] if near else replace(plain, n_fft=n_fft, n_mels=n_mels)
    like = presets.LAION_FUSION if fusion else presets.LAION_PLAIN
    return replace(
        like,
        mel=replace(mel, scale=like.mel.scale, norm=like.mel.norm),
        samples=10 * mel.rate,
    )


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


def computed(preset: Preset) -> dict[str, Tensor]:
    """The buffers of LAION-CLAP's modules, which its loader asks for."""
    mel = replace(preset.frontend.mel, scale="slaney", norm="area")
    buffers = {f"{FIXED[1]}melW": mel_filterbank(mel)} | _stft(mel.n_fft)
    audio = preset.audio
    if not isinstance(audio, HTSATConfig):
        return buffers
    for stage, depth in enumerate(audio.depths):
        side = audio.image // 4 // 2**stage
        for block in range(depth):
            attention = f"audio_branch.layers.{stage}.blocks.{block}."
            index = relative_positions(audio.window).view(audio.window**2, -1)
            buffers[f"{attention}attn.relative_position_index"] = index
            if block % 2 and side > audio.window:
                buffers[f"{attention}attn_mask"] = shift_mask(side, audio.window, audio.window // 2)
    return buffers


def _stft(n_fft: int) -> dict[str, Tensor]:
    """A short-time Fourier transform as two convolutions, as torchlibrosa keeps it."""
    time, bins = torch.arange(n_fft, dtype=torch.float64), torch.arange(n_fft // 2 + 1, dtype=torch.float64)
    angle = 2 * math.pi * (bins[:, None] * time[None, :] % n_fft) / n_fft
    window = torch.hann_window(n_fft, dtype=torch.float64)
    parts = {"conv_real": angle.cos() * window, "conv_imag": -angle.sin() * window}
    return {f"{FIXED[0]}stft.{name}.weight": part.float().unsqueeze(1) for name, part in parts.items()}
