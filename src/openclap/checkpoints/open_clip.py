"""open_clip's CLAP models: read and write folders with `open_clip_config.json`, and read its training checkpoints.

Networks and sizes come from the configuration (`open_clip_config`), weights from safetensors or torch's files. What
follows from the sizes (filterbanks, masks, indices, sinusoids) is computed, and written because open_clip's loader
requires every name.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, assert_never

import torch
from torch import Tensor

from openclap import presets
from openclap.checkpoints import hub, laion
from openclap.checkpoints.checkpoint import BATCH_COUNTER, Checkpoint, empty_network
from openclap.checkpoints.conversion_report import ConversionLosses, objective_names
from openclap.checkpoints.destination import CheckpointKind, drafted
from openclap.checkpoints.laion_untrained import initialise_missing
from openclap.checkpoints.open_clip_config import read_config, write_config
from openclap.checkpoints.tensors import check_equal, is_safetensors, metadata_of, read_tensors
from openclap.checkpoints.translate_keys import KeyTable, translate_key
from openclap.checkpoints.unpickle import read_pickled
from openclap.errors import CheckpointError, CheckpointWarning, ConfigError
from openclap.formatting import join_first
from openclap.models.config import MODERN, AudioConfig, HTSATConfig, NaFlexConfig, PANNConfig, WhisperConfig
from openclap.models.whisper import sinusoids
from openclap.presets import Preset
from openclap.text import merges
from openclap.text.tokenizer import FILE as TOKENIZER

CONFIG, WEIGHTS = hub.OPEN_CLIP, hub.OPEN_CLIP_WEIGHTS[0]
OWN_FILES = (*hub.OPEN_CLIP_WEIGHTS, "open_clip_pytorch_model.pth")
"""Names that open_clip gives to weights, by its own preference."""
OTHER_FILES = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth")
"""Names that open_clip reads, too, and that transformers gives to weights of its own."""
SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")
UNTRAINED = "openclap_untrained"
"""In the metadata of a file that openclap wrote: tensors that open_clip's loader requires and the model lacks."""
PatchOrder = Literal["canonical", "legacy"]
LAYOUT = "audio_patch_layout"
"""The mark of the order within patches, in training checkpoints that open_clip's script has converted."""

# ---------------------------------------------------------------------------------------------------------------------
# Names: open_clip's on the left, ours on the right.

NAFLEX: KeyTable = (
    ("^audio.proj.", "^audio_head."),
    ("^audio.encoder.vit.embeds.reg_token", "^audio_tower.registers"),
    ("^audio.encoder.vit.embeds.proj.", "^audio_tower.embed."),
    ("^audio.encoder.vit.attn_pool.", "^audio_tower.pool."),
    ("^audio.encoder.vit.", "^audio_tower."),
)
WHISPER: KeyTable = (("^audio.proj.", "^audio_head."), ("^audio.encoder.", "^audio_tower."))
HTSAT: KeyTable = (
    ("^audio.proj.", "^audio_head."),
    *((foreign.replace("^audio_branch.", "^audio.encoder."), ours) for foreign, ours in laion.HTSAT),
)
MODERN_TEXT: KeyTable = (("^text.text_projection.", "^text_head."), ("^text.", "^text_tower."))
CLIP_TEXT: KeyTable = (
    ("^text.text_projection.", "^text_head."),
    ("^text.token_embedding.", "^text_tower.encoder.embeddings.token_embedding."),
    ("^text.positional_embedding", "^text_tower.encoder.embeddings.position_embedding.weight"),
    ("^text.ln_final.", "^text_tower.encoder.final_layer_norm."),
    ("^text.transformer.resblocks.", "^text_tower.encoder.encoder.layers."),
)
HF_TEXT: KeyTable = (("^text.proj.", "^text_head."), ("^text.transformer.", "^text_tower.encoder."))
COMPUTED = (*laion.COMPUTED, BATCH_COUNTER)
FRONT_END = tuple(name.replace("audio_branch.", "audio.encoder.") for name in laion.FRONT_END)
SINUSOIDS = "audio.encoder.positional_embedding"
UNUSED = {
    "audio.encoder.head.": "audio_branch.head.",
    "audio.encoder.audio_bos_eos_token.": "audio.encoder.audio_bos_eos_token.",
}
"""Trained parts that no network here reads, and the names under which they are kept: LAION-CLAP's where it has them."""
POOLER = "text.transformer.pooler."
PROJECTION = "text.text_projection"
"""CLIP's projection without a bias: a matrix (width, embedding) that states are multiplied by from the left."""
IN_PROJ = laion.IN_PROJ
PATCH_WEIGHT = "audio_tower.embed.weight"


def _tables(name: str, preset: Preset) -> tuple[KeyTable, ...]:
    if name.startswith("audio"):
        return (_audio_table(preset.audio),)
    if preset.text.model_type == MODERN:
        return (MODERN_TEXT,)
    return (CLIP_TEXT, laion.CLIP_BLOCK) if preset.text.model_type == "clip_text_model" else (HF_TEXT,)


def _audio_table(audio: AudioConfig) -> KeyTable:
    if isinstance(audio, NaFlexConfig):
        return NAFLEX
    if isinstance(audio, WhisperConfig):
        return WHISPER
    if isinstance(audio, HTSATConfig):
        return HTSAT
    if isinstance(audio, PANNConfig):
        raise CheckpointError("open_clip has no place for a PANN audio tower. Convert to openclap instead.")
    assert_never(audio)


# ---------------------------------------------------------------------------------------------------------------------
# Read.


def is_open_clip_folder(path: Path) -> bool:
    """Return whether the folder has a configuration of open_clip, damaged or not."""
    return (path / CONFIG).is_file()


def has_open_clip_names(state: Mapping[str, Any]) -> bool:
    """Return whether the names are those of a CLAP model of open_clip."""
    return any(name.startswith("audio.encoder.") for name in state)


def read_file(file: Path, state: Mapping[str, Tensor], preset: Preset | None = None) -> Checkpoint:
    """Read a file, such as a training checkpoint, with the configuration that lies in the same folder.

    Raises CheckpointError without a configuration and a `preset`, and as `read`.
    """
    if not is_open_clip_folder(file.parent) and preset is None:
        raise CheckpointError(
            f"{file.name}: holds weights of open_clip, and no {CONFIG} lies beside it. Put it there: an object whose "
            "model_cfg is the JSON of the model that was trained."
        )
    return _read_state(file, state, preset)


def read(folder: Path, preset: Preset | None = None) -> Checkpoint:
    """Read a folder. `preset` replaces that of the configuration.

    Warns with CheckpointWarning of options that are ignored, and of further files with weights. Raises CheckpointError
    for a folder without weights or with several, for generative models, for options that the networks here lack, and
    where configuration and weights contradict each other.
    """
    _model_cfg(folder)  # a damaged configuration is reported before the weights are read
    file = find_weights(folder)
    return _read_state(file, read_tensors(file), preset)


def _read_state(file: Path, state: Mapping[str, Tensor], preset: Preset | None) -> Checkpoint:
    folder, metadata = file.parent, metadata_of(file)
    model_cfg = _model_cfg(folder) if is_open_clip_folder(folder) else {}
    if preset is None:
        source = f"{folder.name}/{CONFIG}"
        config = read_config(model_cfg, source)
        config.warn(source)
        preset = _with_fusion(config.preset, state, file.name)
    untrained = set(metadata.get(UNTRAINED, "").split())
    trained = {name: tensor for name, tensor in state.items() if name not in untrained}
    checkpoint = from_state(trained, preset, folder.name)
    if not checkpoint.objective and model_cfg.get("init_logit_bias") is not None:
        # open_clip starts a bias that a file lacks at 0, whatever the configuration's init_logit_bias.
        checkpoint = replace(checkpoint, objective={"bias": torch.zeros(())})
    # A tokenizer.json of transformers beside a tower whose tokenizer is ours may add other markers.
    is_ours = preset.text.tokenizer in merges.DEFINITIONS
    tokenizer = folder / TOKENIZER if (folder / TOKENIZER).is_file() and not is_ours else None
    checkpoint = replace(checkpoint, tokenizer=tokenizer)
    marks = (metadata.get(LAYOUT), model_cfg.get("audio_cfg", {}).get(LAYOUT))
    return from_legacy_order(checkpoint) if "legacy" in marks else checkpoint


def find_weights(folder: Path) -> Path:
    """The file with the weights. Raises CheckpointError where there is none, or where it is one of several."""
    own = [folder / name for name in OWN_FILES if (folder / name).is_file()]
    if own:
        if len(own) > 1:
            ignored = join_first(path.name for path in own[1:])
            warnings.warn(f"{folder.name}: read {own[0].name}, ignored {ignored}.", CheckpointWarning, stacklevel=3)
        return own[0]
    # Files with the names of transformers are the weights of a config.json beside them, in other names.
    is_shared = (folder / "config.json").is_file()
    others = [
        path
        for path in sorted(folder.iterdir())
        if path.suffix in SUFFIXES and not (is_shared and path.name in OTHER_FILES)
    ]
    if len(others) == 1:
        return others[0]
    names = join_first((path.name for path in others or sorted(folder.iterdir())), 5)
    if others:
        raise CheckpointError(f"{folder}: holds {names}. Leave one of them, or name it {WEIGHTS}.")
    raise CheckpointError(f"{folder}: holds no weights, expected {WEIGHTS} or {OWN_FILES[2]}; found {names}.")


def from_state(state: Mapping[str, Tensor], preset: Preset, source: str) -> Checkpoint:
    """Translate open_clip's tensors. Raises CheckpointError where they contradict `preset`, naming tensors and
    shapes."""
    check_state(state, preset, source)
    weights: dict[str, Tensor] = {}
    unused: dict[str, Tensor] = {}
    for name, tensor in state.items():
        kept = [(part, ours) for part, ours in UNUSED.items() if name.startswith(part)]
        if name == "logit_scale":
            weights[name] = tensor.reshape(())
        elif kept:
            unused[name.replace(*kept[0])] = tensor
        elif name.startswith(POOLER) and preset.text.pooling != "pooler":
            unused[name.replace("text.transformer.", "text_branch.")] = tensor
        elif name == PROJECTION:
            weights["text_head.weight"] = tensor.T
        elif IN_PROJ in name and name.startswith("text."):
            base, kind = name.split(IN_PROJ)
            base = translate_key(f"{base}.", _tables("text", preset))
            for part, piece in zip("qkv", tensor.chunk(3), strict=True):
                weights[f"{base}self_attn.{part}_proj.{kind}"] = piece
        elif not _is_computed(name) and name != "logit_bias":
            weights[translate_key(name, _tables(name, preset))] = tensor
    objective = {"bias": state["logit_bias"].reshape(())} if "logit_bias" in state else {}
    return Checkpoint("open_clip", preset, weights, unused, objective=objective)


def _is_computed(name: str) -> bool:
    return name.endswith(COMPUTED) or name.startswith(FRONT_END) or name == SINUSOIDS


def check_state(state: Mapping[str, Tensor], preset: Preset, source: str) -> None:
    """Raise CheckpointError unless names and shapes are those of `preset`, in open_clip's names."""
    network = empty_network(preset, source)
    expected = {name: tuple(tensor.shape) for name, tensor in trained_state(network.state_dict(), preset).items()}
    found = {name: tuple(tensor.shape) for name, tensor in state.items() if not _is_computed(name)}
    expected["logit_scale"] = found.get("logit_scale", ())  # () or (1,)
    may_be_there = ("logit_bias", POOLER, *UNUSED)
    facts = {
        "are missing": sorted(expected.keys() - found.keys()),
        "have no place": [name for name in sorted(found.keys() - expected.keys()) if not name.startswith(may_be_there)],
        "have another shape": [
            f"{name} {found[name]} where the configuration has {expected[name]}"
            for name in sorted(expected.keys() & found.keys())
            if found[name] != expected[name]
        ],
    }
    if wrong := [f"{len(names)} {kind} ({join_first(names)})" for kind, names in facts.items() if names]:
        raise CheckpointError(
            f"{source}: the weights contradict {CONFIG}: {'; '.join(wrong)}. Do both belong to the same model?"
        )


def _model_cfg(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        model_cfg = content["model_cfg"]
    except (ValueError, KeyError, TypeError):
        model_cfg = None
    if not isinstance(model_cfg, dict):
        raise CheckpointError(f"{folder / CONFIG}: is damaged, expected an object with a model_cfg.")
    return model_cfg


def _with_fusion(preset: Preset, state: Mapping[str, Tensor], source: str) -> Preset:
    """The fusion of an HTSAT tower, which its weights show."""
    if not isinstance(preset.audio, HTSATConfig):
        return preset
    tower = {
        f"audio_branch.{name.removeprefix('audio.encoder.')}": tensor
        for name, tensor in state.items()
        if name.startswith("audio.encoder.")
    }
    found = laion.infer_audio_tower(tower, source)
    assert isinstance(found, HTSATConfig)
    audio = replace(preset.audio, fusion=found.fusion, classes=found.classes)
    like = presets.LAION_FUSION if found.fusion else presets.LAION_PLAIN
    return replace(preset, audio=audio, frontend=replace(like, int16=False))


# ---------------------------------------------------------------------------------------------------------------------
# The order of elements within a patch.


def check_may_be_legacy(path: Path) -> None:
    """Raise ConfigError where a file or folder says which order it has: then it was read in that order already."""
    file = find_weights(path) if path.is_dir() and is_open_clip_folder(path) else path
    mark = metadata_of(file).get(LAYOUT) if file.is_file() else None
    if file.is_file() and not is_safetensors(file):
        content = read_pickled(file)
        mark = content.get(LAYOUT) if isinstance(content, dict) else None
    if mark is None and is_open_clip_folder(file.parent):
        mark = _model_cfg(file.parent).get("audio_cfg", {}).get(LAYOUT)
    if mark is not None:
        raise ConfigError(
            f"{file.name}: says that its {LAYOUT} is {mark!r}, by which it was read; leave out --patch-order."
        )


def from_legacy_order(checkpoint: Checkpoint) -> Checkpoint:
    """Convert a model whose patches have frequency as the fastest element to the order of `openclap.models.naflex`.

    open_clip had that order until 24 June 2026. Its files rarely say which one they have (`LAYOUT`).

    Raises ConfigError for a model without such patches.
    """
    audio = checkpoint.preset.audio
    if not isinstance(audio, NaFlexConfig):
        raise ConfigError("The order of patches applies to NaFlex models only; leave out --patch-order.")
    weight_DP = checkpoint.weights[PATCH_WEIGHT]
    older = weight_DP.unflatten(1, (audio.patch_time, audio.patch_freq))
    return replace(checkpoint, weights=checkpoint.weights | {PATCH_WEIGHT: older.transpose(1, 2).flatten(1)})


# ---------------------------------------------------------------------------------------------------------------------
# Write.


def trained_state(weights: Mapping[str, Tensor], preset: Preset) -> dict[str, Tensor]:
    """Our tensors under open_clip's names, without those that it has no place for."""
    state: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if _has_no_place(name) or name.endswith(BATCH_COUNTER):
            continue
        if name == "text_head.weight" and preset.text_head == "linear" and preset.text.model_type == "clip_text_model":
            state[PROJECTION] = tensor.T
        elif re.search(r"\.self_attn\.[qkv]_proj\.", name):
            base, kind = name.split(".self_attn.")[0], name.rsplit(".", 1)[1]
            pieces = [weights[f"{base}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
            state[translate_key(f"{base}.", _tables("text", preset), reverse=True) + f"attn.in_proj_{kind}"] = (
                torch.cat(pieces)
            )
        else:
            state[translate_key(name, _tables(name, preset), reverse=True)] = tensor
    return state


def to_state(checkpoint: Checkpoint) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Every tensor that open_clip's loader requires, and the names of those that are untrained."""
    preset = checkpoint.preset
    state = trained_state(checkpoint.weights, preset)
    state |= {_foreign_unused(name): tensor for name, tensor in checkpoint.unused.items()}
    if "bias" in checkpoint.objective:
        state["logit_bias"] = checkpoint.objective["bias"]
    if isinstance(preset.audio, WhisperConfig):
        state[SINUSOIDS] = sinusoids(preset.audio.positions, preset.audio.width)
        token = "audio.encoder.audio_bos_eos_token.weight"
        return state | {token: torch.zeros(2, preset.audio.embedding_size)} | state, (
            () if token in state else (token,)
        )
    if not isinstance(preset.audio, HTSATConfig):
        return state, ()
    as_laion = {name.replace("audio.encoder.", "audio_branch."): tensor for name, tensor in state.items()}
    missing, _ = initialise_missing(as_laion, preset)
    counted = {name: tensor for name, tensor in missing.items() if name.startswith("audio_branch.")}
    added = {name.replace("audio_branch.", "audio.encoder."): tensor for name, tensor in counted.items()}
    computed = {
        name.replace("audio_branch.", "audio.encoder."): tensor
        for name, tensor in laion.computed_buffers(preset).items()
    }
    return computed | added | state, tuple(name for name in added if not name.endswith(BATCH_COUNTER))


def _foreign_unused(name: str) -> str:
    return name.replace("audio_branch.", "audio.encoder.").replace("text_branch.", "text.transformer.")


def write(checkpoint: Checkpoint, folder: Path) -> ConversionLosses:
    """Write a folder that open_clip loads strictly: `open_clip.create_model("local-dir:FOLDER")`.

    Raises CheckpointError for a model that open_clip does not have, or that would read back as another one, and where
    `folder` exists and is anything but such a folder of openclap.
    """
    from safetensors.torch import save_file

    preset = checkpoint.preset
    bias = checkpoint.objective.get("bias")
    scale = checkpoint.weights["logit_scale"]
    model_cfg = write_config(preset, logit_scale=float(scale), logit_bias=None if bias is None else float(bias))
    changed = _changes(preset, read_config(model_cfg, CONFIG).preset)
    state, untrained = to_state(checkpoint)
    kept = trained_state(checkpoint.weights, preset)

    def check(draft: Path) -> None:
        found = read(draft)
        check_equal(trained_state(found.weights, found.preset), kept)
        check_equal(found.unused, {name: tensor for name, tensor in checkpoint.unused.items() if name in found.unused})

    with drafted(folder, KIND, check, [checkpoint.source]) as draft:
        draft.mkdir()
        content = {"model_cfg": model_cfg, "preprocess_cfg": {}}
        (draft / CONFIG).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        metadata = {"format": "pt", UNTRAINED: " ".join(sorted(untrained)), LAYOUT: "canonical"}
        tensors = {name: tensor.contiguous().clone() for name, tensor in state.items()}
        save_file(tensors, draft / WEIGHTS, metadata=metadata)
    left_out = tuple(sorted(name for name in checkpoint.weights if _has_no_place(name)))
    others = objective_names(name for name in checkpoint.objective if name != "bias")
    note = f'open_clip loads it with open_clip.create_model("local-dir:{folder}").'
    return ConversionLosses((*left_out, *others), untrained, changed, (note,))


def _has_no_place(name: str) -> bool:
    """Whether a tensor of ours belongs to a part that open_clip's models lack."""
    return name.startswith(("logit_scale_text", "audio_transform.", "text_transform."))


IGNORED = frozenset({"name", "temperatures", "transforms", "frontend.int16", "frontend.longest", "text.tokenizer"})
"""Settings that open_clip has no place for. Rounding to 16 bits and the longest whole clip are those of inference."""


def _changes(preset: Preset, reread: Preset) -> tuple[str, ...]:
    """Describe small differences of the preset as it would read back. Raises CheckpointError for large ones."""
    if isinstance(reread.audio, HTSATConfig):
        like = presets.LAION_FUSION if preset.audio.fusion else presets.LAION_PLAIN
        reread = replace(
            reread, frontend=replace(like, int16=False), audio=replace(reread.audio, fusion=preset.audio.fusion)
        )
    before, after = _flat(presets.to_dict(preset)), _flat(presets.to_dict(reread))
    different = {
        name: f"{name} {before.get(name)} (it would read back as {after.get(name)})"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name) and name not in IGNORED and not name.endswith(".classes")
    }
    small = "text.sizes.layer_norm_eps"
    if large := [text for name, text in different.items() if name != small]:
        raise CheckpointError(
            f"{preset.name}: open_clip has no place for {'; '.join(large)}. Convert to openclap instead."
        )
    rounding = ("frontend.int16 True (it would read back as False)",) if preset.frontend.int16 else ()
    return (*different.values(), *rounding)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _is_own_folder(path: Path) -> bool:
    try:
        return is_open_clip_folder(path) and UNTRAINED in metadata_of(path / WEIGHTS)
    except CheckpointError:
        return False


KIND = CheckpointKind("open_clip folder that openclap wrote", (CONFIG, WEIGHTS), _is_own_folder)
