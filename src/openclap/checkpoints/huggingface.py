"""transformers' `ClapModel` folders, read and written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from openclap.checkpoints.checkpoint import Checkpoint
from openclap.checkpoints.clap_config import check, config_of, preprocessor_of, preset_of
from openclap.checkpoints.conversion_report import Losses, of_objective
from openclap.checkpoints.destination import Kind, drafted, same
from openclap.checkpoints.names import Table, few, translate
from openclap.checkpoints.tensors import read_tensors
from openclap.errors import CheckpointError
from openclap.models.config import HTSATConfig
from openclap.models.swin import relative_positions
from openclap.presets import Preset
from openclap.text.tokenizer import FILE as TOKENIZER
from openclap.text.tokenizer import VOCABULARY, Tokenizer

CONFIG, PREPROCESSOR, PROCESSOR = "config.json", "preprocessor_config.json", "processor_config.json"
WEIGHTS, PICKLED = "model.safetensors", "pytorch_model.bin"
STORED = (f"{WEIGHTS}.index.json", WEIGHTS, f"{PICKLED}.index.json", PICKLED)
"""Where weights may lie, by preference; an index names the files that they are divided among."""

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


def is_folder(path: Path) -> bool:
    """Does the folder hold a configuration of transformers' CLAP?"""
    return _json(path / CONFIG).get("model_type") == "clap"


def read(folder: Path, preset: Preset | None = None) -> Checkpoint:
    """A folder as `ClapModel.save_pretrained` writes it. Raises CheckpointError for a damaged or partial one."""
    preset = preset or preset_of(_json(folder / CONFIG), _preprocessor(folder))
    words = [folder / name for name in (TOKENIZER, VOCABULARY) if (folder / name).is_file()]
    weights = from_state(_weights(folder), folder.name)
    return Checkpoint("huggingface", preset, weights, tokenizer=next(iter(words), None))


def _preprocessor(folder: Path) -> dict[str, Any]:
    """The feature extractor's settings: a part of the processor's, as transformers 5 saves them, or a file."""
    inner = _json(folder / PROCESSOR).get("feature_extractor")
    return inner if isinstance(inner, dict) else _json(folder / PREPROCESSOR)


def is_huggingface(state: Mapping[str, Any]) -> bool:
    """Do these names belong to a ClapModel?"""
    return any(name.startswith("audio_model.audio_encoder.") for name in state)


def from_state(state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """ClapModel's tensors under our names. Raises CheckpointError where a part of an attention is not there."""
    weights: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.endswith(COMPUTED):
            continue
        if _is_audio_query(name):
            base, kind = name.split(".attention.self.query.")
            names = [f"{base}.attention.self.{part}.{kind}" for part in QKV]
            if lacking := [one for one in names if one not in state]:
                raise CheckpointError(f"{source}: lacks {few(lacking)}. Is it whole?")
            pieces = [state[one] for one in names]
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
                state[f"{theirs}attention.self.{part}.{kind}"] = piece
        else:
            tables = (NAMES, BLOCK) if name.startswith("audio_tower.") else (NAMES,)
            state[translate(name, tables, back=True)] = tensor
    return state


def _is_audio_query(name: str) -> bool:
    return name.startswith("audio_model.") and ".attention.self.query." in name


def write(checkpoint: Checkpoint, folder: Path) -> Losses:
    """A folder that `ClapModel`, `ClapProcessor` and `pipeline("zero-shot-audio-classification")` load.

    Raises CheckpointError for a model that the format cannot hold, and for a folder that stands there and is no such
    model or holds more than that.
    """
    from safetensors.torch import save_file
    from transformers import ClapFeatureExtractor

    changed = check(checkpoint.preset, has_tokenizer=checkpoint.tokenizer is not None)
    kept = {name: tensor for name, tensor in checkpoint.weights.items() if not name.startswith(DROPPED)}
    if "logit_scale_text" not in kept:
        kept["logit_scale_text"] = kept["logit_scale"]
    state = {name: tensor.contiguous().clone() for name, tensor in to_state(kept).items()}  # no two share memory

    def check_back(draft: Path) -> None:
        again = read(draft)
        same(again.weights, kept)
        if again.tokenizer is not None:
            Tokenizer.read(again.tokenizer, checkpoint.preset.text.context)

    with drafted(folder, KIND, check_back, [checkpoint.source]) as draft:
        draft.mkdir()
        config_of(checkpoint.preset).save_pretrained(draft)
        ClapFeatureExtractor(**preprocessor_of(checkpoint.preset.frontend)).save_pretrained(draft)
        save_file(state | computed(checkpoint.preset), draft / WEIGHTS, metadata={"format": "pt"})
        if checkpoint.tokenizer is not None:
            _write_tokenizer(checkpoint.tokenizer, draft, checkpoint.preset.text.context)
    left_out = (*sorted(set(checkpoint.weights) - set(kept)), *sorted(checkpoint.unused))
    return Losses(left_out=(*left_out, *of_objective(checkpoint.objective)), changed=changed)


KIND = Kind(
    "ClapModel",
    (CONFIG, PREPROCESSOR, WEIGHTS, TOKENIZER, "tokenizer_config.json", "special_tokens_map.json"),
    is_folder,
)
DROPPED = ("audio_tower.tagger.", "audio_transform.", "text_transform.")


def computed(preset: Preset) -> dict[str, Tensor]:
    """The indices that ClapModel keeps among its weights."""
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


def _write_tokenizer(file: Path, folder: Path, context: int) -> None:
    from tokenizers import Tokenizer as FastTokenizer
    from transformers import PreTrainedTokenizerFast

    definition = Tokenizer.read(file, context).definition
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=FastTokenizer.from_str(definition),
        model_max_length=context,
        **{role: token for role, token in SPECIAL.items() if token in definition},
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
    """What a file of settings holds; nothing where there is none."""
    if not path.is_file():
        return {}
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else {}
    except ValueError:
        raise CheckpointError(f"{path}: is damaged, expected JSON.") from None


def _weights(folder: Path) -> dict[str, Tensor]:
    there = [name for name in STORED if (folder / name).is_file()]
    if not there:
        found = sorted(path.name for path in folder.iterdir())
        raise CheckpointError(f"{folder}: has neither {WEIGHTS} nor {PICKLED}; found {few(found)}.")
    if not there[0].endswith(".json"):
        return read_tensors(folder / there[0])
    files = _json(folder / there[0]).get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(file, str) for file in files.values()):
        raise CheckpointError(f"{folder / there[0]}: is damaged, expected a weight_map of names to files.")
    return {name: tensor for file in sorted(set(files.values())) for name, tensor in _part(folder, file).items()}


def _part(folder: Path, file: str) -> dict[str, Tensor]:
    """The tensors of one file that an index names."""
    if Path(file).name != file or not (folder / file).is_file():
        raise CheckpointError(f"{folder / file}: no such file; the folder is not complete.")
    return read_tensors(folder / file)
