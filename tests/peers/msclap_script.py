"""Embed audio and text with the package msclap, in a process of its own.

    python msclap_script.py ENVIRONMENT --golden tests/golden/msclap.npz
    python msclap_script.py ENVIRONMENT 2023 WEIGHTS.pth OUT.npz

ENVIRONMENT holds msclap 1.3.4 and what it imports; torchaudio comes from `stubs`. The text encoders and tokenizers that
the package would fetch are built here with fresh weights, which msclap's loader then replaces.

The first form makes the golden file: for both versions with narrow encoders, whose code is unchanged, it holds names,
shapes and kinds of all tensors (tests/golden/README.md says how they are made again), and what msclap computes from
them. The second form does the same with encoders of the published sizes, and keeps the weights.
"""

from __future__ import annotations

import functools
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import transformers
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from support import microsoft

sys.path[:0] = [str(Path(__file__).parent / "stubs"), sys.argv[1]]  # now: transformers must not see the stubs

import msclap  # noqa: E402
import yaml  # noqa: E402
from msclap.models import audio, htsat  # noqa: E402

wrapper = sys.modules[msclap.CLAP.__module__]

NARROW_HTSAT = {"embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "num_classes": 5}
CNN14, HTSAT, LOAD = audio.Cnn14.__init__, htsat.HTSAT_Swin_Transformer.__init__, yaml.load


def narrow_encoders() -> None:
    """Divide the widths of Cnn14 by 16, and build a small HTSAT."""

    def build(self: Any, *args: Any) -> None:
        CNN14(self, *args)
        widths = [1, *(64 * 2**block // 16 for block in range(6))]
        for block in range(1, 7):
            setattr(self, f"conv_block{block}", audio.ConvBlock(widths[block - 1], widths[block]))
        self.fc1 = nn.Linear(widths[-1], args[-1])

    audio.Cnn14.__init__ = build
    htsat.HTSAT_Swin_Transformer.__init__ = functools.partialmethod(HTSAT, **NARROW_HTSAT)


def load(case: dict[str, Any], tokenizer: str | None = None) -> Any:
    """The package's own object, its weights read by itself."""
    sizes = microsoft.TEXT_SIZES if case.get("narrow") else {"2022": {}, "2023": {}}  # BERT-base and GPT-2 by default
    if case.get("narrow"):
        narrow_encoders()
    is_gpt = case["version"] == "2023"
    config = (transformers.GPT2Config if is_gpt else transformers.BertConfig)(**sizes[case["version"]])
    model = transformers.GPT2Model if is_gpt else transformers.BertModel
    words = (
        microsoft.gpt2_tokenizer()
        if is_gpt
        else transformers.PreTrainedTokenizerFast(
            tokenizer_file=tokenizer,
            pad_token="[PAD]",
            model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        )
    )
    # transformers 5 has no encode_plus any more; calling the tokenizer is the same.
    words.encode_plus = functools.partial(words.__call__)
    wrapper.AutoTokenizer = type("AutoTokenizer", (), {"from_pretrained": staticmethod(lambda name: words)})
    sys.modules["msclap.models.clap"].AutoModel = type(
        "AutoModel", (), {"from_pretrained": staticmethod(lambda name: model(config))}
    )
    yaml.load = lambda text, Loader: LOAD(text, Loader=Loader) | case.get("config", {})
    wrapper.random.randrange = lambda stop: 0  # which stretch of a long clip is read: the first
    if "file" in case:
        return wrapper.CLAPWrapper(case["file"], version=case["version"])
    # Weights of fresh parameters, to learn their names and shapes.
    torch.load, real = (lambda *args, **kwargs: {"model": {}}), torch.load
    try:
        return wrapper.CLAPWrapper("none", version=case["version"])
    finally:
        torch.load = real


def embed(model: Any, waves: dict[str, np.ndarray], texts: list[str]) -> dict[str, np.ndarray]:
    """Raw embeddings, before they are normalised, of files at 44.1 kHz and of texts; log-mels; similarities."""
    found: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        for name, wave in waves.items():
            file = str(Path(folder) / f"{name}.wav")
            soundfile.write(file, wave, 44100, subtype="FLOAT")
            found[f"audio_{name}"] = model.get_audio_embeddings([file])[0].numpy()
            base = model.clap.audio_encoder.base
            base = getattr(base, "htsat", base)
            samples = model.preprocess_audio([file], True)[:, 0]
            found[f"mel_{name}"] = base.logmel_extractor(base.spectrogram_extractor(samples))[0, 0, ::40].numpy()
        found["texts"] = np.concatenate([model.get_text_embeddings([text]).numpy() for text in texts])
        audios = torch.from_numpy(np.stack([found[f"audio_{name}"] for name in waves]))
        found["logits"] = model.compute_similarity(audios, torch.from_numpy(found["texts"])).numpy()
        found["ids"] = np.stack([model.preprocess_text([text])["input_ids"][0].numpy() for text in texts])
    return found


def compute(version: str, file: str, *, narrow: bool) -> dict[str, Any]:
    """Write a file with made-up weights of a version, and embed with it."""
    with tempfile.TemporaryDirectory() as folder:
        words = str(microsoft.bert_tokenizer(Path(folder) / "tokenizer.json"))
        case = (
            {"version": version, "narrow": True, "config": microsoft.NARROW[version]}
            if narrow
            else {"version": version}
        )
        fresh = load(case, words).clap.state_dict()
        rows = [[name, list(tensor.shape), microsoft.kind(name, tensor)] for name, tensor in fresh.items()]
        kept = {name: tensor for name, tensor in fresh.items() if microsoft.kind(name, tensor) == "keep"}
        torch.save({"model": microsoft.state(rows) | kept}, file)
        found = embed(load(case | {"file": file}, words), microsoft.waves(version), microsoft.TEXTS)
    bank = next(tensor for name, tensor in kept.items() if name.endswith("melW"))
    return found | {"bank": bank.numpy(), "keys": np.array(json.dumps(rows))}


if sys.argv[2] == "--golden":
    with tempfile.TemporaryDirectory() as folder:
        both = {version: compute(version, f"{folder}/weights.pth", narrow=True) for version in microsoft.NARROW}
    named = {f"{version}/{name}": array for version, found in both.items() for name, array in found.items()}
    np.savez_compressed(sys.argv[3], **named)
else:
    np.savez(sys.argv[4], **compute(sys.argv[2], sys.argv[3], narrow=False))
