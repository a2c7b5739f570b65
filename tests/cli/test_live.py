from __future__ import annotations

import io
import time
from typing import Any

import pytest
from rich.console import Console

from openclap.cli import live

ROW: dict[str, Any] = {
    "step": 3,
    "total_steps": 40,
    "epoch": 1,
    "loss": 2.5,
    "scale": 20.0,
    "grad_norm": 0.75,
    "pairs_per_s": 12.3,
    "data_wait": 0.21,
    "mfu": 0.44,
    "memory_mb": 1540.0,
    "seconds_left": 125.0,
}


def shown(rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, *, terminal: bool) -> str:
    screen = io.StringIO()
    monkeypatch.setattr(live, "notes", Console(file=screen, force_terminal=terminal, width=100, color_system=None))
    monkeypatch.setattr(live, "note", lambda line: screen.write(line + "\n"))
    with live.training_progress() as watch:
        for row in rows:
            watch(row)
    return screen.getvalue()


def test_terminal_shows_the_last_row_and_the_last_score(monkeypatch: pytest.MonkeyPatch) -> None:
    scored = ROW | {"validation_map10": 0.321}
    screen = shown([scored, ROW | {"step": 4, "loss": 1.5}], monkeypatch, terminal=True)
    last = screen[screen.rindex("Training") :]
    for words in (
        "step 4/40",
        "0:02:05 left",
        "1.500  █▁",
        "0.0500",
        "0.750",
        "12.3",
        "21%",
        "44%",
        "1.54 GB",
        "0.3210",
    ):
        assert words in last, words


def test_note_above_leaves_the_view_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, force_interactive=True, width=100, color_system=None)
    monkeypatch.setattr(live, "notes", screen)
    with live.training_progress() as watch:
        watch(ROW)
        time.sleep(0.4)  # until the view has been drawn with it
        screen.print("epoch 1: score [0.5]", markup=False)
    assert isinstance(screen.file, io.StringIO)
    told = screen.file.getvalue()
    assert "score [0.5]" in told and "gradient norm" in told and "[dim]" not in told


def test_without_a_terminal_lines_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [ROW, ROW | {"step": 4}, ROW | {"step": 5, "score": 0.5}, ROW | {"step": 40}]
    lines = shown(rows, monkeypatch, terminal=False).splitlines()
    assert [line.split()[1] for line in lines] == ["3/40", "5/40", "40/40"]  # the second came too soon
    assert lines[0] == "step 3/40  loss 2.500  temperature 0.0500  12 pairs/s  0:02:05 left"
    assert lines[1].endswith("score 0.5000")


def test_score_of_the_initial_model(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"step": 0, "total_steps": 40, "epoch": 0, "score": 0.25}
    assert shown([row], monkeypatch, terminal=False) == "step 0/40  score 0.2500\n"
    assert "0.2500" in shown([row], monkeypatch, terminal=True)


def test_sparkline() -> None:
    assert live.sparkline([0.0, 7.0, 3.0]) == "▁█▄" and live.sparkline([2.0, 2.0]) == "▁▁"
