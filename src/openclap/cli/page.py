"""`openclap page`: the report of a training run."""

from __future__ import annotations

from pathlib import Path

from openclap.cli.console import note, shown


def page(run: Path) -> None:
    """Write the report of a training run to RUN/report.html: curves, figures and options.

    The run need not be finished. Training itself writes the report when it ends or is stopped.

    Parameters
    ----------
    run
        The run folder: the value of --out in `openclap train`.
    """
    from openclap.training.curves_page import write_report

    note(f"Wrote {shown(write_report(run))}")
