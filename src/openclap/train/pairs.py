"""Whatever somebody has, sounds or shards, as two sets of samples: to learn from, and held out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from openclap.data.config import DataConfig
from openclap.data.finish import Skipped
from openclap.data.pack import Progress, build
from openclap.data.recipe import DataRecipe
from openclap.data.shards import ShardIndex, index_shards
from openclap.data.split import shortfalls, split_by_group
from openclap.errors import DataError

TRAIN, HELD = "train", ("valid", "validation", "val", "test", "eval")
"""The names of splits; of several that can be held out, the first that is there is."""
FEWEST = 4
"""Two pairs to learn from and two held out: of less, nothing can be told apart."""
TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
METADATA = ("metadata.csv", "metadata.jsonl")


@dataclass(frozen=True, slots=True)
class Pairs:
    """Samples to learn from, samples held out, and what was left out of both and why."""

    train: ShardIndex
    held: ShardIndex
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()
    """What did not come out as it was asked for."""


def pairs_of(
    sounds: Path,
    folder: Path,
    *,
    share: float = 0.2,
    seed: int = 0,
    processes: int = 1,
    progress: Progress | None = None,
) -> Pairs:
    """The pairs that `sounds` holds: a folder of sounds, a table, a Hugging Face data set, or shards.

    Shards are used where they are: a folder of splits as it is split, any other divided by group. Everything else is
    packed into `folder`; run again, what is packed already is not packed again. `share` is what is held out of what
    has no splits.

    Raises DataError for what holds no pairs, or too few.
    """
    if not sounds.exists():
        raise DataError(
            f"{sounds}: no such file or folder. Expected a folder of sounds, a table ({', '.join(TABLES)}), a Hugging "
            "Face data set, or shards."
        )
    found = _in_place(sounds, share, seed)
    if found is None:
        config = DataConfig(splits={"train": 1 - share, "test": share}, seed=seed)
        found = _packed(sounds, folder, config, processes, progress)
    return _enough(found, sounds)


def _in_place(sounds: Path, share: float, seed: int) -> Pairs | None:
    """Shards as they are; None for anything else."""
    if sounds.suffix == ".tar":
        return divide(index_shards(sounds.parent, sounds.name), share, seed)
    if any(sounds.glob("*.tar")):
        return divide(index_shards(sounds), share, seed)
    if not any((sounds / TRAIN).glob("*.tar")):
        return None
    held = next((sounds / name for name in HELD if any((sounds / name).glob("*.tar"))), None)
    train = index_shards(sounds / TRAIN)
    return Pairs(train, index_shards(held)) if held else divide(train, share, seed)


def _packed(sounds: Path, folder: Path, config: DataConfig, processes: int, progress: Progress | None) -> Pairs:
    records = DataRecipe(sounds.stem, {_source(sounds): str(sounds.absolute())}).records(Path())
    report = build(records, folder, config, processes=processes, progress=progress)
    packed = _in_place(folder, config.splits["test"], config.seed)
    if packed is None:
        raise DataError(f"{sounds}: everything in it is held out, and nothing left to learn from.")
    return replace(packed, skipped=report.skipped, notes=report.notes)


def _source(sounds: Path) -> str:
    """Which of `openclap.sources` reads it."""
    if sounds.is_file():
        return "table"
    if any(sounds.rglob("*.parquet")) or any(any(sounds.rglob(name)) for name in METADATA):
        return "hugging_face"
    return "shards" if any(sounds.rglob("*.tar")) else "folder"


def divide(index: ShardIndex, share: float, seed: int) -> Pairs:
    """Samples to learn from and samples held out, whole groups on one side."""
    groups, splits = _groups(index), {"train": 1 - share, "test": share}
    side = split_by_group(groups, splits, seed)
    learns, held = (
        select(index, [i for i, group in enumerate(groups) if side[group] == name]) for name in ("train", "test")
    )
    sizes = {name: Counter(group for group in groups if side[group] == name) for name in splits}
    return Pairs(learns, held, notes=tuple(each.sentence for each in shortfalls(splits, sizes) if not each.empty))


def select(index: ShardIndex, keep: Sequence[int]) -> ShardIndex:
    """The samples at these places alone."""
    chosen = np.array(keep, np.int64)
    keys = tuple(index.keys[i] for i in keep)
    return replace(index, keys=keys, tar_S=index.tar_S[chosen], spans_S4=index.spans_S4[chosen])


def _groups(index: ShardIndex) -> list[str]:
    """Each sample's group; a sample of none is one of its own. Sounds are not read."""
    groups = []
    for i in range(len(index)):
        tar = index.tars[index.tar_S[i]]
        with (index.folder / tar).open("rb") as file:
            file.seek(int(index.spans_S4[i, 2]))
            text = file.read(int(index.spans_S4[i, 3]))
        groups.append(_group(text) or f"{tar}/{index.keys[i]}")
    return groups


def _group(text: bytes) -> str | None:
    try:
        group = json.loads(text)["original_data"]["group"]
    except (ValueError, KeyError, TypeError):
        return None
    return str(group) if group is not None else None


def _enough(pairs: Pairs, sounds: Path) -> Pairs:
    learns, held = len(pairs.train), len(pairs.held)
    if learns >= 2 and held >= 2:
        return pairs
    left_out = f" {len(pairs.skipped)} were left out; the first: {pairs.skipped[0].reason}." if pairs.skipped else ""
    if learns + held < FEWEST:
        raise DataError(
            f"{sounds}: {_counted(learns + held)}, and {FEWEST} at least are needed: two to learn from and two held "
            f"out.{left_out}"
        )
    raise DataError(
        f"{sounds}: {_counted(learns)} to learn from and {held} held out, and each side needs two. Sounds of one group "
        "stay together, as numbered takes of one name do; give them groups of their own in a table, or choose another "
        f"--held-out.{left_out}"
    )


def _counted(number: int) -> str:
    return f"{number} usable pair{'' if number == 1 else 's'} of sound and caption"
