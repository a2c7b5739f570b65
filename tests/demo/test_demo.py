"""The demo on the real sounds and the bundled model. Nothing here depends on the exact weights of that model."""

from __future__ import annotations

import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import openclap
from openclap.checkpoints import bundled
from openclap.checkpoints.mapped import read_header
from openclap.demo.run import SOUNDS, Demo, verdict
from openclap.errors import DataError
from openclap.evals.bootstrap import Difference, Estimate
from openclap.evals.metrics import TEXT_TO_AUDIO, Metric
from openclap.evals.results import Comparison
from openclap.library import Library
from openclap.training.logging import read_log
from support.demo_runner import run_demo


def test_interrupted_demo_resumes(demo_home: Path) -> None:
    assert re.search(r"Stopped at step \d+ of \d+, saved\. Run the same command", (demo_home / "first.err").read_text())
    steps = [row["step"] for row in read_log(demo_home / "demo" / "run" / "log.jsonl")]
    assert steps == list(range(1, steps[-1] + 1)) and len(steps) > 50
    assert "Traceback" not in "".join((demo_home / f"{n}.err").read_text() for n in ("first", "demo"))


def test_demo_model_is_above_chance_on_held_out_groups(demo_home: Path) -> None:
    report = json.loads((demo_home / "demo" / "report" / "report.json").read_text(encoding="utf-8"))
    verdicts = {(f["direction"] or f["task"], f["metric"]): f["above_chance"] for f in report["figures"]}
    for task in ("text_to_audio", "audio_to_text"):
        assert verdicts[task, "R@10"] == verdicts[task, "mAP@10"] == "yes"
    assert verdicts["zero-shot", "accuracy"] == verdicts["zero-shot", "balanced_accuracy"] == "yes"
    for figure in report["figures"]:
        assert figure["baseline"] is not None and figure["n"] > 80
    pairs = {tuple(each["models"]) for each in report["comparisons"]}
    assert pairs == {("mini", str(demo_home / "demo" / "run" / "model"))} and len(report["comparisons"]) > 10
    groups = [
        {json.loads(line)["group"] for line in _originals(demo_home / "demo" / "shards" / split)}
        for split in ("train", "test")
    ]
    assert groups[0].isdisjoint(groups[1])


def test_the_demo_says_what_changed(demo_home: Path) -> None:
    stored = json.loads((demo_home / "demo" / "report" / "tables.json").read_text(encoding="utf-8"))
    shown, told = (
        re.sub(r"\s+", " ", (demo_home / name).read_text(encoding="utf-8")) for name in ("demo.out", "demo.err")
    )
    assert "Changes from mini to the fine-tuned model:" in shown and stored["verdict"] in told
    assert all(" ".join(row[1:]) in shown for row in stored["changes"][1:])


@pytest.mark.parametrize(
    ("intervals", "sentence"),
    [
        (
            {"R@10": (0.1, 0.3), "median_rank": (-9.0, -1.0), "accuracy": (-0.3, -0.1), "mAP@10": (-0.1, 0.1)},
            "Better: text→audio R@10, text→audio median rank. Worse: zero-shot accuracy. "
            "The other changes, 1, may be chance.",
        ),
        ({"R@10": (-0.1, 0.1), "median_rank": (-1.0, 9.0)}, "No figure is better or worse by more than chance."),
        (
            {"R@10": (0.0, 0.1), "median_rank": (1.0, 9.0)},
            "Worse: text→audio median rank. The other changes, 1, may be chance.",
        ),
    ],
)
def test_the_verdict_names_what_is_beyond_chance(intervals: dict[str, tuple[float, float]], sentence: str) -> None:
    changes = [
        Comparison(
            "zero-shot" if name == "accuracy" else "retrieval",
            Metric(name, None if name == "accuracy" else TEXT_TO_AUDIO),
            "a",
            "b",
            Difference(Estimate(sum(bounds) / 2, *bounds), 0.5),
        )
        for name, bounds in intervals.items()
    ]
    assert verdict(changes) == sentence


def _originals(folder: Path) -> list[str]:
    from openclap.data.shards import index_shards

    index = index_shards(folder)
    return [json.dumps(index.read_sample(number).original) for number in range(len(index))]


def test_second_run_reuses_finished_steps(demo_home: Path) -> None:
    def times() -> dict[str, int]:
        folders = ("shards", "run", "report", "index/windows.lance/data")
        return {
            str(p): p.stat().st_mtime_ns
            for k in folders
            for p in (demo_home / "demo" / k).rglob("*.*")
            if _is_compared(p)
        }

    before, started = times(), os.times()
    assert run_demo(demo_home, "again") == 0
    assert os.times().children_user - started.children_user < 60  # of the processor, so that a busy machine adds little
    assert times() == before
    assert (demo_home / "again.out").read_text() == (demo_home / "demo.out").read_text()


def _is_compared(path: Path) -> bool:
    return path.is_file() and path.name not in (".lock", "log.jsonl") and "tensorboard" not in path.parts


def test_search_finds_described_sounds(demo_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENCLAP_HOME", str(demo_home))
    library = Library.open(demo_home / "demo" / "index")
    assert "scratch-wolf-howl.ogg" in [Path(hit.path).name for hit in library.search("wolf howling", 5)]
    assert library.index.count()[0] == len(Demo(demo_home / "demo").records)
    assert "wolf" in (demo_home / "demo.out").read_text()


def test_demo_model_is_an_ordinary_model_folder(demo_home: Path) -> None:
    model = openclap.load(demo_home / "demo" / "run" / "model")
    assert model.preset == openclap.load("mini").preset  # with the category heads
    entries = read_header(demo_home / "demo" / "run" / "model" / "model.safetensors")
    assert "F32" in (types := {entry["dtype"] for entry in entries.values()}) and "F16" not in types  # as in mini
    sounds = [SOUNDS / "scratch-wolf-howl.ogg", SOUNDS / "supersonic-bd-808.ogg"]
    probabilities = model.classify(sounds, ["howling wolf", "kick drum"])
    assert probabilities.argmax(axis=1).tolist() == [0, 1]


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.players = 0
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.players += tag == "audio"
        loads = {"img", "script", "link", "iframe", "source", "audio"}
        self.fetched += [v for k, v in attributes if k in ("src", "href") and tag in loads and v and v[:5] != "data:"]


def test_the_report_is_one_page_with_sounds(demo_home: Path) -> None:
    html = (demo_home / "demo" / "report" / "index.html").read_text(encoding="utf-8")
    page = _Page()
    page.feed(html)
    assert page.players >= 18 and not page.fetched and len(html) < 6_000_000
    for words in ("Training", "Confusion", "chance", "baseline", "CC"):
        assert words.lower() in html.lower()


def test_other_version_starts_over(tmp_path: Path) -> None:
    line = Demo(tmp_path / "demo")
    for _ in range(2):
        with line.locked() as anew:
            assert not anew
            with pytest.raises(DataError, match="another process"), Demo(tmp_path / "demo").locked():
                pass
    (line.run / "model").mkdir(parents=True)
    mark = tmp_path / "demo" / "made-by.json"
    mark.write_text(mark.read_text(encoding="utf-8").replace('"source": "', '"source": "0'), encoding="utf-8")
    with line.locked() as anew:
        assert anew and not line.run.exists()


def test_another_bundled_model_starts_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = Demo(tmp_path / "demo")
    with line.locked() as anew:
        assert not anew
    (line.run / "model").mkdir(parents=True)
    weights = tmp_path / "mini" / "model.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"other weights")
    monkeypatch.setattr(bundled, "FOLDER", weights.parent)
    with line.locked() as anew:
        assert anew and not line.run.exists()
