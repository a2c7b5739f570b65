"""transformers' `ClapModel` folders: read and write weights, configuration and preprocessor.

A ClapModel is HTSAT (plain or fused by `aff_2d`) with RoBERTa. Other models are refused with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from openclap import presets
from openclap.audio.config import FrontEndConfig, MelConfig
from openclap.checkpoints.checkpoint import Checkpoint, tower_name
from openclap.checkpoints.conversion_report import ConversionLosses, objective_names, setting_changes
from openclap.checkpoints.destination import CheckpointKind, drafted
from openclap.checkpoints.tensors import check_equal, read_tensors
from openclap.checkpoints.translate_keys import KeyTable, translate_key
from openclap.errors import CheckpointError
from openclap.formatting import join_first
from openclap.models.config import HTSATConfig
from openclap.models.swin import relative_positions
from openclap.presets import Preset
from openclap.text.tokenizer import FILE as TOKENIZER
from openclap.text.tokenizer import VOCABULARY, Tokenizer

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
NO_PLACE = ("audio_tower.tagger.", "audio_transform.", "text_transform.")
"""Parts of ours that ClapModel lacks; embedding reads none of them."""


def is_clap_folder(path: Path) -> bool:
    """Return whether the folder holds a configuration of transformers' CLAP."""
    return _read_json(path / CONFIG).get("model_type") == "clap"


def read(folder: Path, preset: Preset | None = None) -> Checkpoint:
    """Read a folder as `ClapModel.save_pretrained` writes it. Raises CheckpointError for a damaged or partial one."""
    preset = preset or preset_from_config(_read_json(folder / CONFIG), _read_preprocessor(folder))
    tokenizers = [folder / name for name in (TOKENIZER, VOCABULARY) if (folder / name).is_file()]
    weights = from_state(_read_weights(folder), folder.name)
    return Checkpoint("huggingface", preset, weights, tokenizer=next(iter(tokenizers), None))


def _read_preprocessor(folder: Path) -> dict[str, Any]:
    """Read the feature extractor's settings: part of the processor's, as transformers 5 saves them, or a file."""
    inner = _read_json(folder / PROCESSOR).get("feature_extractor")
    return inner if isinstance(inner, dict) else _read_json(folder / PREPROCESSOR)


# ---------------------------------------------------------------------------------------------------------------------
# Weights.


def has_clap_model_names(state: Mapping[str, Any]) -> bool:
    """Return whether the names are those of a ClapModel."""
    return any(name.startswith("audio_model.audio_encoder.") for name in state)


def from_state(state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Translate ClapModel's tensors. Raises CheckpointError where a projection of an attention is missing."""
    weights: dict[str, Tensor] = {}
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
            weights[f"{translate_key(base + '.', (NAMES,))}attn.qkv.{kind}"] = torch.cat(pieces)
        elif not (name.startswith("audio_model.") and any(f".attention.self.{part}." in name for part in QKV[1:])):
            weights[translate_key(name, _key_tables(name.startswith("audio_model.")))] = tensor
    return weights


def to_state(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return our tensors under ClapModel's names. Parts that it has no place for must have been removed."""
    state: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if ".attn.qkv." in name:
            base, kind = name.split("attn.qkv.")
            foreign = translate_key(base, (NAMES,), reverse=True)
            for part, piece in zip(QKV, tensor.chunk(3), strict=True):
                state[f"{foreign}attention.self.{part}.{kind}"] = piece
        else:
            state[translate_key(name, _key_tables(name.startswith("audio_tower.")), reverse=True)] = tensor
    return state


def _key_tables(is_audio: bool) -> tuple[KeyTable, ...]:
    """RoBERTa's blocks have the names of `BLOCK` on either side, so that only audio blocks are translated."""
    return (NAMES, BLOCK) if is_audio else (NAMES,)


def _is_audio_query(name: str) -> bool:
    return name.startswith("audio_model.") and ".attention.self.query." in name


def _read_weights(folder: Path) -> dict[str, Tensor]:
    present = [name for name in WEIGHT_FILES if (folder / name).is_file()]
    if not present:
        names = sorted(path.name for path in folder.iterdir())
        raise CheckpointError(f"{folder}: has neither {WEIGHTS} nor {PICKLED}; found {join_first(names)}.")
    if not present[0].endswith(".json"):
        return read_tensors(folder / present[0])
    files = _read_json(folder / present[0]).get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(file, str) for file in files.values()):
        raise CheckpointError(f"{folder / present[0]}: is damaged, expected a weight_map of names to files.")
    return {name: tensor for file in sorted(set(files.values())) for name, tensor in _read_part(folder, file).items()}


def _read_part(folder: Path, file: str) -> dict[str, Tensor]:
    """Read one file that an index names. A name with a path would reach outside the folder and is refused."""
    if Path(file).name != file or not (folder / file).is_file():
        raise CheckpointError(f"{folder / file}: no such file; the folder is not complete.")
    return read_tensors(folder / file)


# ---------------------------------------------------------------------------------------------------------------------
# Configuration.

TEXT_SIZES = (
    *("num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size", "max_position_embeddings"),
    *("type_vocab_size", "layer_norm_eps", "hidden_act", "pad_token_id", "bos_token_id", "eos_token_id"),
)
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
    from transformers import ClapConfig

    clap_config = ClapConfig.from_dict(dict(config))
    _check_fixed_settings(clap_config)
    audio, text = clap_config.audio_config, clap_config.text_config
    fused = bool(audio.enable_fusion)
    audio_tower = HTSATConfig(
        width=audio.patch_embeds_hidden_size,
        depths=tuple(audio.depths),
        heads=tuple(audio.num_attention_heads),
        n_mels=audio.num_mel_bins,
        image=audio.spec_size,
        window=audio.window_size,
        classes=0,
        fusion="aff_2d" if fused else None,
    )
    text_tower = replace(
        presets.ROBERTA, hidden_size=text.hidden_size, sizes={name: getattr(text, name) for name in TEXT_SIZES}
    )
    return Preset(
        # The published towers are known with their tagging head, which a ClapModel has dropped.
        name=f"{tower_name(replace(audio_tower, classes=527))}-huggingface",
        frontend=front_end_from_preprocessor(preprocessor, fused),
        audio=audio_tower,
        text=text_tower,
        embedding_size=clap_config.projection_dim,
        temperatures=2,
    )


def _check_fixed_settings(config: Any) -> None:
    for path, expected in FIXED_SETTINGS.items():
        value = config
        for name in path.split("."):
            value = getattr(value, name)
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


def check_convertible(preset: Preset, *, has_tokenizer: bool) -> tuple[str, ...]:
    """Return the settings that would read back slightly differently.

    Raises CheckpointError for a model that is no ClapModel, or that would read back as another model.
    """
    text, mel, expected = preset.text, preset.frontend.mel, presets.LAION_PLAIN.mel
    reasons = []
    if not isinstance(preset.audio, HTSATConfig):
        reasons.append("a PANN audio tower, expected HTSAT")
    elif preset.audio.fusion not in (None, "aff_2d"):
        reasons.append(f"{preset.audio.fusion} fusion, expected aff_2d or none")
    if text.model_type != "roberta" or text.pooling != "pooler":
        reasons.append(f"a {text.model_type} text tower pooled by {text.pooling}, expected roberta and its pooler")
    if (mel.compression, mel.n_mels) != (expected.compression, expected.n_mels):
        reasons.append(f"a log-mel of {mel.n_mels} bins in {mel.compression}, expected {expected.n_mels} in decibels")
    if reasons:
        raise CheckpointError(
            f"{preset.name}: ClapModel has no place for {'; '.join(reasons)}. Convert to openclap or laion instead."
        )
    reread = preset_from_config(config_from_preset(preset).to_dict(), preprocessor_from_front_end(preset.frontend))
    return setting_changes(preset, reread, "ClapModel", ignore=("text.tokenizer",) if has_tokenizer else ())


def config_from_preset(preset: Preset) -> Any:
    """Return a ClapConfig with the sizes, epsilons and temperatures of the preset."""
    from transformers import ClapConfig

    audio, text = preset.audio, preset.text
    assert isinstance(audio, HTSATConfig)
    audio_config = {
        "patch_embeds_hidden_size": audio.width,
        "hidden_size": audio.embedding_size,
        "depths": list(audio.depths),
        "num_attention_heads": list(audio.heads),
        "num_hidden_layers": len(audio.depths),
        "num_mel_bins": audio.n_mels,
        "spec_size": audio.image,
        "window_size": audio.window,
        "enable_fusion": audio.fusion is not None,
        "fusion_type": "aff_2d" if audio.fusion else None,
        "layer_norm_eps": 1e-5,
        "projection_dim": preset.embedding_size,
    }
    # text.sizes holds layer_norm_eps: ClapConfig's default of 1e-12 is not that of LAION-CLAP's models.
    text_config = dict(text.sizes) | {"hidden_size": text.hidden_size, "projection_dim": preset.embedding_size}
    return ClapConfig(
        audio_config=audio_config,
        text_config=text_config,
        projection_dim=preset.embedding_size,
        architectures=["ClapModel"],
    )


def preprocessor_from_front_end(frontend: FrontEndConfig) -> dict[str, Any]:
    """Return the settings of a ClapFeatureExtractor.

    All are written out: the extractor's default lowest frequency, 0 Hz, is that of no released model (50 Hz).
    """
    mel = frontend.mel
    return {
        "feature_size": mel.n_mels,
        "sampling_rate": mel.rate,
        "hop_length": mel.hop,
        "fft_window_size": mel.n_fft,
        "max_length_s": frontend.samples // mel.rate,
        "frequency_min": mel.f_min,
        "frequency_max": mel.f_max,
        "padding": frontend.fill,
        "truncation": "fusion" if frontend.long == "fusion" else "rand_trunc",
        "return_attention_mask": False,
    }


def _read_json(path: Path) -> dict[str, Any]:
    """Read a settings file; {} where there is none or it holds no object."""
    if not path.is_file():
        return {}
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else {}
    except ValueError:
        raise CheckpointError(f"{path}: is damaged, expected JSON.") from None


# ---------------------------------------------------------------------------------------------------------------------
# Write.


def write(checkpoint: Checkpoint, folder: Path) -> ConversionLosses:
    """Write a folder that `ClapModel`, `ClapProcessor` and `pipeline("zero-shot-audio-classification")` load.

    Raises CheckpointError for a model that the format cannot hold, and where `folder` exists and holds anything but
    such a model.
    """
    from safetensors.torch import save_file
    from transformers import ClapFeatureExtractor

    changed = check_convertible(checkpoint.preset, has_tokenizer=checkpoint.tokenizer is not None)
    weights = {name: tensor for name, tensor in checkpoint.weights.items() if not name.startswith(NO_PLACE)}
    if "logit_scale_text" not in weights:
        weights["logit_scale_text"] = weights["logit_scale"]  # ClapModel always has two temperatures
    # safetensors refuses tensors that share memory, such as the pieces of a chunked projection.
    state = {name: tensor.contiguous().clone() for name, tensor in to_state(weights).items()}

    def check(draft: Path) -> None:
        reread = read(draft)
        check_equal(reread.weights, weights)
        if reread.tokenizer is not None:
            Tokenizer.read(reread.tokenizer, checkpoint.preset.text.context)

    with drafted(folder, KIND, check, [checkpoint.source]) as draft:
        draft.mkdir()
        config_from_preset(checkpoint.preset).save_pretrained(draft)
        ClapFeatureExtractor(**preprocessor_from_front_end(checkpoint.preset.frontend)).save_pretrained(draft)
        # transformers refuses safetensors files without the framework in their metadata.
        save_file(state | computed_buffers(checkpoint.preset), draft / WEIGHTS, metadata={"format": "pt"})
        if checkpoint.tokenizer is not None:
            _write_tokenizer(checkpoint.tokenizer, draft, checkpoint.preset.text.context)
    left_out = (*sorted(set(checkpoint.weights) - set(weights)), *sorted(checkpoint.unused))
    return ConversionLosses(left_out=(*left_out, *objective_names(checkpoint.objective)), changed=changed)


KIND = CheckpointKind(
    "ClapModel",
    (CONFIG, PREPROCESSOR, WEIGHTS, TOKENIZER, "tokenizer_config.json", "special_tokens_map.json"),
    is_clap_folder,
)


def computed_buffers(preset: Preset) -> dict[str, Tensor]:
    """Compute the position indices that ClapModel stores among its weights."""
    audio = preset.audio
    assert isinstance(audio, HTSATConfig)
    index = relative_positions((audio.window, audio.window), audio.window).view(audio.window**2, -1)
    positions = torch.arange(preset.text.sizes["max_position_embeddings"]).unsqueeze(0)
    text = {"position_ids": positions, "token_type_ids": torch.zeros_like(positions)}
    return {f"text_model.embeddings.{name}": tensor for name, tensor in text.items()} | {
        f"audio_model.audio_encoder.layers.{stage}.blocks.{block}.attention.self.relative_position_index": index.clone()
        for stage, depth in enumerate(audio.depths)
        for block in range(depth)
    }


SPECIAL_TOKENS = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "cls_token": "<s>",
    "mask_token": "<mask>",
}
"""RoBERTa's."""


def _write_tokenizer(file: Path, folder: Path, context: int) -> None:
    from tokenizers import Tokenizer as FastTokenizer
    from transformers import PreTrainedTokenizerFast

    definition = Tokenizer.read(file, context).definition
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=FastTokenizer.from_str(definition),
        model_max_length=context,
        # A token that the vocabulary lacks would be added to it, beyond the rows of the embedding.
        **{role: token for role, token in SPECIAL_TOKENS.items() if token in definition},
    )
    tokenizer.save_pretrained(folder)
