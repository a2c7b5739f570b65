"""How the captioner's keywords are found and its sentences scored, against cases worked by hand."""

from __future__ import annotations

import math
from random import Random

import pytest
from caption_keywords import Habits, Vocabulary, content_words, hide, keywords
from caption_scores import bleu, cider

CAPTIONS = ["A dog barks loudly", "Dogs barking as a car horn honks", "A bus passes and a dog is barking"] * 3


def test_content_words_leave_out_what_says_nothing() -> None:
    assert content_words("A dog's bark, followed by the sound of rain") == ["dog's", "bark", "rain"]
    assert content_words("The and of") == []


def test_bare_forms_are_words_that_occur() -> None:
    bare = Vocabulary([*CAPTIONS, *["bark"] * 3]).bare
    assert {word: bare[word] for word in ("dogs", "barking", "barks", "bus", "passes", "honks")} == {
        "dogs": "dog", "barking": "bark", "barks": "bark", "bus": "bus", "passes": "passes", "honks": "honks",
    }  # fmt: skip


def test_keywords_are_all_there_when_nothing_is_dropped() -> None:
    vocabulary = Vocabulary(CAPTIONS)
    plain = Habits(join=0.0, bare=0.0, drop=0.0)
    assert sorted(keywords(CAPTIONS[1], vocabulary, Random(0), plain)) == ["barking", "car", "dogs", "honks", "horn"]
    joined = keywords(CAPTIONS[1], vocabulary, Random(0), Habits(join=1.0, bare=0.0, drop=0.0))
    assert sorted(joined) == ["car horn honks", "dogs barking"]
    assert keywords(CAPTIONS[1], vocabulary, Random(0), Habits(drop=1.0)) != []
    assert keywords("The and of", vocabulary, Random(0), plain) == []


def test_the_seed_alone_decides() -> None:
    vocabulary = Vocabulary(CAPTIONS)
    first, again, other = (
        [keywords(caption, vocabulary, random, Habits()) for caption in CAPTIONS]
        for random in (Random(1), Random(1), Random(2))
    )
    assert first == again != other


def test_placeholders_match_in_prompt_and_caption() -> None:
    hidden = {"barking": "<3>", "car": "<0>"}
    assert hide("Dogs Barking as a car honks, barking", hidden) == "Dogs <3> as a <0> honks, <3>"
    found = keywords(CAPTIONS[1], Vocabulary(CAPTIONS), Random(0), Habits(join=0.0, bare=1.0, drop=1.0), hidden)
    assert sorted(found) == ["<0>", "<3>"]


def test_bleu_by_hand() -> None:
    made, references = ["the the the cat"], ["The cat sat on the mat"]
    # "the" counts twice, as in the reference, "cat" once: 3 of 4; two words, "the cat", 1 of 3; brevity exp(1 - 6/4)
    assert bleu(made, references, 1) == pytest.approx(3 / 4 * math.exp(-0.5))
    assert bleu(made, references, 2) == pytest.approx(math.sqrt(3 / 4 * 1 / 3) * math.exp(-0.5))
    assert bleu(made, references, 3) == 0.0
    assert bleu(references, references, 4) == pytest.approx(1.0)
    assert bleu(["a b c d e"], ["a b c d"], 1) == pytest.approx(4 / 5)  # longer is not made up for


def test_cider_by_hand() -> None:
    # Of two references, words that both hold weigh log(2/2) = 0, the others log 2.
    references = ["a dog barks", "a cat purrs"]
    # One word long: "dog" and "barks" against "dog" alone, cosine 1/√2. Two words: ("a dog", "dog barks") against
    # ("a dog",), 1/√2. Longer: nothing. A word too few: exp(-1/72). The second sentence is right up to 3 words long.
    first = 2 / math.sqrt(2) * math.exp(-1 / 72)
    assert cider(["a dog", "a cat purrs"], references) == pytest.approx(10 * (first + 3) / 4 / 2)
    assert cider(["a", "b"], references) == 0.0


def test_repetition_does_not_raise_cider() -> None:
    references = ["a dog barks", "a cat purrs"]
    assert cider(["dog dog dog", "a cat purrs"], references) < cider(["a dog sits", "a cat purrs"], references)
