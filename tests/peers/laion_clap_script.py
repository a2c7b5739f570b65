"""Load a checkpoint with the package laion-clap and embed audio and text, in a process of its own.

    python laion_clap_script.py ENVIRONMENT REQUEST.json OUT.npz

ENVIRONMENT holds laion-clap and what it imports; torchvision and torchaudio come from `stubs`. The text tower that
the package would fetch (roberta-base) is built with fresh weights of the same sizes, which `load_ckpt` then replaces.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

REQUEST = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
CONFIGS = {
    transformers.RobertaModel: transformers.RobertaConfig(
        vocab_size=50265, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5
    ),
    transformers.BertModel: transformers.BertConfig(),
    transformers.BartModel: transformers.BartConfig(
        d_model=768,
        encoder_layers=6,
        decoder_layers=6,
        encoder_attention_heads=12,
        decoder_attention_heads=12,
        encoder_ffn_dim=3072,
        decoder_ffn_dim=3072,
    ),
}


def tokenizer(*args: Any) -> transformers.PreTrainedTokenizerFast:
    """Return the test's tokenizer in place of any other."""
    return transformers.PreTrainedTokenizerFast(tokenizer_file=REQUEST["tokenizer"], pad_token="<pad>")


for model, config in CONFIGS.items():
    model.from_pretrained = staticmethod(lambda *args, model=model, config=config: model(config))
for kind in (transformers.RobertaTokenizer, transformers.BertTokenizer, transformers.BartTokenizer):
    kind.from_pretrained = staticmethod(tokenizer)

sys.path[:0] = [str(Path(__file__).parent / "stubs"), sys.argv[1]]  # now: transformers must not see the stubs

import laion_clap  # noqa: E402

np.random.choice = lambda starts: starts[
    len(starts) // 2
]  # which crop of a long clip is read: openclap takes the middle

found: dict[str, np.ndarray[Any, Any]] = {}
with np.load(REQUEST["sounds"]) as sounds:
    waves = dict(sounds)
for name, case in REQUEST["cases"].items():
    module = laion_clap.CLAP_Module(device="cpu", **case["module"])
    module.load_ckpt(case["file"], verbose=False)
    with torch.no_grad():
        for sound in case["sounds"]:
            found[f"{name}/{sound}"] = module.get_audio_embedding_from_data([waves[sound]])
        if REQUEST["texts"]:
            found[f"{name}/texts"] = module.get_text_embedding(REQUEST["texts"])
np.savez(sys.argv[3], **found)
