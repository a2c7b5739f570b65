"""`openclap dataset check`: find and repair damaged tars."""

from __future__ import annotations

import os
from collections.abc import Sequence

from openclap.cli.console import note, print_json, print_table, progress

LISTED = 10
"""Number of foreign files that a note names."""


def check(out: str, *, repair: bool = False, processes: int = os.cpu_count() or 1, json: bool = False) -> int:
    """Read every byte of every tar and list the damaged ones. The exit code is 1 when there are any.

    Tars that openclap wrote are compared with the hashes in the manifest; of other tars, every sound is decoded. Files
    that are not part of the data set are listed.

    Parameters
    ----------
    out
        A data set, or any folder of WebDataset tars.
    repair
        Write damaged tars, manifest and sizes again, and no other files. Without the folder OUT/work only the manifest
        can be repaired, from the tars.
    processes
        The number of tars to read in parallel.
    json
        Print one JSON object instead of a table.
    """
    from openclap.data import verify
    from openclap.formatting import join_first
    from openclap.storage import place_of

    folder = place_of(out)
    with progress("Checking") as advance:
        report = verify.check(folder, processes=processes, progress=advance)
    damage = report.damage
    if repair and damage:
        with progress("Repairing"):
            report = verify.repair(folder, report, processes=processes)
    if json:
        facts = {"tars": report.tars, "samples": report.samples, "damaged": damage, "foreign": report.foreign}
        print_json(facts | {"left": report.damage} if repair else facts)
    elif damage:
        print_table(["file", "damage"], [list(row) for row in damage])
    if report.foreign:
        note(f"Not part of the data set: {join_first(report.foreign, LISTED)}.")
    for sentence in report.notes:
        note(sentence)
    if repair and damage:
        _note_repairs(damage, report.damage)
    elif not damage:
        note(f"{report.tars} tars with {report.samples:,} samples are undamaged.")
    return 1 if report.damage else 0


def _note_repairs(before: Sequence[tuple[str, str]], left: Sequence[tuple[str, str]]) -> None:
    """Print the number of repaired tars and the remaining damage."""
    repaired = {name for name, _ in before} - {name for name, _ in left}
    tars = sum(name.endswith(".tar") for name in repaired)
    if tars:
        note(f"Wrote {tars} damaged tars again.")
    elif not repaired:
        note("Nothing could be repaired.")
    for name, reason in left:
        note(f"Still damaged: {name}: {reason}")
