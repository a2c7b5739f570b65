"""`openclap index`: build a search index and keep it up to date with folders of sound."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from openclap import paths
from openclap.cli.console import counted, list_skipped, note, print_json, print_table, progress
from openclap.cli.defaults import advise_model, default_index
from openclap.cli.model_options import ModelOptions
from openclap.cli.reading import ReadAs
from openclap.formatting import join_first
from openclap.limits import check_count

if TYPE_CHECKING:
    from openclap.library import Library
    from openclap.search.scan import ScanReport

Exclude = Annotated[
    tuple[str, ...],
    Parameter(
        help="A pattern of names (`*.tmp`) or of paths below a folder that was added (`Field/old*`) to leave out from "
        "now on; matching files of the index are removed from it. Repeat the option for several."
    ),
]
Watch = Annotated[bool, Parameter(help="Go on until Ctrl-C: index changes when they happen.")]
Conditions = Annotated[
    tuple[str, ...],
    Parameter(
        help="A condition on a fact: `duration<10`, `tags=rain|wind`, `folder=Field/2021`, `title~roof`. Repeat the "
        "option for several, which must all hold. `openclap index facets` lists the facts."
    ),
]

if TYPE_CHECKING:
    from openclap.library import Library


CONVERT_AFTER_S = 30.0
"""Seconds of indexing after which a model of another preset is converted for onnxruntime, which takes as long."""


def add(
    sounds: list[Path],
    *,
    index: Path | None = None,
    model_options: ModelOptions = ModelOptions(),
    table: Path | None = None,
    read_as: ReadAs = ReadAs(),
    exclude: Exclude = (),
    part: str | None = None,
    watch: Watch = False,
    json: bool = False,
) -> None:
    """Add folders or files to a search index, or bring it up to date with them.

    Only new and changed files are embedded. Moved files keep their embeddings; deleted files are removed from the
    index. A drive that is mounted elsewhere is recognised by its files. Sound files are never written. After a stop,
    the same command resumes. The index stores its model and the other options of embedding, so they need not be given
    again. A tokenizer is copied into a new index.

    Searches start without torch for models of published presets. Another one is converted for onnxruntime, once, when
    indexing has taken more than 30 seconds; `openclap convert MODEL --to onnx` does so at any time.

    Parameters
    ----------
    sounds
        Folders or sound files.
    index
        The index: a folder, or s3://, gs:// or az://BUCKET/NAME. Default: ~/.cache/openclap/index
        ($OPENCLAP_HOME/index).
    table
        A table that `openclap dataset build` can read: hits show its captions, tags and licences.
    part
        The part of the files for this job: 3/100 is the third of 100 jobs, which may run in parallel, on several
        machines. When all are done: `openclap index optimize`.
    json
        Print one JSON object instead of a table.
    """
    from openclap.errors import ConfigError
    from openclap.sources.recognise import advice

    if part and watch:
        raise ConfigError("--watch follows all files, so it cannot be combined with --part.")
    collection = read_as.recognise(table) if table else None
    records = list(collection.read()) if collection else []
    if collection and not any(record.captions for record in records):
        note(" ".join(filter(None, ("The table has no captions.", advice(collection)))))
    library = model_options.open_library(index or paths.home() / "index")
    started_s = time.monotonic()
    with progress("Indexing") as advance:
        report = library.add(
            sounds, records=records, exclude=exclude, part=part, progress=advance, seconds=advance.add_seconds
        )
    took_s = time.monotonic() - started_s
    _show(report, json=json)
    if not json:
        advise_model(library.index, is_named=model_options.model is not None)
    if took_s >= CONVERT_AFTER_S:
        prepare_graphs(library)
    if watch:
        _watch(library, json=json)


def update(*, index: Path | None = None, exclude: Exclude = (), watch: Watch = False, json: bool = False) -> None:
    """Bring an index up to date with all folders that were added to it.

    Parameters
    ----------
    index
        The index folder. Default: your own (~/.cache/openclap/index), or the demo's if there is none.
    json
        Print one JSON object instead of a table.
    """
    from openclap.library import Library

    library = Library.open(index or default_index(), create=False)
    with progress("Indexing") as advance:
        report = library.update(exclude=exclude, progress=advance, seconds=advance.add_seconds)
    _show(report, json=json)
    if watch:
        _watch(library, json=json)


def remove(sounds: list[Path], *, index: Path | None = None, json: bool = False) -> None:
    """Remove files, and all files under folders, from an index. The sounds themselves stay as they are.

    Parameters
    ----------
    sounds
        Files or folders, which need not exist any more.
    index
        The index folder. Default: your own (~/.cache/openclap/index), or the demo's if there is none.
    json
        Print one JSON object instead of a line.
    """
    from openclap.search.index import Index

    opened = Index.open(index or default_index())
    removed = opened.remove(sounds)
    if json:
        print_json({"removed": removed})
    else:
        print_table(["removed"], [[str(removed)]], right=[0])
    roots = [root.found(opened.place.own_folder) for root in opened.header().roots]
    below = [path for path in sounds if any(path.absolute().is_relative_to(root) for root in roots)]
    if removed and any(path.exists() for path in below):
        note(f"{below[0]} comes back with the next update. Keep it out with: openclap index update --exclude PATTERN")


def export(folder: Path, *, index: Path | None = None) -> None:
    """Export an index: files.parquet, windows.parquet and vectors.npy, which pandas and NumPy read.

    Parameters
    ----------
    folder
        The new folder to write.
    index
        The index folder. Default: your own (~/.cache/openclap/index), or the demo's if there is none.
    """
    from openclap.search.export import export as write
    from openclap.search.index import Index

    files, windows = write(Index.open(index or default_index()), folder)
    note(f"Wrote {counted(files, 'file')} and {counted(windows, 'window')} to {folder}.")


def rebuild(*, index: Path | None = None, model_options: ModelOptions = ModelOptions(), json: bool = False) -> None:
    """Make an index again with another model, beside the old one, which it replaces when it is complete.

    The old index can be searched until then. After a stop, the same command resumes.

    Parameters
    ----------
    index
        The index folder. Default: your own (~/.cache/openclap/index), or the demo's if there is none.
    json
        Print one JSON object instead of a table.
    """
    from openclap.library import Library

    with progress("Indexing") as advance:
        _, report = Library.rebuild(
            index or default_index(),
            model_options.name,
            **model_options.library_options(),
            progress=advance,
            seconds=advance.add_seconds,
        )
    _show(report, json=json)


def facets(fact: str | None = None, *, where: Conditions = (), index: Path | None = None, json: bool = False) -> None:
    """List the values of a fact, and the number of files with each.

    Parameters
    ----------
    fact
        The fact. Without it, all facts are listed, each with the number of files that have it.
    index
        The index folder. Default: your own (~/.cache/openclap/index), or the demo's if there is none.
    json
        Print one JSON array instead of a table.
    """
    from openclap.search.filters import FACTS
    from openclap.search.index import Index
    from openclap.search.queries import count_facets, count_files

    opened = Index.open(index or default_index())
    if fact:
        counts = count_facets(opened, fact, where)
    else:
        counts = [(name, count_files(opened, [*where, f"{name}!="])) for name in FACTS]
    if json:
        print_json([{"value": value, "files": count} for value, count in counts])
    else:
        print_table(["files", fact or "fact"], [[str(count), str(value)] for value, count in counts], right=[0])


def label(labels: Path | None = None, *, index: Path | None = None, json: bool = False) -> None:
    """Label all sounds by zero-shot classification, for conditions such as labels=Rain.

    `openclap index add` labels new sounds by itself; this is for a list of your own. A window of a sound gets the most
    likely label when that is likelier than all others together; a file has up to three. A model can be wrong.

    Parameters
    ----------
    labels
        A text file with a label on each line: `Rain`, or with descriptions, `Rain: rain falling; heavy rain`. Default:
        the labels that the index has, or the categories of UCS.
    index
        The index folder. Default: your own (~/.cache/openclap/index), or the demo's if there is none.
    json
        Print one JSON array instead of a table.
    """
    from openclap.errors import ConfigError
    from openclap.library import Library

    try:
        text = labels.read_text(encoding="utf-8") if labels else None
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"{labels}: cannot be read, expected a text file with a label on each line.") from None
    library = Library.open(index or default_index(), create=False)
    chosen = library.label(text)
    counts = dict(library.facets("labels"))
    found = [(each.name, counts.get(each.name, 0)) for each in chosen]
    if json:
        print_json([{"value": name, "files": files} for name, files in found])
    else:
        print_table(["files", "label"], [[str(files), name] for name, files in found], right=[0])


def _show(report: ScanReport, *, json: bool) -> None:
    """Print the result of a scan. Raises DataError when all files were skipped."""
    from openclap.errors import DataError

    list_skipped(report.skipped)
    if report.ends_early:
        note(
            f"{counted(report.ends_early, 'damaged file')} without the end: the index has what is there. List them "
            "with: openclap index status"
        )
    counts = {name: getattr(report, name) for name in ("added", "unchanged", "moved", "removed")}
    if json:
        print_json(asdict(report))
    else:
        print_table(list(counts), [[str(count) for count in counts.values()]], right=range(4))
    if report.skipped and not any(counts.values()):
        raise DataError("None of the files could be indexed. The reasons are listed above.")


def prepare_graphs(library: Library) -> None:
    """Convert the model of an index for onnxruntime, unless that was done, so that a search need not import torch."""
    from openclap import runtimes
    from openclap.loading import locate

    identity = library.index.identity
    source = locate(identity.model, revision=identity.revision, offline=True)
    runtimes.resolve(runtimes.CONVERTER)(library.embedder, source, note)


def _watch(library: Library, *, json: bool) -> None:
    from openclap.search.watch import watch

    def show(report: ScanReport) -> None:
        list_skipped(report.skipped)
        if json:
            print_json(asdict(report))
        elif report.added or report.moved or report.removed:
            note(f"Added {report.added}, moved {report.moved}, removed {report.removed}.")

    note("Watching for changes. Stop with Ctrl-C.")
    watch(library.index, library.update, show, note)


def status(*, index: Path | None = None, json: bool = False) -> None:
    """Show the number of files in an index, its model and its options, and files that lack their end.

    Parameters
    ----------
    index
        The index folder. Default: your own (~/.cache/openclap/index), or the demo's if there is none.
    json
        Print one JSON object instead of lines.
    """
    from openclap.search.index import Index
    from openclap.search.queries import paths_of_files
    from openclap.search.rows import ENDS_EARLY

    folder = index or default_index()
    opened = Index.open(folder)
    files, windows = opened.count()
    identity = opened.identity
    header = opened.header()
    facts: dict[str, object] = {"index": opened.address, "files": files, "windows": windows, "model": identity.model}
    facts |= {"digest": identity.digest, "folders": [root.found(opened.place.own_folder) for root in header.roots]}
    facts |= {"exclude": list(header.exclude), "format": header.version}
    facts |= {"precision": identity.precision, "channels": identity.channels, "trim_silence": identity.trim_silence}
    damaged = paths_of_files(opened, {"damage": ENDS_EARLY})
    if json:
        print_json(facts | {"ends_early": damaged})
    else:
        facts |= {f"damaged: {ENDS_EARLY}": damaged} if damaged else {}
        shown = {name: join_first(value) if isinstance(value, list) else value for name, value in facts.items()}
        print_table(["", ""], [[name, str(value)] for name, value in shown.items()])
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
    note(f"{opened.place} is optimized: {opened.count()[1]:,} windows.")


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
    from openclap.search.index import Index
    from openclap.search.verify import verify as check

    check_count("--queries", queries)
    opened = Index.open(index or default_index())
    with progress("Verifying") as advance:
        result = asdict(check(opened, queries=queries if recall else 0, progress=advance))
    shown = {name.replace("_", " "): value for name, value in result.items() if value is not None}
    if json:
        print_json(result)
    else:
        rows = [[name, f"{value:.3f}" if isinstance(value, float) else str(value)] for name, value in shown.items()]
        print_table(["", ""], rows)
