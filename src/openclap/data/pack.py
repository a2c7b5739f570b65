"""Records to shards: LAION's layout, the same bytes every time, safe to stop and to run again.

<out>/pack.json                what was packed
<out>/skipped.jsonl            {id, file, reason}, one line for each record left out
<out>/<split>/0.tar, 1.tar …   N.flac and N.json, N counted through the split
<out>/<split>/sizes.json       {tar: count}
<out>/<split>/pack.jsonl       the journal
"""

from __future__ import annotations

import errno
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path

from openclap.data.clean import Clean, Skipped, clean
from openclap.data.files import new_file, write_bytes
from openclap.data.journal import IDENTITY, Entry, Journal, check_same_input, identity_of
from openclap.data.split import TRAIN_AND_TEST, split_by_group
from openclap.errors import ConfigError, DataError
from openclap.locks import only_writer
from openclap.sources.record import Record

SKIPPED = "skipped.jsonl"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

Progress = Callable[[int, int], None]
"""Called with (records done, records in all)."""


@dataclass(frozen=True, slots=True)
class PackReport:
    """What came of packing: `packed` counts samples and `tars` files in each split."""

    out: Path
    packed: dict[str, int]
    tars: dict[str, int]
    skipped: tuple[Skipped, ...]


def pack(
    records: Iterable[Record],
    out: str | os.PathLike[str],
    *,
    splits: Mapping[str, float] = TRAIN_AND_TEST,
    seed: int = 0,
    shard_size: int = 512,
    progress: Progress | None = None,
) -> PackReport:
    """Split by group, decode, encode and write shards under `out`; go on where an earlier run stopped.

    A second run over the same input finishes the first one, or finds nothing to do; what was skipped stays
    skipped, so repaired sounds need a new folder. Records that cannot be used are listed, and are no error.

    Raises DataError when `out` holds anything else, another process is packing there, the disk is full (what
    is complete stays, and the same call goes on), or nothing at all could be packed; ConfigError for
    impossible splits or sizes.
    """
    rows, folder = list(records), Path(out)
    if shard_size < 1:
        raise ConfigError(f"shard_size {shard_size}: expected at least 1 sample in each tar.")
    parts = split_by_group(rows, splits, seed)
    identity = identity_of(rows, splits, seed, shard_size)
    journals: dict[str, Journal] = {}
    try:
        check_same_input(folder, identity)
        folder.mkdir(parents=True, exist_ok=True)
        with only_writer(folder):
            write_bytes(folder / IDENTITY, json.dumps(identity, indent=1).encode())
            for name, part in parts.items():
                journals[name] = Journal(folder / name)
                done = sum(len(parts[earlier]) for earlier in journals if earlier != name)
                _pack_split(part, journals[name], shard_size, _shifted(progress, done, len(rows)))
            skipped = tuple(each for journal in journals.values() for each in journal.skipped)
            write_bytes(folder / SKIPPED, b"".join(json.dumps(asdict(each)).encode() + b"\n" for each in skipped))
    except OSError as error:
        raise DataError(_stopped(folder, journals, error)) from error
    return _report(folder, journals, skipped)


def _pack_split(part: Sequence[Record], journal: Journal, shard_size: int, tick: Callable[[int], None]) -> None:
    tick(journal.position)
    while journal.position < len(part):
        journal.commit(_write_tar(part, journal, shard_size, tick))


def _write_tar(part: Sequence[Record], journal: Journal, shard_size: int, tick: Callable[[int], None]) -> Entry:
    """Write the next tar of a split under its name, if any usable record is left."""
    skipped: list[Skipped] = []
    usable = _usable(part, journal.position, skipped, tick)
    first = next(usable, None)
    if first is None:
        return Entry(None, 0, 0, len(part), tuple(skipped))
    name, start, count, following = f"{len(journal.sizes)}.tar", journal.samples, 0, len(part)
    with (
        new_file(journal.folder / name) as file,
        tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for place, sample in chain([first], islice(usable, shard_size - 1)):
            _add(tar, f"{start + count}.flac", sample.flac)
            _add(tar, f"{start + count}.json", sample.json)
            count, following = count + 1, place + 1
    size = (journal.folder / name).stat().st_size
    return Entry(name, count, size, following if count == shard_size else len(part), tuple(skipped))


def _usable(
    part: Sequence[Record], start: int, skipped: list[Skipped], tick: Callable[[int], None]
) -> Iterator[tuple[int, Clean]]:
    """(place, sample) of each usable record from `start` on; the others are added to `skipped`."""
    for place in range(start, len(part)):
        result = clean(part[place])
        tick(place + 1)
        if isinstance(result, Skipped):
            skipped.append(result)
        else:
            yield place, result


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # mtime, uid, gid and names stay 0 and empty: equal input, equal bytes
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _shifted(progress: Progress | None, done: int, total: int) -> Callable[[int], None]:
    return (lambda place: None) if progress is None else (lambda place: progress(done + place, total))


def _stopped(out: Path, journals: Mapping[str, Journal], error: OSError) -> str:
    tars = sum(len(journal.sizes) for journal in journals.values())
    samples = sum(journal.samples for journal in journals.values())
    why, remedy = f"writing failed ({error.strerror or error})", "once that is mended"
    if error.errno in _FULL:
        why, remedy = f"the disk is full or the file too large ({error.strerror})", "once there is room"
    return (
        f"{out}: {why}; {tars} tars with {samples} samples are complete, "
        f"and running the same again goes on from there {remedy}."
    )


def _report(out: Path, journals: Mapping[str, Journal], skipped: tuple[Skipped, ...]) -> PackReport:
    report = PackReport(
        out=out,
        packed={name: journal.samples for name, journal in journals.items()},
        tars={name: len(journal.sizes) for name, journal in journals.items()},
        skipped=skipped,
    )
    if not any(report.packed.values()):
        example = f", such as {Path(skipped[0].file).name} ({skipped[0].reason.rstrip('.')})" if skipped else ""
        raise DataError(
            f"{out}: none of {len(skipped)} records could be packed{example}. "
            f"See {SKIPPED} there, mend the table or the sounds, and pack into a new folder."
        )
    return report
