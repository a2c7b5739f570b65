from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from openclap.cli import run as command
from openclap.errors import DataError
from openclap.training.curves_page import score_columns, write_report
from openclap.training.trainer import train
from support.errors import check_refusal, raises_naming
from support.runs import MakeConfig

ROW = {"total_steps": 100, "epoch": 1, "loss": 2.0, "scale": 14.0, "grad_norm": 1.0, "lr": 1e-3}


def write_run(folder: Path, rows: list[dict[str, object]]) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"start": "<b>", "optim": {"lr": 0.001}}), encoding="utf-8")
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def titles(html: str) -> list[str]:
    return re.findall(r"<h3>(.*?)</h3>", html)


def test_report_of_a_real_run(make_config: MakeConfig, tmp_path: Path) -> None:
    train(make_config(), tmp_path / "run")
    html = write_report(tmp_path / "run").read_text(encoding="utf-8")
    assert {"Loss", "Learning rate", "Temperature", "Gradient norm", "Pairs per second"} <= set(titles(html))
    assert "All 30 steps are taken." in html and "optim.tower_lr" in html
    assert not re.search(r"<script|src=.http|href=.http|@import|url\(", html)  # no external resources
    shown = re.search(r"The loss went from ([\d.]+) to", html)
    first = json.loads((tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert shown and float(shown[1]) == pytest.approx(first["loss"], abs=0.006)


def test_report_of_an_interrupted_run_with_scores(tmp_path: Path) -> None:
    rows = [ROW | {"step": step, "loss": 3.0 - step / 50} for step in range(1, 61)]
    rows[29] |= {"validation_map10": 0.2}
    rows[59] |= {"validation_map10": 0.4, "seconds_left": 75.0}
    run = write_run(tmp_path / "run", rows)
    with (run / "log.jsonl").open("a", encoding="utf-8") as log:
        log.write('{"step": 61, "lo')  # cut short by a kill
    html = write_report(run).read_text(encoding="utf-8")
    assert score_columns(rows) == ["validation_map10"] and "Validation map10" in titles(html)
    assert "60 of 100 steps are taken" in html and "from 0.200 to 0.400 at best" in html and "0:01:15" in html
    assert "&lt;b&gt;" in html and "<b>" not in html
    (run / "model").mkdir()  # as after early stopping
    html = write_report(run).read_text(encoding="utf-8")
    assert (
        "Stopped early after 60 of 100 steps" in html
        and "the same command goes on" not in html
        and ">Left<" not in html
    )


def test_report_is_well_formed_html(tmp_path: Path) -> None:
    html = write_report(write_run(tmp_path / "run", [ROW | {"step": 1}, ROW | {"step": 2}])).read_text(encoding="utf-8")
    opened: list[str] = []
    void = {"meta", "link", "line", "polyline", "rect", "circle"}

    class Check(HTMLParser):
        def handle_starttag(self, tag: str, attributes: object) -> None:
            if tag not in void:
                opened.append(tag)

        def handle_endtag(self, tag: str) -> None:
            if tag not in void:
                assert opened.pop() == tag

    Check().feed(html)
    assert not opened


def test_folder_without_a_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with raises_naming(DataError, tmp_path, "log.jsonl"):
        write_report(tmp_path)
    with raises_naming(DataError, tmp_path / "young" / "log.jsonl"):
        write_report(write_run(tmp_path / "young", [{"step": 0, "score": 0.1}]))
    assert command(["page", str(tmp_path)]) == 2
    check_refusal(capsys.readouterr().err, tmp_path, "log.jsonl")
    assert command(["page", str(write_run(tmp_path / "run", [ROW | {"step": 1}]))]) == 0
