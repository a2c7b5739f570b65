"""Any sequence-to-sequence model writes deterministic captions; those of the bundled model make sense."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from openclap.captions.keyword_to_caption import (
    BUNDLED,
    COMMON_GEN,
    MODEL,
    SETTINGS,
    GenerationSettings,
    KeywordCaptioner,
    coverage,
    distinct_keywords,
    is_faithful,
    load,
    stem,
)
from openclap.captions.makers import CaptioningCounts, augment, keywords_of
from openclap.captions.rules import sounds_of
from openclap.errors import CheckpointError, ConfigError
from openclap.sources.record import Record
from support.errors import raises_naming

WORDS = [("dog", "bark"), ("rain",), ("car horn", "street", "traffic"), ("rain",), ("wind", "leaves", "bird")]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in transformers' layout: T5 with fresh weights, and the bundled model's tokenizer."""
    import torch
    from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

    folder = tmp_path_factory.mktemp("seq2seq") / "tiny-t5"
    tokenizer = AutoTokenizer.from_pretrained(str(MODEL))
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=0
    )
    T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bundled() -> KeywordCaptioner:
    return load(BUNDLED)


def test_transformers_folder_writes_captions(tiny: Path) -> None:
    maker = load(str(tiny), settings=GenerationSettings(max_tokens=8), batch_size=2)
    made = maker.make([*WORDS, ()])
    assert made[1] == made[3]
    assert made[5] is None
    assert all(text is None or text.strip() for text in made)
    assert load(str(tiny), settings=GenerationSettings(max_tokens=8)).make([*WORDS, ()]) == made
    assert maker.name == "tiny-t5"
    assert maker.make([]) == []


def test_prompt_follows_the_settings(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maker = load(str(tiny), settings=GenerationSettings(prefix="say: ", separator=" | ", max_tokens=2))
    asked: list[str] = []
    inner: Any = maker._tokenizer

    class Spy:
        def __call__(self, prompts: Sequence[str], **options: Any) -> Any:
            asked.extend(prompts)
            return inner(prompts, **options)

        def batch_decode(self, *ids: Any, **options: Any) -> Any:
            return inner.batch_decode(*ids, **options)

    monkeypatch.setattr(maker, "_tokenizer", Spy())
    maker.make([("tree", "hole dig")])
    assert asked == ["say: tree | hole dig"]


def test_common_gen_model_is_prompted_as_its_card_says() -> None:
    form = SETTINGS[COMMON_GEN]
    assert form.prefix + form.separator.join(["tree", "plant", "ground", "hole", "dig"]) == "tree plant ground hole dig"
    assert form.max_tokens == 32


def test_identity_depends_on_weights_and_settings_only(tiny: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(tiny, moved)
    form = GenerationSettings(max_tokens=8)
    identity = load(str(tiny), settings=form).identity
    assert load(str(moved), settings=form).identity == identity
    assert load(str(moved), settings=GenerationSettings(max_tokens=9)).identity != identity
    config = json.loads((moved / "config.json").read_text(encoding="utf-8"))
    (moved / "config.json").write_text(json.dumps({**config, "note": 1}), encoding="utf-8")
    assert load(str(moved), settings=form).identity != identity


def test_second_run_is_served_from_the_cache(
    bundled: KeywordCaptioner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [Record("1", Path("a.wav"), (), "freesound", tags=words) for words in WORDS]
    cache = tmp_path / "captions.jsonl"
    first = list(augment(records, bundled, cache=cache))
    monkeypatch.setattr(bundled, "_model", None)
    seen: list[CaptioningCounts] = []
    assert list(augment(records, bundled, cache=cache, progress=seen.append)) == first
    assert seen == [CaptioningCounts(done=5, cached=5)]


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/folder", "no/such/folder", "nobody/no-such-model", "", "a b"])
def test_missing_model_is_one_sentence(name: str) -> None:
    with raises_naming(CheckpointError, name):
        load(name)


def test_unusable_folders_and_devices_are_refused(tiny: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with raises_naming(CheckpointError, empty):
        load(str(empty))
    torn = tmp_path / "torn"
    shutil.copytree(tiny, torn)
    weights = (torn / "model.safetensors").read_bytes()
    (torn / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with raises_naming(CheckpointError, torn):
        load(str(torn))
    with raises_naming(ConfigError, "'warp'"):
        load(str(tiny), device="warp")


def test_coverage() -> None:
    assert coverage(["dogs barking", "rain"], "A dog barks") == pytest.approx(2 / 3)
    assert coverage(["car"], "A cart rolls") == 0
    assert coverage([], "A dog") == 1
    assert {stem(word) for word in ("idle", "idles", "idling", "idled")} == {"idl"}
    assert {stem(word) for word in ("run", "runs", "running")} == {"run"}
    assert {stem(word) for word in ("cry", "cries", "crying", "cried")} == {"cri"}
    assert stem("bus") == stem("buses") == "bus"
    assert stem("sing") == stem("singing") == "sing"


def test_bundled_model_writes_sentences_with_the_keywords(bundled: KeywordCaptioner) -> None:
    keywords = [("dog", "bark"), ("water", "stream", "birds"), ("wolf", "howl"), ("engine", "car")]
    made = bundled.make(keywords)
    assert made == bundled.make(keywords)
    assert [bundled.make([each])[0] for each in keywords] == made
    for words, sentence in zip(keywords, made, strict=True):
        assert sentence is not None and len(sentence.split()) > len(words)
        assert sentence[0].isupper() and all(word[:3] in sentence.lower() for word in words), sentence


@pytest.mark.parametrize(
    ("tags", "sentence"),
    [
        (("zoom h4n", "field-recording", "24bit"), None),
        (("собака", "лай"), None),
        (("nan", "None"), None),
        (("x" * 500,), None),
        (("piano", "grand piano", "Piano"), "A piano is in the background"),
    ],
)
def test_tags_without_keywords_give_no_caption(
    bundled: KeywordCaptioner, tags: tuple[str, ...], sentence: str | None
) -> None:
    [made] = augment([Record("1", Path("a.wav"), (), "freesound", tags=tags)], bundled)
    assert (made and made.text) == sentence


POOR = (
    "zoom h4n",
    "<b>rain</b>",
    "water &amp; ice",
    "x" * 500,
    "собака",
    "nan",
    "http://x.org/a",
    "48khz",
    "#dog",
    "Dog",
)


def test_caption_uses_only_the_keywords_among_poor_tags(bundled: KeywordCaptioner) -> None:
    record = Record("1", Path("a.wav"), (), "freesound", tags=POOR)
    assert keywords_of(record) == ("rain", "water & ice", "собака", "dog")
    [made] = augment([record], bundled)
    assert made is not None
    words = {word.strip(".,").lower() for word in made.text.split()}
    assert len(made.text) < 100 and made.text.isascii() and {"rain", "water", "ice", "dog"} & words
    assert not {"h4n", "zoom", "nan", "48khz"} & words and "<" not in made.text


@pytest.mark.parametrize(
    ("keywords", "text", "true"),
    [
        (("piano",), "A piano is in the background as it is piano", False),
        (("piano",), "A piano plays", True),
        (("wind",), "Wind noise with a man speaking", False),
        (("man", "speech"), "A man is speaking", True),
        (("dog", "bark", "rain", "street"), "A dog", False),
        (("dog", "dog bark"), "A dog barks at a dog", True),
    ],
)
def test_is_faithful(keywords: tuple[str, ...], text: str, true: bool) -> None:
    assert is_faithful(keywords, text) is true


def test_every_caption_is_faithful_or_the_plain_sentence(bundled: KeywordCaptioner) -> None:
    tags = [("wind",), ("horn", "ferry", "ship", "sea"), ("crash or impact", "clunk", "metal", "breakdown"), ("voice",)]
    for words, made in zip(tags, bundled.make(tags), strict=True):
        assert made is not None and (made == sounds_of(words) or is_faithful(words, made)), made
        assert not made.endswith(",")


def test_redundant_keywords_are_dropped() -> None:
    assert distinct_keywords(("piano", "grand piano", "bird", "birds", "犬")) == ("grand piano", "bird")
    assert distinct_keywords(()) == ()
