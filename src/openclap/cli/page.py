"""`openclap page`: the report of a training run."""

from __future__ import annotations

from pathlib import Path

from openclap.cli.console import note, shown


def page(run: Path) -> None:
    """Write the report of a run, finished or not, to RUN/report.html: curves, figures and options on one page.

    Training writes it when it ends or is stopped.

    Parameters
    ----------
    run
        The run folder, the value of `openclap train --out`.
    """
    from openclap.training.report import write_report

    note(f"Wrote {shown(write_report(run))}")
