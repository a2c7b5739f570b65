"""Tiny models for tests, built in milliseconds: presets, networks, tokenizers, and the formats they are stored in.

Two families, for one model cannot be stored in every format:

- `TINY_PRESET`: a small PANN with a BERT. Only openclap's own folder can hold it. The default where any model will do.
- `tiny_laion_model()`: HTSAT or PANN with a RoBERTa, in LAION-CLAP's layout; `tiny_clap_model()` is one that
  transformers' ClapModel can hold too.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from openclap import presets
from openclap.audio.config import FrontEndConfig, MelConfig
from openclap.checkpoints import laion, openclap_folder
from openclap.checkpoints.checkpoint import Checkpoint
from openclap.models.build import build_clap
from openclap.models.clap import CLAP
from openclap.models.config import AudioConfig, HTSATConfig, PANNConfig, TextTowerConfig
from openclap.presets import Preset
from openclap.text.tokenizer import Tokenizer

TINY_PRESET = Preset(
    name="tiny",
    frontend=FrontEndConfig(
        MelConfig(16000, 512, 256, 24, 50.0, 8000.0, "htk", "sum", "log10", 5.0), samples=8000, fill="pad"
    ),
    audio=PANNConfig(widths=(4, 8), pool="max"),
    text=TextTowerConfig(
        model_type="bert",
        pooling="mean",
        context=16,
        hidden_size=16,
        sizes={
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "vocab_size": 64,
            "max_position_embeddings": 32,
        },
    ),
    embedding_size=16,
)
"""Half a second of audio at 16 kHz to 16 dimensions."""

TINY_SWIN_PRESET = replace(
    TINY_PRESET,
    name="tiny-swin",
    frontend=replace(TINY_PRESET.frontend, mel=replace(TINY_PRESET.frontend.mel, n_mels=16)),
    audio=HTSATConfig(width=8, depths=(2, 2), heads=(2, 2), n_mels=16, image=64, classes=0),
)
"""The same with a Swin transformer, whose attention LoRA can adapt."""

BERT_WORDS = (
    *("a", "the", "of", "in", "this", "is", "sound", "low", "high", "noise", "tone", "number"),
    *("0", "1", "2", "3", "4", "5", "wolf", "howling", "rain", "on", "roof", "dog", "bell", "big", ".", ",", "'", "s"),
)


def tiny_tokenizer() -> Tokenizer:
    """A tokenizer for `TINY_PRESET`, as BERT's are: [CLS] words [SEP], [PAD] up to the longest text of a batch."""
    from tokenizers import Tokenizer as Fast
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import BertPreTokenizer
    from tokenizers.processors import TemplateProcessing

    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *BERT_WORDS])}
    fast = Fast(WordLevel(vocabulary, unk_token="[UNK]"))
    fast.pre_tokenizer = BertPreTokenizer()
    fast.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return Tokenizer(fast.to_str(), TINY_PRESET.text.context)


def tiny_clap(preset: Preset = TINY_PRESET, seed: int = 0) -> CLAP:
    """A network with fresh weights, the same for every call. The test's own random numbers are left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_clap(preset)


def save_tiny_model(place: Path, preset: Preset = TINY_PRESET, seed: int = 0) -> Path:
    """Write a model folder with a tokenizer, and return it."""
    openclap_folder.save(place, tiny_clap(preset, seed), preset, tiny_tokenizer())
    return place


# ---------------------------------------------------------------------------------------------------------------------
# Models in LAION-CLAP's layout.

TINY_HTSAT = HTSATConfig(width=16, depths=(2, 2), heads=(2, 4), n_mels=16, image=64, classes=5)
TINY_PANN = replace(presets.PANN_14, widths=(4, 8, 8), pooled=3, n_mels=16, classes=5)
TINY_ROBERTA = replace(
    presets.ROBERTA,
    hidden_size=64,
    sizes=dict(presets.ROBERTA.sizes)
    | {"num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 32, "vocab_size": 40},
)


def tiny_laion_model(audio: AudioConfig = TINY_HTSAT) -> tuple[Preset, dict[str, torch.Tensor]]:
    """The preset and fresh weights of a small model with LAION-CLAP's front end; 24 dimensions."""
    preset = presets.laion(audio, TINY_ROBERTA, "small")
    frontend = replace(preset.frontend, mel=replace(preset.frontend.mel, n_mels=audio.n_mels))
    preset = replace(preset, frontend=frontend, embedding_size=24)
    return preset, dict(tiny_clap(preset, seed=3).state_dict())


def tiny_laion_state(audio: AudioConfig = TINY_HTSAT) -> dict[str, torch.Tensor]:
    """A state dict under LAION-CLAP's names, buffers included, as its `.pt` files hold it."""
    preset, weights = tiny_laion_model(audio)
    return dict(laion.to_state(Checkpoint("laion", preset, weights)))


def tiny_tower_state(audio: AudioConfig = TINY_HTSAT) -> dict[str, torch.Tensor]:
    """The state dict of an audio tower alone, as its files trained on AudioSet hold it."""
    prefix = "audio_branch."
    state = tiny_laion_state(audio)
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def tiny_clap_model(*, fused: bool = False, **changes: Any) -> Checkpoint:
    """A checkpoint that transformers' ClapModel can hold; `changes` are made to its preset."""
    audio = replace(TINY_HTSAT, n_mels=64, image=256, fusion="aff_2d" if fused else None)
    preset, weights = tiny_laion_model(audio)
    return Checkpoint("laion", replace(preset, **changes), weights)


ROBERTA_WORDS = ("a", "dog", "howling", "in", "is", "of", "on", "rain", "roof", "sound", "the", "this", "wolf")


def tiny_roberta_tokenizer(place: Path) -> Path:
    """Write a tokenizer.json of few words, with RoBERTa's special tokens at their ids, and return its path."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing

    numbers = {word: number for number, word in enumerate(["<s>", "<pad>", "</s>", "<unk>", *ROBERTA_WORDS])}
    fast = Tokenizer(WordLevel(numbers, unk_token="<unk>"))
    fast.pre_tokenizer = Whitespace()
    fast.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    fast.save(str(place))
    return place
