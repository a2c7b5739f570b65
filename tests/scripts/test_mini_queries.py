"""The sheet on which the hits of two models are judged blind."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from scripts.mini import queries


def test_judgements_return_to_the_models_of_the_lists(tmp_path: Path) -> None:
    """A judge who accepts only hits named "right" finds the model that they are from, wherever its lists stand."""
    sheet = tmp_path / "sheet"
    right = [[f"right {place}" for place in range(5)] for _ in queries.QUERIES]
    mixed = [["wrong", "right", "wrong", "wrong", "wrong"] for _ in queries.QUERIES]
    queries.write_sheet(sheet, [right, mixed])
    assert {order[0] for order in queries.orders()} == {0, 1}
    sheet.write_text(sheet.read_text("utf-8").replace("  right", "+ right"), encoding="utf-8")
    assert queries.count(sheet) == [(30, 150), (0, 30)]


def test_a_judged_sheet_is_not_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sheet = tmp_path / "sheet"
    sheet.write_text("judged", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["queries", str(tmp_path), "--models", "a", "b", "--sheet", str(sheet)])
    with pytest.raises(SystemExit, match="exists"):
        queries.main()
    assert sheet.read_text("utf-8") == "judged"
