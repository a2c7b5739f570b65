"""The distilled text tower: its vocabulary, its start from the teacher's layers, and what training changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scripts.mini import distil_text
from scripts.mini.distil_text import (
    Size,
    Whitening,
    as_clause,
    build_student,
    captions_of,
    choose_tokens,
    compose,
    embed_all,
    measure,
    paraphrase_recall,
    phrases,
    prune_tokenizer,
    save,
    train,
)
from tokenizers import Tokenizer
from transformers import BertConfig, BertModel

CHARACTERS = [*"abcdefghijklmnopqrstuvwxyz0123456789.,'"]
WORDS = [
    "a",
    "the",
    "dog",
    "bark",
    "##ing",
    "##s",
    "rain",
    "wind",
    "on",
    "in",
    "and",
    "piano",
    "drum",
    "of",
    "sound",
    "é",
    "日",
    "##日",
    "cat",
    "note",
    "low",
    "high",
    "old",
]
VOCABULARY = [
    "[PAD]",
    "[unused0]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *CHARACTERS,
    *(f"##{c}" for c in CHARACTERS),
    *WORDS,
]


@pytest.fixture(scope="module")
def definition() -> dict[str, Any]:
    """A tokenizer.json in the form of MiniLM's, with a small vocabulary."""
    ids = {token: number for number, token in enumerate(dict.fromkeys(VOCABULARY))}

    def special(name: str) -> dict[str, Any]:
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        return {"id": ids[name], "special": True, "content": name} | flags

    part = {
        "[CLS]": {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
        "[SEP]": {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
    }
    single = [part["[CLS]"], {"Sequence": {"id": "A", "type_id": 0}}, part["[SEP]"]]
    return {
        "version": "1.0",
        "truncation": {"max_length": 128, "strategy": "LongestFirst", "stride": 0},
        "padding": {
            "strategy": {"Fixed": 128},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "[PAD]",
        },
        "added_tokens": [special(name) for name in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": single,
            "pair": single,
            "special_tokens": {name: {"id": name, "ids": [ids[name]], "tokens": [name]} for name in ("[CLS]", "[SEP]")},
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": ids,
        },
    }


@pytest.fixture(scope="module")
def teacher(definition: dict[str, Any]) -> dict[str, torch.Tensor]:
    """MiniLM's shapes with two layers and random weights."""
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(definition["model"]["vocab"]),
        hidden_size=384,
        num_hidden_layers=2,
        num_attention_heads=12,
        intermediate_size=1536,
        max_position_embeddings=512,
        layer_norm_eps=1e-12,
    )
    model = BertModel(config)
    for parameter in model.parameters():
        parameter.data.mul_(3.0)  # the initial weights are so small that all sentences are alike
    return dict(model.state_dict())


TEXTS = ["a dog barking", "the dog barks in the rain", "rain and wind", "low piano note", "old drum sound", "a cat"]


def test_every_word_can_be_split_with_the_tokens_that_are_kept(definition: dict[str, Any]) -> None:
    kept = choose_tokens(definition, ["a dog barking", "rain"], 88)
    assert len(kept) == 88 and kept == sorted(kept, key=definition["model"]["vocab"].__getitem__)
    assert {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "dog", "bark", "##ing", "rain", *CHARACTERS} <= set(kept)
    assert not {"[unused0]", "é", "日", "##日"} & set(kept)
    pruned = Tokenizer.from_str(json.dumps(prune_tokenizer(definition, kept)))
    whole = Tokenizer.from_str(json.dumps(definition))
    whole.no_padding()
    assert pruned.encode("A dog barking.").tokens == whole.encode("A dog barking.").tokens
    assert pruned.encode("old piano").tokens == [
        "[CLS]",
        *["o", "##l", "##d", "p", "##i", "##a", "##n", "##o"],
        "[SEP]",
    ]
    assert pruned.encode("xylophone's é").ids.count(kept.index("[UNK]")) == 0
    assert pruned.encode("日").tokens == ["[CLS]", "[UNK]", "[SEP]"]


def test_all_tokens_are_kept_where_as_many_are_asked_for(definition: dict[str, Any]) -> None:
    vocabulary = definition["model"]["vocab"]
    assert choose_tokens(definition, [], len(vocabulary)) == sorted(vocabulary, key=vocabulary.__getitem__)


def test_with_all_layers_the_student_is_the_teacher(
    definition: dict[str, Any], teacher: dict[str, torch.Tensor]
) -> None:
    vocabulary = definition["model"]["vocab"]
    tokenizer = Tokenizer.from_str(
        json.dumps(prune_tokenizer(definition, sorted(vocabulary, key=vocabulary.__getitem__)))
    )
    student = build_student(teacher, Size((0, 1), 1536, 0), range(len(vocabulary)))
    original = BertModel(
        BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=384,
            num_hidden_layers=2,
            num_attention_heads=12,
            intermediate_size=1536,
            layer_norm_eps=1e-12,
        )
    )
    original.load_state_dict(teacher)
    original.eval()
    for text, vector in zip(TEXTS, embed_all(student, tokenizer, TEXTS), strict=True):
        ids = torch.tensor([tokenizer.encode(text).ids])
        with torch.inference_mode():
            mean = original(input_ids=ids).last_hidden_state[0].mean(dim=0)
        torch.testing.assert_close(vector, mean / mean.norm(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("whitened", [False, True])
def test_training_brings_the_student_nearer_and_repeats_to_the_bit_also_when_killed(
    definition: dict[str, Any],
    teacher: dict[str, torch.Tensor],
    whitened: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vocabulary = definition["model"]["vocab"]
    ordered = sorted(vocabulary, key=vocabulary.__getitem__)
    tokenizer = Tokenizer.from_str(json.dumps(prune_tokenizer(definition, ordered)))
    target_ND = embed_all(build_student(teacher, Size((0, 1), 1536, 0), range(len(ordered))), tokenizer, TEXTS)
    whiten = Whitening(target_ND.mean(dim=0), torch.eye(384)) if whitened else None
    monkeypatch.setattr(distil_text, "SAVED_EVERY", 5)
    real = torch.Tensor.backward

    def vectors_after(steps: int, state: Path | None = None, killed_at: int | None = None) -> torch.Tensor:
        student = build_student(teacher, Size((1,), 256, 0), range(len(ordered)))
        taken = 0

        def backward(loss: torch.Tensor) -> None:
            nonlocal taken
            taken += 1
            if taken == killed_at:
                raise KeyboardInterrupt
            real(loss)

        monkeypatch.setattr(torch.Tensor, "backward", backward)
        train(student, tokenizer, TEXTS, target_ND, steps, whiten=whiten, state=state, size=6)
        return embed_all(student, tokenizer, TEXTS)

    before, after = vectors_after(1), vectors_after(25)
    cosine = [float((vectors * target_ND).sum(dim=-1).mean()) for vectors in (before, after)]
    assert cosine[1] > cosine[0] + 0.02 and torch.equal(vectors_after(25), after)
    with pytest.raises(KeyboardInterrupt):
        vectors_after(25, tmp_path / "training.pt", killed_at=13)
    assert torch.load(tmp_path / "training.pt", weights_only=True)["done"] == 10
    assert torch.equal(vectors_after(25, tmp_path / "training.pt"), after)
    assert torch.equal(vectors_after(1, tmp_path / "training.pt"), before), "the state of another training is not used"


def test_phrases_become_clauses() -> None:
    clauses = {
        "a dog barking nearby": "a dog is barking nearby",
        "the whine of a mosquito": "the whine of a mosquito",
        "some birds singing": "some birds are singing",
        "an old car door closing": "an old car door is closing",
        "rain": "rain",
    }
    assert {text: as_clause(text) for text in clauses} == clauses


def test_measures_agree_with_a_plain_reading() -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (torch.nn.functional.normalize(torch.randn(30, 8, generator=generator), dim=-1) for _ in range(2))
    same, other = measure(ours, ours), measure(ours, theirs)
    assert same == pytest.approx({"cosine": 1.0, "spearman": 1.0, "neighbours@10": 1.0})
    pairs = [(i, j) for i in range(30) for j in range(i + 1, 30)]
    one, two = ([float(vectors[i] @ vectors[j]) for i, j in pairs] for vectors in (ours, theirs))
    ranks = [[sorted(values).index(value) for value in values] for values in (one, two)]
    assert other["spearman"] == pytest.approx(float(np.corrcoef(*ranks)[0, 1]), abs=1e-6)
    neighbours = [
        sorted((j for j in range(30) if j != i), key=lambda j: -float(vectors[i] @ vectors[j]))[:10]
        for vectors in (ours, theirs)
        for i in range(30)
    ]
    shared = [len(set(neighbours[i]) & set(neighbours[30 + i])) / 10 for i in range(30)]
    assert other["neighbours@10"] == pytest.approx(float(np.mean(shared)))
    swapped = torch.eye(4)[[1, 0, 2, 3]]
    assert paraphrase_recall(torch.eye(4), swapped) == {"paraphrase R@1": 0.5, "paraphrase R@10": 1.0}


def test_the_saved_folder_is_a_plain_bert(
    tmp_path: Path, definition: dict[str, Any], teacher: dict[str, torch.Tensor]
) -> None:
    kept = choose_tokens(definition, TEXTS, 100)
    pruned = prune_tokenizer(definition, kept)
    student = build_student(teacher, Size((0,), 512, 0), [definition["model"]["vocab"][token] for token in kept])
    save(tmp_path, student, pruned)
    loaded = BertModel.from_pretrained(tmp_path, add_pooling_layer=False, dtype=torch.float32)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    cosine_N = (embed_all(loaded, tokenizer, TEXTS) * embed_all(student, tokenizer, TEXTS)).sum(dim=-1)
    assert cosine_N.min() > 0.9999, "half precision"


def test_texts_are_distinct_phrases_and_the_seed_alone_decides() -> None:
    from random import Random

    singles = phrases()
    assert len(singles) > 900 and "a dog barking" in singles and not any(";" in text or ":" in text for text in singles)
    texts = compose(singles, ["rain", "dog", "piano", "door"], 3000, Random(3))
    assert len(texts) == len(set(texts)) == 3000 and texts == compose(
        singles, ["rain", "dog", "piano", "door"], 3000, Random(3)
    )
    assert not any("{" in text or "  " in text for text in texts)


def test_held_out_captions_are_never_learned(tmp_path: Path) -> None:
    table = tmp_path / "pairs.csv"
    lines = ["caption,extra_captions,ship,demo_held_out,caption_from"]
    lines += [f"a sound {n},noise number {n},true,false,name" for n in range(400)]
    lines += ["a secret,,true,true,name", "copyleft,,false,false,name"]
    table.write_text("\n".join(lines) + "\n")
    learned, held = captions_of(table)
    assert len(held) == 300 and not {caption for two in held for caption in two} & set(learned)
    assert len(learned) == 200 and "a secret" not in learned and "copyleft" not in learned
