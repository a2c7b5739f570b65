"""`openclap dataset build`: all steps, one after the other."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING

from openclap.cli.console import list_skipped, note, print_json, print_table, progress
from openclap.cli.dataset.options import RecordOptions, load_model, note_on, recipe_or_path
from openclap.cli.reading import ReadAs

if TYPE_CHECKING:
    from openclap.data.manifest import BuildReport


def build(
    collection: str,
    out: str,
    *,
    options: RecordOptions = RecordOptions(),
    read_as: ReadAs = ReadAs(),
    skip_caption_check: bool = False,
    near_duplicates: float | None = None,
    model: str | None = None,
    caption: str | None = None,
    processes: int = os.cpu_count() or 1,
    allow_private_addresses: bool = False,
    json: bool = False,
) -> None:
    """Build a data set: shards of 48 kHz mono FLAC with their captions, a manifest, and a data card.

    COLLECTION is a table of sounds and captions (CSV, TSV, JSON, JSON lines, parquet), a folder of sounds, a Hugging
    Face data set, WebDataset shards, or a recipe such as laion-630k; the recognised form is printed. Clips are split by
    group into OUT/train and OUT/test, 512 to a tar. OUT/skipped.jsonl lists the records that were left out, with
    reasons. After a stop, the same command resumes.

    Parameters
    ----------
    collection
        A table, a folder, shards, the name of a recipe, or a Python file with a function `config()` that returns one.
    out
        The folder to write, or an address that fsspec supports, such as s3://bucket/set.
    skip_caption_check
        Accept captions that look like identifiers, or are nearly all the same.
    near_duplicates
        Leave out clips that sound like an earlier one: the cosine between embeddings, such as 0.98, from which on two
        clips count as near-duplicates.
    model
        The embedding model for --near-duplicates: a folder, file or name (`openclap models`). Default: mini.
    caption
        Let a model write one more caption for each clip from its tags: "bundled", a model's name or folder, or
        "endpoint" (see `openclap dataset caption --help`).
    processes
        The number of sounds to decode in parallel.
    allow_private_addresses
        Also download from private addresses, such as a mirror in your own network.
    json
        Print one JSON object instead of a table.
    """
    from openclap.data.build import build_dataset
    from openclap.data.layout import check_identity
    from openclap.storage import place_of

    check_identity(place_of(out))  # before a model is loaded
    embedder = load_model(near_duplicates, model)
    source, arguments = recipe_or_path(collection), options.arguments(read_as, skip_caption_check=skip_caption_check)
    with progress("Building") as advance:
        report = build_dataset(
            source,
            out,
            near_duplicates=near_duplicates,
            model=embedder,
            caption=caption,
            processes=processes,
            allow_private_addresses=allow_private_addresses,
            progress=advance,
            note=note_on(collection),
            **arguments,
        )
    print_report(report, json=json)


def print_report(report: BuildReport, *, json: bool) -> None:
    """Print the report of a build: skipped records and notes to stderr, clips of each split to stdout."""
    list_skipped([(record.file, record.reason) for record in report.skipped])
    for sentence in report.notes:
        note(sentence)
    if json:
        print_json(asdict(report) | {"out": str(report.out)})
    else:
        print_table(["split", "clips"], [[split, str(count)] for split, count in report.packed.items()], right=[1])
    note(f"Wrote {report.out}")
