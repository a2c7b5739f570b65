"""`openclap inspect`: what a checkpoint holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from openclap.cli.console import note, print_json, print_table
from openclap.cli.model_options import Offline


def inspect(
    model: str,
    *,
    revision: str | None = None,
    offline: Offline = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Say what a checkpoint holds: towers, sizes, front end, and whether anything is missing.

    Parameters
    ----------
    model
        A file or folder in any format that openclap reads, or a published name that has been fetched.
    revision
        The branch, tag or commit of a source on the hub.
    offline
        Take what the hub's cache has, and ask the network for nothing.
    json
        Print one JSON object instead of a table.
    """
    from openclap.checkpoints import detect
    from openclap.loading import locate

    path = Path(model) if Path(model).exists() else locate(model, revision=revision, offline=offline, report=note)
    facts = detect.describe(path)
    if json:
        print_json(facts)
        return
    print_table(["", ""], [[name, _shown(value)] for name, value in facts.items()])


def _shown(value: object) -> str:
    if isinstance(value, list):
        return f"{', '.join(map(str, value[:3]))}{f' and {len(value) - 3} more' if len(value) > 3 else ''}" or "nothing"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)
