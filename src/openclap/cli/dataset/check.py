"""`openclap dataset check`: is every tar whole?"""

from __future__ import annotations

import os

from openclap.cli.console import note, print_json, print_table, progress
from openclap.cli.dataset.making import Flag


def check(out: str, *, repair: Flag = False, processes: int = os.cpu_count() or 1, json: Flag = False) -> int:
    """Read every byte of every tar, and name what is damaged. The exit code is 1 when something is.

    Tars that openclap wrote are held against the manifest's hashes; of other tars every sound is decoded.

    Parameters
    ----------
    out
        A data set, or any folder of WebDataset tars.
    repair
        Write the damaged tars again, and only those.
    processes
        How many tars are read at once.
    json
        Print one JSON object instead of a table.
    """
    from openclap.data import check as checking
    from openclap.data.files import place_of

    folder = place_of(out)
    with progress("Checking") as advance:
        health = checking.check(folder, processes=processes, progress=advance)
    found = health.damage
    if repair and found:
        with progress("Repairing"):
            health = checking.repair(folder, health, processes=processes)
    if json:
        print_json(
            {"tars": health.tars, "samples": health.samples, "damaged": found, "left": health.damage}
            if repair
            else {"tars": health.tars, "samples": health.samples, "damaged": found}
        )
    elif found:
        print_table(["tar", "what is wrong"], [list(row) for row in found])
    if repair and found:
        mended = len({tar for tar, _ in found}) - len({tar for tar, _ in health.damage})
        note(f"Wrote {mended} damaged tars again." if mended else "Nothing could be mended.")
    elif not found:
        note(f"{health.tars} tars with {health.samples:,} samples are whole.")
    return 1 if health.damage else 0
