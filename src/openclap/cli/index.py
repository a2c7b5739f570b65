"""`openclap index`: build a search index and keep it up to date with folders of sound."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

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
    json: bool = False,
) -> None:
    """Add folders or files to a search index, or bring it up to date with them.

    Only new and changed files are embedded. Moved files keep their embeddings; deleted files are removed from the
    index. Sound files are never written. After a stop, the same command resumes. The index stores its model and the
    other options of embedding, so they need not be given again. A tokenizer is copied into a new index.

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
    with progress("Indexing") as advance:
        report = library.add(sounds, records=records, progress=advance, seconds=advance.add_seconds)
    list_skipped(report.skipped)
    if json:
        print_json(asdict(report))
        return
    counts = {name: getattr(report, name) for name in ("added", "unchanged", "moved", "removed")}
    print_table(list(counts), [[str(count) for count in counts.values()]], right=range(4))


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


def optimize(*, index: Path | None = None) -> None:
    """Merge the small pieces of an index and make its snapshot anew, for faster searches.

    Nothing is embedded again. Merging takes memory for all vectors: 1 GB for a million windows of 512 dimensions.

    Parameters
    ----------
    index
        The index folder. Default: your own (~/.cache/openclap/index), or the demo's if there is none.
    """
    from openclap.search.index import Index

    opened = Index.open(index or default_index())
    opened.optimize()
    note(f"{opened.folder} is optimized: {opened.count()[1]:,} windows.")


def verify(*, index: Path | None = None, recall: bool = False, queries: int = 50, json: bool = False) -> None:
    """Read all of an index, and compare its snapshot with its tables.

    Exits with 2 when something is damaged, and says how to repair it.

    Parameters
    ----------
    index
        The index folder. Default: your own (~/.cache/openclap/index), or the demo's if there is none.
    recall
        Measure how many of the 10 best hits of an exact search a search finds, with windows of the index, and with
        directions at cosines of about 0.4 to one, as queries.
    queries
        The number of queries of each kind for --recall.
    json
        Print one JSON object instead of a table.
    """
    from openclap.errors import ConfigError
    from openclap.search.index import Index
    from openclap.search.verify import verify as check

    if queries < 1:
        raise ConfigError(f"--queries is {queries}, expected 1 or more.")
    opened = Index.open(index or default_index())
    with progress("Verifying") as advance:
        result = asdict(check(opened, queries=queries if recall else 0, progress=advance))
    shown = {name.replace("_", " "): value for name, value in result.items() if value is not None}
    if json:
        print_json(result)
    else:
        rows = [[name, f"{value:.3f}" if isinstance(value, float) else str(value)] for name, value in shown.items()]
        print_table(["", ""], rows)
