"""`openclap dataset check`: is every tar whole?"""

from __future__ import annotations

import os
from collections.abc import Sequence

from openclap.cli.console import note, print_json, print_table, progress
from openclap.cli.dataset.making import Flag

NAMED = 10
"""Files that are no part of the data set and are named."""


def check(out: str, *, repair: Flag = False, processes: int = os.cpu_count() or 1, json: Flag = False) -> int:
    """Read every byte of every tar, and name what is damaged. The exit code is 1 when something is.

    Tars that openclap wrote are held against the manifest's hashes; of other tars every sound is decoded. Files that
    are no part of the data set are named.

    Parameters
    ----------
    out
        A data set, or any folder of WebDataset tars.
    repair
        Write damaged tars, manifest and sizes again, and only those; without work/, the manifest from the tars alone.
    processes
        How many tars are read at once.
    json
        Print one JSON object instead of a table.
    """
    from openclap.data import verify as checking
    from openclap.storage import place_of

    folder = place_of(out)
    with progress("Checking") as advance:
        health = checking.check(folder, processes=processes, progress=advance)
    found = health.damage
    if repair and found:
        with progress("Repairing"):
            health = checking.repair(folder, health, processes=processes)
    if json:
        facts = {"tars": health.tars, "samples": health.samples, "damaged": found, "aliens": health.aliens}
        print_json(facts | {"left": health.damage} if repair else facts)
    elif found:
        print_table(["file", "what is wrong"], [list(row) for row in found])
    if health.aliens:
        more = f" and {len(health.aliens) - NAMED} more" if len(health.aliens) > NAMED else ""
        note(f"No part of the data set: {', '.join(health.aliens[:NAMED])}{more}.")
    for sentence in health.notes:
        note(sentence)
    if repair and found:
        _say_mended(found, health.damage)
    elif not found:
        note(f"{health.tars} tars with {health.samples:,} samples are whole.")
    return 1 if health.damage else 0


def _say_mended(found: Sequence[tuple[str, str]], left: Sequence[tuple[str, str]]) -> None:
    """How many tars were written again, and what is left."""
    gone = {name for name, _ in found} - {name for name, _ in left}
    tars = sum(name.endswith(".tar") for name in gone)
    if tars:
        note(f"Wrote {tars} damaged tars again.")
    elif not gone:
        note("Nothing could be mended.")
    for name, reason in left:
        note(f"Still wrong: {name}: {reason}")
