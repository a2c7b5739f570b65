"""What learns labels by training networks: LAION-CLAP's heads, and the whole audio tower, on miniatures."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import miniatures
import numpy as np
import pytest
import torch
from evals_helpers import vectors_that_tell

import openclap
from openclap.cli import run
from openclap.errors import AudioError, CheckpointError, ConfigError, DataError, TrainingError
from openclap.evals.asked import _part
from openclap.evals.bench import run_suite
from openclap.evals.bench_table import rows_of
from openclap.evals.collected import collect
from openclap.evals.hearing import Listener, open_listener
from openclap.evals.learners import LEARNERS
from openclap.evals.lesson import Lesson, figure, lesson
from openclap.evals.raw import RAW, RawEmbedder
from openclap.evals.supervised import fine_tune
from openclap.evals.tasks import LEARNERS as TOLD
from openclap.evals.tasks import SUPERVISED, Task, read_suite
from openclap.locks import only_writer

TASKS = {task.name: task for task in SUPERVISED}


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sets")
    miniatures.fsd50k(root / "fsd50k", clips=16)
    miniatures.vggsound(root / "vggsound", clips=16)
    return root


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Listener:
    return open_listener("tiny", partial(openclap.load, tiny_model), tmp_path / "cache")


def to_learn(task: Task, model: Listener, sets: Path, epochs: int = 12) -> Lesson:
    found = collect(task, sets)
    assert found.train is not None
    train = _part(task, model.hear(found.train), found.classes)
    valid = _part(task, model.hear(found.valid), found.classes) if found.valid else None
    return lesson(train, valid, many=task.many, listener=model, epochs=epochs)


@pytest.fixture
def quick_to_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rate and batches with which a tiny network learns in few steps."""
    monkeypatch.setattr("openclap.evals.supervised.RATES", (2e-3,))
    monkeypatch.setattr("openclap.evals.supervised.BATCH", 6)
    monkeypatch.setattr("openclap.evals.supervised.PATIENCE", 0)


@pytest.mark.usefixtures("quick_to_learn")
@pytest.mark.parametrize("name", ["VGGSound, fine-tuned", "FSD50K, fine-tuned"])
def test_the_tower_learns_and_the_model_stays_as_it_is(tiny_swin: Path, sets: Path, tmp_path: Path, name: str) -> None:
    task, told = TASKS[name], []
    model = open_listener("swin", partial(openclap.load, tiny_swin), tmp_path)
    model.progress = lambda *what: told.append(what)
    wanted, before = to_learn(task, model, sets, epochs=40), model.embedder.digest()  # type: ignore[attr-defined]
    told.clear()
    scorer, sentence = fine_tune(wanted)
    chance = wanted.train.truth_PC.mean()
    assert figure(wanted.train, scorer, task.many) > chance + 0.2
    assert "of 40 epochs, chosen on" in sentence and "learning rate 0.002" in sentence
    assert told[-1] == (f"Learning {name} train", 40, 40)
    assert model.embedder.digest() == before and not model.embedder.clap.training  # type: ignore[attr-defined]


@pytest.mark.usefixtures("quick_to_learn")
def test_the_same_seed_gives_the_same_tower(model: Listener, sets: Path) -> None:
    wanted = to_learn(TASKS["FSD50K, fine-tuned"], model, sets, epochs=3)
    first, again, other = (
        fine_tune(each)[0](wanted.valid.clips, wanted.valid.vectors_PD)
        for each in (wanted, replace(wanted, listener=forgetful(model)), replace(wanted, seed=1))
    )
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


@pytest.mark.usefixtures("quick_to_learn")
def test_a_tower_goes_on_where_it_was_stopped_and_is_not_taught_again(model: Listener, sets: Path) -> None:
    wanted, told = to_learn(TASKS["FSD50K, fine-tuned"], model, sets, epochs=5), list[int]()
    whole, sentence = fine_tune(replace(wanted, listener=forgetful(model)))
    assert model.cache is not None

    def stop_at(last: int) -> None:
        def progress(what: str, done: int, total: int) -> None:
            told.append(done)
            if done == last:
                raise KeyboardInterrupt

        model.progress = progress
        told.clear()

    for last in (1, 3):
        stop_at(last)
        with pytest.raises(KeyboardInterrupt):
            fine_tune(wanted)
        assert told[-1] == last
    stop_at(0)
    scorer, again = fine_tune(wanted)
    assert told == [4, 5] and again == sentence
    (kept,) = model.cache.path.parent.glob("taught-*")
    assert {path.suffix for path in kept.iterdir()} <= {".pt", ".json", ".lock", ""}
    assert not (kept / "checkpoints").exists()
    told.clear()
    for each in (scorer, fine_tune(wanted)[0]):
        clips, vectors = wanted.valid.clips, wanted.valid.vectors_PD
        np.testing.assert_array_equal(each(clips, vectors), whole(clips, vectors))
    assert not told
    with only_writer(kept), pytest.raises(DataError, match="another process is writing"):
        fine_tune(wanted)
    for damage in (b"no weights", b"junk\n", b""):
        next(kept.glob("best-*.pt")).write_bytes(damage)
        with pytest.raises(CheckpointError, match="Delete the folder"):
            fine_tune(wanted)
    fine_tune(replace(wanted, epochs=4))
    assert len(list(model.cache.path.parent.glob("taught-*"))) == 2


def forgetful(model: Listener) -> Listener:
    return Listener(model.name, model.embedder)


def test_no_better_epochs_end_it_and_what_answers_is_the_best(
    model: Listener, sets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openclap.evals.supervised.RATES", (0.0,))
    told: list[int] = []
    model.progress = lambda what, done, total: told.append(done)
    wanted = to_learn(TASKS["VGGSound, fine-tuned"], model, sets, epochs=30)
    told.clear()
    _, sentence = fine_tune(wanted)
    assert told == list(range(1, 11)) and "0 of 30 epochs" in sentence


def test_a_lesson_without_a_model_is_refused(model: Listener, sets: Path) -> None:
    with pytest.raises(ConfigError, match="no model to fine-tune"):
        fine_tune(replace(to_learn(TASKS["VGGSound, fine-tuned"], model, sets), listener=None))
    with pytest.raises(ConfigError, match="has no networks to reach"):
        RawEmbedder(object())  # type: ignore[arg-type]


def test_raw_vectors_are_those_before_they_are_made_unit_vectors(model: Listener, tmp_path: Path) -> None:
    short, bad = miniatures.put(tmp_path / "short.wav", "dog"), tmp_path / "bad.wav"
    bad.write_bytes(b"no sound")
    rng = np.random.default_rng(0)
    long = (0.2 * rng.standard_normal(24_000)).astype(np.float32)  # three inputs of the model
    raw = RawEmbedder(model.embedder)
    one, error, many = raw.embed_each([short, bad, (long, 16_000)], batch_size=2)
    assert isinstance(error, AudioError) and not isinstance(one, AudioError) and not isinstance(many, AudioError)
    unit = model.embedder.embed_audio([short])[0]
    assert abs(np.linalg.norm(one) - 1) > 1e-3
    np.testing.assert_allclose(one / np.linalg.norm(one), unit, atol=1e-5)
    clap, frontend = raw.embedder.clap, raw.embedder.frontend
    with torch.inference_mode():
        batch = frontend([long[start : start + 8000] for start in (0, 8000, 16_000)])
        mean = clap.audio_head(clap.audio_tower(batch)).mean(0).numpy()
    np.testing.assert_allclose(many, mean, atol=1e-5)


def test_raw_vectors_are_kept_apart(model: Listener, sets: Path) -> None:
    clips = collect(TASKS["VGGSound, LAION's linear probe"], sets).test
    raw = model.changed(RawEmbedder, RAW)
    unit, before = model.hear(clips).vectors_ND, raw.hear(clips).vectors_ND
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, atol=1e-5)
    assert not np.allclose(np.linalg.norm(before, axis=1), 1, atol=1e-2)
    np.testing.assert_array_equal(model.changed(RawEmbedder, RAW).hear(clips).vectors_ND, before)
    assert model.cache is not None and raw.cache is not None and model.cache.path != raw.cache.path


@pytest.mark.parametrize("name", ["laion_linear", "laion_mlp"])
@pytest.mark.parametrize("many", [False, True])
def test_laions_heads_learn(monkeypatch: pytest.MonkeyPatch, name: str, many: bool) -> None:
    monkeypatch.setattr("openclap.evals.supervised.RATES", (1e-2,))
    train, valid, test = (vectors_that_tell(seed, rows, many) for seed, rows in ((0, 120), (1, 40), (2, 60)))
    scorer, sentence = LEARNERS[name](lesson(train, valid, many=many))
    score = scorer(test.clips, test.vectors_PD)
    assert figure(test, scorer, many) > 0.6 and score.shape == (60, 4)
    assert ("hidden" in sentence) == (name == "laion_mlp") and "chosen on part 1" in sentence
    np.testing.assert_array_equal(
        LEARNERS[name](lesson(train, valid, many=many))[0](test.clips, test.vectors_PD), score
    )


def test_a_loss_that_is_no_number_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    train = vectors_that_tell(0, 40, False)
    broken = replace(train, vectors_PD=np.full_like(train.vectors_PD, np.inf))
    with pytest.raises(TrainingError, match=r"part 0: in epoch 1 the loss is (nan|inf), at a learning rate of 0.0001"):
        LEARNERS["laion_mlp"](lesson(broken, train, many=False))


def test_the_supervised_suite_is_whole(model: Listener, sets: Path) -> None:
    table = run_suite("supervised", [replace(task, epochs=2) for task in SUPERVISED], [model], sets)
    assert table.missing == {} and {row.task for row in table.rows} == set(TASKS)
    published = {row.task: row.published[0].value for row in table.rows if row.published}
    assert published["FSD50K, fine-tuned"] == 64.9 and published["VGGSound, fine-tuned"] == 75.4
    protocol = {row.task: row.protocol for row in table.rows}
    assert "the audio tower is trained" in protocol["FSD50K, fine-tuned"]
    assert "before L2 normalisation" in protocol["VGGSound, LAION's linear probe"]
    assert not any("normalised" in each for each in protocol.values())
    again = run_suite("supervised", [replace(task, epochs=2) for task in SUPERVISED], [model], sets)
    assert [row[:-1] for row in rows_of(again)] == [row[:-1] for row in rows_of(table)]


def test_every_learner_has_words_for_its_protocol() -> None:
    assert set(LEARNERS) == set(TOLD)


def test_a_file_asks_for_fine_tuning_over_folds(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    miniatures.esc50(tmp_path / "esc50", folds=3)
    suite = tmp_path / "suite.toml"
    suite.write_text(
        '[[task]]\nname = "kinds"\nkind = "probe"\nsource = "esc50"\nfolder = "esc50"\nfolds = 3\n'
        'learner = "fine_tune"\nepochs = 1\n'
    )
    assert run(["eval", str(tiny_model), "--suite", str(suite)]) == 0
    said = capsys.readouterr()
    assert "accuracy" in said.out and "The audio tower and its head" in said.err
    suite.write_text(suite.read_text().replace("epochs = 1", "epochs = 0"))
    with pytest.raises(ConfigError, match="epochs is 0"):
        read_suite(suite)
