"""LAION-CLAP's checkpoints: read and write `.pt` files of its releases and of its training.

A file holds no configuration, so the model is inferred from names and shapes (`infer_preset`). Settings that neither
shows (activation, layer-norm epsilon, text-tower heads of another width than 64) are assumed to be LAION-CLAP's.

Filterbanks, attention masks and position indices are computed, never read: they follow from the preset, old files hold
them in half precision, and trusting them would let a file disagree with its own sizes. They are written all the same,
because LAION-CLAP's loader is strict and requires every name.
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
from openclap.audio.config import FrontEndConfig, MelConfig
from openclap.audio.mel import mel_filterbank
from openclap.checkpoints.checkpoint import Checkpoint
from openclap.checkpoints.conversion_report import ConversionLosses, objective_names, setting_changes
from openclap.checkpoints.destination import CheckpointKind, drafted
from openclap.checkpoints.laion_untrained import initialise_missing
from openclap.checkpoints.tensors import UNTRAINED, WRITER, check_equal, read_tensors
from openclap.checkpoints.translate_keys import (
    KeyTable,
    count_numbered,
    required_shape,
    strip_wrappers,
    translate_key,
)
from openclap.checkpoints.unpickle import read_pickled
from openclap.errors import CheckpointError
from openclap.formatting import join_first
from openclap.models.config import PANN_6, PANN_14, AudioConfig, FusionKind, HTSATConfig, PANNConfig, TextTowerConfig
from openclap.models.swin import relative_positions, shift_mask
from openclap.presets import Preset

State = Mapping[str, Tensor]

# ---------------------------------------------------------------------------------------------------------------------
# Names: LAION-CLAP's on the left, ours on the right.

SHARED: KeyTable = (
    ("^audio_projection.", "^audio_head."),
    ("^text_projection.", "^text_head."),
    ("^audio_transform.sequential.", "^audio_transform."),
    ("^text_transform.sequential.", "^text_transform."),
    # One temperature per direction of the loss; classification scores are scaled by the audio side's.
    ("^logit_scale_t", "^logit_scale_text"),
    ("^logit_scale_a", "^logit_scale"),
)
HTSAT: KeyTable = (
    ("^audio_branch.tscam_conv.", "^audio_tower.tagger."),
    ("^audio_branch.mel_conv1d.", "^audio_tower.views.mel_conv1d."),
    ("^audio_branch.fusion_model.", "^audio_tower.views.fusion_model."),
    ("^audio_branch.", "^audio_tower."),
)
PANN: KeyTable = (
    *((f"^audio_branch.conv_block{block}.", f"^audio_tower.blocks.{block - 1}.") for block in range(1, 7)),
    ("^audio_branch.fc1.", "^audio_tower.linear."),
    ("^audio_branch.fc_audioset.", "^audio_tower.tagger."),
    ("^audio_branch.mel_conv2d.", "^audio_tower.fuse.mel_conv2d."),
    ("^audio_branch.mel_conv1d.", "^audio_tower.views.mel_conv1d."),
    ("^audio_branch.", "^audio_tower."),
)
# Our PANN fuses feature maps (2d) and log-mels (1d) in different modules; LAION-CLAP has one name for both.
PANN_2D: KeyTable = (("^audio_branch.fusion_model.", "^audio_tower.fuse.fusion_model."), *PANN)
PANN_1D: KeyTable = (("^audio_branch.fusion_model.", "^audio_tower.views.fusion_model."), *PANN)
BERT: KeyTable = (("^text_branch.", "^text_tower.encoder."),)
BART: KeyTable = (
    ("^text_branch.decoder.embed_tokens.", "^text_tower.encoder.embed_tokens."),
    ("^text_branch.encoder.", "^text_tower.encoder."),
)
# LAION-CLAP's "transformer" is OpenAI's CLIP text encoder, whose modules lie at the top of the model.
CLIP: KeyTable = (
    ("^token_embedding.", "^text_tower.encoder.embeddings.token_embedding."),
    ("^positional_embedding", "^text_tower.encoder.embeddings.position_embedding.weight"),
    ("^ln_final.", "^text_tower.encoder.final_layer_norm."),
    ("^text_branch.resblocks.", "^text_tower.encoder.encoder.layers."),
)
CLIP_BLOCK: KeyTable = (
    (".attn.out_proj.", ".self_attn.out_proj."),
    (".ln_1.", ".layer_norm1."),
    (".ln_2.", ".layer_norm2."),
    (".mlp.c_fc.", ".mlp.fc1."),
    (".mlp.c_proj.", ".mlp.fc2."),
)
TEXT: dict[str, tuple[KeyTable, ...]] = {
    "roberta": (BERT,),
    "bert": (BERT,),
    "bart": (BART,),
    "clip_text_model": (CLIP, CLIP_BLOCK),
}

MEL = "audio_branch.logmel_extractor."
STFT = "audio_branch.spectrogram_extractor."
"""Buffers of torchlibrosa, the front end of LAION-CLAP and of PANN."""
FRONT_END = (STFT, MEL)
COMPUTED = (".attn_mask", ".relative_position_index", ".position_ids", ".token_type_ids")
"""Buffers that follow from the sizes of the model."""
UNUSED = ("audio_branch.head.", "text_branch.decoder.", "text_branch.shared.", "text_branch.pooler.")
TIED = ("text_branch.shared.weight", "text_branch.encoder.embed_tokens.weight")
"""Two more names of BART's token embedding; the one under the decoder's name is read."""
SECOND_GLOBAL = ".global_att2."
"""iAFF's second global branch: LAION-CLAP stores it and never calls it, because its second pass reuses the first branch
(test_iaff_reuses_the_first_global_branch)."""
IN_PROJ = ".attn.in_proj_"
POSITIONS = "text_branch.embeddings.position_ids"
"""LAION-CLAP's loader deletes this name from every file, whatever the text tower, and fails where it is missing."""


def rename_key(name: str, preset: Preset, *, reverse: bool = False) -> str:
    """Translate a tensor's name to ours, or with `reverse` to LAION-CLAP's."""
    tables = (audio_key_table(preset.audio),) if name.startswith("audio_") else TEXT[preset.text.model_type]
    return translate_key(name, (SHARED, *tables), reverse=reverse)


def audio_key_table(audio: AudioConfig) -> KeyTable:
    """Return the table that translates an audio tower's names."""
    if isinstance(audio, HTSATConfig):
        return HTSAT
    if isinstance(audio, PANNConfig):
        return PANN_1D if (audio.fusion or "").endswith("_1d") else PANN_2D
    raise CheckpointError(f"LAION's format has HTSAT and PANN towers alone, and no {presets.tower_name(audio)}.")


# ---------------------------------------------------------------------------------------------------------------------
# Read.


def has_laion_names(state: Mapping[str, Any]) -> bool:
    """Return whether the names are those of a whole LAION-CLAP model."""
    return any(name.startswith("audio_branch.") for name in state)


def read(state: Mapping[str, Tensor], source: str, preset: Preset | None = None) -> Checkpoint:
    """Translate a state dict, its names with or without `module.`.

    `preset` supplies settings that names and shapes do not show (activation, epsilon, hop). Trained parts that nothing
    here reads are returned as unused; unknown names become weights that fit no network, which `build_network` reports.

    Raises CheckpointError for a file that lacks a tensor that sizes are read from.
    """
    state = strip_wrappers(state, source)
    preset = preset or infer_preset(state, source)
    if preset.text.model_type not in TEXT:
        raise CheckpointError(
            f"{source}: LAION's format has no {preset.text.model_type} text tower, expected {', '.join(TEXT)}."
        )
    weights: dict[str, Tensor] = {}
    unused: dict[str, Tensor] = {}
    embedding = state.get("text_branch.decoder.embed_tokens.weight") if preset.text.model_type == "bart" else None
    for name, tensor in state.items():
        if name.endswith(COMPUTED) or name.startswith(FRONT_END):
            continue
        if name in TIED and embedding is not None:
            # Tied copies are dropped; one that training has untied is information and stays.
            if tensor is not embedding and not torch.equal(tensor, embedding):
                unused[name] = tensor
        elif _is_unused(name, preset):
            unused[name] = tensor
        elif IN_PROJ in name:
            weights |= _split_in_proj(name, tensor, preset)
        else:
            weights[rename_key(name, preset)] = tensor
    return Checkpoint("laion", preset, weights, unused)


def _split_in_proj(name: str, tensor: Tensor, preset: Preset) -> dict[str, Tensor]:
    """Split torch's stacked projection of query, key and value, which transformers' CLIP keeps apart."""
    kind = name.rsplit("_", 1)[1]  # weight or bias
    base = rename_key(name.split(IN_PROJ, maxsplit=1)[0] + ".", preset)
    return {f"{base}self_attn.{part}_proj.{kind}": piece for part, piece in zip("qkv", tensor.chunk(3), strict=True)}


def _is_unused(name: str, preset: Preset) -> bool:
    if name == "text_branch.decoder.embed_tokens.weight":
        return False
    if name.startswith("text_branch.pooler."):
        return preset.text.pooling != "pooler"
    return name.startswith(UNUSED) or SECOND_GLOBAL in name


# ---------------------------------------------------------------------------------------------------------------------
# Infer the model from names and shapes.


def infer_preset(state: State, source: str) -> Preset:
    """Infer towers, sizes and front end. Raises CheckpointError naming a tensor that is missing or misshapen."""
    audio = infer_audio_tower(state, source)
    text = infer_text_tower(state, source)
    embedding_size = required_shape(state, "audio_projection.2.weight", source, 2)[0]
    return Preset(
        name=f"{presets.tower_name(audio)}-{text.model_type.removesuffix('_text_model')}",
        frontend=infer_front_end(state, audio.fusion is not None, source),
        audio=audio,
        text=text,
        embedding_size=embedding_size,
        temperatures=2 if "logit_scale_t" in state else 1,
        transforms="audio_transform.sequential.0.weight" in state,
    )


def infer_audio_tower(state: State, source: str) -> AudioConfig:
    """Infer the audio tower from names that begin with `audio_branch.`."""
    tower = {name.removeprefix("audio_branch."): t for name, t in state.items() if name.startswith("audio_branch.")}
    if "patch_embed.proj.weight" in tower:
        return _infer_htsat(tower, source)
    if "conv_block1.conv1.weight" in tower:
        return _infer_pann(tower, source)
    raise CheckpointError(f"{source}: its audio_branch is neither HTSAT nor PANN; it has {join_first(tower)}.")


def _infer_htsat(tower: State, source: str) -> HTSATConfig:
    width, views, _, _ = required_shape(tower, "patch_embed.proj.weight", source, 4)
    stages = range(count_numbered(tower, r"layers\.(\d+)\."))
    depths = tuple(count_numbered(tower, rf"layers\.{stage}\.blocks\.(\d+)\.") for stage in stages)
    tables = [
        required_shape(tower, f"layers.{stage}.blocks.0.attn.relative_position_bias_table", source, 2)
        for stage in stages or range(1)  # without layers, ask for the first, so that the error names it
    ]
    window = (math.isqrt(tables[0][0]) + 1) // 2  # the table has (2 · window − 1)² rows
    # A shifted block of the first stage stores a mask of (windows, …), which shows the size of the patch grid. It is
    # missing where one window covers the grid or a tool dropped buffers; then the published size is assumed.
    mask = "layers.0.blocks.1.attn_mask"
    side = math.isqrt(required_shape(tower, mask, source, 3)[0]) * window if mask in tower else 64
    return HTSATConfig(
        width=width,
        depths=depths,
        heads=tuple(heads for _, heads in tables),
        n_mels=required_shape(tower, "bn0.weight", source, 1)[0],
        image=4 * side,
        window=window,
        classes=_count_classes(tower, "tscam_conv.weight", source, 4),
        fusion=_infer_fusion(tower, views, "patch_embed."),
    )


def _infer_pann(tower: State, source: str) -> PANNConfig:
    blocks = range(1, 1 + count_numbered(tower, r"conv_block(\d+)\."))
    widths = tuple(required_shape(tower, f"conv_block{block}.conv1.weight", source, 4)[0] for block in blocks)
    _, views, _, _ = required_shape(tower, "conv_block1.conv1.weight", source, 4)
    like = PANN_14 if "conv_block1.conv2.weight" in tower else PANN_6  # one convolution per block, or two
    return replace(
        like,
        widths=widths,
        pooled=min(len(widths), 5),  # Cnn14's sixth block is not pooled
        n_mels=required_shape(tower, "bn0.weight", source, 1)[0],
        classes=_count_classes(tower, "fc_audioset.weight", source, 2),
        fusion=_infer_fusion(tower, views, ""),
    )


def _count_classes(tower: State, name: str, source: str, dimensions: int) -> int:
    """Return the classes of the tagging head; 0 for a tower without one."""
    return required_shape(tower, name, source, dimensions)[0] if name in tower else 0


def _infer_fusion(tower: State, views: int, module: str) -> FusionKind | None:
    # Four input channels in the first convolution.
    if views == 4:
        return "channel_map"
    for conv, prefix, dimensions in (("mel_conv1d.", "", "1d"), (f"{module}mel_conv2d.", module, "2d")):
        if any(name.startswith(conv) for name in tower):
            attention = any(name.startswith(f"{prefix}fusion_model.local_att.") for name in tower)
            iterated = any(name.startswith(f"{prefix}fusion_model.local_att2.") for name in tower)
            # DAF has no weights of its own, so only the convolution before it tells that there is fusion.
            kind = "iaff" if iterated else "aff" if attention else "daf"
            return f"{kind}_{dimensions}"  # type: ignore[return-value]
    return None


def infer_text_tower(state: State, source: str) -> TextTowerConfig:
    """Infer the text tower: CLIP's transformer, BART, RoBERTa (one token type) or BERT."""
    if "token_embedding.weight" in state:
        return _infer_clip_text(state, source)
    if "text_branch.decoder.embed_tokens.weight" in state:
        return _infer_bart(state, source)
    return _infer_bert(state, source)


def _infer_clip_text(state: State, source: str) -> TextTowerConfig:
    vocabulary, hidden = required_shape(state, "token_embedding.weight", source, 2)
    sizes = {
        "vocab_size": vocabulary,
        "num_hidden_layers": count_numbered(state, r"text_branch\.resblocks\.(\d+)\."),
        "num_attention_heads": max(1, hidden // 64),
        "intermediate_size": required_shape(state, "text_branch.resblocks.0.mlp.c_fc.weight", source, 2)[0],
        "max_position_embeddings": required_shape(state, "positional_embedding", source, 2)[0],
    }
    return _resized(presets.CLIP_TEXT, hidden, sizes)


def _infer_bart(state: State, source: str) -> TextTowerConfig:
    vocabulary, hidden = required_shape(state, "text_branch.decoder.embed_tokens.weight", source, 2)
    heads, inner = max(1, hidden // 64), required_shape(state, "text_branch.encoder.layers.0.fc1.weight", source, 2)[0]
    positions = required_shape(state, "text_branch.encoder.embed_positions.weight", source, 2)[0]
    sizes = {
        "vocab_size": vocabulary,
        "encoder_layers": count_numbered(state, r"text_branch\.encoder\.layers\.(\d+)\."),
        "decoder_layers": count_numbered(state, r"text_branch\.decoder\.layers\.(\d+)\."),
        "encoder_attention_heads": heads,
        "decoder_attention_heads": heads,
        "encoder_ffn_dim": inner,
        "decoder_ffn_dim": inner,
        "max_position_embeddings": positions - 2,  # BART's table begins with two rows that no position uses
    }
    return _resized(presets.BART, hidden, sizes)


def _infer_bert(state: State, source: str) -> TextTowerConfig:
    embeddings = "text_branch.embeddings."
    vocabulary, hidden = required_shape(state, f"{embeddings}word_embeddings.weight", source, 2)
    types, _ = required_shape(state, f"{embeddings}token_type_embeddings.weight", source, 2)
    inner = required_shape(state, "text_branch.encoder.layer.0.intermediate.dense.weight", source, 2)[0]
    sizes = {
        "vocab_size": vocabulary,
        "num_hidden_layers": count_numbered(state, r"text_branch\.encoder\.layer\.(\d+)\."),
        "num_attention_heads": max(1, hidden // 64),
        "intermediate_size": inner,
        "max_position_embeddings": required_shape(state, f"{embeddings}position_embeddings.weight", source, 2)[0],
        "type_vocab_size": types,
    }
    # LAION-CLAP stores both under the same names; BERT tells two sentences apart by token type, RoBERTa does not.
    return _resized(presets.ROBERTA if types == 1 else presets.BERT, hidden, sizes)


def _resized(like: TextTowerConfig, hidden: int, sizes: dict[str, int]) -> TextTowerConfig:
    return replace(like, hidden_size=hidden, sizes=dict(like.sizes) | sizes)


RATES = (48000, 32000, 44100, 16000, 8000)
"""Sample rates of LAION-CLAP, of PANN, and of PANN's models for narrow-band audio."""


def infer_front_end(state: State, fusion: bool, source: str) -> FrontEndConfig:
    """Return LAION-CLAP's front end, at the rate that the stored filterbank belongs to; 48 kHz without one.

    A file does not store its sample rate, but a mel filterbank of given sizes differs for every rate, so the stored one
    is compared with those of the known rates. Only the rate is taken from it: the filterbank itself is computed again.

    Raises CheckpointError for a filterbank of no known front end.
    """
    bank, window = f"{MEL}melW", f"{STFT}stft.conv_real.weight"
    mel = presets.LAION_PLAIN.mel
    if bank in state:
        n_fft = required_shape(state, window, source, 3)[2] if window in state else mel.n_fft
        stored = state[bank].float()
        candidates = (mel_at_rate(rate, n_fft, required_shape(state, bank, source, 2)[1]) for rate in RATES)
        matching = [candidate for candidate in candidates if equal_filterbanks(mel_filterbank(candidate), stored)]
        if not matching:
            raise CheckpointError(
                f"{source}: its filterbank {tuple(stored.shape)} belongs to no known front end (windows of {n_fft} "
                f"samples, 50 Hz to 14 kHz, at {', '.join(map(str, RATES))} Hz). Pass a preset that describes it."
            )
        mel = matching[0]
    # LAION-CLAP computes fused views with torchaudio (HTK scale) but plain ones with torchlibrosa (Slaney scale), and
    # stores torchlibrosa's filterbank in either case.
    like = presets.LAION_FUSION if fusion else presets.LAION_PLAIN
    return replace(like, mel=replace(mel, scale=like.mel.scale, norm=like.mel.norm), samples=10 * mel.rate)


def equal_filterbanks(bank: Tensor, other: Tensor) -> bool:
    """Compare filterbanks with a tolerance for those that were stored in half precision."""
    return bank.shape == other.shape and torch.allclose(bank, other, rtol=1e-2, atol=1e-5)


def mel_at_rate(rate: int, n_fft: int = 1024, n_mels: int = 64) -> MelConfig:
    """Return LAION-CLAP's plain log-mel at another sample rate, with a hundred frames a second."""
    return replace(
        presets.LAION_PLAIN.mel, rate=rate, hop=rate // 100, n_fft=n_fft, n_mels=n_mels, f_max=min(14000.0, rate / 2)
    )


# ---------------------------------------------------------------------------------------------------------------------
# Write.


def to_state(checkpoint: Checkpoint) -> OrderedDict[str, Tensor]:
    """Return the tensors under LAION-CLAP's names: trained ones unchanged, buffers computed."""
    preset = checkpoint.preset
    state: dict[str, Tensor] = {}
    for name, tensor in checkpoint.weights.items():
        if preset.text.model_type == "clip_text_model" and ".self_attn." in name and "out_proj" not in name:
            base, kind = name.split(".self_attn.")[0], name.rsplit(".", 1)[1]
            pieces = [checkpoint.weights[f"{base}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
            state[rename_key(f"{base}.", preset, reverse=True) + f"attn.in_proj_{kind}"] = torch.cat(pieces)
        else:
            state[rename_key(name, preset, reverse=True)] = tensor
    if preset.text.model_type == "bart":
        state |= dict.fromkeys(TIED, state["text_branch.decoder.embed_tokens.weight"])
    # Unused tensors come after the tied copies, so that an untied embedding keeps its own values.
    return OrderedDict(state | checkpoint.unused | computed_buffers(preset) | _position_ids(state))


def write(checkpoint: Checkpoint, path: Path) -> ConversionLosses:
    """Write a `.pt` file that LAION-CLAP's `load_ckpt` loads. Only an objective's parameters are left out.

    Parts that the loader requires and the checkpoint lacks get initial values (`laion_untrained`). The file lists them,
    and openclap leaves them out again when it reads the file.

    Raises CheckpointError for a model that would read back as another one, and where `path` exists and is not such a
    file written by openclap.
    """
    preset = checkpoint.preset
    if preset.text.model_type not in TEXT:
        raise CheckpointError(
            f"LAION's format has no place for a {preset.text.model_type} text tower, expected {', '.join(TEXT)}. "
            "Convert to openclap instead."
        )
    if isinstance(preset.audio, PANNConfig) and preset.audio.categories:
        raise CheckpointError(
            "LAION's format has no place for a tower with category heads. Convert to openclap instead."
        )
    state = to_state(checkpoint)
    try:
        reread = infer_preset(state, preset.name)
    except CheckpointError as error:
        raise CheckpointError(f"LAION's format has no place for it: {error} Convert to openclap instead.") from None
    changed = setting_changes(preset, reread, "LAION's format")
    untrained, parts = initialise_missing(state, preset)
    content = {
        # The keys of the checkpoints that LAION-CLAP's training writes.
        "epoch": 0,
        "name": preset.name,
        "written_by": WRITER,
        UNTRAINED: sorted(untrained),
        # LAION-CLAP's loader strips seven characters from every name if the first begins with "module".
        "state_dict": OrderedDict((f"module.{name}", tensor) for name, tensor in (state | untrained).items()),
    }

    def check(draft: Path) -> None:
        found = read_tensors(draft)
        check_equal(found, state)
        read(found, path.name)

    with drafted(path, KIND, check, [checkpoint.source]) as draft:
        torch.save(content, draft)
    note = _loading_note(infer_preset(state | untrained, ""))
    return ConversionLosses(objective_names(checkpoint.objective), parts, changed, (note,))


def computed_buffers(preset: Preset) -> dict[str, Tensor]:
    """Compute the buffers of LAION-CLAP's modules, which its strict loader requires."""
    # torchlibrosa's filterbank is Slaney's with area normalisation, in fused models too (see `infer_front_end`).
    mel = replace(preset.frontend.mel, scale="slaney", norm="area")
    buffers = {f"{MEL}melW": mel_filterbank(mel)} | _stft_kernels(mel.n_fft)
    audio = preset.audio
    if not isinstance(audio, HTSATConfig):
        return buffers
    window, shift = (audio.window, audio.window), (audio.window // 2, audio.window // 2)
    for stage, depth in enumerate(audio.depths):
        side = audio.image // 4 // 2**stage  # patches along one side of the stage's grid
        for block in range(depth):
            prefix = f"audio_branch.layers.{stage}.blocks.{block}."
            index = relative_positions(window, audio.window).view(audio.window**2, -1)
            buffers[f"{prefix}attn.relative_position_index"] = index
            # Every second block is shifted, except where one window covers the whole grid.
            if block % 2 and side > audio.window:
                buffers[f"{prefix}attn_mask"] = shift_mask((side, side), window, shift)
    return buffers


def _position_ids(state: State) -> dict[str, Tensor]:
    """Compute the text tower's position indices, which transformers stored in state dicts before 4.31."""
    table = state.get("text_branch.embeddings.position_embeddings.weight")
    return {POSITIONS: torch.arange(1 if table is None else len(table)).unsqueeze(0)}


def _stft_kernels(n_fft: int) -> dict[str, Tensor]:
    """Compute a windowed Fourier transform as two convolution kernels, as torchlibrosa stores it.

    In float64, with the angle reduced modulo n_fft first: a float32 angle of up to n_fft² loses the low digits.
    """
    time, bins = torch.arange(n_fft, dtype=torch.float64), torch.arange(n_fft // 2 + 1, dtype=torch.float64)
    angle = 2 * math.pi * (bins[:, None] * time[None, :] % n_fft) / n_fft
    window = torch.hann_window(n_fft, dtype=torch.float64)
    kernels = {"conv_real": angle.cos() * window, "conv_imag": -angle.sin() * window}
    return {f"{STFT}stft.{name}.weight": kernel.float().unsqueeze(1) for name, kernel in kernels.items()}


def _loading_note(preset: Preset) -> str:
    """Say in a sentence how the package laion-clap loads a file of this preset."""
    audio = presets.audio_tower_name(preset.audio)
    text = next((name for name, config in presets.TEXT_TOWERS.items() if _same_size(config, preset.text)), None)
    rate, size = preset.frontend.mel.rate, preset.embedding_size
    if audio is None or text is None or (rate, size) != (48000, 512):
        return "The package laion-clap has no model of these sizes: its load_ckpt refuses the file."
    if preset.audio.fusion not in (None, "aff_2d"):
        return f"The package laion-clap offers {preset.audio.fusion} fusion in create_model, and not in CLAP_Module."
    choices = f"enable_fusion={preset.audio.fusion is not None}, amodel={AMODEL[audio]!r}, tmodel={TMODEL[text]!r}"
    return f"The package laion-clap loads it with CLAP_Module({choices}).load_ckpt(FILE)."


AMODEL = {name: name.replace("htsat", "HTSAT").replace("pann", "PANN") for name in presets.AUDIO_TOWERS}
TMODEL = {"roberta": "roberta", "bert": "bert", "bart": "bart", "clip": "transformer"}
"""laion-clap's names of audio and text towers."""


def _same_size(first: TextTowerConfig, second: TextTowerConfig) -> bool:
    shared = first.sizes.keys() & second.sizes.keys()
    return (first.model_type, first.hidden_size) == (second.model_type, second.hidden_size) and all(
        first.sizes[name] == second.sizes[name] for name in shared
    )


def _is_own_file(path: Path) -> bool:
    try:
        content = read_pickled(path)
    except CheckpointError:
        return False
    return isinstance(content, dict) and content.get("written_by") == WRITER


KIND = CheckpointKind("checkpoint that openclap wrote", (), _is_own_file)
