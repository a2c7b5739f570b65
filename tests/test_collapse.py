"""Models that embed everything alike are warned of when texts are first embedded, by indexing, and by evaluation."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import openclap
from openclap import collapse
from openclap.checkpoints import huggingface
from openclap.cli import run
from openclap.collapse import mean_cosine, synthetic_sounds, warn_of_collapsed_audio, warn_of_collapsed_text
from openclap.errors import CheckpointWarning
from openclap.library import Library
from support.errors import check_message
from support.tiny_models import tiny_clap_model, tiny_roberta_tokenizer

LIMIT = collapse.LIMIT


@pytest.fixture(autouse=True)
def the_real_limit(no_warning_of_collapse: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collapse, "LIMIT", LIMIT)


@pytest.fixture
def collapsed(tmp_path: Path) -> Path:
    """A folder like the published conversion whose texts were all alike: a bias outweighs the text projection."""
    checkpoint = tiny_clap_model()
    checkpoint.weights["text_head.2.bias"].add_(100 * torch.ones(24))
    huggingface.write(checkpoint, tmp_path / "clap")
    tiny_roberta_tokenizer(tmp_path / "clap" / "tokenizer.json")
    return tmp_path / "clap"


def messages(caught: list[warnings.WarningMessage]) -> Iterator[str]:
    yield from (str(one.message) for one in caught if issubclass(one.category, CheckpointWarning))


def test_alike_texts_are_warned_of_once_before_the_first_text(collapsed: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # neither loading nor sounds say anything
        model = openclap.load(collapsed, device="cpu")
        model.embed_audio([(np.zeros(48000, np.float32), 48000)])
    with pytest.warns(CheckpointWarning) as caught:
        model.embed_text(["a dog"])
    [message] = messages(list(caught))
    check_message(message, "texts", "mean cosine", LIMIT, model.preset.name)
    assert float(message.partition("mean cosine ")[2][:6]) > LIMIT
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.embed_text(["a dog"])


def test_a_good_model_is_not_warned_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = openclap.load("mini", device="cpu")
        model.embed_text(["a dog"])
        warn_of_collapsed_audio(model)
    vectors_ND = model.runtime.embed_waves(synthetic_sounds(model.sample_rate, model.sample_rate))
    assert mean_cosine(vectors_ND) < 0.9
    assert mean_cosine(model.embed_text(collapse.TEXTS)) < 0.9


def test_untrained_towers_are_warned_of_when_an_index_gets_its_first_sounds(
    tiny_model: Path, sounds: Path, tmp_path: Path
) -> None:
    library = Library.open(tmp_path / "index", model=str(tiny_model))
    with pytest.warns(CheckpointWarning, match="unlike sounds"):
        library.add([sounds])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        library.add([sounds])


def test_evaluation_and_the_command_line_say_it_in_one_line_each(
    tiny_model: Path, tmp_path: Path, sounds: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = sorted(sounds.glob("*.wav"))[:2]
    table = tmp_path / "sounds.csv"
    table.write_text(f"file,caption\n{first},a dog\n{second},rain on the roof\n", encoding="utf-8")
    assert run(["eval", str(tiny_model), "--data", str(table)]) == 0
    notes = [line for line in capsys.readouterr().err.splitlines() if "almost alike" in line]
    assert len(notes) == 1 and "unlike sounds" in notes[0], notes


def test_the_mean_cosine_is_that_of_all_pairs() -> None:
    vectors_ND = np.random.default_rng(0).standard_normal((5, 8))
    vectors_ND /= np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    pairs = [vectors_ND[i] @ vectors_ND[j] for i in range(5) for j in range(i)]
    assert mean_cosine(vectors_ND) == pytest.approx(np.mean(pairs))


def test_a_model_on_the_verge_is_decided_by_the_limit(collapsed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = openclap.load(collapsed, device="cpu")
    cosine = mean_cosine(model.runtime.embed_texts(collapse.TEXTS, 4))
    monkeypatch.setattr(collapse, "LIMIT", cosine + 1e-7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_collapsed_text(model)
