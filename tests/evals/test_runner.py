"""The engine: whole suites on miniatures with a small real model, and the suite quick on a collection."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import openclap
from openclap.errors import ConfigError, DataError, OpenClapError
from openclap.evals.bootstrap import paired_difference
from openclap.evals.dataset import Collection, EvalClips, clips_of_task, load_clips
from openclap.evals.metrics import AUDIO_TO_TEXT, TEXT_TO_AUDIO, Metric, retrieval_measures
from openclap.evals.ranks import TIE, rank_retrieval
from openclap.evals.report import headline
from openclap.evals.result_tables import comparison_table, published_lines, table_of
from openclap.evals.results import Results
from openclap.evals.runner import evaluate, run_suite
from openclap.evals.suites import PAPER, QUICK
from openclap.evals.tasks import Task
from support import miniatures
from support.errors import raises_naming
from support.evals_helpers import BandEmbedder, RefusingEmbedder, cached, write_split

TASKS = {task.name: task for task in PAPER}
R_AT_1 = Metric("R@1", TEXT_TO_AUDIO)


def test_paper_suite_runs_every_task(paper: Results) -> None:
    assert paper.skipped == {} and paper.lost == ()
    assert {row.task for row in paper.rows} == set(TASKS)
    value = {(row.task, row.metric.key): row for row in paper.rows if row.model == "tiny"}
    assert value["Clotho", "text_to_audio_R@1"].published[0].value == 17.2
    assert value["ESC-50", "accuracy"].published[0].value == 89.1
    assert value["FSD50K, linear probe", "mAP"].published[0].value == 64.9
    assert "5 folds averaged" in value["ESC-50", "accuracy"].protocol
    assert "This is a {} song." in value["GTZAN", "accuracy"].protocol
    assert all("Windows of 0.50 s" in row.protocol for row in paper.rows)
    for row in paper.rows:
        assert row.estimate.low <= row.estimate.value <= row.estimate.high and len(row.data_hash) == 64


def test_retrieval_figures_equal_the_bare_metrics(paper: Results, tiny_model: Path, sets: Path) -> None:
    model, clips = openclap.load(tiny_model), clips_of_task(TASKS["Clotho"], sets).test.clips
    audio = model.embed_audio([clip.path for clip in clips])
    text = model.embed_text([caption for clip in clips for caption in clip.captions])
    ranks = rank_retrieval(audio.astype(np.float64) @ text.T, np.repeat(np.arange(len(clips)), 5), tie=TIE)
    wanted = {metric.key: measure.value for metric, measure in retrieval_measures(ranks).items()}
    ours = {row.metric.key: row.estimate.value for row in paper.rows if (row.model, row.task) == ("tiny", "Clotho")}
    assert ours == pytest.approx(wanted)


def test_json_markdown_and_page_agree(paper: Results, tmp_path: Path) -> None:
    record = json.loads(paper.to_json())
    assert len(record["figures"]) == len(paper.rows) and record["figures"][0]["published"][0]["value"] == 0.362
    by_task = {each["task"]: each["classes"] for each in record["classes"] if each["model"] == "tiny"}
    assert [row["label"] for row in by_task["FSD50K"]] == ["Animal", "Bell", "Dog", "Rain", "Wolf"]
    assert sum(row["clips"] for row in by_task["ESC-50"]) == 20 and by_task["ESC-50"][0]["recall"] <= 1
    markdown = paper.to_markdown()
    assert "| tiny | Clotho | text→audio R@1 |" in markdown and "VAST" in markdown and "## Changes from" in markdown
    assert any("MTEB's board" in line for line in published_lines(paper))
    assert "-0.0" not in {cell for row in [*table_of(paper), *comparison_table(paper)] for cell in row}
    page = paper.write_html(tmp_path / "page.html").read_text(encoding="utf-8")
    assert "The hardest, tiny" in page and page.count("<audio") > 5 and "Calibration error" in page
    assert "<script" not in page and len(page) < 6_000_000


def test_a_missing_data_set_is_skipped_with_its_source(tiny_model: Path, sets: Path, tmp_path: Path) -> None:
    table = run_suite("paper", [*PAPER[:2], TASKS["GTZAN"]], [cached(tiny_model, tmp_path)], tmp_path / "none")
    assert not table.rows and "github.com/cdjkim/audiocaps" in table.skipped["AudioCaps"]
    assert str(tmp_path / "none" / "Clotho") in table.skipped["Clotho"]
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "GTZAN").symlink_to(sets / "gtzan")
    table = run_suite("paper", [PAPER[0], TASKS["GTZAN"]], [cached(tiny_model, tmp_path)], tmp_path / "some")
    assert {row.task for row in table.rows} == {"GTZAN"} and set(table.skipped) == {"AudioCaps"}


def test_unreadable_clips_are_listed_and_the_rest_is_measured(tiny_model: Path, tmp_path: Path) -> None:
    root = tmp_path / "sets" / "esc50"
    miniatures.esc50(root, folds=4)
    (root / "audio" / "1-1000-A-0.wav").write_bytes(b"no sound")
    (root / "audio" / "2-2001-A-1.wav").unlink()
    table = root / "meta" / "esc50.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines, lines[-1], "4-9-A-9.wav,4,9,,False,9,A"]) + "\n")
    miniatures.put(root / "audio" / "4-9-A-9.wav", "dog", 9)
    result = run_suite("one", [TASKS["ESC-50"]], [cached(tiny_model, tmp_path)], tmp_path / "sets")
    assert {clip for _, clip, _ in result.lost} == {"1-1000-A-0.wav", "2-2001-A-1.wav"}
    notes = " ".join(sentence for _, sentence in result.notes)
    assert "2 clips could not be embedded" in notes and "1 clips have the id of an earlier one" in notes
    assert "Only 4 of 5 folds were found" in notes and "1 clips have no label" in notes
    assert "some clips missing" in result.rows[0].protocol and result.rows[0].n == 14


def test_pairs_of_models(paper: Results) -> None:
    found = {(each.task, each.metric): each.difference for each in paper.comparisons}
    ours, theirs = (paper.outputs[name, "Clotho"] for name in ("tiny", "other"))
    metric = R_AT_1
    gap = theirs.measures[metric].value - ours.measures[metric].value  # the change from tiny to other
    assert found["Clotho", metric].estimate.value == pytest.approx(gap) and 0 < found["Clotho", metric].p <= 1
    same = paired_difference(ours.measures[metric], ours.measures[metric], ours.clips.groups)
    assert (same.estimate.low, same.estimate.high, same.p) == (0.0, 0.0, 1.0)
    with raises_naming(DataError):
        paired_difference(ours.measures[metric], ours.measures[Metric("R@1", AUDIO_TO_TEXT)], ours.clips.groups)


def test_an_impossible_task_is_skipped_before_embedding(tiny_model: Path, sets: Path, tmp_path: Path) -> None:
    miniatures.esc50(tmp_path / "sets" / "one fold", folds=1)
    refusing = cached(tiny_model, tmp_path)
    refusing.embedder = RefusingEmbedder(refusing.embedder)
    tasks = [
        Task(name="no captions", kind="retrieval", source="esc50", folders=(str(sets / "esc50"),)),
        Task(name="no labels", kind="zero_shot", source="clotho", folders=(str(sets / "clotho"),)),
        Task(name="no tags", kind="tagging", source="esc50", folders=(str(sets / "esc50"),)),
        Task(name="no split", kind="zero_shot", source="clotho", folders=(str(sets / "clotho"),), split="later"),
        Task(name="many folds", kind="zero_shot", source="esc50", folders=(str(sets / "esc50"),), folds=3),
        Task(name="one fold", kind="probe", source="esc50", folders=("one fold",), folds=5),
        Task(name="few folds", kind="few_shot", source="esc50", folders=("one fold",), folds=5),
    ]
    table = run_suite("nothing", tasks, [refusing], tmp_path / "sets")
    assert "no clip has a caption" in table.skipped["no captions"]
    assert "no clip has a label" in table.skipped["no labels"]
    assert "no clip has a tag" in table.skipped["no tags"]
    assert "no clip is in its split 'later'. Found: test, train, valid" in table.skipped["no split"]
    assert "expected 3 folds, but 5 were found: esc50:1, esc50:2" in table.skipped["many folds"]
    assert all("esc50:1 is the only fold of 5" in table.skipped[name] for name in ("one fold", "few folds"))
    one = Task(name="one class", kind="zero_shot", source="classes", folders=("gtzan/genres/dog",))
    table = run_suite("nothing", [one], [cached(tiny_model, tmp_path)], sets)
    assert "classification needs at least two" in table.skipped["one class"]


def test_sounds_are_embedded_once_per_model(
    embedder: BandEmbedder, test_clips: EvalClips, train_clips: EvalClips
) -> None:
    embedder.calls.clear()
    evaluate(embedder, Collection(test_clips, train_clips))
    assert sum(embedder.calls) == len(test_clips) + len(train_clips)


def test_progress_is_reported(embedder: BandEmbedder, test_clips: EvalClips) -> None:
    stages: list[tuple[str, int, int]] = []
    evaluate(embedder, Collection(test_clips), progress=lambda *stage: stages.append(stage))
    assert stages[-1] == ("Embedding test", 60, 60)


@pytest.mark.parametrize(("embeddings", "value"), [(np.zeros((2, 3)), "(2, 3)"), (np.full((1, 3), np.nan), "NaN")])
def test_unusable_embeddings_are_refused(test_clips: EvalClips, embeddings: np.ndarray, value: str) -> None:
    class Broken(BandEmbedder):
        def embed_audio(self, sounds: list[object], batch_size: int = 16) -> np.ndarray:
            return embeddings

    with raises_naming(OpenClapError, value):
        evaluate(Broken(), Collection(test_clips))


def test_quick_suite_has_every_figure(quick: Results) -> None:
    shown = [row for row in quick.rows if row.is_shown]
    counts = {task: sum(row.task == task for row in shown) for task in ("retrieval", "zero-shot", "probe")}
    assert counts == {"retrieval": 12, "zero-shot": 3, "probe": 3} and quick.skipped == {}
    for row in quick.rows:
        assert row.estimate.low <= row.estimate.value <= row.estimate.high
        assert row.chance is not None and row.chance.low <= row.chance.value <= row.chance.high
        assert row.baseline is not None and row.n in (60, 120)
        assert BandEmbedder.clip_policy.rstrip(".") in row.protocol
    accuracy, recall = quick.row("accuracy", task="zero-shot"), quick.row("text_to_audio_R@10")
    assert accuracy is not None and accuracy.above_chance == "yes" and accuracy.estimate.value > 0.8
    assert recall is not None and recall.baseline is not None and recall.chance is not None
    assert recall.baseline.low < recall.chance.high < recall.estimate.low
    test = quick.data[0]
    assert (test.clips, test.captions, test.groups) == (60, 120, 30)


def test_the_same_seed_gives_the_same_json(
    embedder: BandEmbedder, train_clips: EvalClips, test_clips: EvalClips, quick: Results
) -> None:
    def without_times(results: Results) -> str:
        rows = tuple(replace(row, seconds=0.0) for row in results.rows)
        return replace(results, rows=rows, seconds=0.0).to_json()

    again = evaluate(embedder, Collection(test_clips, train_clips), baseline=BandEmbedder())
    assert without_times(again) == without_times(quick)
    record = json.loads(quick.to_json())
    assert [each["sha256"] for each in record["data"]] == [test_clips.digest, train_clips.digest]
    assert {each["data_sha256"] for each in record["figures"]} == {test_clips.digest}
    assert record["figures"][0]["metric"] == "R@1" and record["figures"][0]["chance"]["low"] >= 0
    answers = {each["task"]: each for each in record["answers"]}
    assert np.sum(answers["zero-shot"]["confusion"]) == 60 and len(answers["retrieval"]["owner"]) == 120


def test_one_group_is_never_above_chance(embedder: BandEmbedder, test_clips: EvalClips) -> None:
    one = replace(test_clips, clips=tuple(replace(clip, group="one") for clip in test_clips.clips))
    result = evaluate(embedder, Collection(one))
    assert "yes" not in {row.above_chance for row in result.rows}
    assert json.loads(result.to_json())["figures"][0]["low"] is None
    assert sum("All clips are one group" in note for _, note in result.notes) == 1
    assert table_of(result)[1][3] == "–"


def test_groups_in_both_splits_are_noted(embedder: BandEmbedder, test_clips: EvalClips) -> None:
    result = evaluate(embedder, Collection(test_clips, test_clips))
    assert any("30 groups are in both splits" in note for _, note in result.notes)


def test_verdict_on_one_group_is_undefined(one_group: Path) -> None:
    clips = load_clips(one_group)
    sounds = [clips.audio(number) for number in range(len(clips))]
    embedder = BandEmbedder().fit(sounds, [clip.captions[0] for clip in clips.clips])
    found = evaluate(embedder, Collection(clips))
    verdicts = {row.above_chance for row in found.rows}
    assert verdicts <= {"–", "no"} and "–" in verdicts
    record = json.loads(found.to_json())
    assert {each["above_chance"] for each in record["figures"]} == {None, "no"} & {
        None if verdict == "–" else verdict for verdict in verdicts
    }
    head, *rows = table_of(found)
    assert {row[head.index("95 %")] for row in rows} == {"–"}
    accuracy = found.row("accuracy")
    assert accuracy is not None and accuracy.chance is not None and math.isnan(accuracy.chance.low)
    without_retrieval = replace(found, rows=tuple(row for row in found.rows if row.kind != "retrieval"))
    assert "no interval" in headline(without_retrieval)["details"] or accuracy.above_chance == "no"


def test_a_library_call_equals_the_suite(tiny_model: Path, sets: Path, tmp_path: Path) -> None:
    esc50 = replace(TASKS["ESC-50"], folders=(str(sets / "esc50"),))
    by_name = evaluate(tiny_model, sets, suite=[esc50], cache=tmp_path / "1")
    in_memory = evaluate({str(tiny_model): openclap.load(tiny_model)}, sets, suite=[esc50], cache=tmp_path / "2")
    assert [row.estimate for row in by_name.rows] == [row.estimate for row in in_memory.rows]
    assert by_name.models == in_memory.models and by_name.row("accuracy") is not None


def test_loose_sounds_and_packed_shards_are_recognised(tiny_model: Path, sounds: Path, tmp_path: Path) -> None:
    loose = evaluate(tiny_model, sounds / "sounds.csv", cache=tmp_path / "cache")
    assert loose.data[0].clips == 6 and "no training split" in loose.skipped["probe"]
    write_split(tmp_path / "shards" / "test", 1, 0)
    packed = evaluate(tiny_model, tmp_path / "shards", cache=tmp_path / "cache")
    assert packed.data[0].name == "test" and packed.data[0].clips == 12


def test_options_that_do_not_fit_are_refused(tiny_model: Path, sets: Path, tmp_path: Path) -> None:
    for options in (
        {"suite": "paper", "split": "valid"},
        {"training": tmp_path / "manifest.parquet"},
        {"suite": [TASKS["ESC-50"], QUICK[0]]},
        {"suite": []},
        {"suite": "paper", "data": Collection(EvalClips("none", (), "", lambda index: b""))},
    ):
        with pytest.raises(ConfigError):
            evaluate(tiny_model, **({"data": sets} | options))
    with raises_naming(ConfigError, tiny_model):
        evaluate([str(tiny_model), f"{tiny_model.parent}/./{tiny_model.name}"], sets)
    with raises_naming(ConfigError, "baseline"):
        evaluate({"a": tiny_model, "b": tiny_model}, sets, baseline=tiny_model)
    with raises_naming(ConfigError):
        evaluate({}, sets)


def test_a_baseline_stands_beside_any_suite(tiny_model: Path, other_model: Path, sets: Path, tmp_path: Path) -> None:
    found = evaluate(tiny_model, sets, suite=[TASKS["GTZAN"]], baseline=other_model, cache=tmp_path)
    alone = evaluate(other_model, sets, suite=[TASKS["GTZAN"]], cache=tmp_path)
    assert [row.baseline for row in found.rows] == [row.estimate for row in alone.rows]
    assert "before" in table_of(found)[0] and "before" not in table_of(alone)[0]


def test_wrong_arguments_are_one_sentence(embedder: BandEmbedder, test_clips: EvalClips, tmp_path: Path) -> None:
    data = Collection(test_clips)
    for models in (None, 5, [embedder], (name for name in ("a",))):
        with raises_naming(ConfigError):
            evaluate(models, data)  # type: ignore[arg-type]
    for options in ({"seed": -1}, {"seed": 1.5}, {"batch_size": 0}, {"processes": 0}, {"suite": 5}, {"suite": [1]}):
        with raises_naming(ConfigError, *options):
            evaluate(embedder, data, **options)  # type: ignore[arg-type]


def test_the_baseline_is_named_in_the_record(tiny_model: Path, other_model: Path, sets: Path, tmp_path: Path) -> None:
    found = evaluate(tiny_model, sets, suite=[TASKS["GTZAN"]], baseline=other_model, cache=tmp_path)
    assert json.loads(found.to_json())["baseline"] == str(other_model)


def test_models_before_a_failed_one_keep_figures_and_notes(
    embedder: BandEmbedder, test_clips: EvalClips, train_clips: EvalClips
) -> None:
    class Failing(BandEmbedder):
        def embed_text(self, texts: list[str]) -> np.ndarray:
            raise DataError("nothing to read")

    collection = Collection(test_clips.select(range(12)), train_clips)
    found = evaluate({"good": embedder, "bad": Failing()}, collection)
    assert {row.model for row in found.rows if row.kind == "zero_shot"} == {"good"}
    assert found.skipped["zero-shot"] == "bad: nothing to read"
    assert any(note.startswith("good: Only ") for _, note in found.notes)


def test_two_retrieval_tasks_keep_their_names_in_the_table(embedder: BandEmbedder, test_clips: EvalClips) -> None:
    found = evaluate(embedder, Collection(test_clips), suite=[QUICK[0], replace(QUICK[0], name="again")])
    assert {row[0] for row in table_of(found)[1:]} == {"retrieval", "again"}


def test_few_shot_lists_training_clips_that_cannot_be_embedded(tiny_model: Path, tmp_path: Path) -> None:
    labels = ("dog", "rain")
    rows = [
        (f"{split}-{label}{n}.wav", label, split) for split in ("train", "test") for label in labels for n in (1, 2)
    ]
    for number, (file, label, _) in enumerate(rows):
        miniatures.put(tmp_path / "sounds" / file, label, number)
    (tmp_path / "sounds" / rows[0][0]).write_bytes(b"no sound")
    lines = ["file,caption,label,split", *(f"{file},{label},{label},{split}" for file, label, split in rows)]
    (tmp_path / "sounds" / "sounds.csv").write_text("\n".join(lines))
    task = Task(name="few", kind="few_shot", source="table", folders=("sounds.csv",), split="test", train="train")
    found = run_suite("few", [task], [cached(tiny_model, tmp_path / "cache")], tmp_path / "sounds")
    assert found.skipped == {} and len(found.lost) == 1 and "some clips missing" in found.rows[0].protocol
