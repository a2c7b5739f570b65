from __future__ import annotations

import pickle
from pathlib import Path

from openclap.errors import CheckpointError, ConfigError, MissingTokenizerError
from openclap.text.prompts import alternatives, prompts
from openclap.text.tokenizer import Tokenizer
from support.errors import raises_naming
from support.tiny_models import tiny_tokenizer


def test_a_batch_is_padded_to_its_longest_caption() -> None:
    batch = tiny_tokenizer()(["a wolf howling", "rain"])
    assert batch.ids_BL.shape == (2, 5)
    assert batch.mask_BL.tolist() == [[1] * 5, [1, 1, 1, 0, 0]]


def test_long_captions_are_cut() -> None:
    assert tiny_tokenizer()(["rain " * 100]).ids_BL.shape == (1, 16)


def test_it_travels_to_other_processes() -> None:
    ours = tiny_tokenizer()
    theirs: Tokenizer = pickle.loads(pickle.dumps(ours))
    assert theirs(["a dog"]).ids_BL.tolist() == ours(["a dog"]).ids_BL.tolist()
    assert theirs(["rain " * 100]).ids_BL.shape == (1, 16)


def test_missing_and_damaged_tokenizers_are_refused(tmp_path: Path) -> None:
    with raises_naming(MissingTokenizerError, tmp_path / "tokenizer.json"):
        Tokenizer.read(tmp_path / "tokenizer.json", 16)
    (tmp_path / "tokenizer.json").write_text("{ not json", encoding="utf-8")
    with raises_naming(CheckpointError, tmp_path / "tokenizer.json"):
        Tokenizer.read(tmp_path / "tokenizer.json", 16)


def test_prompts() -> None:
    assert prompts(["dog_bark"]) == ["This is a sound of dog bark."]
    assert prompts(["jazz"], "This is a {} song.") == ["This is a jazz song."]
    with raises_naming(ConfigError):
        prompts([])
    with raises_naming(ConfigError, "'a dog'", "{}"):
        prompts(["dog"], "a dog")


def test_alternatives_of_a_label() -> None:
    assert alternatives("cat, dog or other mammal") == ["cat", "dog", "mammal"]
    assert alternatives("horn, trumpet, or whistle") == ["horn", "trumpet", "whistle"]
    assert alternatives("door_bell") == ["door bell"] and alternatives("organ") == ["organ"]
    assert alternatives(" , ") == [" , "]
