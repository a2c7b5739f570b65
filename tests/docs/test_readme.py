"""Run every command and every Python block of README.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.documents import ROOT, first_missing, form, run, run_commands, run_python

README = ROOT / "README.md"


@pytest.mark.timeout(900)
def test_commands_print_the_shown_output(clone: Path) -> None:
    run_commands(README)


def test_make_demo_runs_the_demo() -> None:
    code, printed = run(f"make --directory {ROOT} --old-file .venv/ready --dry-run demo")
    assert code == 0 and ".venv/bin/openclap demo" in printed.splitlines()


def test_python_blocks_print_the_shown_output(clone: Path) -> None:
    run_python(README, clone)


def test_form_ignores_what_differs_between_runs() -> None:
    assert form("0.657  0.0–2.3 s  wolf.ogg  a wolf howling") == form("-0.1   1.0–3.0 s  cat.ogg  a cat")
    assert form("text→audio  R@10  0.498  0.409–0.579  yes") == form("text→audio  R@10  0.1  0.0–1.0  touching")
    assert form("accuracy  -0.009  -0.043 to +0.018  0.786") == form("accuracy  +0.000  +0.001 to +0.044  1.000")
    assert form("Wrote build/shards") != form("Skipped build/shards")
    assert first_missing(["one 1", "…", "three 3"], ["zero", "one 2", "two", "three 4"]) is None
    assert first_missing(["three 3", "one 1"], ["one 1", "three 3"]) == "one 1"
