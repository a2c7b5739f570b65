"""LAION-CLAP's checkpoints: `.pt` files of its releases and of its training, read and written.

What a file holds is found out from its names and shapes (`shapes`). Filterbanks, window masks and position indices are
computed, not read; they are written again, because LAION-CLAP's own loader asks for every name.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from openclap import presets
from openclap.audio.mel import mel_filterbank
from openclap.checkpoints.checkpoint import Checkpoint
from openclap.checkpoints.conversion_report import Losses, changes, of_objective
from openclap.checkpoints.destination import Kind, drafted, same
from openclap.checkpoints.fresh import fresh
from openclap.checkpoints.names import Table, translate
from openclap.checkpoints.shapes import MEL, STFT, preset_of
from openclap.checkpoints.tensors import UNTRAINED, WRITER, read_tensors, unwrapped
from openclap.checkpoints.unpickle import read_pickled
from openclap.errors import CheckpointError
from openclap.models.config import AudioConfig, HTSATConfig, TextTowerConfig
from openclap.models.swin import relative_positions, shift_mask
from openclap.presets import Preset

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
FIXED = (STFT, MEL)
UNUSED = ("audio_branch.head.", "text_branch.decoder.", "text_branch.shared.", "text_branch.pooler.")
TIED = ("text_branch.shared.weight", "text_branch.encoder.embed_tokens.weight")
"""BART's embedding stands under three names; the decoder's counts."""
SECOND_GLOBAL = ".global_att2."
IN_PROJ = ".attn.in_proj_"
POSITIONS = "text_branch.embeddings.position_ids"
"""LAION-CLAP's loader deletes this name from every file, whatever the text tower, and fails where it is not there."""


def is_laion(state: Mapping[str, Any]) -> bool:
    """Do these names belong to a whole LAION-CLAP model?"""
    return any(name.startswith("audio_branch.") for name in state)


def read(state: Mapping[str, Tensor], source: str, preset: Preset | None = None) -> Checkpoint:
    """A state dict, its names with or without `module.`.

    `preset` says what no name or shape can (activation, epsilon, hop). Learned parts that LAION-CLAP has and nothing
    here reads are kept as unused; names that it has not become weights that fit no network (`folder.network`). Raises
    CheckpointError for a file that lacks what tells its size.
    """
    state = unwrapped(state, source)
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
    """The checkpoint's tensors under LAION-CLAP's names, learned ones as they are and buffers computed."""
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
    return OrderedDict(state | checkpoint.unused | computed(preset) | _positions(state))


def write(checkpoint: Checkpoint, path: Path) -> Losses:
    """A `.pt` file that LAION-CLAP's `load_ckpt` loads, which leaves out nothing but what an objective learned.

    Parts that the loader asks for and the checkpoint lacks hold fresh values (`fresh`); the file names them, and what
    reads it here leaves them out.

    Raises CheckpointError for a model that would read back as another one, and where `path` is anything but a file
    that was written here.
    """
    preset = checkpoint.preset
    if preset.text.model_type not in TEXT:
        raise CheckpointError(
            f"LAION's format has no place for a {preset.text.model_type} text tower, expected {', '.join(TEXT)}. "
            "Convert to openclap instead."
        )
    state = to_state(checkpoint)
    try:
        again = preset_of(state, preset.name)
    except CheckpointError as error:
        raise CheckpointError(f"LAION's format has no place for it: {error} Convert to openclap instead.") from None
    changed = changes(preset, again, "LAION's format")
    untrained, parts = fresh(state, preset)
    content = {
        "epoch": 0,
        "name": preset.name,
        "written_by": WRITER,
        UNTRAINED: sorted(untrained),
        "state_dict": OrderedDict((f"module.{name}", tensor) for name, tensor in (state | untrained).items()),
    }

    def check(draft: Path) -> None:
        found = read_tensors(draft)
        same(found, state)
        read(found, path.name)

    with drafted(path, KIND, check, [checkpoint.source]) as draft:
        torch.save(content, draft)
    return Losses(of_objective(checkpoint.objective), parts, changed, (_loading(preset_of(state | untrained, "")),))


def _loading(preset: Preset) -> str:
    """How the package laion-clap loads a file of this preset, in a sentence."""
    plain = replace(preset.audio, fusion=None)
    audio = next((name for name, config in presets.AUDIO_TOWERS.items() if config == plain), None)
    text = next((name for name, config in presets.TEXT_TOWERS.items() if _as_large(config, preset.text)), None)
    rate, size = preset.frontend.mel.rate, preset.embedding_size
    if audio is None or text is None or (rate, size) != (48000, 512):
        return "The package laion-clap has no model of these sizes: its load_ckpt refuses the file."
    if preset.audio.fusion not in (None, "aff_2d"):
        return f"The package laion-clap offers {preset.audio.fusion} fusion in create_model, and not in CLAP_Module."
    choices = f"enable_fusion={preset.audio.fusion is not None}, amodel={AMODEL[audio]!r}, tmodel={TMODEL[text]!r}"
    return f"The package laion-clap loads it with CLAP_Module({choices}).load_ckpt(FILE)."


AMODEL = {name: name.replace("htsat", "HTSAT").replace("pann", "PANN") for name in presets.AUDIO_TOWERS}
TMODEL = {"roberta": "roberta", "bert": "bert", "bart": "bart", "clip": "transformer"}


def _as_large(one: TextTowerConfig, other: TextTowerConfig) -> bool:
    both = one.sizes.keys() & other.sizes.keys()
    return (one.model_type, one.hidden_size) == (other.model_type, other.hidden_size) and all(
        one.sizes[name] == other.sizes[name] for name in both
    )


def _is_ours(path: Path) -> bool:
    try:
        content = read_pickled(path)
    except CheckpointError:
        return False
    return isinstance(content, dict) and content.get("written_by") == WRITER


KIND = Kind("checkpoint that openclap wrote", (), _is_ours)


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


def computed(preset: Preset) -> dict[str, Tensor]:
    """The buffers of LAION-CLAP's modules, which its loader asks for."""
    mel = replace(preset.frontend.mel, scale="slaney", norm="area")
    buffers = {f"{MEL}melW": mel_filterbank(mel)} | _stft(mel.n_fft)
    audio = preset.audio
    if not isinstance(audio, HTSATConfig):
        return buffers
    window, shift = (audio.window, audio.window), (audio.window // 2, audio.window // 2)
    for stage, depth in enumerate(audio.depths):
        side = audio.image // 4 // 2**stage
        for block in range(depth):
            attention = f"audio_branch.layers.{stage}.blocks.{block}."
            index = relative_positions(window, audio.window).view(audio.window**2, -1)
            buffers[f"{attention}attn.relative_position_index"] = index
            if block % 2 and side > audio.window:
                buffers[f"{attention}attn_mask"] = shift_mask((side, side), window, shift)
    return buffers


def _positions(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The text tower's position indices, which transformers kept in the state dicts of BERT and RoBERTa before 4.31."""
    table = state.get("text_branch.embeddings.position_embeddings.weight")
    return {POSITIONS: torch.arange(1 if table is None else len(table)).unsqueeze(0)}


def _stft(n_fft: int) -> dict[str, Tensor]:
    """A short-time Fourier transform as two convolutions, as torchlibrosa keeps it."""
    time, bins = torch.arange(n_fft, dtype=torch.float64), torch.arange(n_fft // 2 + 1, dtype=torch.float64)
    angle = 2 * math.pi * (bins[:, None] * time[None, :] % n_fft) / n_fft
    window = torch.hann_window(n_fft, dtype=torch.float64)
    parts = {"conv_real": angle.cos() * window, "conv_imag": -angle.sin() * window}
    return {f"{STFT}stft.{name}.weight": part.float().unsqueeze(1) for name, part in parts.items()}
