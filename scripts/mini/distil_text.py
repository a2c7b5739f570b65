"""Distil the bundled model's text tower from the MiniLM sentence encoder: fewer layers, and a smaller vocabulary.

    python -m scripts.mini.distil_text --pairs build/mini/pairs.csv --out build/mini/text [--measure-on TABLE]

The student is a plain BERT with mean pooling. It starts from some of MiniLM's layers, the feed-forward neurons with the
largest weights, and the embeddings of the tokens that are kept, and learns MiniLM's sentence embeddings: their
direction, and their similarities within a batch (Park et al. 2019, Relational Knowledge Distillation).

Texts: captions of the pairs that may be shipped and are not held out, phrases.txt, the descriptions of
`openclap.search.background`, words of MiniLM's vocabulary, and combinations of them (`compose`). `--audiocaps` adds
AudioCaps' captions, to measure what they bring; the shipped tower learned without them.

A seed fixes texts and vocabulary, and the order of batches is a function of the step: with one thread, two runs on one
machine give the same bits, also where one of them was killed and started again (it goes on from OUT/training.pt).
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from scripts.mini.features import MINILM_MODEL, weights_file
from scripts.mini.pretrained import MINILM
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.functional import mse_loss, normalize
from transformers import BertConfig, BertModel

from openclap.search.background import descriptions

HERE = Path(__file__).parent
POSITIONS = 80
"""The longest text that the demo's preset allows has 77 tokens."""
HELD_OUT = 1000
WORDS = 4000
"""The most frequent words of MiniLM's vocabulary, each also a text of its own."""
SEED = 20
TEXTS, STEPS, BATCH = 48_000, 3000, 128
SAVED_EVERY = 100
"""Steps after which the state of training is written, to go on from when it is killed."""


@dataclass(frozen=True)
class Size:
    """Layers of MiniLM to start from, feed-forward neurons of each, and tokens."""

    layers: tuple[int, ...]
    neurons: int
    tokens: int


SIZES = {
    "3x768": Size((0, 2, 5), 768, 6000),
    "2x1536": Size((0, 4), 1536, 6000),
    "6x1536": Size((0, 1, 2, 3, 4, 5), 1536, 30522),
}
"""By name; the last one is MiniLM itself."""

ADJECTIVES = (
    "loud", "quiet", "distant", "nearby", "short", "long", "sudden", "slow", "fast",
    "repeated", "faint", "muffled", "sharp", "deep", "high", "low", "heavy", "light",
    "old", "small", "big", "metallic", "wooden", "electronic", "soft", "harsh", "rhythmic",
)  # fmt: skip
PLACES = (
    "in the distance",
    "outdoors",
    "indoors",
    "in a large hall",
    "in a small room",
    "in a forest",
    "on a street",
    "at night",
    "in the rain",
    "near a river",
    "in a kitchen",
    "under water",
    "in a cave",
    "in an office",
    "with an echo",
    "on a farm",
    "at the seaside",
    "in a city",
    "in the background",
    "close to the microphone",
    "at a station",
    "in a garden",
    "on a ship",
    "in a factory",
    "in a church",
)
JOINTS = (
    "{} and {}",
    "{} while {}",
    "{}, followed by {}",
    "{} with {} in the background",
    "{}, then {}",
    "{} as {}",
    "{} mixed with {}",
    "first {}, and after that {}",
    "{} over {}",
)
FRAMES = (
    "{}",
    "{}",
    "{}",
    "the sound of {}",
    "This is a sound of {}.",
    "a recording of {}",
    "{} can be heard",
    "I can hear {}",
    "sounds of {}",
    "{} repeatedly",
    "someone recorded {}",
)


def phrases() -> list[str]:
    """Return the phrases of phrases.txt, the names of their categories, and the background's descriptions."""
    found = []
    for line in (HERE / "phrases.txt").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            category, _, rest = line.partition(":")
            found += [category, *(phrase.strip() for phrase in rest.split(";"))]
    return list(dict.fromkeys([*found, *descriptions()]))


def captions_of(pairs: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the captions to learn from, and pairs of captions of one clip that are held out to measure paraphrases."""
    with pairs.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["demo_held_out"] == "false"]
    twos = sorted(
        {
            (row["caption"], row["extra_captions"].split(" | ")[0])
            for row in rows
            if row["extra_captions"] and row["caption_from"] not in ("rendered", "transcript")
        }
    )
    Random(SEED).shuffle(twos)
    held = twos[:300]
    secret = {caption for two in held for caption in two}
    shipped = [
        caption
        for row in rows
        if row["ship"] == "true"
        for caption in (row["caption"], *filter(None, row["extra_captions"].split(" | ")))
    ]
    return sorted(set(shipped) - secret), held


def compose(singles: Sequence[str], words: Sequence[str], count: int, random: Random) -> list[str]:
    """Combine phrases and words to `count` distinct texts, of one to three sounds."""
    made: dict[str, None] = dict.fromkeys(singles)
    while len(made) < count:
        kind = random.random()
        if kind < 0.06:
            text = ", ".join(random.sample(words, random.randint(1, 4)))
        elif kind < 0.14:
            article = random.choice(("a", "the", "some"))
            text = f"{article} {random.choice(ADJECTIVES)} {random.choice(words)} {random.choice(words)}"
        else:
            text = random.choice(singles)
            if random.random() < 0.25:
                text = _described(text, random)
            if random.random() < 0.3:
                text = as_clause(text)
            if random.random() < 0.55:
                text = random.choice(JOINTS).format(text, random.choice(singles))
            if random.random() < 0.35:
                text = f"{text} {random.choice(PLACES)}"
            text = random.choice(FRAMES).format(text)
        made[text] = None
    return list(made)


def _described(phrase: str, random: Random) -> str:
    article, _, rest = phrase.partition(" ")
    return f"a {random.choice(ADJECTIVES)} {rest}" if article in ("a", "an", "the") and rest else phrase


def as_clause(phrase: str) -> str:
    """Turn "a dog barking nearby" into "a dog is barking nearby", as in captions of whole sentences; others stay."""
    found = re.fullmatch(r"(an?|the|some|two) ((?:\w+ )*?\w+) (\w+ing)\b(.*)", phrase)
    if found is None or found[2].endswith("ing"):
        return phrase
    verb = "is" if found[1] in ("a", "an") or not found[2].endswith("s") else "are"
    return f"{found[1]} {found[2]} {verb} {found[3]}{found[4]}"


def read_audiocaps(table: Path) -> list[str]:
    with table.open(encoding="utf-8", newline="") as file:
        return [" ".join(row["caption"].split()).rstrip(". ") for row in csv.DictReader(file)]


def choose_tokens(definition: dict[str, Any], texts: Sequence[str], count: int) -> list[str]:
    """Return the tokens to keep, in the order of their ids.

    Kept are special tokens, single ASCII characters (so that every word can still be split), every token of `texts`,
    and the first of the others: BERT's ids follow frequency. Tokens with other characters than ASCII's are dropped.
    """
    vocabulary: dict[str, int] = definition["model"]["vocab"]
    ordered = sorted(vocabulary, key=vocabulary.__getitem__)
    if count >= len(ordered):
        return ordered
    special = {token["content"] for token in definition["added_tokens"]}
    characters = {token for token in ordered if len(token.removeprefix("##")) == 1 and token.isascii()}
    tokenizer = Tokenizer.from_str(json.dumps(definition))
    tokenizer.no_padding()
    used = Counter(token for encoding in tokenizer.encode_batch(list(texts)) for token in encoding.tokens)
    kept = special | characters
    for token in [*(token for token, _ in used.most_common()), *ordered]:
        if len(kept) >= count:
            break
        if token.isascii() and not token.startswith("[unused"):
            kept.add(token)
    return [token for token in ordered if token in kept]


def prune_tokenizer(definition: dict[str, Any], kept: Sequence[str]) -> dict[str, Any]:
    """Return the definition of a tokenizer with the tokens `kept` alone, without padding and truncation."""
    ids = {token: number for number, token in enumerate(kept)}
    pruned = json.loads(json.dumps(definition))
    pruned["model"]["vocab"] = ids
    pruned["padding"] = pruned["truncation"] = None
    for token in pruned["added_tokens"]:
        token["id"] = ids[token["content"]]
    for token in pruned["post_processor"]["special_tokens"].values():
        token["ids"] = [ids[name] for name in token["tokens"]]
    return pruned


def build_student(teacher: dict[str, Tensor], size: Size, rows: Sequence[int]) -> BertModel:
    """Build a BERT of MiniLM's layers, strongest feed-forward neurons and embeddings; `rows` are kept token ids."""
    config = BertConfig(
        vocab_size=len(rows),
        hidden_size=384,
        num_hidden_layers=len(size.layers),
        num_attention_heads=12,
        intermediate_size=size.neurons,
        max_position_embeddings=POSITIONS,
        layer_norm_eps=1e-12,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    weights = {key: value for key, value in teacher.items() if key.startswith("embeddings.") and "ids" not in key}
    weights["embeddings.word_embeddings.weight"] = weights["embeddings.word_embeddings.weight"][list(rows)]
    weights["embeddings.position_embeddings.weight"] = weights["embeddings.position_embeddings.weight"][:POSITIONS]
    for to, source in enumerate(size.layers):
        layer = {
            key.removeprefix(f"encoder.layer.{source}."): value
            for key, value in teacher.items()
            if key.startswith(f"encoder.layer.{source}.")
        }
        inner, outer = layer["intermediate.dense.weight"], layer["output.dense.weight"]
        strongest = (inner.norm(dim=1) * outer.norm(dim=0)).argsort(descending=True)[: size.neurons].sort().values
        for name in ("intermediate.dense.weight", "intermediate.dense.bias"):
            layer[name] = layer[name][strongest]
        layer["output.dense.weight"] = outer[:, strongest]
        weights |= {f"encoder.layer.{to}.{key}": value for key, value in layer.items()}
    model = BertModel(config, add_pooling_layer=False)
    model.load_state_dict(weights, strict=False)
    return model


def embed(model: BertModel, ids: Sequence[Sequence[int]]) -> Tensor:
    """(N, 384) unit vectors of N texts: the mean over their tokens. Gradients are kept where they are enabled."""
    longest = max(map(len, ids))
    ids_NL = torch.tensor([[*text, *[0] * (longest - len(text))] for text in ids])
    mask_NL = torch.tensor([[1] * len(text) + [0] * (longest - len(text)) for text in ids])
    states_NLD = model(input_ids=ids_NL, attention_mask=mask_NL).last_hidden_state
    weight_NL1 = mask_NL.unsqueeze(-1).to(states_NLD.dtype)
    return normalize((states_NLD * weight_NL1).sum(dim=1) / weight_NL1.sum(dim=1), dim=-1)


@torch.inference_mode()
def embed_all(model: BertModel, tokenizer: Tokenizer, texts: Sequence[str], batch: int = 128) -> Tensor:
    """(N, 384) unit vectors, by batches of similar length."""
    model.eval()
    ids = [encoding.ids[:POSITIONS] for encoding in tokenizer.encode_batch(list(texts))]
    order = sorted(range(len(ids)), key=lambda number: len(ids[number]))
    vectors_ND = torch.zeros(len(ids), 384)
    for start in range(0, len(order), batch):
        numbers = order[start : start + batch]
        vectors_ND[numbers] = embed(model, [ids[number] for number in numbers])
    return vectors_ND


def batches(lengths: Sequence[int], size: int, epoch: int) -> list[list[int]]:
    """Return the batches of an epoch: texts of similar length together, in an order that depends on the epoch alone."""
    random = Random(f"{SEED} {epoch}")
    order = sorted(range(len(lengths)), key=lambda number: (lengths[number], random.random()))
    chunks = [order[start : start + size] for start in range(0, len(order), size)]
    random.shuffle(chunks)
    return chunks


@dataclass(frozen=True)
class Whitening:
    """A linear map that evens out the variances of sentence embeddings: the model's own space (scripts.mini.heads)."""

    mean_D: Tensor
    map_DD: Tensor

    @classmethod
    def read(cls, file: Path) -> Whitening:
        content = np.load(file)
        return cls(torch.from_numpy(content["mu"]).float(), torch.from_numpy(content["W"]).float())

    def __call__(self, vectors_ND: Tensor) -> Tensor:
        return normalize((vectors_ND - self.mean_D) @ self.map_DD, dim=-1)


def train(
    model: BertModel,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    target_ND: Tensor,
    steps: int,
    *,
    whiten: Whitening | None,
    state: Path | None = None,
    size: int = BATCH,
    rate: float = 6e-4,
) -> None:
    """Train for some steps, with a rate that falls to zero.

    With `whiten`, directions and relations count in the whitened space as well, where rare differences weigh more. With
    `state`, the state of training is written to that file now and then, and training goes on from it.
    """
    spaces = [lambda vectors_ND: vectors_ND, *([whiten] if whiten else [])]
    ids = [encoding.ids[:POSITIONS] for encoding in tokenizer.encode_batch(list(texts))]
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01, betas=(0.9, 0.98))
    purpose = hashlib.sha256(repr((ids, steps, size, rate, whiten is not None)).encode()).hexdigest()
    done = resume(state, purpose, model, optimizer) if state else 0
    model.train()
    per_epoch = -(-len(ids) // size)
    chunks: list[list[int]] = []
    for step in range(done, steps):
        if not chunks or step % per_epoch == 0:
            chunks = batches([len(text) for text in ids], size, step // per_epoch)
        chunk = chunks[step % per_epoch]
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 50) * (1 - step / steps)
        student_BD, teacher_BD = embed(model, [ids[number] for number in chunk]), target_ND[chunk]
        loss = torch.zeros(())
        for space in spaces:
            ours_BD, theirs_BD = space(student_BD), space(teacher_BD)
            direction = (1 - (ours_BD * theirs_BD).sum(dim=-1)).mean()
            loss = loss + direction + 5 * mse_loss(ours_BD @ ours_BD.T, theirs_BD @ theirs_BD.T)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if (step + 1) % SAVED_EVERY == 0:
            print(f"step {step + 1} of {steps}: loss {loss.item():.4f}", flush=True)
            if state:
                draft = state.with_suffix(".draft")
                kept = {"purpose": purpose, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
                torch.save(kept | {"done": step + 1}, draft)
                draft.replace(state)


def resume(state: Path, purpose: str, model: BertModel, optimizer: torch.optim.Optimizer) -> int:
    """Restore the state of an equal training that was killed; return its number of steps, 0 where there is none."""
    saved = torch.load(state, weights_only=True) if state.exists() else {}
    if saved.get("purpose") != purpose:
        return 0
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    return int(saved["done"])


def measure(student_ND: Tensor, teacher_ND: Tensor) -> dict[str, float]:
    """Compare embeddings of the same texts: mean cosine, rank correlation of similarities, shared neighbours."""
    upper = torch.triu_indices(len(student_ND), len(student_ND), 1)
    ours, theirs = (vectors @ vectors.T for vectors in (student_ND, teacher_ND))
    ranks = [np.argsort(np.argsort(matrix[upper[0], upper[1]].numpy())).astype(np.float64) for matrix in (ours, theirs)]
    nearest = [(matrix - 2 * torch.eye(len(matrix))).topk(10).indices for matrix in (ours, theirs)]
    shared = [len(set(one.tolist()) & set(other.tolist())) / 10 for one, other in zip(*nearest, strict=True)]
    return {
        "cosine": float((student_ND * teacher_ND).sum(dim=-1).mean()),
        "spearman": float(np.corrcoef(ranks[0], ranks[1])[0, 1]),
        "neighbours@10": float(np.mean(shared)),
    }


def paraphrase_recall(first_ND: Tensor, second_ND: Tensor) -> dict[str, float]:
    """Recall of a clip's second caption by its first one, among the second captions of all clips."""
    similarity_NN = first_ND @ second_ND.T
    rank_N = (similarity_NN > similarity_NN.diagonal()[:, None]).sum(dim=1)
    return {f"paraphrase R@{k}": float((rank_N < k).float().mean()) for k in (1, 10)}


def save(folder: Path, model: BertModel, tokenizer: dict[str, Any]) -> None:
    """Write a folder that BertModel.from_pretrained reads, in half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {key: value.half().contiguous() for key, value in model.state_dict().items()}, folder / "model.safetensors"
    )
    (folder / "config.json").write_text(json.dumps(model.config.to_dict() | {"architectures": ["BertModel"]}, indent=2))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False))


def read_teacher(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return MiniLM's weights and its tokenizer's definition, which are fetched into `folder` once."""
    weights = load_file(weights_file(MINILM, f"{MINILM_MODEL}/model.safetensors", folder))
    tokenizer = weights_file(MINILM, f"{MINILM_MODEL}/tokenizer.json", folder)
    return weights, json.loads(tokenizer.read_text(encoding="utf-8"))


def texts_to_learn(
    captions: Sequence[str], definition: dict[str, Any], count: int, audiocaps: Sequence[str]
) -> list[str]:
    """Return `count` texts: composed ones alone, or half of them AudioCaps' captions where there are any."""
    singles = [*captions, *phrases()]
    frequent = choose_tokens(definition, singles, 2 * WORDS)
    words = [token for token in frequent if len(token) > 2 and token.isalpha()][:WORDS]
    borrowed = list(audiocaps)[: count // 2]
    known = [*singles, *words][: count - len(borrowed)]
    return [*compose(known, words, count - len(borrowed), Random(SEED)), *borrowed]


def shuffled(table: Path | None) -> list[str]:
    """Return the distinct captions of a table in an order by seed; none without a table."""
    lines = sorted(set(read_audiocaps(table))) if table else []
    Random(SEED).shuffle(lines)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description="Distil the bundled model's text tower.")
    parser.add_argument("--pairs", type=Path, required=True, help="pairs.csv; MiniLM's files are kept beside it")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", choices=SIZES, default="3x768")
    parser.add_argument("--texts", type=int, default=TEXTS)
    parser.add_argument("--steps", type=int, default=STEPS, help=f"of {BATCH} texts")
    parser.add_argument("--whiten", type=Path, help="an npz of mu and W: the model's whitened space")
    parser.add_argument(
        "--measure-on", type=Path, help="AudioCaps' table of captions, of which a thousand are measured on"
    )
    parser.add_argument("--audiocaps", action="store_true", help="learn from the other captions of that table as well")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the order of sums, and so the last digits, depend on the number of threads
    torch.manual_seed(SEED)
    teacher, definition = read_teacher(arguments.pairs.parent)
    captions, twos = captions_of(arguments.pairs)
    lines = shuffled(arguments.measure_on)
    held, others = lines[:HELD_OUT], lines[HELD_OUT:] if arguments.audiocaps else []
    texts = texts_to_learn(captions, definition, arguments.texts, others)
    print(f"{len(captions)} captions, {len(texts)} texts; for instance {texts[-3:]}", flush=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "texts.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")

    full = prune_tokenizer(definition, choose_tokens(definition, (), len(definition["model"]["vocab"])))
    original = Tokenizer.from_str(json.dumps(full))
    minilm = build_student(teacher, SIZES["6x1536"], range(len(full["model"]["vocab"])))
    target_ND = embed_all(minilm, original, texts)
    size = SIZES[arguments.size]
    kept = choose_tokens(definition, texts, size.tokens)
    pruned = prune_tokenizer(definition, kept)
    tokenizer = Tokenizer.from_str(json.dumps(pruned))
    model = build_student(teacher, size, [definition["model"]["vocab"][token] for token in kept])
    whiten = Whitening.read(arguments.whiten) if arguments.whiten else None
    state = arguments.out / "training.pt"
    train(model, tokenizer, texts, target_ND, arguments.steps, whiten=whiten, state=state)
    save(arguments.out, model, pruned)
    state.unlink(missing_ok=True)

    figures: dict[str, float] = {
        "steps": arguments.steps,
        "bytes": (arguments.out / "model.safetensors").stat().st_size,
    }
    if held:
        ours_ND, theirs_ND = embed_all(model, tokenizer, held), embed_all(minilm, original, held)
        figures |= measure(ours_ND, theirs_ND)
        if whiten:
            figures |= {
                f"whitened {name}": value for name, value in measure(whiten(ours_ND), whiten(theirs_ND)).items()
            }
    for name, network, splitter in (("", model, tokenizer), ("MiniLM ", minilm, original)):
        first, second = (embed_all(network, splitter, [two[side] for two in twos]) for side in (0, 1))
        figures |= {name + key: value for key, value in paraphrase_recall(first, second).items()}
    (arguments.out / "figures.json").write_text(json.dumps(figures, indent=2), encoding="utf-8")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
