"""`openclap dataset sources`: list the known collections, explain one, and compare its entries with its files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from openclap.cli.console import note, print_json, print_table, results

if TYPE_CHECKING:
    from openclap.sources import Source


def sources(name: str | None = None, folder: Path | None = None, *, json: bool = False) -> None:
    """List the collections and layouts that `build --source` and recipes can read, and the files that each needs.

    With a NAME, explain that source: how to get it, what it may be used for, what is known to be wrong with it. With a
    FOLDER too, count its entries, those whose file is there or missing, and the files that no entry names.

    Parameters
    ----------
    name
        A source, such as wavcaps.
    folder
        A folder in the source's layout; for the sources table and id_list, the file.
    json
        Print JSON instead of tables.
    """
    from openclap.errors import ConfigError
    from openclap.sources import SOURCES

    if name is None:
        _list(list(SOURCES.values()), json=json)
        return
    if name not in SOURCES:
        raise ConfigError(f"There is no source {name!r}. Expected one of: {', '.join(SOURCES)}.")
    if folder is None:
        _explain(SOURCES[name], json=json)
    else:
        _count(SOURCES[name], folder, json=json)


def _list(known: list[Source], *, json: bool) -> None:
    if json:
        print_json([{k: v for k, v in asdict(source).items() if k != "read"} for source in known])
        return
    print_table(
        ["source", "samples", "licence", "needs under its folder"],
        [
            [source.name, f"{source.published.samples:,}" if source.published else "–", source.licence, source.needs]
            for source in known
        ],
        right=[1],
    )


def _explain(source: Source, *, json: bool) -> None:
    if json:
        print_json({k: v for k, v in asdict(source).items() if k != "read"})
        return
    size = source.published
    hours = f", {size.hours:,.0f} hours" if size and size.hours else ""
    rows = [
        ("name", source.title),
        ("size", f"{size.samples:,} sounds{hours}, as published" if size else ""),
        ("how to get it", source.get),
        ("page", source.page),
        ("needs", source.needs),
        ("licence", source.licence),
        ("may be used for", source.use),
        ("known faults", source.faults),
    ]
    for title, text in rows:
        if text:
            results.print(f"{title}: {text}", markup=False, highlight=False)


def _count(source: Source, folder: Path, *, json: bool) -> None:
    from openclap.sources.inventory import take_inventory

    inventory = take_inventory(source, folder)
    rows = [
        (part, split, count, inventory.found.get((part, split), 0))
        for (part, split), count in inventory.entries.items()
    ]
    if json:
        named = [
            {"source": part, "split": split or None, "entries": count, "found": found, "missing": count - found}
            for part, split, count, found in rows
        ]
        print_json({"parts": named, "files_without_entry": inventory.left_over})
        return
    print_table(
        ["source", "split", "entries", "with a file", "missing"],
        [[part, split or "–", f"{n:,}", f"{found:,}", f"{n - found:,}"] for part, split, n, found in rows],
        right=[2, 3, 4],
    )
    if inventory.missing:
        note(f"Missing, such as: {', '.join(inventory.missing)}.")
    if inventory.left_over:
        note(f"{inventory.left_over:,} files that no entry names, such as: {', '.join(inventory.first_left_over)}.")
