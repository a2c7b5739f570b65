"""`openclap dataset plan`, `fetch`, `pack` and `merge`: the steps of `build`, which can be distributed over jobs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from openclap.cli.console import note, progress
from openclap.cli.dataset.build import print_report
from openclap.cli.dataset.options import RecordOptions, load_model, note_on, recipe_or_path
from openclap.cli.reading import ReadAs

if TYPE_CHECKING:
    from openclap.data.parallel import Runner


def plan(
    collection: str,
    out: str,
    *,
    options: RecordOptions = RecordOptions(),
    read_as: ReadAs = ReadAs(),
    skip_caption_check: bool = False,
    processes: int = os.cpu_count() or 1,
) -> None:
    """Write every record with its captions to OUT/work, without fetching or decoding: the first step of `build`.

    Parameters
    ----------
    collection
        A table, a folder, shards, the name of a recipe, or a Python file with a function `config()` that returns one.
    out
        The folder to write.
    skip_caption_check
        Accept captions that look like identifiers, or are nearly all the same.
    processes
        The number of sounds of evaluation sets (--decontaminate) to decode in parallel.
    """
    from openclap.data.build import InputOptions, dataset_input, explain_disk_errors
    from openclap.data.filters import plan as write_records
    from openclap.data.layout import check_identity, lock
    from openclap.storage import place_of

    folder = place_of(out)
    check_identity(folder)
    source, arguments = recipe_or_path(collection), options.arguments(read_as, skip_caption_check=skip_caption_check)
    source_input = dataset_input(source, InputOptions(**arguments), processes=processes, note=note_on(collection))
    with progress("Planning") as advance, explain_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with lock(folder):
            count = write_records(
                source_input.records(),
                folder,
                source_input.recipe.full_config,
                evaluation_sets=source_input.evaluation_sets,
                check=source_input.check,
                progress=lambda done: advance(done, done),
            )
    note(f"Planned {count:,} records in {out}. Next: openclap dataset fetch {out}")


def fetch(
    out: str,
    *,
    part: str = "1/1",
    processes: int = os.cpu_count() or 1,
    ray: bool = False,
    allow_private_addresses: bool = False,
    retry_failed: bool = False,
    near_duplicates: float | None = None,
    model: str | None = None,
) -> None:
    """Download the sounds that have a URL, and decode every sound once.

    Parameters
    ----------
    out
        A folder that `plan` wrote.
    part
        The part of the work for this job: 3/100 is the third of 100 jobs, which may run in parallel.
    processes
        The number of sounds to decode in parallel.
    ray
        Decode on the Ray cluster in RAY_ADDRESS instead of in local processes.
    allow_private_addresses
        Also download from private addresses, such as a mirror in your own network.
    retry_failed
        Retry sounds that could not be downloaded or decoded before.
    near_duplicates
        Leave out clips that sound like an earlier one: the cosine between embeddings, such as 0.98, from which on two
        clips count as near-duplicates. The last part to finish compares all clips.
    model
        The embedding model for --near-duplicates: a folder, file or name (`openclap models`). Default: mini.
    """
    from openclap.data.build import explain_disk_errors, fetch_and_decode, near_duplicate_search
    from openclap.data.layout import identity
    from openclap.data.near_duplicates import find_near_duplicates
    from openclap.data.parallel import Share
    from openclap.download import FetchLimits
    from openclap.storage import place_of

    folder, share, embedder = place_of(out), Share.parse(part), load_model(near_duplicates, model)
    channels = identity(folder)["config"]["channels"]
    with progress("Fetching and decoding") as advance, explain_disk_errors(folder):
        fetch_and_decode(
            folder,
            share,
            limits=FetchLimits(allow_private=allow_private_addresses),
            processes=processes,
            runner=_runner(ray),
            retry_failed=retry_failed,
            progress=advance,
        )
    if embedder is not None and near_duplicates is not None:
        near = near_duplicate_search(near_duplicates, embedder, channels)
        with progress("Searching for near-duplicates") as advance, explain_disk_errors(folder):
            count = find_near_duplicates(folder, near, share, progress=lambda done: advance(done, done))
        note("The other parts must be embedded too." if count is None else f"Near-duplicates: {count:,}.")
    note(f"Part {part} is done. When all are: openclap dataset pack {out}")


def pack(out: str, *, part: str = "1/1", processes: int = os.cpu_count() or 1, ray: bool = False) -> None:
    """Write the tars from the decoded sounds.

    Parameters
    ----------
    out
        A folder in which every part of `fetch` is done.
    part
        The part of the work for this job: 3/100 is the third of 100 jobs, which may run in parallel.
    processes
        The number of tars to write in parallel.
    ray
        Write on the Ray cluster in RAY_ADDRESS instead of in local processes.
    """
    from openclap.data.build import explain_disk_errors, write_tars
    from openclap.data.parallel import Share
    from openclap.storage import place_of

    folder, share = place_of(out), Share.parse(part)
    with progress("Packing") as advance, explain_disk_errors(folder):
        write_tars(folder, share, processes=processes, runner=_runner(ray), progress=lambda done: advance(done, done))
    note(f"Part {part} is done. When all are: openclap dataset merge {out}")


def _runner(ray: bool) -> Runner:
    from openclap.data.parallel import run, run_on_ray

    return run_on_ray if ray else run


def merge(out: str, *, json: bool = False) -> None:
    """Write the manifest, the list of records left out, and the data card: the last step of `build`.

    Parameters
    ----------
    out
        A folder in which every part of `pack` is done.
    json
        Print one JSON object instead of a table.
    """
    from openclap.data.card import write_card
    from openclap.data.manifest import finish
    from openclap.storage import place_of

    folder = place_of(out)
    report = finish(folder)
    write_card(folder, folder.name)
    print_report(report, json=json)
