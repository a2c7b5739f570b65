"""`openclap dataset`: from tables and sounds to shards."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from openclap.cli.console import list_skipped, note, print_json, print_table, progress


def pack(
    table: Path,
    out: Path,
    *,
    test: float = 0.2,
    seed: int = 0,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Pack a table of sounds and captions into WebDataset shards, split by group.

    Each clip becomes 48 kHz mono FLAC with its captions as JSON, 512 to a tar, in OUT/train and OUT/test. Files that
    cannot be used are listed in OUT/skipped.jsonl. Stopped half-way, the same command goes on.

    Parameters
    ----------
    table
        CSV, TSV, JSONL or parquet with columns `file` (relative to the table) and `captions` (several joined by
        " | ") or `caption`; and, where known, `tags`, `label`, `group`, `title`, `author`, `licence`, `link`.
    out
        Folder to write.
    test
        Share of the clips that is held out for testing, in whole groups.
    seed
        Which groups are held out.
    json
        Print one JSON object instead of a table.
    """
    from openclap.data import pack as packing
    from openclap.errors import ConfigError
    from openclap.sources.table import read_table

    if not 0 <= test < 1:
        raise ConfigError(f"--test is {test}, expected a share from 0 to below 1.")
    splits = {"train": 1 - test, "test": test} if test else {"train": 1.0}
    with progress("Packing") as advance:
        report = packing.pack(read_table(table), out, splits=splits, seed=seed, progress=advance)
    list_skipped([(item.file, item.reason) for item in report.skipped])
    if json:
        print_json(asdict(report) | {"out": str(report.out)})
    else:
        print_table(["split", "clips"], [[split, str(count)] for split, count in report.packed.items()], right=[1])
    note(f"Wrote {out}")
