"""Is every tar of a data set what it was made to be, and its manifest? And writing again those that are not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from openclap.audio.io import decode
from openclap.data.layout import IDENTITY, MANIFEST, SIZES, SKIPPED, WORK, read_table, write_table
from openclap.data.manifest import finish, manifest_of, write_sizes
from openclap.data.rebuild import UNKNOWN, from_tars, from_work, schema, tars_in
from openclap.data.shards import index_shards
from openclap.data.work import each
from openclap.data.write import Tar, sha256_of, stands, write_again
from openclap.errors import AudioError, DataError
from openclap.locks import LOCK
from openclap.storage import Place, place_of

if TYPE_CHECKING:
    import polars

Found = tuple[str, str]
"""A file of a data set, and what is wrong with it."""
CARDS = ("README.md", "DATASET.md", "card", "LICENSE", "LICENSE.md", "LICENSE.txt")
"""What may lie in a data set beside what packing writes."""


@dataclass(frozen=True, slots=True)
class Health:
    """What checking came to.

    Attributes:
        tars, samples: how many were looked at.
        damage: what is wrong.
        aliens: files and folders that are no part of the data set.
        notes: how things were mended, in sentences.
    """

    tars: int
    samples: int
    damage: tuple[Found, ...]
    aliens: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def check(
    folder: Place, *, processes: int = 1, progress: Callable[[int, int], None] = lambda done, total: None
) -> Health:
    """Read every byte of every tar.

    Tars that openclap wrote are held against the manifest: length, names, and the hash of every sound. Of other tars,
    and where there is no manifest to be had, every sound is decoded. Raises DataError when there is no tar.
    """
    manifest, damage = _manifest(folder)
    jobs = _known(folder, manifest) if manifest is not None else _strange(folder)
    if not jobs:
        raise DataError(f"{folder}: holds no tar, expected a data set or a folder of shards.")
    looks = []
    for done, look in enumerate(each(_look, jobs, processes), start=1):
        looks.append(look)
        progress(done, len(jobs))
    if manifest is not None and not damage and _of_another(folder, looks):
        damage = [(MANIFEST, "is of another data set: none of its sounds is in the tars")]
        manifest, looks = None, list(each(_look, _strange(folder), processes))
    damage += [(look.name, reason) for look in looks for reason in look.reasons]
    if manifest is not None:
        damage += _sizes(folder, manifest)
    if (folder / IDENTITY).exists() and (folder / WORK).is_dir() and not (folder / SKIPPED).exists():
        damage.append((SKIPPED, "is missing"))
    samples = sum(look.samples for look in looks)
    return Health(len(looks), samples, tuple(sorted(damage)), tuple(_aliens(folder, manifest)))


def _manifest(folder: Place) -> tuple[polars.DataFrame | None, list[Found]]:
    """What there should be in the tars, and what is wrong with the manifest; without a usable one, as `work/` says."""
    path, ours = folder / MANIFEST, (folder / IDENTITY).exists()
    if not path.exists() and not ours:
        return None, []
    made = from_work(folder)
    if not path.exists():
        return made, [(MANIFEST, "is missing")]
    try:
        found = read_table(path)
    except DataError as error:
        why = str(error).partition("is damaged (")[2].rpartition(")")[0]
        return made, [(MANIFEST, f"is damaged ({why})" if why else "is damaged")]
    wanted = schema()
    if missing := [name for name in wanted if found.schema.get(name) != wanted[name]]:
        return made, [(MANIFEST, f"is another table: its column {missing[0]} is missing or holds something else")]
    if made is not None and not made.equals(found) and _all_stand(folder, made):
        return made, [(MANIFEST, "holds other rows than were packed")]
    return found, []


def _all_stand(folder: Place, made: polars.DataFrame) -> bool:
    """Is every tar there, as long as it was written? Then it is the manifest that differs, and not the tars."""
    places = made.select("shards", "tar").unique().iter_rows()
    return all(stands(Tar(str(folder), shards, number)) for shards, number in places)


def _of_another(folder: Place, looks: Sequence[Look]) -> bool:
    """Does no tar fit the manifest, while tars are there and whole?"""
    there = [path for path in tars_in(folder) if path.stem.isdecimal()]
    if any(look.fits for look in looks) or not there:
        return False
    indexes = [index_shards(path.parent, only=path.name) for path in there]
    return all(len(index) and not index.damaged for index in indexes)


def _sizes(folder: Place, manifest: polars.DataFrame) -> Iterator[Found]:
    """What is wrong with each `sizes.json`; and tars that the manifest does not know."""
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
            (f"{shards}/{tar.name}", NOT_IN_MANIFEST)
            for tar in place.glob("*.tar")
            if tar.name not in counts and tar.is_file()
        )


NOT_IN_MANIFEST = (
    "is not in the manifest, and whoever reads the folder reads it too: move it out of the data set, or delete it"
)


def _aliens(folder: Place, manifest: polars.DataFrame | None) -> Iterator[str]:
    """What lies in a data set and is no part of it; of others' shards, folders that are called like tars."""
    if manifest is None or not (folder / IDENTITY).exists():
        yield from sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.tar") if path.is_dir())
        return
    shards = set(manifest["shards"])
    around = {name.rpartition("/")[0] for name in shards} - {""}
    own = {IDENTITY, MANIFEST, SKIPPED, LOCK, WORK, *CARDS, *shards, *around}
    own |= {f"{name}/{SIZES}" for name in shards}
    own |= {f"{name}/{tar}.tar" for name, tar in manifest.select("shards", "tar").unique().iter_rows()}
    for place in ("", *sorted(around | shards)):
        parent = folder.joinpath(*place.split("/")) if place else folder
        for path in sorted(parent.iterdir()) if parent.is_dir() else []:
            name = path.relative_to(folder).as_posix()
            tar = path.suffix == ".tar" and path.is_file()
            if name not in own and not tar and not path.name.startswith("."):
                yield f"{name}/" if path.is_dir() else name


def repair(folder: Place, health: Health, *, processes: int = 1) -> Health:
    """Write damaged tars, manifest and sizes again, and only those; what is still wrong.

    With `work/`, all is made again as it was; a tar whose sounds are gone is left as it is. Without, the manifest is
    rebuilt from the tars, as far as these tell (`rebuild.UNKNOWN`).

    Raises DataError where tars are damaged and `work/` is gone, and for a folder in the manifest's place.
    """
    if (folder / MANIFEST).is_dir():
        raise DataError(f"{folder / MANIFEST}: is a folder, expected a file. Move it away and run this again.")
    made, broken = from_work(folder), {name for name, _ in health.damage}
    if made is None:
        return _repair_from_tars(folder, health, processes)
    jobs = [job for job in _known(folder, made) if job[1] in broken]
    mending = [(name, Tar(str(folder), name.rpartition("/")[0], int(Path(name).stem))) for _, name, _ in jobs]
    lost = {name: why for name, why in each(_mend, mending, processes) if why}
    if broken - {name for name, _ in mending}:
        try:
            finish(folder)
        except DataError:  # a tar cannot be written again; the manifest says what it held
            write_table(folder / MANIFEST, manifest_of(folder))
    looks = [_look(job) for job in jobs]
    damage = [
        (look.name, f"{reason}; cannot be written again: {lost.get(look.name)}")
        for look in looks
        for reason in look.reasons
    ]
    damage += _sizes(folder, made)
    notes = (f"Wrote {MANIFEST} again, from {WORK}/.",) if MANIFEST in broken else ()
    return Health(len(jobs), sum(look.samples for look in looks), tuple(sorted(damage)), health.aliens, notes)


def _repair_from_tars(folder: Place, health: Health, processes: int) -> Health:
    lost = [(name, reason) for name, reason in health.damage if name != MANIFEST and not name.endswith(SIZES)]
    if len(lost) == len(health.damage) and any(reason != NOT_IN_MANIFEST for _, reason in lost):
        raise DataError(f"{folder}: cannot be repaired, since {WORK}/ was deleted. Build it again in a new folder.")
    notes: tuple[str, ...] = ()
    if any(name == MANIFEST for name, _ in health.damage):
        manifest = from_tars(folder, processes=processes)
        write_table(folder / MANIFEST, manifest)
        notes = (
            f"Wrote {MANIFEST} again, from the tars. They do not hold {', '.join(UNKNOWN)}: these columns are empty.",
        )
    manifest = read_table(folder / MANIFEST)
    write_sizes(folder, manifest, set(manifest["shards"]))
    damage = (*lost, *_sizes(folder, manifest))
    return Health(health.tars, health.samples, tuple(sorted(set(damage))), health.aliens, notes)


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
    return [(str(folder), path.relative_to(folder).as_posix(), None) for path in tars_in(folder)]


class Look(NamedTuple):
    """A tar, its samples, what is wrong with it, and whether any sound of it is as the manifest has it."""

    name: str
    samples: int
    reasons: list[str]
    fits: bool = True


def _look(job: Job) -> Look:
    folder, name, known = place_of(job[0]), job[1], job[2]
    path = folder.joinpath(*name.split("/"))
    if path.is_dir():
        return Look(name, 0, ["is a folder, expected a tar. Move it away"], fits=False)
    if not path.is_file():
        return Look(name, 0, ["is missing"], fits=False)
    if known is None:
        return Look(*_decode_all(path, name))
    reasons, fits = _compare(path, known)
    return Look(name, len(known), reasons, fits)


def _compare(path: Place, known: Known) -> tuple[list[str], bool]:
    if sha256_of(path) == known[0][-1]:
        return [], True
    wrong = [key for key, start, size, sha, _ in known if hashlib.sha256(_read(path, start, size)).hexdigest() != sha]
    reasons = [damage.reason for damage in index_shards(path.parent, only=path.name).damaged]
    said = [*reasons, f"other bytes than were written{f' in {_few(wrong)}' if wrong else ''}"]
    return said, len(wrong) < len(known)


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
