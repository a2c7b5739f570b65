"""Tiny models that transformers computes, with random weights, as folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from support.tiny_models import BERT_WORDS, tiny_tokenizer

TEXT = {
    "model_type": "modernbert",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 4 + len(BERT_WORDS),
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "cls_token_id": 2,
    "sep_token_id": 3,
}
AUDIO = {
    "dac_config": {
        "model_type": "dac",
        "encoder_hidden_size": 4,
        "downsampling_ratios": [2, 8, 10, 12],
        "codebook_dim": 8,
        "hidden_size": 64,
    },
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "head_dim": 16,
}


def perception() -> Any:
    """PE-AV's audio and text sides, the same for every call, in evaluation mode."""
    from transformers import PeAudioConfig, PeAudioModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        network = PeAudioModel(PeAudioConfig(text_config=TEXT, audio_config=AUDIO))
        with torch.no_grad():
            # Fresh layers are so alike that embeddings of different clips would hardly differ.
            for weight in network.parameters():
                weight.add_(torch.randn_like(weight) * 0.1)
            network.text_audio_logit_scale.fill_(7.0)
    return network.eval()


def perception_extractor() -> Any:
    from transformers import PeAudioFeatureExtractor

    return PeAudioFeatureExtractor(hop_length=1920)


def write_perception(folder: Path) -> Path:
    """A folder of the type pe_audio, as transformers saves it, with a tokenizer."""
    perception().save_pretrained(folder)
    perception_extractor().save_pretrained(folder)
    (folder / "tokenizer.json").write_text(tiny_tokenizer().definition, encoding="utf-8")
    return folder


def write_perception_video(folder: Path) -> Path:
    """The same model as published repositories hold it: of the type pe_audio_video, the text encoder stored once, and a
    video side beside it (of which only one tensor is here)."""
    from transformers import PeAudioVideoConfig

    folder.mkdir(parents=True)
    config = PeAudioVideoConfig(text_config=TEXT, audio_video_config={"audio_config": AUDIO}).to_dict()
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    state = perception().state_dict()
    named = {name if name.startswith("text_model.") else f"audio_model.{name}": t for name, t in state.items()}
    named["video_model.video_head.proj.weight"] = torch.zeros(2, 2)
    save_file(
        {name: tensor.contiguous() for name, tensor in named.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    settings = {"feature_extractor": perception_extractor().to_dict(), "processor_class": "PeAudioVideoProcessor"}
    (folder / "processor_config.json").write_text(json.dumps(settings), encoding="utf-8")
    (folder / "tokenizer.json").write_text(tiny_tokenizer().definition, encoding="utf-8")
    return folder
