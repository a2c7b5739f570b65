"""Whatever somebody has, sounds or shards, as two sets of samples: to learn from, and held out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path

import numpy as np

from openclap.audio.mono import Channels
from openclap.captions.check import CaptionCheck
from openclap.captions.rules import Caption
from openclap.data.build import Progress, build
from openclap.data.config import DataConfig
from openclap.data.manifest import SkippedRecord
from openclap.data.shards import ShardIndex, captions_of_json, index_shards
from openclap.data.split import shortfalls, split_by_group
from openclap.errors import DataError
from openclap.sources.columns import cell_text
from openclap.sources.recognise import RecognisedCollection, recognise

TRAIN, HELD = "train", ("valid", "validation", "val", "test", "eval")
"""The names of splits; of several that can be held out, the first that is there is."""
FEWEST = 4
"""Two pairs to learn from and two held out: of less, nothing can be told apart."""
FEW = 1000
"""Records of which a share may be less than two."""
ROUNDED_TO_TWO = 1.5
"""Pairs that `split_by_group` rounds to two."""
LOOKED_AT, MOST_READ = 20, 2000
"""Samples of shards that show their layout, and samples whose captions are looked at."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Samples to learn from, samples held out, and what was left out of both and why."""

    train: ShardIndex
    held: ShardIndex
    skipped: tuple[SkippedRecord, ...] = ()
    notes: tuple[str, ...] = ()
    """What did not come out as it was asked for."""


def pairs_of(
    sounds: Path,
    folder: Path,
    *,
    recognised: Callable[[Path], RecognisedCollection] = recognise,
    check: Callable[[RecognisedCollection], CaptionCheck] | None = None,
    share: float = 0.2,
    seed: int = 0,
    channels: Channels = "mean",
    processes: int = 1,
    progress: Progress | None = None,
) -> Pairs:
    """The pairs that `sounds` holds: whatever `recognise` knows.

    Shards in LAION's layout are used where they are: a folder of splits as it is split, any other divided by group.
    Everything else is packed into `folder`; run again, what is packed already is not packed again.

    Args:
        recognised: finds out how `sounds` are read.
        check: gives the check of captions that is made before anything is packed.
        share: is held out of pairs that have no splits.
        channels: is packed of sounds with several channels (`openclap.audio.mono`).

    Raises DataError for what holds no pairs, or too few.
    """
    found = _in_place(sounds, share, seed)
    if found is not None and check:
        look = check(RecognisedCollection(sounds.absolute(), "shards", lambda: iter(()), ""))
        for text in _some_texts(found.train):
            look.add(text)
        look.finish()
    if found is None:
        config = DataConfig(splits={"train": 1 - share, "test": share}, seed=seed, channels=channels)
        source = recognised(sounds.absolute())
        found = _packed(source, folder, config, check and check(source), processes, progress)
    return _enough(found, sounds)


def _in_place(sounds: Path, share: float, seed: int) -> Pairs | None:
    """Shards in LAION's layout as they are; None for anything else."""
    if sounds.suffix == ".tar" and sounds.is_file():
        return _as_laion(index_shards(sounds.parent, sounds.name), share, seed)
    if _tars_in(sounds):
        return _as_laion(index_shards(sounds), share, seed)
    if not _tars_in(sounds / TRAIN):
        return None
    held = next((sounds / name for name in HELD if _tars_in(sounds / name)), None)
    train = index_shards(sounds / TRAIN)
    if held is None:
        return _as_laion(train, share, seed)
    return Pairs(train, index_shards(held)) if _is_laion(train) else None


def _packed(  # noqa: PLR0917
    source: RecognisedCollection,
    folder: Path,
    config: DataConfig,
    check: CaptionCheck | None,
    processes: int,
    progress: Progress | None,
) -> Pairs:
    records = source.read()
    first = list(islice(records, FEW))  # more are never held in memory
    if len(first) < FEW:
        share = two_each(config.splits["test"], len(first))
        config = replace(config, splits={"train": 1 - share, "test": share})
    report = build(chain(first, records), folder, config, check=check, processes=processes, progress=progress)
    packed = _in_place(folder, config.splits["test"], config.seed)
    if packed is None:
        raise DataError(f"{source.path}: everything in it is held out, and nothing left to learn from.")
    return replace(packed, skipped=report.skipped, notes=report.notes)


def _tars_in(folder: Path) -> bool:
    return any(path.is_file() for path in folder.glob("*.tar"))


def _as_laion(index: ShardIndex, share: float, seed: int) -> Pairs | None:
    return divide(index, share, seed) if _is_laion(index) else None


def two_each(share: float, pairs: int) -> float:
    """`share`, or the nearest at which either side of so many pairs has two, where there are enough for it."""
    if pairs < FEWEST:
        return share
    least = 2 / pairs
    if share * pairs < ROUNDED_TO_TWO:
        return least
    return 1 - least if (1 - share) * pairs < ROUNDED_TO_TWO else share


def _is_laion(index: ShardIndex) -> bool:
    """Has most sounds a JSON beside it, with captions where LAION has them? Damaged samples are passed over later."""
    if 2 * len(index) < len(index) + index.unpaired:
        return False
    for number in range(min(len(index), LOOKED_AT)):
        try:
            return bool(index.read_sample(number).captions)
        except DataError:
            continue
    return False


def divide(index: ShardIndex, share: float, seed: int) -> Pairs:
    """Samples to learn from and samples held out, whole groups on one side."""
    groups = _groups(index)
    share = two_each(share, len(groups))
    splits = {"train": 1 - share, "test": share}
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
    """Each sample's group; a sample of none is one of its own."""
    return [
        _group(_text(index, number)) or f"{index.tars[index.tar_S[number]]}/{index.keys[number]}"
        for number in range(len(index))
    ]


def _some_texts(index: ShardIndex) -> Iterator[list[Caption]]:
    """The captions of at most MOST_READ samples, from all over the shards."""
    for number in range(0, len(index), -(-len(index) // MOST_READ) or 1):
        try:
            yield [Caption(text, "given") for text in captions_of_json(json.loads(_text(index, number)))]
        except ValueError:
            continue  # told by whoever reads it


def _text(index: ShardIndex, number: int) -> bytes:
    """The JSON of a sample. Its sound is not read."""
    with (index.folder / index.tars[index.tar_S[number]]).open("rb") as file:
        file.seek(int(index.spans_S4[number, 2]))
        return bytes(file.read(int(index.spans_S4[number, 3])))


def _group(text: bytes) -> str | None:
    try:
        group = json.loads(text)["original_data"]["group"]
    except (ValueError, KeyError, TypeError):
        return None
    return cell_text(group)


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
