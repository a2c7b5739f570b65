"""The small preset that tests build real models from."""

from __future__ import annotations

from openclap.audio.config import FrontEndConfig, MelConfig
from openclap.models.config import PANNConfig, TextTowerConfig
from openclap.presets import Preset
from openclap.text.tokenizer import Tokenizer

WORDS = [
    "a",
    "the",
    "of",
    "in",
    "this",
    "is",
    "sound",
    "low",
    "high",
    "noise",
    "tone",
    "number",
    "0",
    "1",
    "2",
    "3",
    "4",
    "5",
    "wolf",
    "howling",
    "rain",
    "on",
    "roof",
    "dog",
    "bell",
    "big",
    ".",
    ",",
    "'",
    "s",
]

PRESET = Preset(
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


def make_tokenizer() -> Tokenizer:
    """Words to ids as BERT's tokenizers do: [CLS] words [SEP], [PAD] to the longest."""
    from tokenizers import Tokenizer as Fast
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import BertPreTokenizer
    from tokenizers.processors import TemplateProcessing

    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    fast = Fast(WordLevel(vocabulary, unk_token="[UNK]"))
    fast.pre_tokenizer = BertPreTokenizer()
    fast.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return Tokenizer(fast.to_str(), PRESET.text.context)
