"""`openclap dataset build`: all steps, one after the other."""

from __future__ import annotations

import os
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

from openclap.cli.console import list_skipped, note, print_json, print_table, progress
from openclap.cli.dataset.alike import near_by
from openclap.cli.dataset.caption import made_by
from openclap.cli.dataset.making import Choices, Flag
from openclap.cli.reading import ReadAs

if TYPE_CHECKING:
    from openclap.data.manifest import PackReport


def build(
    what: str,
    out: str,
    *,
    choices: Choices = Choices(),
    read_as: ReadAs = ReadAs(),
    any_captions: Flag = False,
    near: float | None = None,
    model: str | None = None,
    caption: str | None = None,
    processes: int = os.cpu_count() or 1,
    private: Flag = False,
    json: Flag = False,
) -> None:
    """Make a data set: shards of 48 kHz mono FLAC with their captions, a manifest, and a card.

    WHAT is a table of sounds and captions (CSV, TSV, JSON, JSON lines, parquet), a folder of sounds, a Hugging Face
    data set, WebDataset shards, or a recipe such as laion-630k; what it was recognised as is said. Clips are split by
    group into OUT/train and OUT/test, 512 to a tar. What cannot be used is listed in OUT/skipped.jsonl with the reason.
    Stopped half-way, the same command goes on.

    Parameters
    ----------
    what
        A table, a folder, shards, the name of a recipe, or a Python file with a function `config()` that returns one.
    out
        The folder to write, or an address that fsspec knows: s3://bucket/set.
    any_captions
        Go on with captions that look like identifiers, or are nearly all the same.
    near
        Leave clips out that sound like an earlier one: from this cosine on, such as 0.98, by a model's vectors.
    model
        The embedding model for --near: a folder, file or name (`openclap models`); the demo's without it.
    caption
        Let a model write one more caption for each clip from its tags: "bundled", a model's name or folder, or
        "endpoint" (`openclap dataset caption --help` says more).
    processes
        How many sounds are decoded at once.
    private
        Sounds may be fetched from private addresses, such as a mirror in the same house.
    json
        Print one JSON object instead of a table.
    """
    from openclap.data import pack as packing
    from openclap.data.card import write_card
    from openclap.data.fetch import Limits
    from openclap.data.layout import check_claim
    from openclap.storage import place_of

    folder, near_in = place_of(out), near_by(near, model)
    check_claim(folder)
    making = choices.making(what, read_as, any_captions=any_captions)
    recipe = making.recipe
    records = making.records()
    with progress("Building") as advance:
        report = packing.build(
            records,
            folder,
            recipe.choices,
            held=partial(recipe.held, choices.root, choices.told(), processes=processes),
            limits=Limits(private=private),
            near=near_in and near_in(recipe.choices.channels),
            maker=partial(made_by, caption) if caption else None,
            check=making.check,
            every_split=choices.test is not None,
            processes=processes,
            progress=advance,
        )
    write_card(folder, recipe.name)
    show(report, json=json)


def show(report: PackReport, *, json: bool) -> None:
    """What packing came to."""
    list_skipped([(item.file, item.reason) for item in report.skipped])
    for sentence in report.notes:
        note(sentence)
    if json:
        print_json(asdict(report) | {"out": str(report.out)})
    else:
        print_table(["split", "clips"], [[split, str(count)] for split, count in report.packed.items()], right=[1])
    note(f"Wrote {report.out}")
