"""Split records into training, validation and test sets by group."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from types import MappingProxyType

from openclap.errors import ConfigError

DOMINANT_CLIPS, DOMINANT_SHARE = 8, 0.1
"""A group is dominant with more clips than the first number, and than this share of the smallest split."""
TRAIN_AND_TEST: Mapping[str, float] = MappingProxyType({"train": 0.8, "test": 0.2})


def split_by_group(
    groups: Iterable[str], splits: Mapping[str, float] = TRAIN_AND_TEST, seed: int = 0
) -> dict[str, str]:
    """Assign each group to a split, from the group of every record.

    Groups are ordered by a hash keyed by `seed`, so the order of records does not matter, and each goes where its
    middle falls among the shares of `splits`. A dominant group, one of more than eight clips that would fill more than
    a tenth of a smaller split, goes to the largest split, so that no single session decides a measurement (FSD50K puts
    its largest uploaders into development, Fonseca et al. 2022); where the others are too few to fill the smaller
    splits, the smallest of the dominant groups are distributed as well. An empty split gets the smallest group of the
    split that has the most groups, if that has more than one.

    Raises ConfigError when shares are not positive numbers that add up to 1, or a name is not valid
    for a folder.
    """
    check_shares(splits)
    members = _distribute(Counter(groups), splits, seed)
    return {group: name for name, part in members.items() for group in part}


def _distribute(sizes: Mapping[str, int], splits: Mapping[str, float], seed: int) -> dict[str, list[str]]:
    members: dict[str, list[str]] = {name: [] for name in splits}
    largest = max(splits, key=lambda name: splits[name])
    # First, since they decide how much room is left for all others.
    members[largest] = _dominant(sizes, splits)
    room = {name: splits[name] * sum(sizes.values()) for name in splits}
    # Dominant groups use up the room of the largest split, so the others share what is left in the requested
    # proportion.
    room[largest] = max(0.0, room[largest] - sum(sizes[group] for group in members[largest]))
    # By hash, so that neither the order of records nor other groups change the order of these.
    rest = sorted(sizes.keys() - set(members[largest]), key=lambda group: _hash(group, seed))
    # 1, unless the dominant groups exceed the room of their split.
    stretch = sum(sizes[group] for group in rest) / (math.fsum(room.values()) or 1.0)
    ends = [(name, stretch * end) for name, end in zip(room, accumulate(room.values()), strict=True)]
    taken = 0
    for group in rest:
        # The middle, so that a group across a border goes to the split that contains more of it.
        middle = taken + sizes[group] / 2
        members[next((name for name, end in ends if middle < end), largest)].append(group)
        taken += sizes[group]
    _fill_empty(members, sizes)
    return members


def _dominant(sizes: Mapping[str, int], splits: Mapping[str, float]) -> list[str]:
    """Groups too large for any split but the largest."""
    smaller = sorted(splits.values())[:-1]
    if not smaller:
        return []
    clips = sum(sizes.values())
    # Of the smallest split, where one group has the most influence on a measurement.
    limit = max(DOMINANT_CLIPS, DOMINANT_SHARE * min(smaller) * clips)
    dominant = sorted((size, group) for group, size in sizes.items() if size > limit)
    shared = clips - sum(size for size, _ in dominant)
    while dominant and shared < math.fsum(smaller) * clips and len(dominant) > 1:
        shared += dominant.pop(0)[0]  # a nearly empty split measures less than one with large groups
    return sorted(group for _, group in dominant)


def _fill_empty(members: dict[str, list[str]], sizes: Mapping[str, int]) -> None:
    for groups in members.values():
        # By groups and not by clips: a split of one large group has none to give.
        donor = max(members, key=lambda other: len(members[other]))
        if not groups and len(members[donor]) > 1:
            smallest = min(members[donor], key=lambda group: (sizes[group], group))
            members[donor].remove(smallest)
            groups.append(smallest)


def _hash(group: str, seed: int) -> tuple[bytes, str]:
    # surrogatepass: file names that are not UTF-8 are groups as well.
    text = group.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, key=str(seed).encode(), digest_size=16).digest(), group


def check_shares(splits: Mapping[str, float]) -> None:
    """Raise ConfigError for shares that `split_by_group` cannot use."""
    shares = list(splits.values())
    if not shares or not all(share > 0 for share in shares) or not math.isclose(math.fsum(shares), 1, abs_tol=1e-6):
        raise ConfigError(
            f"splits {dict(splits)}: expected positive shares that add up to 1, as in train 0.8, test 0.2."
        )
    for name in splits:
        if not name or name.startswith(".") or any(mark in name for mark in '/\\:*?"<>|\0'):
            raise ConfigError(f"split {name!r}: expected a plain name for a folder, such as train.")


FAR_OFF, FAR_CLIPS = 0.4, 2.0
"""A split is far off when it misses its size by this share of its clips and by at least so many clips."""


@dataclass(frozen=True, slots=True)
class Shortfall:
    """A split that is empty or far off its requested size, with the reason in a sentence."""

    split: str
    empty: bool
    sentence: str


def shortfalls(splits: Mapping[str, float], groups: Mapping[str, Mapping[str, int]], own: int = 0) -> list[Shortfall]:
    """List splits that are empty or far off their requested size.

    Args:
        groups: for each split, the sizes of its groups.
        own: number of records that have a split from their source.
    """
    sizes = {name: sum(groups.get(name, {}).values()) for name in splits}
    clips = sum(sizes.values())
    if len(splits) < 2 or not clips + own:
        return []
    every = {group: size for part in groups.values() for group, size in part.items()}
    unmet = []
    for name, share in splits.items():
        missed = abs(sizes[name] - share * clips)
        if sizes[name] == 0:
            unmet.append(Shortfall(name, True, f"No clip is in {name}: {_why(every, clips, own)}"))
        elif missed >= FAR_CLIPS and missed > FAR_OFF * share * clips:
            sizes_text = (
                f"{name} has {sizes[name]} of {clips} clips, {100 * sizes[name] / clips:.0f} % for {100 * share:.0f} %"
            )
            unmet.append(Shortfall(name, False, f"{sizes_text}: {_large(every)}"))
    return unmet


def _why(sizes: Mapping[str, int], clips: int, own: int) -> str:
    if not clips:
        return (
            f"the source itself puts all {own} clips in other splits. Ask for none, or name splits in a column 'split'."
        )
    if clips == 1:
        return "there is only one."
    if len(sizes) == 1:
        return (
            f"all {clips} are of one group ({next(iter(sizes))}), and clips of one group stay together. Name the "
            "groups in a column 'group' of a table, or 'group' in NAME.json beside each sound."
        )
    return f"{len(sizes)} groups are too few, and clips of one group stay together."


def _large(sizes: Mapping[str, int]) -> str:
    group = max(sizes, key=lambda name: (sizes[name], name))
    return f"groups stay together, and the largest of {len(sizes)} ({group}) has {sizes[group]} clips."
