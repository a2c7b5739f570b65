"""`openclap inspect`: describe a checkpoint."""

from __future__ import annotations

from pathlib import Path

from openclap.cli.console import print_json, print_table
from openclap.formatting import join_first


def inspect(
    model: str,
    *,
    revision: str | None = None,
    offline: bool = False,
    json: bool = False,
) -> None:
    """Describe a checkpoint: towers, sizes, front end, and weights that are missing or do not fit.

    Parameters
    ----------
    model
        A file or folder in any format that openclap reads, or the name of a model.
    revision
        The branch, tag or commit of a model on the hub.
    offline
        Use only the hub's cache, without network access.
    json
        Print one JSON object instead of a table.
    """
    from openclap.checkpoints import detect
    from openclap.loading import locate

    path = Path(model) if Path(model).exists() else locate(model, revision=revision, offline=offline)
    facts = detect.describe(path)
    if json:
        print_json(facts)
        return
    print_table(["", ""], [[name, _format_value(value)] for name, value in facts.items()])


def _format_value(value: object) -> str:
    if isinstance(value, list):
        return join_first(value) or "nothing"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)
