"""Probes that train networks: LAION-CLAP's heads, and the audio tower, on miniatures."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import openclap
from openclap.cli import run
from openclap.errors import AudioError, CheckpointError, ConfigError, LockedError, TrainingError
from openclap.evals.cached_embedder import CachedEmbedder, open_cached
from openclap.evals.dataset import clips_of_task
from openclap.evals.network_probes import UNNORMALISED, UnnormalisedEmbedder, fine_tune
from openclap.evals.probing import ProbeInput, label_clips, score
from openclap.evals.result_tables import table_of
from openclap.evals.runner import run_suite
from openclap.evals.suites import SUPERVISED, read_suite
from openclap.evals.tasks import PROBES, Task
from openclap.locks import only_writer
from support import miniatures
from support.errors import raises_naming
from support.evals_helpers import separable_embeddings

TASKS = {task.name: task for task in SUPERVISED}


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sets")
    miniatures.fsd50k(root / "fsd50k", clips=16)
    miniatures.vggsound(root / "vggsound", clips=16)
    return root


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> CachedEmbedder:
    return open_cached("tiny", partial(openclap.load, tiny_model), tmp_path / "cache")


def probe_input(task: Task, model: CachedEmbedder, sets: Path, epochs: int = 12) -> ProbeInput:
    found = clips_of_task(task, sets)
    assert found.train is not None
    train = label_clips(task, model.embed_clips(found.train), found.classes)
    valid = label_clips(task, model.embed_clips(found.valid), found.classes) if found.valid else None
    return ProbeInput(train, valid, multilabel=task.multilabel, model=model, epochs=epochs)


@pytest.fixture
def quick_to_train(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rate and batches that train a tiny network in few steps."""
    monkeypatch.setattr("openclap.evals.network_probes.RATES", (2e-3,))
    monkeypatch.setattr("openclap.evals.network_probes.BATCH", 6)
    monkeypatch.setattr("openclap.evals.network_probes.PATIENCE", 0)


@pytest.mark.usefixtures("quick_to_train")
@pytest.mark.parametrize("name", ["VGGSound, fine-tuned", "FSD50K, fine-tuned"])
def test_fine_tuning_learns_and_leaves_the_model_unchanged(
    tiny_swin: Path, sets: Path, tmp_path: Path, name: str
) -> None:
    task, epochs_done = TASKS[name], []
    model = open_cached("swin", partial(openclap.load, tiny_swin), tmp_path)
    model.progress = lambda *what: epochs_done.append(what)
    data, before = probe_input(task, model, sets, epochs=40), model.embedder.digest()  # type: ignore[attr-defined]
    epochs_done.clear()
    scorer, sentence = fine_tune(data)
    train, _ = data.with_validation()
    assert score(train, scorer, task.multilabel) > train.truth_PC.mean() + 0.2
    assert "of 40 epochs, chosen on" in sentence and "learning rate 0.002" in sentence
    assert epochs_done[-1] == (f"Training on {name} train", 40, 40)
    assert model.embedder.digest() == before and not model.embedder.clap.training  # type: ignore[attr-defined]


@pytest.mark.usefixtures("quick_to_train")
def test_the_same_seed_gives_the_same_tower(model: CachedEmbedder, sets: Path) -> None:
    data = probe_input(TASKS["FSD50K, fine-tuned"], model, sets, epochs=3)
    first, again, other = (
        fine_tune(each)[0](data.train.clips, data.train.embedding_PD)
        for each in (data, replace(data, model=uncached(model)), replace(data, seed=1))
    )
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


@pytest.mark.usefixtures("quick_to_train")
def test_fine_tuning_resumes_and_a_finished_tower_is_reused(model: CachedEmbedder, sets: Path) -> None:
    data, epochs_done = probe_input(TASKS["FSD50K, fine-tuned"], model, sets, epochs=5), list[int]()
    whole, sentence = fine_tune(replace(data, model=uncached(model)))
    assert model.cache is not None

    def stop_at(last: int) -> None:
        def progress(what: str, done: int, total: int) -> None:
            epochs_done.append(done)
            if done == last:
                raise KeyboardInterrupt

        model.progress = progress
        epochs_done.clear()

    for last in (1, 3):
        stop_at(last)
        with pytest.raises(KeyboardInterrupt):
            fine_tune(data)
        assert epochs_done[-1] == last
    stop_at(0)
    scorer, again = fine_tune(data)
    assert epochs_done == [4, 5] and again == sentence
    (tuned_folder,) = model.cache.file.folder.glob("tuned-*")
    assert {path.suffix for path in tuned_folder.iterdir()} <= {".pt", ".json", ".lock", ""} and not (
        tuned_folder / "checkpoints"
    ).exists()
    epochs_done.clear()
    for each in (scorer, fine_tune(data)[0]):
        clips, embeddings = data.train.clips, data.train.embedding_PD
        np.testing.assert_array_equal(each(clips, embeddings), whole(clips, embeddings))
    assert not epochs_done
    with only_writer(tuned_folder), pytest.raises(LockedError):
        fine_tune(data)
    for damage in (b"no weights", b"junk\n", b""):
        next(tuned_folder.glob("best-*.pt")).write_bytes(damage)
        with raises_naming(CheckpointError, tuned_folder):
            fine_tune(data)
    fine_tune(replace(data, epochs=4))
    assert len(list(model.cache.file.folder.glob("tuned-*"))) == 2


def uncached(model: CachedEmbedder) -> CachedEmbedder:
    return CachedEmbedder(model.name, model.embedder)


def test_patience_ends_fine_tuning_and_the_best_epoch_answers(
    model: CachedEmbedder, sets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openclap.evals.network_probes.RATES", (0.0,))
    epochs_done: list[int] = []
    model.progress = lambda what, done, total: epochs_done.append(done)
    data = probe_input(TASKS["VGGSound, fine-tuned"], model, sets, epochs=30)
    epochs_done.clear()
    _, sentence = fine_tune(data)
    assert epochs_done == list(range(1, 11)) and "0 of 30 epochs" in sentence


def test_fine_tuning_without_a_model_is_refused(model: CachedEmbedder, sets: Path) -> None:
    with raises_naming(ConfigError, "ProbeInput"):
        fine_tune(replace(probe_input(TASKS["VGGSound, fine-tuned"], model, sets), model=None))
    with raises_naming(ConfigError, "object"):
        UnnormalisedEmbedder(object())  # type: ignore[arg-type]


def test_unnormalised_embeddings_are_those_before_normalisation(model: CachedEmbedder, tmp_path: Path) -> None:
    short, bad = miniatures.put(tmp_path / "short.wav", "dog"), tmp_path / "bad.wav"
    bad.write_bytes(b"no sound")
    rng = np.random.default_rng(0)
    long = (0.2 * rng.standard_normal(24_000)).astype(np.float32)  # three inputs of the model
    raw = UnnormalisedEmbedder(model.embedder)
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


def test_unnormalised_embeddings_have_a_cache_of_their_own(model: CachedEmbedder, sets: Path) -> None:
    clips = clips_of_task(TASKS["VGGSound, LAION's linear probe"], sets).test
    raw = model.with_embedder(UnnormalisedEmbedder, UNNORMALISED)
    unit, before = model.embed_clips(clips).embedding_ND, raw.embed_clips(clips).embedding_ND
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, atol=1e-5)
    assert not np.allclose(np.linalg.norm(before, axis=1), 1, atol=1e-2)
    np.testing.assert_array_equal(
        model.with_embedder(UnnormalisedEmbedder, UNNORMALISED).embed_clips(clips).embedding_ND, before
    )
    assert model.cache is not None and raw.cache is not None and model.cache.identity != raw.cache.identity


@pytest.mark.parametrize("name", ["laion_linear", "laion_mlp"])
@pytest.mark.parametrize("multilabel", [False, True])
def test_laion_heads_learn(monkeypatch: pytest.MonkeyPatch, name: str, multilabel: bool) -> None:
    monkeypatch.setattr("openclap.evals.network_probes.RATES", (1e-2,))
    train, valid, test = (separable_embeddings(seed, rows, multilabel) for seed, rows in ((0, 120), (1, 40), (2, 60)))
    scorer, sentence = PROBES[name].fit(ProbeInput(train, valid, multilabel=multilabel))
    answers = scorer(test.clips, test.embedding_PD)
    assert score(test, scorer, multilabel) > 0.6 and answers.shape == (60, 4)
    assert ("hidden" in sentence) == (name == "laion_mlp") and "chosen on part 1" in sentence
    np.testing.assert_array_equal(
        PROBES[name].fit(ProbeInput(train, valid, multilabel=multilabel))[0](test.clips, test.embedding_PD), answers
    )


def test_a_non_finite_loss_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    train = separable_embeddings(0, 40, False)
    broken = replace(train, embedding_PD=np.full_like(train.embedding_PD, np.inf))
    with raises_naming(TrainingError, "part 0", "epoch 1", 0.0001):
        PROBES["laion_mlp"].fit(ProbeInput(broken, train, multilabel=False))


def test_supervised_suite_runs_every_task(model: CachedEmbedder, sets: Path) -> None:
    table = run_suite("supervised", [replace(task, epochs=2) for task in SUPERVISED], [model], sets)
    assert table.skipped == {} and {row.task for row in table.rows} == set(TASKS)
    published = {row.task: row.published[0].value for row in table.rows if row.published}
    assert published["FSD50K, fine-tuned"] == 64.9 and published["VGGSound, fine-tuned"] == 75.4
    protocol = {row.task: row.protocol for row in table.rows}
    assert "the audio tower is trained" in protocol["FSD50K, fine-tuned"]
    assert "before L2 normalisation" in protocol["VGGSound, LAION's linear probe"]
    assert not any("normalised" in each for each in protocol.values())
    again = run_suite("supervised", [replace(task, epochs=2) for task in SUPERVISED], [model], sets)
    assert [row[:-1] for row in table_of(again)] == [row[:-1] for row in table_of(table)]


def test_a_suite_file_fine_tunes_over_folds(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    miniatures.esc50(tmp_path / "esc50", folds=3)
    suite = tmp_path / "suite.toml"
    suite.write_text(
        '[[task]]\nname = "kinds"\nkind = "probe"\nsource = "esc50"\nfolder = "esc50"\nfolds = 3\n'
        'probe = "fine_tune"\nepochs = 1\n'
    )
    assert run(["eval", str(tiny_model), "--suite", str(suite)]) == 0
    message = capsys.readouterr()
    assert "accuracy" in message.out and "The audio tower and its head" in message.err
    suite.write_text(suite.read_text().replace("epochs = 1", "epochs = 0"))
    with raises_naming(ConfigError, "epochs", 0):
        read_suite(suite)
