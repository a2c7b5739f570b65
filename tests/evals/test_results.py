"""Results as tables, Markdown and JSON: partial data, undefined figures, verdicts on chance."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from openclap.checkpoints import figures
from openclap.evals.bootstrap import Estimate
from openclap.evals.metrics import Metric
from openclap.evals.result_tables import comparison_heading, comparison_table, table_of
from openclap.evals.results import MetricRow, Results
from openclap.evals.runner import run_suite
from openclap.evals.suites import PAPER
from openclap.evals.tasks import Task
from support import miniatures
from support.evals_helpers import cached

TASKS = {task.name: task for task in PAPER}


def suite(tiny_model: Path, sets: Path, *tasks: Task, models: tuple[str, ...] = ("tiny",)) -> Results:
    return run_suite("paper", tasks, [cached(tiny_model, sets / "cache", name) for name in models], sets)


def cells(found: Results, metric: str, column: str) -> list[str]:
    head, *rows = table_of(found)
    return [row[head.index(column)] for row in rows if row[head.index("metric")] == metric]


def test_a_partial_data_set_is_not_compared_with_published_figures(tiny_model: Path, tmp_path: Path) -> None:
    miniatures.audiocaps(tmp_path / "audiocaps", clips=9)
    found = suite(tiny_model, tmp_path, TASKS["AudioCaps"])
    assert cells(found, "text→audio R@10", "published") == ["82.5"]
    assert cells(found, "text→audio R@10", "difference") == ["9 of 975 clips"]
    assert "9 of 975 clips" in found.to_markdown()
    record = json.loads(found.to_json())
    assert {each["incomplete"] for each in record["figures"]} == {"9 of 975 clips"}
    page = found.write_html(tmp_path / "page.html").read_text(encoding="utf-8")
    assert "9 of 975 clips" in page and "+17.5" not in page
    assert "82.5" not in page or "100 % for any model, with 9 clips" in page
    assert "; here 9 of 975 clips)" in figures.read(record, tiny_model).text
    assert any("R@10: 100 % for any model, with 9 clips" in sentence for _, sentence in found.notes)

    whole = suite(tiny_model, tmp_path, replace(TASKS["AudioCaps"], test_clips=9))
    row = next(row for row in whole.rows if row.metric.key == "text_to_audio_R@1")
    assert cells(whole, "text→audio R@1", "difference") == [f"{100 * row.estimate.value - 36.2:+.1f}"]


def test_missing_training_clips_count_as_partial(tiny_model: Path, tmp_path: Path) -> None:
    miniatures.fsd50k(tmp_path / "fsd50k")
    task = TASKS["FSD50K, linear probe"]
    few = cells(suite(tiny_model, tmp_path, task), "mAP", "difference")
    assert few[0].startswith("8 of 10,231 clips, ") and few[0].endswith(" of 40,966 training clips")
    assert cells(suite(tiny_model, tmp_path, replace(task, test_clips=8)), "mAP", "difference")[0].startswith(
        "16 of 40,966"
    )


@pytest.mark.parametrize("how", ["absent", "unreadable"])
def test_the_protocol_counts_the_folds_that_were_found(tiny_model: Path, tmp_path: Path, how: str) -> None:
    miniatures.esc50(tmp_path / "esc50", folds=4 if how == "absent" else 5)
    if how == "unreadable":
        for path in (tmp_path / "esc50" / "audio").glob("5-*.wav"):
            path.write_bytes(b"no sound")
    found = suite(tiny_model, tmp_path, TASKS["ESC-50"])
    assert all("zero-shot, 4 of 5 folds averaged" in row.protocol for row in found.rows)
    assert cells(found, "accuracy", "difference") == ["16 of 2,000 clips"]


def test_one_group_has_no_interval_and_no_p(tiny_model: Path, tmp_path: Path) -> None:
    """All clips of an ESC-50 are of one upload; two models are compared."""
    miniatures.esc50(tmp_path / "esc50")
    meta = tmp_path / "esc50" / "meta" / "esc50.csv"
    head, *rows = meta.read_text(encoding="utf-8").splitlines()
    place = head.split(",").index("src_file")
    rows = [",".join([*row.split(",")[:place], "7", *row.split(",")[place + 1 :]]) for row in rows]
    meta.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    found = suite(tiny_model, tmp_path, TASKS["ESC-50"], models=("one", "two"))
    assert cells(found, "accuracy", "95 %") == ["–", "–"]
    pairs = comparison_table(found)
    assert comparison_heading(found) == "Changes from one to two"
    assert {row[2:] for row in pairs[1:]} == {("+0.0", "–", "–")}
    record = json.loads(found.to_json())
    assert {each["p"] for each in record["comparisons"]} == {None}
    assert [note for _, note in found.notes if "one group" in note] == [
        "All clips are one group, so there is no interval, no p and no comparison with chance."
    ]


@pytest.mark.parametrize(
    ("metric", "ours", "chance", "verdict"),
    [
        ("R@1", (0.5, 0.4, 0.6), (0.2, 0.1, 0.3), "yes"),
        ("R@1", (0.5, 0.2, 0.6), (0.2, 0.1, 0.3), "touching"),
        ("R@1", (0.25, 0.2, 0.6), (0.2, 0.1, 0.3), "no"),
        ("mean_rank", (5, 4, 6), (20, 10, 30), "yes"),
        ("mean_rank", (9, 4, 12), (20, 10, 30), "touching"),
        ("mean_rank", (35, 31, 40), (20, 10, 30), "no"),
    ],
)
def test_verdict_on_chance(metric: str, ours: tuple[float, ...], chance: tuple[float, ...], verdict: str) -> None:
    row = MetricRow(
        model="m", task="probe", kind="probe", dataset="d", metric=Metric(metric), estimate=Estimate(*ours),
        chance=Estimate(*chance), baseline=None, published=(), incomplete="", n=9, protocol="", data_hash="",
        seconds=0.0, is_shown=True,
    )  # fmt: skip
    assert row.above_chance == verdict
    assert replace(row, chance=None).above_chance == "–"


def test_quick_table_fits_80_columns(quick: Results) -> None:
    rows = table_of(quick)
    assert len(rows) == 19 and {len(row) for row in rows} == {8}
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    assert sum(widths[:-1]) + len("  ") * 7 + len("above") < 80
    assert table_of(replace(quick, baseline=None)) == [(*row[:6], row[7]) for row in rows]
    assert rows[1][:2] == ("text→audio", "R@1")
    assert "nan" not in " ".join(" ".join(row) for row in rows)
