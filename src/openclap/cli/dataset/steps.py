"""`openclap dataset plan`, `fetch`, `pack` and `merge`: the steps of `build`, to be shared among jobs."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

from openclap.cli.console import note, progress
from openclap.cli.dataset.alike import near_by
from openclap.cli.dataset.build import show
from openclap.cli.dataset.making import Choices, Flag
from openclap.cli.reading import ReadAs

if TYPE_CHECKING:
    from openclap.data.work import Each


def plan(
    what: str,
    out: str,
    *,
    choices: Choices = Choices(),
    read_as: ReadAs = ReadAs(),
    any_captions: Flag = False,
    processes: int = os.cpu_count() or 1,
) -> None:
    """Write down every record and its captions, without fetching or decoding anything: the first step of `build`.

    Parameters
    ----------
    what
        A table, a folder, shards, the name of a recipe, or a Python file with a function `config()` that returns one.
    out
        The folder to write.
    any_captions
        Go on with captions that look like identifiers, or are nearly all the same.
    processes
        How many sounds of the sets to stay apart from are decoded at once.
    """
    from openclap.data.layout import alone, check_claim
    from openclap.data.pack import told_when_stopped
    from openclap.data.plan import plan as write_down
    from openclap.storage import place_of

    folder = place_of(out)
    check_claim(folder)
    making = choices.making(what, read_as, any_captions=any_captions)
    recipe = making.recipe
    with progress("Planning") as advance, told_when_stopped(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with alone(folder):
            count = write_down(
                making.records(),
                folder,
                recipe.choices,
                held=partial(recipe.held, choices.root, choices.told(), processes=processes),
                check=making.check,
                progress=lambda done: advance(done, done),
            )
    note(f"Wrote down {count:,} records in {out}. Next: openclap dataset fetch {out}")


def fetch(
    out: str,
    *,
    part: str = "1/1",
    processes: int = os.cpu_count() or 1,
    ray: Flag = False,
    private: Flag = False,
    again: Flag = False,
    near: float | None = None,
    model: str | None = None,
) -> None:
    """Fetch the sounds that have an address, and decode every sound once.

    Parameters
    ----------
    out
        A folder that `plan` wrote.
    part
        Which share of the work: 3/100 is the third of a hundred jobs, which may run side by side.
    processes
        How many sounds are decoded at once.
    ray
        Decode on the Ray cluster that RAY_ADDRESS names, in place of processes here.
    private
        Sounds may be fetched from private addresses, such as a mirror in the same house.
    again
        Try again what could not be fetched or decoded.
    near
        Find clips that sound like an earlier one, to leave them out: from this cosine on, such as 0.98, by a model's
        vectors. The last part to be done compares all.
    model
        The embedding model for --near: a folder, file or name (`openclap models`); the demo's without it.
    """
    from openclap.data.fetch import Limits
    from openclap.data.layout import identity
    from openclap.data.near_duplicates import mark
    from openclap.data.pack import gather, told_when_stopped
    from openclap.data.work import Share
    from openclap.storage import place_of

    folder, share, near_in = place_of(out), Share.parse(part), near_by(near, model)
    alike = near_in and near_in(identity(folder)["config"]["channels"])
    with progress("Fetching and decoding") as advance, told_when_stopped(folder):
        gather(
            folder,
            share,
            limits=Limits(private=private),
            processes=processes,
            each=_runner(ray),
            again=again,
            progress=advance,
        )
    if alike:
        with progress("Listening for near duplicates") as advance, told_when_stopped(folder):
            found = mark(folder, alike, share, progress=lambda done: advance(done, done))
        note("Other parts are still to be listened to." if found is None else f"Near duplicates: {found:,}.")
    note(f"Part {part} is done. When all are: openclap dataset pack {out}")


def pack(out: str, *, part: str = "1/1", processes: int = os.cpu_count() or 1, ray: Flag = False) -> None:
    """Write tars of what was fetched and decoded.

    Parameters
    ----------
    out
        A folder in which every part of `fetch` is done.
    part
        Which share of the work: 3/100 is the third of a hundred jobs, which may run side by side.
    processes
        How many tars are written at once.
    ray
        Write them on the Ray cluster that RAY_ADDRESS names, in place of processes here.
    """
    from openclap.data.pack import told_when_stopped, write_tars
    from openclap.data.work import Share
    from openclap.storage import place_of

    folder, share = place_of(out), Share.parse(part)
    with progress("Packing") as advance, told_when_stopped(folder):
        write_tars(folder, share, processes=processes, each=_runner(ray), progress=lambda done: advance(done, done))
    note(f"Part {part} is done. When all are: openclap dataset merge {out}")


def _runner(ray: bool) -> Each:
    from openclap.data import on_ray, work

    return on_ray.each if ray else work.each


def merge(out: str, *, json: Flag = False) -> None:
    """Write the manifest, the list of what was left out, and the card: the last step of `build`.

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
    show(report, json=json)
