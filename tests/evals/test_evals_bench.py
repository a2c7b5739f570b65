"""The suite of the papers, whole, on miniatures of the published sets, with a small real model."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import miniatures
import numpy as np
import polars
import pytest
import soundfile
from evals_helpers import vectors_that_tell, write_split
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

import openclap
from openclap.cli import run
from openclap.data.decode import facts_of
from openclap.errors import ConfigError, DataError
from openclap.evals.bench import Table, run_suite
from openclap.evals.bench_report import write_suite_report
from openclap.evals.bench_table import compared, published_of, rows_of, to_json, to_markdown
from openclap.evals.bootstrap import paired_difference
from openclap.evals.collected import collect
from openclap.evals.decontamination import trained_on
from openclap.evals.hearing import Listener, open_listener
from openclap.evals.learners import LEARNERS
from openclap.evals.lesson import lesson
from openclap.evals.metrics import retrieval_measures
from openclap.evals.ranks import TIE, rank_retrieval
from openclap.evals.tagging import tag, tagging_measures
from openclap.evals.tasks import PAPER, Task, read_suite
from openclap.models.build import build_clap
from openclap.pages.render import write

TASKS = {task.name: task for task in PAPER}


@pytest.fixture(scope="session")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return miniatures.all_sets(tmp_path_factory.mktemp("sets"))


@pytest.fixture(scope="session")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    from openclap.checkpoints import openclap_folder
    from tiny import PRESET, make_tokenizer

    place = tmp_path_factory.mktemp("other") / "model"
    torch.manual_seed(1)
    openclap_folder.save(place, build_clap(PRESET), PRESET, make_tokenizer())
    return place


def listener(model: Path, home: Path, name: str = "tiny", **choices: Any) -> Listener:
    return open_listener(name, partial(openclap.load, model), home, **choices)


@pytest.fixture(scope="session")
def paper(tiny_model: Path, other_model: Path, sets: Path, tmp_path_factory: pytest.TempPathFactory) -> Table:
    home = tmp_path_factory.mktemp("cache")
    tasks = [replace(task, epochs=3) for task in PAPER]
    return run_suite("paper", tasks, [listener(tiny_model, home), listener(other_model, home, "other")], sets)


def words(table: Table) -> list[tuple[str, ...]]:
    """The table without how long it took."""
    return [row[:-1] for row in rows_of(table)]


def test_the_paper_suite_is_whole(paper: Table) -> None:
    assert paper.missing == {} and paper.lost == ()
    assert {row.task for row in paper.rows} == set(TASKS)
    value = {(row.task, row.metric): row for row in paper.rows if row.model == "tiny"}
    assert value["Clotho", "text_to_audio_R@1"].published[0].value == 17.2
    assert value["ESC-50", "accuracy"].published[0].value == 89.1
    assert value["FSD50K, linear probe", "mAP"].published[0].value == 64.9
    assert "5 folds averaged" in value["ESC-50", "accuracy"].protocol
    assert "This is a {} song." in value["GTZAN", "accuracy"].protocol
    assert all("Windows of 0.50 s" in row.protocol for row in paper.rows)
    for row in paper.rows:
        assert row.estimate.low <= row.estimate.value <= row.estimate.high and len(row.data_hash) == 64


def test_retrieval_equals_the_bare_metrics(paper: Table, tiny_model: Path, sets: Path) -> None:
    model, clips = openclap.load(tiny_model), collect(TASKS["Clotho"], sets).test.clips
    audio = model.embed_audio([clip.path for clip in clips])
    text = model.embed_text([caption for clip in clips for caption in clip.captions])
    ranks = rank_retrieval(audio.astype(np.float64) @ text.T, np.repeat(np.arange(len(clips)), 5), tie=TIE)
    wanted = {name: measure.value for name, measure in retrieval_measures(ranks).items()}
    ours = {row.metric: row.estimate.value for row in paper.rows if (row.model, row.task) == ("tiny", "Clotho")}
    assert ours == pytest.approx(wanted | {name: ours[name] for name in ours if name.endswith("MRR")})


def test_zero_shot_and_tagging_equal_working_by_hand(paper: Table, tiny_model: Path, sets: Path) -> None:
    model = openclap.load(tiny_model)
    ours = {(row.task, row.metric): row.estimate.value for row in paper.rows if row.model == "tiny"}
    found = collect(TASKS["UrbanSound8K"], sets)
    score = model.embed_audio([clip.path for clip in found.test.clips]) @ model.embed_text(
        [f"This is a sound of {label}." for label in found.classes]
    ).T  # fmt: skip
    right = np.array([found.classes[score[n].argmax()] == clip.label for n, clip in enumerate(found.test.clips)])
    fold = np.array([clip.fold for clip in found.test.clips])
    assert ours["UrbanSound8K", "accuracy"] == pytest.approx(np.mean([right[fold == f].mean() for f in set(fold)]))
    found = collect(TASKS["FSD50K"], sets)
    assert found.classes == ("Animal", "Bell", "Dog", "Rain", "Wolf")
    score = model.embed_audio([clip.path for clip in found.test.clips]) @ model.embed_text(
        [f"This is a sound of {label}." for label in found.classes]
    ).T  # fmt: skip
    truth = np.array([[label in clip.tags for label in found.classes] for clip in found.test.clips])
    for metric, measure in tagging_measures(tag(score.astype(np.float64), truth, tie=TIE)).items():
        assert ours["FSD50K", metric] == pytest.approx(measure.value)


def test_outputs_say_the_same(paper: Table, tmp_path: Path) -> None:
    record = json.loads(to_json(paper))
    assert len(record["figures"]) == len(paper.rows) and record["figures"][0]["published"][0]["value"] == 0.362
    by_task = {each["task"]: each["classes"] for each in record["classes"] if each["model"] == "tiny"}
    assert [row["label"] for row in by_task["FSD50K"]] == ["Animal", "Bell", "Dog", "Rain", "Wolf"]
    assert sum(row["clips"] for row in by_task["ESC-50"]) == 20 and by_task["ESC-50"][0]["recall"] <= 1
    markdown = to_markdown(paper)
    assert "| tiny | Clotho | text→audio R@1 |" in markdown and "VAST" in markdown and "## Models in pairs" in markdown
    assert any("MTEB's board" in line for line in published_of(paper))
    assert "-0.0" not in {cell for row in [*rows_of(paper), *compared(paper)] for cell in row}
    page = write_suite_report(tmp_path / "page.html", paper).read_text(encoding="utf-8")
    assert "The hardest for tiny" in page and page.count("<audio") > 5 and "Calibration error" in page
    assert "<script" not in page and len(page) < 6_000_000


def test_a_second_run_embeds_nothing_and_says_the_same(tiny_model: Path, sets: Path, tmp_path: Path) -> None:
    tasks = [TASKS["ESC-50"], TASKS["Clotho"], TASKS["FSD50K, linear probe"]]
    first = run_suite("three", tasks, [listener(tiny_model, tmp_path, batch_size=1)], sets)
    again = listener(tiny_model, tmp_path, batch_size=64)
    again.embedder = _Deaf(again.embedder)
    assert words(run_suite("three", tasks, [again], sets)) == words(first)
    fresh = run_suite("three", tasks, [listener(tiny_model, tmp_path / "other", batch_size=64)], sets)
    assert words(fresh) == words(first)


class _Deaf:
    """A model that may say who it is, and embed nothing."""

    def __init__(self, model: Any) -> None:
        self.tokenizer, self.clip_policy, self.clap = model.tokenizer, model.clip_policy, model.clap

    def embed_each(self, sounds: Sequence[Any], batch_size: int) -> Iterator[Any]:
        raise AssertionError("was asked to embed sounds")

    def embed_text(self, texts: Sequence[str]) -> Any:
        raise AssertionError("was asked to embed texts")


@pytest.mark.long
def test_two_processes_give_the_same_table(tiny_model: Path, sets: Path, tmp_path: Path) -> None:
    tasks = [TASKS["UrbanSound8K"]]
    one = run_suite("one", tasks, [listener(tiny_model, tmp_path / "1")], sets)
    two = run_suite("one", tasks, [listener(tiny_model, tmp_path / "2", processes=2)], sets)
    assert words(one) == words(two)


def test_what_was_embedded_before_a_stop_is_not_embedded_again(
    tiny_model: Path, sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openclap.evals.hearing.CHUNK", 4)

    def stop(what: str, done: int, total: int) -> None:
        if done >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_suite("one", [TASKS["ESC-50"]], [listener(tiny_model, tmp_path, progress=stop)], sets)
    told: list[int] = []
    going_on = listener(tiny_model, tmp_path, progress=lambda what, done, total: told.append(done))
    run_suite("one", [TASKS["ESC-50"]], [going_on], sets)
    assert told[0] == 12 and told[-1] == 20


def test_vectors_of_another_model_are_never_taken(
    tiny_model: Path, other_model: Path, sets: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ours, theirs = listener(tiny_model, tmp_path), listener(other_model, tmp_path)
    clips = collect(TASKS["GTZAN"], sets).test
    wanted = theirs.hear(clips).vectors_ND
    assert ours.cache is not None and theirs.cache is not None and ours.cache.path != theirs.cache.path
    ours.hear(clips)
    for each in (ours, theirs):
        assert each.cache is not None
        each.cache.close()
    shutil.copy(ours.cache.path, theirs.cache.path)
    np.testing.assert_array_equal(listener(other_model, tmp_path).hear(clips).vectors_ND, wanted)
    assert "holds vectors of another model" in caplog.text


DAMAGE = {
    "vector": "update vectors set vector = zeroblob(64) where key = (select min(key) from vectors)",
    "no vector": "update vectors set vector = null, checksum = 0",
    "text for a vector": "update vectors set vector = 'abc'",
    "other tables": "drop table vectors; create table vectors (sound, numbers)",
    "two models": "insert into made_by values ('another')",
    "no hash": "update files set sha256 = null",
    "no text": "update files set sha256 = cast(x'ff00ff' as text)",
}


@pytest.mark.parametrize("damage", ["bytes", *DAMAGE])
def test_damage_of_the_cache_is_found_and_made_good(
    tiny_model: Path, sets: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    clips, first = collect(TASKS["GTZAN"], sets).test, listener(tiny_model, tmp_path)
    wanted = first.hear(clips)
    assert first.cache is not None
    first.cache.close()
    if damage == "bytes":
        first.cache.path.write_bytes(b"no database" * 1000)
    else:
        with sqlite3.connect(first.cache.path) as database:
            database.executescript(DAMAGE[damage])
    found = listener(tiny_model, tmp_path).hear(clips)
    np.testing.assert_allclose(found.vectors_ND, wanted.vectors_ND, atol=1e-5)
    assert found.clips.digest == wanted.clips.digest and not found.lost
    assert "made again" in caplog.text or damage in ("no hash", "no text")


def test_a_missing_set_says_how_to_get_it_and_the_table_goes_on(tiny_model: Path, sets: Path, tmp_path: Path) -> None:
    table = run_suite("paper", [*PAPER[:2], TASKS["GTZAN"]], [listener(tiny_model, tmp_path)], tmp_path / "none")
    assert not table.rows and "github.com/cdjkim/audiocaps" in table.missing["AudioCaps"]
    assert str(tmp_path / "none" / "Clotho") in table.missing["Clotho"]
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "GTZAN").symlink_to(sets / "gtzan")
    table = run_suite("paper", [PAPER[0], TASKS["GTZAN"]], [listener(tiny_model, tmp_path)], tmp_path / "some")
    assert {row.task for row in table.rows} == {"GTZAN"} and set(table.missing) == {"AudioCaps"}


def test_clips_that_cannot_be_heard_are_named_and_the_rest_is_asked(tiny_model: Path, tmp_path: Path) -> None:
    root = tmp_path / "sets" / "esc50"
    miniatures.esc50(root, folds=4)
    (root / "audio" / "1-1000-A-0.wav").write_bytes(b"no sound")
    (root / "audio" / "2-2001-A-1.wav").unlink()
    table = root / "meta" / "esc50.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines, lines[-1], "4-9-A-9.wav,4,9,,False,9,A"]) + "\n")
    miniatures.put(root / "audio" / "4-9-A-9.wav", "dog", 9)
    result = run_suite("one", [TASKS["ESC-50"]], [listener(tiny_model, tmp_path)], tmp_path / "sets")
    assert {clip for _, clip, _ in result.lost} == {"1-1000-A-0.wav", "2-2001-A-1.wav"}
    notes = " ".join(sentence for _, sentence in result.notes)
    assert "2 clips could not be heard" in notes and "1 clips have the id of an earlier one" in notes
    assert "Only 4 of 5 folds are there" in notes and "1 clips have no label" in notes
    assert "some clips missing" in result.rows[0].protocol and result.rows[0].n == 14


def test_captions_that_are_too_long_or_not_there_are_counted(tiny_model: Path, tmp_path: Path) -> None:
    root = tmp_path / "sets" / "clotho"
    miniatures.clotho(root)
    table = root / "clotho_captions_evaluation.csv"
    head, first, second, *rest = table.read_text().splitlines()
    long = second.split(",")
    long[1] = "a dog and " * 30
    table.write_text("\n".join([head, first.split(",")[0] + ",,,,,", ",".join(long), *rest]) + "\n")
    result = run_suite("one", [TASKS["Clotho"]], [listener(tiny_model, tmp_path)], tmp_path / "sets")
    notes = [sentence for _, sentence in result.notes]
    assert notes == [
        "1 clips have no caption and took no part.",
        "1 of 25 captions are longer than the model reads, and were cut.",
        "text→audio R@5, text→audio R@10: 100 % for any model, with 5 clips to search.",
    ]


def test_clips_of_the_training_data_are_left_out(tiny_model: Path, sets: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.parquet"
    polars.DataFrame({"freesound_id": [7000, 7001, 99], "youtube_id": [None, None, "x"]}).write_parquet(manifest)
    model = [listener(tiny_model, tmp_path)]
    result = run_suite("one", [TASKS["Clotho"]], model, sets, training=manifest)
    assert {row.n for row in result.rows if row.metric.startswith("audio_to_text")} == {4}
    assert "2 of 6 clips come from uploads that the model was trained on" in result.notes[0][1]
    assert "sample for sample" not in result.notes[0][1]
    (tmp_path / "bad").write_text("no table")
    polars.DataFrame({"caption": ["rain"]}).write_parquet(tmp_path / "other.parquet")
    polars.DataFrame({"freesound_id": [None]}).write_parquet(tmp_path / "empty.parquet")
    for name, says in {
        "bad": "cannot be read as a manifest",
        "none": "No such file",
        "other.parquet": "other.parquet training: no column says",
        "empty.parquet": "names no clip",
    }.items():
        with pytest.raises(DataError, match=says):
            run_suite("one", [TASKS["Clotho"]], model, tmp_path / "no sets", training=tmp_path / name)


def test_sounds_of_the_training_data_are_left_out_whatever_they_are_called(
    tiny_model: Path, sets: Path, tmp_path: Path
) -> None:
    clips = collect(TASKS["Clotho"], sets).test.clips
    wave, rate = soundfile.read(clips[2].path, dtype="int16")
    soundfile.write(tmp_path / "copy.flac", wave, rate)
    known = facts_of(tmp_path / "copy.flac").pcm_sha256
    manifest = tmp_path / "manifest.parquet"
    polars.DataFrame({"freesound_id": [7000, None], "pcm_sha256": ["other", known]}).write_parquet(manifest)
    found = collect(TASKS["Clotho"], sets, trained_on(manifest))
    assert [clip.key for clip in found.test.clips] == [clip.key for clip in (clips[1], *clips[3:])]
    assert "1 of 6 clips come from uploads that the model was trained on, and 1 more are sounds" in found.notes[0]
    polars.DataFrame({"freesound_id": range(7000, 7006)}).write_parquet(manifest)
    with pytest.raises(DataError, match="nothing is left to ask"):
        collect(TASKS["Clotho"], sets, trained_on(manifest))


def test_a_file_describes_any_suite(tiny_model: Path, sets: Path, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("bell\tthe bell\ndog\na big cat\t\nrain\twolf howling\nwolf\n")
    (tmp_path / "suite.toml").write_text(
        """
        [[task]]
        name = "genres as classes"
        kind = "zero_shot"
        source = "classes"
        folder = "gtzan/genres"
        templates = ["This is a sound of {}.", "the noise of {}"]
        classes = "words.txt"

        [[task]]
        name = "few"
        kind = "few_shot"
        source = "esc50"
        folder = "esc50"
        folds = 5

        [[task]]
        name = "folds"
        kind = "probe"
        source = "esc50"
        folder = "esc50"
        folds = 5
        """
    )
    tasks = read_suite(tmp_path / "suite.toml")
    result = run_suite("mine", tasks, [listener(tiny_model, tmp_path)], sets)
    assert result.missing == {} and {row.task for row in result.rows} == {"genres as classes", "few", "folds"}
    notes = " ".join(sentence for _, sentence in result.notes)
    assert "1 of 5 classes have no clip here: a big cat." in notes and "Logistic regression with C = " in notes
    (tmp_path / "words.txt").write_text("bells\ndog\n")
    result = run_suite("mine", tasks[:1], [listener(tiny_model, tmp_path)], sets)
    assert "3 labels of genres as classes are not in it: bell, rain, wolf" in result.missing["genres as classes"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "describes no tasks"),
        ("[[task]", "cannot be read as TOML"),
        ('[[task]]\nname = "a"\nkind = "zero_shot"', "has no source"),
        ('[[task]]\nname = "a"\nkind = "zero_shot"\nsource = "esc50"\nwords = 1', "has words"),
        ('[[task]]\nname = "a"\nkind = "guess"\nsource = "esc50"', "kind is 'guess'"),
        ('[[task]]\nname = "a"\nkind = "zero_shot"\nsource = "esc51"', "source is 'esc51'"),
        ('[[task]]\nname = "a"\nkind = "probe"\nsource = "esc50"', "names no split `train`"),
        ('[[task]]\nname = "a"\nkind = "zero_shot"\nsource = "esc50"\ntemplate = "x"', "must hold {} once"),
        ('[[task]]\nname = "a"\nkind = "zero_shot"\nsource = "esc50"\n' * 2, "two tasks are called"),
        (
            '[[task]]\nname = "a"\nkind = "zero_shot"\nsource = "esc50"\nclasses = 3',
            "classes is 3, expected text in quotes",
        ),
        (
            '[[task]]\nname = "a"\nkind = "zero_shot"\nsource = "esc50"\ntemplates = 5',
            "templates is 5, expected a list of texts",
        ),
        (
            '[[task]]\nname = "a"\nkind = "zero_shot"\nsource = "esc50"\nfolds = "five"',
            "folds is 'five', expected a whole number",
        ),
        (
            '[[task]]\nname = "a"\nkind = "zero_shot"\nsource = "esc50"\nepochs = true',
            "epochs is True, expected a whole number",
        ),
        ('[[task]]\nname = "a"\nkind = "zero_shot"\nsource = "esc50"\nlearner = ["mlp"]', "learner is "),
        (
            '[[task]]\nname = "a"\nkind = "zero_shot"\nsource = "esc50"\nfolders = "x"',
            "folders is 'x', expected a list of texts",
        ),
        ('[[task]]\nname = "a"\nkind = "zero_shot"\nsource = "esc50"\noptions = 3', "options is 3, expected a table"),
        (
            '[[task]]\nname = "a"\nkind = "zero_shot"\nsource = "esc50"\noptions = {foo = 1}',
            "options do not fit the source esc50",
        ),
        ("task = [1]", "task 1 is 1, expected a table"),
    ],
)
def test_a_suite_that_cannot_be(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "suite.toml").write_text(text)
    with pytest.raises(ConfigError, match=says.replace("{}", r"\{\}")):
        read_suite(tmp_path / "suite.toml")
    with pytest.raises(ConfigError, match="no such suite"):
        read_suite(tmp_path / "none")


@pytest.mark.parametrize("many", [False, True])
def test_the_linear_probe_equals_scikit_learn(many: bool) -> None:
    train, valid, test = vectors_that_tell(0, 120, many), vectors_that_tell(1, 40, many), vectors_that_tell(2, 60, many)
    scorer, told = LEARNERS["linear"](lesson(train, valid, many=many))
    ours = scorer(test.clips, test.vectors_PD)
    strength = float(told.split("C = ")[1].split(",")[0])
    vectors = np.concatenate([train.vectors_PD, valid.vectors_PD]).astype(np.float64)
    truth = np.concatenate([train.truth_PC, valid.truth_PC])
    if many:
        own = [LogisticRegression(C=strength, max_iter=2000).fit(vectors, truth[:, c]) for c in range(4)]
        wanted = np.stack([model.decision_function(test.vectors_PD.astype(np.float64)) for model in own], axis=1)
    else:
        own = LogisticRegression(C=strength, max_iter=2000).fit(vectors, truth.argmax(1))
        wanted = own.decision_function(test.vectors_PD.astype(np.float64))
    np.testing.assert_allclose(ours, wanted, atol=1e-6)


@pytest.mark.parametrize("many", [False, True])
def test_the_network_learns(many: bool) -> None:
    train, valid, test = vectors_that_tell(0, 120, many), vectors_that_tell(1, 40, many), vectors_that_tell(2, 60, many)
    scorer, told = LEARNERS["mlp"](lesson(train, valid, many=many, epochs=25))
    score = scorer(test.clips, test.vectors_PD)
    assert "chosen on part 1" in told and score.shape == (60, 4)
    if many:
        assert average_precision_score(test.truth_PC, score, average="macro") > 0.6
    else:
        assert (score.argmax(1) == test.truth_PC.argmax(1)).mean() > 0.6


def test_a_class_that_was_never_shown_scores_least() -> None:
    train, test = vectors_that_tell(0, 60, False), vectors_that_tell(2, 20, False)
    train = train.at(train.truth_PC.argmax(1) != 3)
    scorer, _ = LEARNERS["linear"](lesson(train, None, many=False))
    assert (scorer(test.clips, test.vectors_PD)[:, 3] == -np.inf).all()


def test_pairs_of_models(paper: Table) -> None:
    found = {(each.task, each.metric): each.difference for each in paper.comparisons}
    ours, theirs = (paper.asked[name, "Clotho"] for name in ("tiny", "other"))
    metric = "text_to_audio_R@1"
    gap = theirs.measures[metric].value - ours.measures[metric].value  # the change from tiny to other
    assert found["Clotho", metric].estimate.value == pytest.approx(gap) and 0 < found["Clotho", metric].p <= 1
    same = paired_difference(ours.measures[metric], ours.measures[metric], ours.clips.groups)
    assert (same.estimate.low, same.estimate.high, same.p) == (0.0, 0.0, 1.0)
    with pytest.raises(DataError, match="not asked about the same clips"):
        paired_difference(ours.measures[metric], ours.measures["audio_to_text_R@1"], ours.clips.groups)


def test_a_task_of_nothing_says_so_before_it_embeds(tiny_model: Path, sets: Path, tmp_path: Path) -> None:
    miniatures.esc50(tmp_path / "sets" / "one fold", folds=1)
    deaf = listener(tiny_model, tmp_path)
    deaf.embedder = _Deaf(deaf.embedder)
    tasks = [
        Task(name="no captions", kind="retrieval", source="esc50", folders=(str(sets / "esc50"),)),
        Task(name="no labels", kind="zero_shot", source="clotho", folders=(str(sets / "clotho"),)),
        Task(name="no tags", kind="tagging", source="esc50", folders=(str(sets / "esc50"),)),
        Task(name="no split", kind="zero_shot", source="clotho", folders=(str(sets / "clotho"),), split="later"),
        Task(name="many folds", kind="zero_shot", source="esc50", folders=(str(sets / "esc50"),), folds=3),
        Task(name="one fold", kind="probe", source="esc50", folders=("one fold",), folds=5),
        Task(name="few folds", kind="few_shot", source="esc50", folders=("one fold",), folds=5),
    ]
    table = run_suite("nothing", tasks, [deaf], tmp_path / "sets")
    assert "no clip has a caption" in table.missing["no captions"]
    assert "no clip has a label" in table.missing["no labels"]
    assert "no clip has a tag" in table.missing["no tags"]
    assert "no clip is in its split 'later'. Found: test, train, valid" in table.missing["no split"]
    assert "expected 3 folds, and 5 are there: esc50:1, esc50:2" in table.missing["many folds"]
    assert all("esc50:1 is the only fold of 5" in table.missing[name] for name in ("one fold", "few folds"))
    one = Task(name="one class", kind="zero_shot", source="classes", folders=("gtzan/genres/dog",))
    table = run_suite("nothing", [one], [listener(tiny_model, tmp_path)], sets)
    assert "naming needs two or more" in table.missing["one class"]


def test_the_command_prints_writes_and_refuses(
    tiny_model: Path, other_model: Path, sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = tmp_path / "genres.toml"
    suite.write_text(
        '[[task]]\nname = "genres"\nkind = "zero_shot"\nsource = "gtzan"\nfolder = "gtzan"\n'
        '[[task]]\nname = "gone"\nkind = "retrieval"\nsource = "clotho"\nfolder = "gone"\n'
    )
    files = {kind: tmp_path / "out" / f"table.{kind}" for kind in ("json", "markdown", "html")}
    outputs = [word for kind, path in files.items() for word in (f"--{kind}", str(path))]
    models = [str(tiny_model), str(other_model)]
    asked = ["eval", *models, "--suite", str(suite), "--data", str(sets)]
    assert run([*asked, *outputs]) == 0
    said = capsys.readouterr()
    assert "accuracy" in said.out and "zero-shot, all clips; 4 classes" in said.out and "gone was left out" in said.err
    assert all(path.stat().st_size > 500 for path in files.values())
    assert run(["eval", models[0], *asked[3:], "--channels", "left", "--trim-silence"]) == 0
    assert "Read of each recording: the left channel, silent ends" in " ".join(capsys.readouterr().out.split())
    for words, says in [
        (["eval", *models, "--baseline", models[0]], "stands beside one model"),
        (["eval", models[0], "--training", str(suite)], "belongs to suites of published sets"),
        ([*asked, "--processes", "0"], "expected 1 or more"),
        ([*asked, "--seed", "-1"], "--seed is -1, expected a whole number from 0"),
        ([*asked, "--seed", str(2**32)], "--seed is 4294967296, expected a whole number from 0"),
        ([*asked, "--baseline", models[0]], "belong to the suite quick"),
        (["eval", models[0], models[0], "--suite", "paper"], "is named twice"),
        (["eval", models[0], f"{Path(models[0]).parent}/./{Path(models[0]).name}"], "is named twice"),
        (["eval", models[0], "--json", f"{models[0]}/config.json/out.json"], "is a file, expected a folder"),
        (["eval", models[0], "--suite", "paper", "--data", str(tmp_path)], "No task of the suite paper could be done"),
        (["eval", models[0], "--suite", "slow"], "no such suite"),
        (["eval", models[0], "nothing", "--data", str(tmp_path)], "nothing: no such model"),
        (["eval", models[0], "--baseline", "nothing", "--data", str(tmp_path)], "nothing: no such model"),
    ]:
        assert run(words) == 2
        assert says in " ".join(capsys.readouterr().err.split())


def test_the_quick_suite_takes_several_models_and_keeps_their_vectors(
    tiny_model: Path,
    other_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for split, seed in (("train", 0), ("test", 50)):
        write_split(tmp_path / "shards" / split, 2, seed)
    asked = ["eval", "--data", str(tmp_path / "shards"), "--json", str(tmp_path / "one.json")]
    assert run([*asked, str(tiny_model)]) == 0
    alone = json.loads((tmp_path / "one.json").read_text())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("openclap.embedder.Embedder.embed_each", _Deaf.embed_each)
        assert run([*asked, str(tiny_model)]) == 0
    assert json.loads((tmp_path / "one.json").read_text())["figures"] == alone["figures"]
    capsys.readouterr()
    outputs = ["--json", str(tmp_path / "two.json"), "--html", str(tmp_path / "two.html")]
    assert run([*asked[:3], str(tiny_model), str(other_model), *outputs]) == 0
    out, err = capsys.readouterr()
    assert "split test, retrieval" in out and "chance" in out and "published" not in out
    assert err.count("Only 12 groups") == 1
    record = json.loads((tmp_path / "two.json").read_text())
    value = {
        (each["model"], each["task"], each["metric"]): each
        for each in record["figures"]
        if each["model"] == str(tiny_model)
    }
    of_one = {(each["task"], each["metric"]): each for each in alone["figures"]}
    for task, metric, name in (
        ("text_to_audio", "R@1", "split test, retrieval"),
        ("zero_shot", "accuracy", "split test, zero-shot labels"),
        ("probe", "accuracy", "split test, linear probe"),
    ):
        full = f"{task}_{metric}" if task == "text_to_audio" else metric
        assert value[str(tiny_model), name, full]["value"] == of_one[task, metric]["value"]
    assert {(each["task"], tuple(each["models"])) for each in record["comparisons"]} == {
        (f"split test, {name}", (str(tiny_model), str(other_model)))
        for name in ("retrieval", "zero-shot labels", "linear probe")
    }
    assert "Models in pairs" in (tmp_path / "two.html").read_text()


def test_only_an_evaluation_is_written_over(
    tiny_model: Path, sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite, weights, kept = tmp_path / "genres.toml", tmp_path / "model.pt", tmp_path / "kept"
    suite.write_text('[[task]]\nname = "genres"\nkind = "zero_shot"\nsource = "gtzan"\nfolder = "gtzan"\n')
    asked = ["eval", str(tiny_model), "--suite", str(suite), "--data", str(sets)]
    for content in (b"PK\x03\x04 weights", b'{"model": 1}', b"{", b"# My notes", b"<p>"):
        for option in ("--json", "--markdown", "--html"):
            weights.write_bytes(content)
            assert run([*asked, option, str(weights)]) == 2 and weights.read_bytes() == content
            assert "is no evaluation as --" in " ".join(capsys.readouterr().err.split())
    assert run([*asked, "--json", str(kept), "--html", f"{tmp_path}/./kept"]) == 2
    assert "name one file" in capsys.readouterr().err
    for option in ("--json", "--markdown", "--html"):
        place, link = tmp_path / f"of{option}", tmp_path / f"link{option}"
        place.touch()
        link.symlink_to(place)
        for _ in range(2):
            assert run([*asked, option, str(link)]) == 0
            assert place.stat().st_size > 200 and link.is_symlink()


def test_a_report_that_cannot_be_written_leaves_the_one_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    write(page, "before")

    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(ConfigError, match=r"page.html: cannot be written \(No space left"):
        write(page, "after")
    assert page.read_text() == "before" and list(tmp_path.iterdir()) == [page]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes with names")
def test_a_device_is_written_to_and_never_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_text)
        write(pipe, "a page")
        assert read.result(10) == "a page" and pipe.is_fifo()


def test_the_suite_that_the_guide_shows_is_the_demos() -> None:
    root = Path(__file__).parents[2]
    suite = (root / "src" / "openclap" / "demo" / "suite.toml").read_text(encoding="utf-8")
    assert f"```toml\n{suite}```" in (root / "docs" / "howto" / "evaluate.md").read_text(encoding="utf-8")
