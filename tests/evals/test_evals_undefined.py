"""Figures that are not defined are shown so, and words of a protocol come from what was computed."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import miniatures
import numpy as np
import pytest
from evals_helpers import BandEmbedder, facts, flac, make_wave, write_shard

import openclap
from openclap.checkpoints import figures
from openclap.errors import ConfigError
from openclap.evals.bench import Table, run_suite
from openclap.evals.bench_report import write_suite_report
from openclap.evals.bench_table import COMPARED, compared, rows_of, to_json, to_markdown
from openclap.evals.bootstrap import bootstrap_interval, paired_difference
from openclap.evals.clips import load_clips
from openclap.evals.evaluation import table
from openclap.evals.hearing import Listener, open_listener
from openclap.evals.metrics import Measure, classify, mean_of, per_class
from openclap.evals.probe import probe
from openclap.evals.report import headline
from openclap.evals.suite import evaluate
from openclap.evals.tagging import tag, tagging_measures
from openclap.evals.tasks import PAPER, Task, read_suite

TASKS = {task.name: task for task in PAPER}


def suite(tiny_model: Path, sets: Path, *tasks: Task, models: tuple[str, ...] = ("tiny",)) -> Table:
    listeners: list[Listener] = [
        open_listener(name, partial(openclap.load, tiny_model), sets / "cache") for name in models
    ]
    return run_suite("paper", tasks, listeners, sets)


def cells(found: Table, metric: str, column: str) -> list[str]:
    head, *rows = rows_of(found)
    return [row[head.index(column)] for row in rows if row[head.index("metric")] == metric]


def test_a_part_of_a_set_is_not_set_beside_the_published_figure(tiny_model: Path, tmp_path: Path) -> None:
    miniatures.audiocaps(tmp_path / "audiocaps", clips=9)
    found = suite(tiny_model, tmp_path, TASKS["AudioCaps"])
    assert cells(found, "text→audio R@10", "published") == ["82.5"]
    assert cells(found, "text→audio R@10", "difference") == ["9 of 975 clips"]
    assert "9 of 975 clips" in to_markdown(found)
    record = json.loads(to_json(found))
    assert {each["short"] for each in record["figures"]} == {"9 of 975 clips"}
    page = write_suite_report(tmp_path / "page.html", found).read_text(encoding="utf-8")
    assert "9 of 975 clips" in page and "+17.5" not in page
    assert "82.5" not in page or "100 % for any model, with 9 clips" in page
    assert "; here 9 of 975 clips)" in figures.read(record, tiny_model).text
    assert any("R@10: 100 % for any model, with 9 clips to search" in sentence for _, sentence in found.notes)

    whole = suite(tiny_model, tmp_path, replace(TASKS["AudioCaps"], clips=9))
    row = next(row for row in whole.rows if row.metric == "text_to_audio_R@1")
    assert cells(whole, "text→audio R@1", "difference") == [f"{100 * row.estimate.value - 36.2:+.1f}"]


def test_what_a_probe_learns_from_counts_too(tiny_model: Path, tmp_path: Path) -> None:
    miniatures.fsd50k(tmp_path / "fsd50k")
    task = TASKS["FSD50K, linear probe"]
    few = cells(suite(tiny_model, tmp_path, task), "mAP", "difference")
    assert few[0].startswith("8 of 10,231 clips, ") and few[0].endswith(" of 40,966 to learn from")
    assert cells(suite(tiny_model, tmp_path, replace(task, clips=8)), "mAP", "difference")[0].startswith("16 of 40,966")


@pytest.mark.parametrize("how", ["absent", "unreadable"])
def test_folds_are_those_that_were_there(tiny_model: Path, tmp_path: Path, how: str) -> None:
    miniatures.esc50(tmp_path / "esc50", folds=4 if how == "absent" else 5)
    if how == "unreadable":
        for path in (tmp_path / "esc50" / "audio").glob("5-*.wav"):
            path.write_bytes(b"no sound")
    found = suite(tiny_model, tmp_path, TASKS["ESC-50"])
    assert all("zero-shot, 4 of 5 folds averaged" in row.protocol for row in found.rows)
    assert cells(found, "accuracy", "difference") == ["16 of 2,000 clips"]


def test_one_group_has_no_interval_and_no_p(tiny_model: Path, tmp_path: Path) -> None:
    """An ESC-50 whose clips are all of one upload, asked of two models."""
    miniatures.esc50(tmp_path / "esc50")
    meta = tmp_path / "esc50" / "meta" / "esc50.csv"
    head, *rows = meta.read_text(encoding="utf-8").splitlines()
    place = head.split(",").index("src_file")
    rows = [",".join([*row.split(",")[:place], "7", *row.split(",")[place + 1 :]]) for row in rows]
    meta.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    found = suite(tiny_model, tmp_path, TASKS["ESC-50"], models=("one", "two"))
    assert cells(found, "accuracy", "95 %") == ["–", "–"]
    pairs = compared(found)
    assert pairs[0] == COMPARED and {row[2:] for row in pairs[1:]} == {("from one to two", "+0.0", "–", "–")}
    record = json.loads(to_json(found))
    assert {each["p"] for each in record["comparisons"]} == {None}
    assert ("ESC-50", "two: All clips are one group, so there is no interval, and no p.") in found.notes


def test_p_by_hand() -> None:
    """Of two groups a quarter of the resamples are the first one twice, a quarter the second one twice."""
    better, worse = (Measure(mean_of(np.array(right)), np.arange(2)) for right in ([1.0, 1.0], [0.0, 1.0]))
    found = paired_difference(better, worse, ["a", "b"])
    assert found.estimate.value == 0.5 and found.p == pytest.approx(2 * 0.25, abs=0.06)
    alone = paired_difference(better, worse, ["a", "a"])
    assert alone.estimate.value == 0.5 and math.isnan(alone.p) and math.isnan(alone.estimate.low)


@pytest.fixture
def one_group(tmp_path: Path) -> Path:
    samples = [
        (f"{number}", flac(make_wave(label, number)), facts(label, "tape", [f"the sound of {label}"]))
        for number, label in enumerate(["rain", "whistle"] * 3)
    ]
    return write_shard(tmp_path / "test", samples)


def test_what_one_group_shows_is_neither_chance_nor_above_it(one_group: Path) -> None:
    clips = load_clips(one_group)
    sounds = [clips.audio(number) for number in range(len(clips))]
    embedder = BandEmbedder().fit(sounds, [clip.captions[0] for clip in clips.clips])
    found = evaluate(embedder, clips)
    verdicts = {figure.above_chance for figure in found.figures}
    assert verdicts <= {"–", "no"} and "–" in verdicts
    record = json.loads(found.to_json())
    assert {each["above_chance"] for each in record["figures"]} == {None, "no"} & {
        None if verdict == "–" else verdict for verdict in verdicts
    }
    head, *rows = table(found)
    assert {row[head.index("95 %")] for row in rows} == {"–"}
    zero_shot = found.figure("zero_shot", "accuracy")
    assert zero_shot is not None and math.isnan(zero_shot.chance.low)
    assert "no interval" in headline(replace(found, retrieval=None))["against"] or zero_shot.above_chance == "no"


def test_finding_one_clip_among_none_is_left_out(tmp_path: Path) -> None:
    samples = [
        ("0", flac(make_wave("rain", 0)), facts("rain", "a", ["rain on a roof"])),
        ("1", flac(make_wave("whistle", 1)), facts("whistle", "b", ["a whistle"])),
    ]
    both = load_clips(write_shard(tmp_path / "test", samples))
    embedder = BandEmbedder().fit([both.audio(0), both.audio(1)], ["rain", "a whistle"])
    found = evaluate(embedder, replace(both, clips=(both.clips[0], replace(both.clips[1], captions=()))))
    assert found.left_out["retrieval"] == "1 clip has a caption, and finding one among others needs two."
    assert {figure.task for figure in found.figures} == {"zero_shot"}


def test_resamples_without_a_class_are_left_out() -> None:
    """Two clips of which one has the class: drawn twice, either of them leaves nothing to tell apart."""
    measure = tagging_measures(tag(np.array([[0.9], [0.1]]), np.array([[True], [False]])))["mAP"]
    assert math.isnan(measure.statistic(np.array([[2.0, 0.0]]))[0])
    found = bootstrap_interval(measure.statistic, ["a", "b"])
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)


def test_precision_of_what_was_never_said() -> None:
    rows = per_class(classify(np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]), [0, 0, 1]))
    assert (rows[0].precision, rows[1].precision, rows[1].recall, rows[1].f1) == (2 / 3, None, 0.0, 0.0)


def test_a_probe_says_how_it_chose(one_group: Path) -> None:
    clips = load_clips(one_group)
    vectors = np.random.default_rng(0).standard_normal((len(clips), 8)).astype(np.float32)
    (note,) = probe(clips, vectors, clips, vectors).notes  # type: ignore[union-attr]
    assert note == "Probe: C = 1, not chosen: no fold can be made of the groups of test."


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('template = ["a {}", "b {}"]', 'template is a list; write templates = ["a {}", "b {}"].'),
        ('folder = ["x"]', 'folder is a list; write folders = ["x"].'),
        ('templates = "a {}"', 'expected a list of texts. Write templates = ["a {}"].'),
    ],
)
def test_a_list_where_one_is_expected_is_told_the_other_name(tmp_path: Path, line: str, told: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(f'[[task]]\nname = "a"\nkind = "zero_shot"\nsource = "table"\n{line}\n', encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        read_suite(file)
    assert str(error.value).endswith(told)
