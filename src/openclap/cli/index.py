"""`openclap index`: build a search index and keep it up to date with folders of sound."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from openclap import paths
from openclap.cli.console import list_skipped, note, print_json, print_table, progress
from openclap.cli.defaults import default_index
from openclap.cli.model_options import ModelOptions
from openclap.cli.reading import ReadAs


def add(
    sounds: list[Path],
    *,
    index: Path | None = None,
    model_options: ModelOptions = ModelOptions(),
    table: Path | None = None,
    read_as: ReadAs = ReadAs(),
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Add folders or files to a search index, or bring it up to date with them.

    Only new and changed files are embedded; moved ones keep their vectors; vanished ones leave. Files are read,
    never written. If it is stopped, the same command resumes. An index keeps the model, the channel and the other
    options that it was made with: they need not be given again. A tokenizer is copied into a new index.

    Parameters
    ----------
    sounds
        Folders or sound files.
    index
        The index folder; ~/.cache/openclap/index without it.
    table
        A table as `openclap dataset build` reads, whose captions, tags and licences are shown with hits.
    json
        Print one JSON object instead of a table.
    """
    from openclap.sources.recognise import advice

    found = read_as.recognise(table) if table else None
    records = list(found.read()) if found else []
    if found and not any(record.captions for record in records):
        note(" ".join(filter(None, ("No caption is in the table.", advice(found)))))
    library = model_options.open_library(index or paths.home() / "index")
    with progress("Indexing") as advance:
        report = library.add(sounds, records=records, progress=advance, seconds=advance.add_seconds)
    list_skipped(report.skipped)
    if json:
        print_json(asdict(report))
        return
    counts = {name: getattr(report, name) for name in ("added", "unchanged", "moved", "removed")}
    print_table(list(counts), [[str(count) for count in counts.values()]], right=range(4))


def status(*, index: Path | None = None, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """Show what an index holds and which model made it.

    Parameters
    ----------
    index
        The index folder; your own or else the demo's.
    json
        Print one JSON object instead of lines.
    """
    from openclap.search.index import Index

    where = index or default_index()
    opened = Index.open(where)
    files, windows = opened.count()
    identity = opened.identity
    facts = {"index": str(where), "files": files, "windows": windows, "model": identity.model}
    facts |= {"precision": identity.precision, "channels": identity.channels, "trim_silence": identity.trim_silence}
    if json:
        print_json(facts)
    else:
        print_table(["", ""], [[name, str(value)] for name, value in facts.items()])
    if not files:
        note("Add sounds with: openclap index add FOLDER")
