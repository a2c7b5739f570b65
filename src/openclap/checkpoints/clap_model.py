"""The layout of transformers' `ClapModel` folders, without torch: names of tensors, configuration and preprocessor.

A ClapModel is HTSAT (plain or fused by `aff_2d`) with RoBERTa. `huggingface` reads and writes such folders with torch,
`mapped` reads them without it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from openclap import presets
from openclap.audio.config import FrontEndConfig, MelConfig
from openclap.checkpoints.translate_keys import KeyTable, translate_key
from openclap.errors import CheckpointError
from openclap.formatting import join_first
from openclap.models.config import HTSATConfig
from openclap.presets import Preset

T = TypeVar("T")
"""A tensor, or an array."""

OWN_TYPES = ("clap",)
"""Types of transformers that openclap's own networks compute."""
CONFIG, PREPROCESSOR, PROCESSOR = "config.json", "preprocessor_config.json", "processor_config.json"
WEIGHTS, PICKLED = "model.safetensors", "pytorch_model.bin"
WEIGHT_FILES = (f"{WEIGHTS}.index.json", WEIGHTS, f"{PICKLED}.index.json", PICKLED)
"""Files that may hold the weights, by preference; an index names the files that they are divided among."""

# Names: ClapModel's on the left, ours on the right.
NAMES: KeyTable = (
    ("^audio_model.audio_encoder.batch_norm.", "^audio_tower.bn0."),
    ("^audio_model.audio_encoder.", "^audio_tower."),
    ("^text_model.", "^text_tower.encoder."),
    ("^audio_projection.linear1.", "^audio_head.0."),
    ("^audio_projection.linear2.", "^audio_head.2."),
    ("^text_projection.linear1.", "^text_head.0."),
    ("^text_projection.linear2.", "^text_head.2."),
    # As in LAION-CLAP: scores are scaled by the audio side's temperature.
    ("^logit_scale_t", "^logit_scale_text"),
    ("^logit_scale_a", "^logit_scale"),
)
BLOCK: KeyTable = (
    (".layernorm_before.", ".norm1."),
    (".layernorm_after.", ".norm2."),
    (".attention.output.dense.", ".attn.proj."),
    (".attention.self.relative_position_bias_table", ".attn.relative_position_bias_table"),
    (".intermediate.dense.", ".mlp.fc1."),
    (".output.dense.", ".mlp.fc2."),
)
COMPUTED = (".relative_position_index", ".position_ids", ".token_type_ids")
"""Buffers that follow from the sizes of the model: never read, and written because `ClapModel` has them."""
QKV = ("query", "key", "value")


def is_clap_folder(path: Path) -> bool:
    """Return whether the folder holds a configuration of transformers' CLAP."""
    return read_json(path / CONFIG).get("model_type") in OWN_TYPES


def foreign_type(path: Path) -> str | None:
    """Return the type of a folder with any other model of transformers; None for all else."""
    named = read_json(path / CONFIG).get("model_type")
    return named if isinstance(named, str) and named not in OWN_TYPES else None


def has_clap_model_names(state: Mapping[str, Any]) -> bool:
    """Return whether the names are those of a ClapModel."""
    return any(name.startswith("audio_model.audio_encoder.") for name in state)


def from_state(state: Mapping[str, T], source: str, join: Callable[[list[T]], T]) -> dict[str, T]:
    """Translate the names of ClapModel's tensors to ours. `join` concatenates some along their first dimension.

    Raises CheckpointError where a projection of an attention is missing.
    """
    weights: dict[str, T] = {}
    for name, tensor in state.items():
        if name.endswith(COMPUTED):
            continue
        if _is_audio_query(name):
            # Our Swin has one stacked projection of query, key and value: joined here, when the query comes.
            base, kind = name.split(".attention.self.query.")
            names = [f"{base}.attention.self.{part}.{kind}" for part in QKV]
            if missing := [part for part in names if part not in state]:
                raise CheckpointError(f"{source}: lacks {join_first(missing)}. Is it complete?")
            pieces = [state[part] for part in names]
            weights[f"{translate_key(base + '.', (NAMES,))}attn.qkv.{kind}"] = join(pieces)
        elif not (name.startswith("audio_model.") and any(f".attention.self.{part}." in name for part in QKV[1:])):
            weights[translate_key(name, key_tables(name.startswith("audio_model.")))] = tensor
    return weights


def key_tables(is_audio: bool) -> tuple[KeyTable, ...]:
    """RoBERTa's blocks have the names of `BLOCK` on either side, so that only audio blocks are translated."""
    return (NAMES, BLOCK) if is_audio else (NAMES,)


def _is_audio_query(name: str) -> bool:
    return name.startswith("audio_model.") and ".attention.self.query." in name


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights, by the preference of `WEIGHT_FILES`.

    Raises CheckpointError when there are none, or one that an index names is missing. A name with a path would reach
    outside the folder and is refused.
    """
    present = [name for name in WEIGHT_FILES if (folder / name).is_file()]
    if not present:
        names = sorted(path.name for path in folder.iterdir())
        raise CheckpointError(f"{folder}: has neither {WEIGHTS} nor {PICKLED}; found {join_first(names)}.")
    if not present[0].endswith(".json"):
        return [folder / present[0]]
    files = read_json(folder / present[0]).get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(file, str) for file in files.values()):
        raise CheckpointError(f"{folder / present[0]}: is damaged, expected a weight_map of names to files.")
    parts = sorted(set(files.values()))
    for file in parts:
        if Path(file).name != file or not (folder / file).is_file():
            raise CheckpointError(f"{folder / file}: no such file; the folder is not complete.")
    return [folder / file for file in parts]


def read_config(folder: Path) -> Preset:
    """The preset of a folder. Raises CheckpointError as `preset_from_config`, and for damaged JSON."""
    return preset_from_config(read_json(folder / CONFIG), _read_preprocessor(folder))


def _read_preprocessor(folder: Path) -> dict[str, Any]:
    """Read the feature extractor's settings: part of the processor's, as transformers 5 saves them, or a file."""
    inner = read_json(folder / PROCESSOR).get("feature_extractor")
    return inner if isinstance(inner, dict) else read_json(folder / PREPROCESSOR)


# ---------------------------------------------------------------------------------------------------------------------
# Configuration.

TEXT_SIZES = (
    *("num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size", "max_position_embeddings"),
    *("type_vocab_size", "layer_norm_eps", "hidden_act", "pad_token_id", "bos_token_id", "eos_token_id"),
)
DEFAULTS: dict[str, Any] = {
    "projection_dim": 512,
    "projection_hidden_act": "relu",
    "audio_config": {
        "window_size": 8,
        "num_mel_bins": 64,
        "spec_size": 256,
        "depths": [2, 2, 6, 2],
        "num_attention_heads": [4, 8, 16, 32],
        "patch_embeds_hidden_size": 96,
        "enable_fusion": False,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "patch_size": 4,
        "patch_stride": [4, 4],
        "mlp_ratio": 4.0,
        "aff_block_r": 4,
        "qkv_bias": True,
        "enable_patch_layer_norm": True,
    },
    "text_config": {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "vocab_size": 50265,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-12,
        "hidden_act": "gelu",
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
    },
}
"""The values of transformers' ClapConfig for settings that a file leaves out. A literal table, so that the same file
describes the same model without transformers and with every release of it."""
FIXED_SETTINGS = {
    "projection_hidden_act": "relu",
    "audio_config.hidden_act": "gelu",
    "audio_config.layer_norm_eps": 1e-5,
    "audio_config.patch_size": 4,
    "audio_config.patch_stride": 4,
    "audio_config.mlp_ratio": 4.0,
    "audio_config.aff_block_r": 4,
    "audio_config.qkv_bias": True,
    "audio_config.enable_patch_layer_norm": True,
}
"""Settings of a ClapConfig that are built into our HTSAT. No released model chooses otherwise."""


def preset_from_config(config: Mapping[str, Any], preprocessor: Mapping[str, Any]) -> Preset:
    """Return the preset that a ClapConfig and its preprocessor file describe.

    Raises CheckpointError for a setting that the networks here do not have.
    """
    audio = DEFAULTS["audio_config"] | _inner(config, "audio_config")
    text = DEFAULTS["text_config"] | _inner(config, "text_config")
    settings = DEFAULTS | dict(config) | {"audio_config": audio, "text_config": text}
    _check_fixed_settings(settings)
    fused = bool(audio["enable_fusion"])
    audio_tower = HTSATConfig(
        width=audio["patch_embeds_hidden_size"],
        depths=tuple(audio["depths"]),
        heads=tuple(audio["num_attention_heads"]),
        n_mels=audio["num_mel_bins"],
        image=audio["spec_size"],
        window=audio["window_size"],
        classes=0,
        fusion="aff_2d" if fused else None,
    )
    text_tower = replace(
        presets.ROBERTA, hidden_size=text["hidden_size"], sizes={name: text[name] for name in TEXT_SIZES}
    )
    return Preset(
        # The published towers are known with their tagging head, which a ClapModel has dropped.
        name=f"{presets.tower_name(replace(audio_tower, classes=527))}-huggingface",
        frontend=front_end_from_preprocessor(preprocessor, fused),
        audio=audio_tower,
        text=text_tower,
        embedding_size=settings["projection_dim"],
        temperatures=2,
    )


def _inner(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A part of a ClapConfig; None stands for its defaults. Raises TypeError for anything but an object."""
    inner = config.get(name)
    if not isinstance(inner, dict | None):
        raise TypeError(f"{name} of {CONFIG} is {type(inner).__name__}, expected an object")
    return inner or {}


def _check_fixed_settings(config: Mapping[str, Any]) -> None:
    for path, expected in FIXED_SETTINGS.items():
        value: Any = config
        for name in path.split("."):
            value = value[name]
        values = set(value) if isinstance(value, (list, tuple)) else {value}  # patch sizes may be given for each side
        if values != {expected}:
            raise CheckpointError(f"config.json: {path} is {value}, and the networks here have {expected} alone.")


def front_end_from_preprocessor(preprocessor: Mapping[str, Any], fused: bool) -> FrontEndConfig:
    """Return the front end of a preprocessor file; settings that it lacks are those of the published models."""
    truncation = preprocessor.get("truncation", "fusion" if fused else "")
    like = presets.LAION_FUSION if truncation == "fusion" else presets.LAION_PLAIN
    mel = MelConfig(
        rate=int(preprocessor.get("sampling_rate", like.mel.rate)),
        n_fft=int(preprocessor.get("fft_window_size", like.mel.n_fft)),
        hop=int(preprocessor.get("hop_length", like.mel.hop)),
        n_mels=int(preprocessor.get("feature_size", like.mel.n_mels)),
        f_min=float(preprocessor.get("frequency_min", like.mel.f_min)),
        f_max=float(preprocessor.get("frequency_max", like.mel.f_max)),
        # ClapFeatureExtractor uses the HTK scale for fused input and Slaney's otherwise; the file does not say so.
        scale=like.mel.scale,
        norm=like.mel.norm,
        compression="db",
    )
    samples = round(float(preprocessor.get("max_length_s", 10)) * mel.rate)
    fill = preprocessor.get("padding", like.fill)
    # transformers does not round waveforms to 16 bits, as LAION-CLAP does.
    return replace(like, mel=mel, samples=samples, fill=fill, int16=False)


def read_json(path: Path) -> dict[str, Any]:
    """Read a settings file; {} where there is none or it holds no object."""
    if not path.is_file():
        return {}
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else {}
    except ValueError:
        raise CheckpointError(f"{path}: is damaged, expected JSON.") from None
