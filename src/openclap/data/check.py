"""Is every tar of a data set what it was made to be? And writing again those that are not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from openclap.audio.io import decode
from openclap.data.files import Place, place_of
from openclap.data.finish import finish
from openclap.data.folder import MANIFEST, SIZES, WORK, read_table
from openclap.data.shards import index_shards
from openclap.data.work import each
from openclap.data.write import Tar, sha256_of, write_again
from openclap.errors import AudioError, DataError

if TYPE_CHECKING:
    import polars

Found = tuple[str, str]
"""A tar, and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Health:
    """What checking came to: how many tars and samples were looked at, and what is wrong."""

    tars: int
    samples: int
    damage: tuple[Found, ...]


def check(
    folder: Place, *, processes: int = 1, progress: Callable[[int, int], None] = lambda done, total: None
) -> Health:
    """Read every byte of every tar.

    Tars that openclap wrote are held against the manifest: length, names, and the hash of every sound. Of other tars
    every sound is decoded. Raises DataError when there is no tar.
    """
    manifest = read_table(folder / MANIFEST) if (folder / MANIFEST).exists() else None
    jobs = _known(folder, manifest) if manifest is not None else _strange(folder)
    if not jobs:
        raise DataError(f"{folder}: holds no tar, expected a data set or a folder of shards.")
    samples, damage = 0, []
    for done, (name, count, reasons) in enumerate(each(_look, jobs, processes), start=1):
        samples += count
        damage += [(name, reason) for reason in reasons]
        progress(done, len(jobs))
    if manifest is not None:
        damage += _sizes(folder, manifest)
    return Health(len(jobs), samples, tuple(sorted(damage)))


def _sizes(folder: Place, manifest: polars.DataFrame) -> Iterator[Found]:
    """What is wrong with each `sizes.json`, named by its first tar; and tars that the manifest does not know."""
    for (shards,), part in manifest.partition_by("shards", as_dict=True, maintain_order=True).items():
        place = folder.joinpath(*str(shards).split("/"))
        counts = {f"{tar}.tar": count for tar, count in part.group_by("tar").len().iter_rows()}
        try:
            found = json.loads((place / SIZES).read_bytes())
        except (OSError, ValueError):
            found = None
        if found != counts:
            yield f"{shards}/{SIZES}", "is missing, damaged, or tells other numbers"
        yield from (
            (f"{shards}/{tar.name}", "is not in the manifest") for tar in place.glob("*.tar") if tar.name not in counts
        )


def repair(folder: Place, health: Health, *, processes: int = 1) -> Health:
    """Write the damaged tars again, and only those; what is still wrong. A tar whose sounds are gone is left as it is.

    Raises DataError where `work/` is gone.
    """
    if not (folder / WORK).is_dir():
        raise DataError(f"{folder}: cannot be repaired, since {WORK}/ was deleted. Build it again in a new folder.")
    manifest = read_table(folder / MANIFEST)
    if any(name.endswith(SIZES) for name, _ in health.damage):
        finish(folder)
    jobs = [job for job in _known(folder, manifest) if job[1] in {name for name, _ in health.damage}]
    broken = [(name, Tar(str(folder), name.rpartition("/")[0], int(Path(name).stem))) for _, name, _ in jobs]
    lost = {name: why for name, why in each(_mend, broken, processes) if why}
    looked = [_look(job) for job in jobs]
    damage = [(name, f"{reason}; cannot be written again: {lost.get(name)}") for name, _, rs in looked for reason in rs]
    damage += _sizes(folder, manifest)
    return Health(len(jobs), sum(count for _, count, _ in looked), tuple(sorted(damage)))


def _mend(job: tuple[str, Tar]) -> tuple[str, str | None]:
    return job[0], write_again(job[1])


Known = Sequence[tuple[str, int, int, str, str]]
"""Of each sample: key, offset and size of its sound, the sound's hash, and the tar's."""
Job = tuple[str, str, "Known | None"]
"""Folder, tar, and what is known of it."""


def _known(folder: Place, manifest: polars.DataFrame) -> list[Job]:
    rows = manifest.select("shards", "tar", "key", "audio_offset", "audio_size", "flac_sha256", "tar_sha256")
    parts = rows.partition_by("shards", "tar", as_dict=True, include_key=False, maintain_order=True)
    return [(str(folder), f"{shards}/{tar}.tar", part.rows()) for (shards, tar), part in parts.items()]


def _strange(folder: Place) -> list[Job]:
    tars = sorted(path for path in folder.rglob("*.tar") if path.is_file())
    return [(str(folder), path.relative_to(folder).as_posix(), None) for path in tars]


def _look(job: Job) -> tuple[str, int, list[str]]:
    """A tar, its samples, and what is wrong with it."""
    folder, name, known = place_of(job[0]), job[1], job[2]
    path = folder.joinpath(*name.split("/"))
    if not path.is_file():
        return name, 0, ["is missing"]
    if known is None:
        return _decode_all(path, name)
    return name, len(known), _compare(path, known)


def _compare(path: Place, known: Known) -> list[str]:
    if sha256_of(path) == known[0][-1]:
        return []
    wrong = [key for key, start, size, sha, _ in known if hashlib.sha256(_read(path, start, size)).hexdigest() != sha]
    reasons = [damage.reason for damage in index_shards(path.parent, only=path.name).damaged]
    return [*reasons, f"other bytes than were written{f' in {_few(wrong)}' if wrong else ''}"]


def _decode_all(path: Place, name: str) -> tuple[str, int, list[str]]:
    index = index_shards(path.parent, only=path.name)
    reasons = [damage.reason for damage in index.damaged]
    reasons += [f"{index.unpaired} members without their other half"] if index.unpaired else []
    for number in range(len(index)):
        try:
            decode(index.read_sample(number).audio)
        except (AudioError, DataError) as error:
            reasons.append(f"{index.where(number)}: {error}")
    return name, len(index), reasons


def _read(path: Place, offset: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(size)


def _few(keys: Sequence[str]) -> str:
    return f"sample {', '.join(keys[:3])}{f' and {len(keys) - 3} more' if len(keys) > 3 else ''}"
