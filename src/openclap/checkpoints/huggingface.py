"""transformers' `ClapModel` folders, read and written."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from openclap import paths, presets
from openclap.audio.frontend import FrontEndConfig
from openclap.audio.mel import MelConfig
from openclap.checkpoints.checkpoint import Checkpoint
from openclap.checkpoints.laion import tower_name
from openclap.checkpoints.names import Table, few, translate
from openclap.checkpoints.unpickle import read_pickled
from openclap.data.files import write_bytes
from openclap.errors import CheckpointError
from openclap.models.htsat import HTSATConfig
from openclap.models.swin import relative_positions
from openclap.presets import Preset
from openclap.text.tokenizer import FILE as TOKENIZER

CONFIG, WEIGHTS, PICKLED, INDEX = (
    "config.json",
    "model.safetensors",
    "pytorch_model.bin",
    "model.safetensors.index.json",
)
PREPROCESSOR = "preprocessor_config.json"

NAMES: Table = (
    ("^audio_model.audio_encoder.batch_norm.", "^audio_tower.bn0."),
    ("^audio_model.audio_encoder.", "^audio_tower."),
    ("^text_model.", "^text_tower.encoder."),
    ("^audio_projection.linear1.", "^audio_head.0."),
    ("^audio_projection.linear2.", "^audio_head.2."),
    ("^text_projection.linear1.", "^text_head.0."),
    ("^text_projection.linear2.", "^text_head.2."),
    ("^logit_scale_t", "^logit_scale_text"),
    ("^logit_scale_a", "^logit_scale"),
)
BLOCK: Table = (
    (".layernorm_before.", ".norm1."),
    (".layernorm_after.", ".norm2."),
    (".attention.output.dense.", ".attn.proj."),
    (".attention.self.relative_position_bias_table", ".attn.relative_position_bias_table"),
    (".intermediate.dense.", ".mlp.fc1."),
    (".output.dense.", ".mlp.fc2."),
)
COMPUTED = (".relative_position_index", ".position_ids", ".token_type_ids")
QKV = ("query", "key", "value")
TEXT_SIZES = (
    *("num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size", "max_position_embeddings"),
    *("type_vocab_size", "layer_norm_eps", "hidden_act", "pad_token_id", "bos_token_id", "eos_token_id"),
)


def is_folder(path: Path) -> bool:
    """Does the folder hold a configuration of transformers' CLAP?"""
    return _json(path / CONFIG).get("model_type") == "clap" if (path / CONFIG).is_file() else False


def read(folder: Path, preset: Preset | None = None) -> Checkpoint:
    """A folder as `ClapModel.save_pretrained` writes it. Raises CheckpointError for a damaged or partial one."""
    preset = preset or preset_of(_json(folder / CONFIG), _json(folder / PREPROCESSOR))
    return Checkpoint("huggingface", preset, from_state(_weights(folder)), tokenizer=_tokenizer(folder))


def is_huggingface(state: Mapping[str, Any]) -> bool:
    """Do these names belong to a ClapModel?"""
    return any(name.startswith("audio_model.audio_encoder.") for name in state)


def from_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """ClapModel's tensors under our names."""
    weights: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.endswith(COMPUTED):
            continue
        if _is_audio_query(name):
            base, kind = name.split(".attention.self.query.")
            pieces = [state[f"{base}.attention.self.{part}.{kind}"] for part in QKV]
            weights[f"{translate(base + '.', (NAMES,))}attn.qkv.{kind}"] = torch.cat(pieces)
        elif not (name.startswith("audio_model.") and any(f".attention.self.{part}." in name for part in QKV[1:])):
            tables = (NAMES, BLOCK) if name.startswith("audio_model.") else (NAMES,)
            weights[translate(name, tables)] = tensor
    return weights


def to_state(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our tensors under ClapModel's names; what it has no place for must be gone already."""
    state: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if ".attn.qkv." in name:
            base, kind = name.split("attn.qkv.")
            theirs = translate(base, (NAMES,), back=True)
            for part, piece in zip(QKV, tensor.chunk(3), strict=True):
                state[f"{theirs}attention.self.{part}.{kind}"] = piece.contiguous()
        else:
            tables = (NAMES, BLOCK) if name.startswith("audio_tower.") else (NAMES,)
            state[translate(name, tables, back=True)] = tensor.contiguous()
    return state


def _is_audio_query(name: str) -> bool:
    return name.startswith("audio_model.") and ".attention.self.query." in name


def preset_of(config: Mapping[str, Any], preprocessor: Mapping[str, Any]) -> Preset:
    """The preset that a ClapConfig and its preprocessor file describe."""
    from transformers import ClapConfig

    whole = ClapConfig.from_dict(dict(config))
    audio, text = whole.audio_config, whole.text_config
    fused = bool(audio.enable_fusion)
    tower = HTSATConfig(
        width=audio.patch_embeds_hidden_size,
        depths=tuple(audio.depths),
        heads=tuple(audio.num_attention_heads),
        n_mels=audio.num_mel_bins,
        image=audio.spec_size,
        window=audio.window_size,
        classes=0,
        fusion="aff_2d" if fused else None,
    )
    tower_text = replace(
        presets.ROBERTA, hidden_size=text.hidden_size, sizes={name: getattr(text, name) for name in TEXT_SIZES}
    )
    return Preset(
        name=f"{tower_name(replace(tower, classes=527))}-huggingface",
        frontend=frontend_of(preprocessor, fused),
        audio=tower,
        text=tower_text,
        embedding_size=whole.projection_dim,
        temperatures=2,
    )


def frontend_of(preprocessor: Mapping[str, Any], fused: bool) -> FrontEndConfig:
    """The front end of a preprocessor file; without one, the published files' values."""
    like = presets.LAION_FUSION if preprocessor.get("truncation", "fusion" if fused else "") == "fusion" else None
    like = like or presets.LAION_PLAIN
    mel = MelConfig(
        rate=int(preprocessor.get("sampling_rate", like.mel.rate)),
        n_fft=int(preprocessor.get("fft_window_size", like.mel.n_fft)),
        hop=int(preprocessor.get("hop_length", like.mel.hop)),
        n_mels=int(preprocessor.get("feature_size", like.mel.n_mels)),
        f_min=float(preprocessor.get("frequency_min", like.mel.f_min)),
        f_max=float(preprocessor.get("frequency_max", like.mel.f_max)),
        scale=like.mel.scale,
        norm=like.mel.norm,
        compression="db",
    )
    samples = int(preprocessor.get("max_length_s", 10)) * mel.rate
    fill = preprocessor.get("padding", like.fill)
    return replace(like, mel=mel, samples=samples, fill=fill, int16=False)


def write(checkpoint: Checkpoint, folder: Path) -> list[str]:
    """A folder that `ClapModel`, `ClapProcessor` and `pipeline("zero-shot-audio-classification")` load.

    Returns the names of tensors that the format has no place for. Raises CheckpointError for a model it cannot hold,
    and for a folder that stands there and is no such model.
    """
    from safetensors.torch import save_file
    from transformers import ClapFeatureExtractor

    _check(checkpoint.preset)
    if folder.exists() and not is_folder(folder) and (folder.is_file() or any(folder.iterdir())):
        raise CheckpointError(f"{folder}: is there already and is no ClapModel. Choose another place.")
    kept = {name: tensor for name, tensor in checkpoint.weights.items() if not name.startswith(DROPPED)}
    if "logit_scale_text" not in kept:
        kept["logit_scale_text"] = kept["logit_scale"].clone()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        draft = Path(scratch) / folder.name
        draft.mkdir()
        config_of(checkpoint.preset).save_pretrained(draft)
        ClapFeatureExtractor(**preprocessor_of(checkpoint.preset.frontend)).save_pretrained(draft)
        save_file(to_state(kept) | computed(checkpoint.preset), draft / WEIGHTS, metadata={"format": "pt"})
        if checkpoint.tokenizer is not None:
            _write_tokenizer(checkpoint.tokenizer, draft, checkpoint.preset.text.context)
        if folder.exists():
            shutil.move(folder, Path(scratch) / "replaced")
        draft.rename(folder)
    return [*sorted(set(checkpoint.weights) - set(kept)), *sorted(checkpoint.unused)]


DROPPED = ("audio_tower.tagger.", "audio_transform.", "text_transform.")


def _check(preset: Preset) -> None:
    """Can the format hold this model?"""
    text, mel, expected = preset.text, preset.frontend.mel, presets.LAION_PLAIN.mel
    reasons = []
    if not isinstance(preset.audio, HTSATConfig):
        reasons.append("a PANN audio tower, expected HTSAT")
    elif preset.audio.fusion not in (None, "aff_2d"):
        reasons.append(f"{preset.audio.fusion} fusion, expected aff_2d or none")
    if text.model_type != "roberta" or text.pooling != "pooler":
        reasons.append(f"a {text.model_type} text tower pooled by {text.pooling}, expected roberta and its pooler")
    if (mel.compression, mel.n_mels) != (expected.compression, expected.n_mels):
        reasons.append("a log-mel of another kind")
    if reasons:
        raise CheckpointError(
            f"{preset.name}: ClapModel has no place for {'; '.join(reasons)}. Convert to openclap or laion instead."
        )


def config_of(preset: Preset) -> Any:
    """A ClapConfig with the sizes, epsilons and temperatures of the preset."""
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
    text_config = dict(text.sizes) | {"hidden_size": text.hidden_size, "projection_dim": preset.embedding_size}
    return ClapConfig(
        audio_config=audio_config,
        text_config=text_config,
        projection_dim=preset.embedding_size,
        architectures=["ClapModel"],
    )


def computed(preset: Preset) -> dict[str, Tensor]:
    """The indices that ClapModel keeps among its weights."""
    audio = preset.audio
    assert isinstance(audio, HTSATConfig)
    index = relative_positions(audio.window).view(audio.window**2, -1)
    positions = torch.arange(preset.text.sizes["max_position_embeddings"]).unsqueeze(0)
    text = {"position_ids": positions, "token_type_ids": torch.zeros_like(positions)}
    return {f"text_model.embeddings.{name}": tensor for name, tensor in text.items()} | {
        f"audio_model.audio_encoder.layers.{stage}.blocks.{block}.attention.self.relative_position_index": index.clone()
        for stage, depth in enumerate(audio.depths)
        for block in range(depth)
    }


def preprocessor_of(frontend: FrontEndConfig) -> dict[str, Any]:
    """The settings of a ClapFeatureExtractor. Its own lowest frequency of 0 Hz is not that of any released model."""
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


def _write_tokenizer(definition: Path, folder: Path, context: int) -> None:
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(definition),
        model_max_length=context,
        **{role: token for role, token in SPECIAL.items() if token in definition.read_text(encoding="utf-8")},
    )
    tokenizer.save_pretrained(folder)


SPECIAL = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "cls_token": "<s>",
    "mask_token": "<mask>",
}
"""RoBERTa's."""


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else {}
    except ValueError:
        raise CheckpointError(f"{path}: is damaged, expected JSON.") from None


def _weights(folder: Path) -> dict[str, Tensor]:
    if (folder / INDEX).is_file():
        files = sorted(set(_json(folder / INDEX).get("weight_map", {}).values()))
        return {name: tensor for file in files for name, tensor in read_safetensors(folder / file).items()}
    if (folder / WEIGHTS).is_file():
        return read_safetensors(folder / WEIGHTS)
    if (folder / PICKLED).is_file():
        return dict(read_pickled(folder / PICKLED))
    found = sorted(path.name for path in folder.iterdir())
    raise CheckpointError(f"{folder}: has neither {WEIGHTS} nor {PICKLED}; found {few(found)}.")


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file. Raises CheckpointError for a missing or damaged one."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; the folder is not complete.") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: is damaged ({error}).") from None
    return tensors


def _tokenizer(folder: Path) -> Path | None:
    """Its `tokenizer.json`; where only vocabulary and merges are there, one made of them under openclap's home."""
    if (folder / TOKENIZER).is_file() or not (folder / "vocab.json").is_file():
        return folder / TOKENIZER if (folder / TOKENIZER).is_file() else None
    from transformers import AutoTokenizer

    content = AutoTokenizer.from_pretrained(folder).backend_tokenizer.to_str().encode()
    made = paths.home() / "tokenizers" / f"{hashlib.sha256(content).hexdigest()[:32]}.json"
    made.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(made, content)
    return made
