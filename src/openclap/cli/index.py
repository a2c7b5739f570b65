"""`openclap index`: build a search index and keep it up to date with folders of sound."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from openclap import paths
from openclap.cli.console import list_skipped, note, print_json, print_table, progress
from openclap.cli.defaults import default_index
from openclap.cli.model_options import ModelOptions
from openclap.cli.reading import ReadAs

if TYPE_CHECKING:
    from openclap.library import Library


CONVERT_AFTER_S = 30.0
"""Seconds of indexing after which the model is converted for onnxruntime, which takes about as long."""


def add(
    sounds: list[Path],
    *,
    index: Path | None = None,
    model_options: ModelOptions = ModelOptions(),
    table: Path | None = None,
    read_as: ReadAs = ReadAs(),
    json: bool = False,
) -> None:
    """Add folders or files to a search index, or bring it up to date with them.

    Only new and changed files are embedded. Moved files keep their embeddings; deleted files are removed from the
    index. Sound files are never written. After a stop, the same command resumes. The index stores its model and the
    other options of embedding, so they need not be given again. A tokenizer is copied into a new index.

    When indexing has taken more than 30 seconds, the model is also converted for onnxruntime, once, so that searches
    start without torch. `openclap convert MODEL --to onnx` does so at any time.

    Parameters
    ----------
    sounds
        Folders or sound files.
    index
        The index folder. Default: ~/.cache/openclap/index ($OPENCLAP_HOME/index).
    table
        A table that `openclap dataset build` can read: hits show its captions, tags and licences.
    json
        Print one JSON object instead of a table.
    """
    from openclap.sources.recognise import advice

    collection = read_as.recognise(table) if table else None
    records = list(collection.read()) if collection else []
    if collection and not any(record.captions for record in records):
        note(" ".join(filter(None, ("The table has no captions.", advice(collection)))))
    library = model_options.open_library(index or paths.home() / "index")
    started_s = time.monotonic()
    with progress("Indexing") as advance:
        report = library.add(sounds, records=records, progress=advance, seconds=advance.add_seconds)
    took_s = time.monotonic() - started_s
    list_skipped(report.skipped)
    if json:
        print_json(asdict(report))
    else:
        counts = {name: getattr(report, name) for name in ("added", "unchanged", "moved", "removed")}
        print_table(list(counts), [[str(count) for count in counts.values()]], right=range(4))
    if took_s >= CONVERT_AFTER_S:
        prepare_graphs(library)


def prepare_graphs(library: Library) -> None:
    """Convert the model of an index for onnxruntime, unless that was done, so that a search need not import torch."""
    from openclap import runtimes
    from openclap.loading import locate

    identity = library.index.identity
    source = locate(identity.model, revision=identity.revision, offline=True)
    runtimes.resolve(runtimes.CONVERTER)(library.embedder, source, note)


def status(*, index: Path | None = None, json: bool = False) -> None:
    """Show the number of files in an index, its model and its options.

    Parameters
    ----------
    index
        The index folder. Default: your own (~/.cache/openclap/index), or the demo's if there is none.
    json
        Print one JSON object instead of lines.
    """
    from openclap.search.index import Index

    folder = index or default_index()
    opened = Index.open(folder)
    files, windows = opened.count()
    identity = opened.identity
    facts = {"index": str(folder), "files": files, "windows": windows, "model": identity.model}
    facts |= {"precision": identity.precision, "channels": identity.channels, "trim_silence": identity.trim_silence}
    if json:
        print_json(facts)
    else:
        print_table(["", ""], [[name, str(value)] for name, value in facts.items()])
    if not files:
        note("Add sounds with: openclap index add FOLDER")
