"""`openclap page`: a run's curves on one page."""

from __future__ import annotations

from pathlib import Path

from openclap.cli.console import note, shown


def page(run: Path) -> None:
    """Draw the curves of a run, finished or not, on RUN/report.html.

    Training does so itself when it ends or is stopped.

    Parameters
    ----------
    run
        The folder that was given to `openclap train --out`.
    """
    from openclap.training.page import write_page

    note(f"Wrote {shown(write_page(run))}")
