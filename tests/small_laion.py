"""Small models of the paper's making, in LAION-CLAP's names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from openclap import presets
from openclap.checkpoints import laion
from openclap.checkpoints.checkpoint import Checkpoint
from openclap.models.build import build_clap
from openclap.models.config import HTSATConfig

SMALL = HTSATConfig(width=16, depths=(2, 2), heads=(2, 4), n_mels=16, image=64, classes=5)
SMALL_PANN = replace(presets.PANN_14, widths=(4, 8, 8), pooled=3, n_mels=16, classes=5)
ROBERTA_SIZES = {"num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 32, "vocab_size": 40}


def small(audio: presets.AudioConfig = SMALL) -> tuple[presets.Preset, dict[str, torch.Tensor]]:
    text = replace(presets.ROBERTA, hidden_size=64, sizes=dict(presets.ROBERTA.sizes) | ROBERTA_SIZES)
    whole = presets.laion(audio, text, "small")
    frontend = replace(whole.frontend, mel=replace(whole.frontend.mel, n_mels=audio.n_mels))
    preset = replace(whole, frontend=frontend, embedding_size=24)
    torch.manual_seed(3)
    return preset, dict(build_clap(preset).state_dict())


def small_state(audio: presets.AudioConfig = SMALL) -> dict[str, torch.Tensor]:
    preset, weights = small(audio)
    return dict(laion.to_state(Checkpoint("laion", preset, weights)))


def small_clap(**changes: Any) -> Checkpoint:
    """A model that a ClapModel can be; `changes` go to its preset."""
    preset, weights = small(replace(SMALL, n_mels=64, image=256))
    return Checkpoint("laion", replace(preset, **changes), weights)


WORDS = ("a", "dog", "howling", "in", "is", "of", "on", "rain", "roof", "sound", "the", "this", "wolf")


def small_words(place: Path) -> Path:
    """A tokenizer.json of few words, with RoBERTa's special tokens at their ids."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing

    numbers = {word: number for number, word in enumerate(["<s>", "<pad>", "</s>", "<unk>", *WORDS])}
    fast = Tokenizer(WordLevel(numbers, unk_token="<unk>"))
    fast.pre_tokenizer = Whitespace()
    fast.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    fast.save(str(place))
    return place
