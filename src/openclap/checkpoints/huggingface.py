"""Read and write transformers' `ClapModel` folders; `clap_model` describes their layout.

Models that a ClapModel cannot hold are refused with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from openclap import presets
from openclap.audio.config import FrontEndConfig
from openclap.checkpoints.checkpoint import Checkpoint
from openclap.checkpoints.clap_model import (
    CONFIG,
    NAMES,
    PREPROCESSOR,
    QKV,
    WEIGHTS,
    from_state,
    is_clap_folder,
    key_tables,
    preset_from_config,
    read_config,
    weight_files,
)
from openclap.checkpoints.conversion_report import ConversionLosses, objective_names, setting_changes
from openclap.checkpoints.destination import CheckpointKind, drafted
from openclap.checkpoints.tensors import check_equal, read_tensors
from openclap.checkpoints.translate_keys import translate_key
from openclap.errors import CheckpointError
from openclap.models.config import HTSATConfig
from openclap.models.swin import relative_positions
from openclap.presets import Preset
from openclap.text.tokenizer import FILE as TOKENIZER
from openclap.text.tokenizer import VOCABULARY, Tokenizer

NO_PLACE = ("audio_tower.tagger.", "audio_transform.", "text_transform.")
"""Parts of ours that ClapModel lacks; embedding reads none of them."""


def read(folder: Path, preset: Preset | None = None) -> Checkpoint:
    """Read a folder as `ClapModel.save_pretrained` writes it. Raises CheckpointError for a damaged or partial one."""
    preset = preset or read_config(folder)
    tokenizers = [folder / name for name in (TOKENIZER, VOCABULARY) if (folder / name).is_file()]
    state = {name: tensor for file in weight_files(folder) for name, tensor in read_tensors(file).items()}
    weights = from_state(state, folder.name, torch.cat)
    return Checkpoint("huggingface", preset, weights, tokenizer=next(iter(tokenizers), None))


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
            state[translate_key(name, key_tables(name.startswith("audio_tower.")), reverse=True)] = tensor
    return state


def check_convertible(preset: Preset, *, has_tokenizer: bool) -> tuple[str, ...]:
    """Return the settings that would read back slightly differently.

    Raises CheckpointError for a model that is no ClapModel, or that would read back as another model.
    """
    text, mel, expected = preset.text, preset.frontend.mel, presets.LAION_PLAIN.mel
    reasons = []
    if not isinstance(preset.audio, HTSATConfig):
        reasons.append(f"the audio tower {presets.tower_name(preset.audio)}, expected HTSAT")
    elif preset.audio.fusion not in (None, "aff_2d"):
        reasons.append(f"{preset.audio.fusion} fusion, expected aff_2d or none")
    if text.model_type != "roberta" or text.pooling != "pooler":
        reasons.append(f"a {text.model_type} text tower pooled by {text.pooling}, expected roberta and its pooler")
    if (mel.compression, mel.n_mels) != (expected.compression, expected.n_mels):
        reasons.append(f"a log-mel of {mel.n_mels} bins in {mel.compression}, expected {expected.n_mels} in decibels")
    if reasons:
        raise CheckpointError(
            f"{preset.name}: ClapModel has no place for {'; '.join(reasons)}. Convert to openclap instead."
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
