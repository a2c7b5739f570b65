"""WebDataset shards: tars of sounds and JSON in LAION's layout, such as Meranti/CLAP_freesound on the Hugging Face hub.

`N.flac` (or another sound) and `N.json` (`text`, `tag`, `original_data`), in any order within a tar, tars in any
folders. Each sound is written out once (`embedded`). A split is read from the folders' names (`train/0.tar`).
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from openclap.sources.embedded import default_folder, group_of, write_out
from openclap.sources.folder import from_json
from openclap.sources.layout import SUFFIXES, inside, log
from openclap.sources.record import Record
from openclap.sources.source import Root, Source
from openclap.sources.splits import split_of

_Member = tuple[str, int, int]
"""Name, offset and size of what a tar holds, in bytes."""
_BLOCK = 512


def read(root: Root, *, cache: Path | None = None) -> Iterator[Record]:
    """Records in the order of the tars' names (0, 1, 2, … 10) and, within one, as pairs are complete.

    `cache` is where sounds are written out. Of a damaged tar, what comes before the damage is read; damage, and members
    without a partner, are logged.
    """
    folder = Path(root)
    tars = [folder] if folder.is_file() else sorted(folder.rglob("*.tar"), key=lambda path: _natural(folder, path))
    if not tars:
        raise SOURCE.missing(root, "*.tar")
    base = folder.parent if folder.is_file() else folder
    return (record for tar in tars for record in _records(base, tar, cache or default_folder()))


def _records(root: Path, tar: Path, cache: Path) -> Iterator[Record]:
    shard = inside(root, tar)
    for key, sound, text in _pairs(tar):
        try:
            said = from_json(json.loads(_content(tar, text)))
        except (ValueError, RecursionError) as error:
            log.warning("%s: %s is damaged (%s) and was left out.", tar, text[0], error)
            continue
        audio = write_out(_content(tar, sound), sound[0], cache)
        identity = {"id": f"{shard}/{key}", "source": root.resolve().name, "group": group_of(audio)}
        yield Record(**{**identity, "split": split_of(shard), **said, "audio": audio})


def _pairs(tar: Path) -> Iterator[tuple[str, _Member, _Member]]:
    """(name, sound, JSON) of each sample, when both have been met."""
    waiting: dict[str, _Member] = {}
    for member in _members(tar):
        name = PurePosixPath(member[0])
        key, is_text = str(name.with_suffix("")), name.suffix.lower() == ".json"
        other = waiting.get(key)
        if other is None or other[0].lower().endswith(".json") == is_text:
            waiting[key] = member
        else:
            del waiting[key]
            yield (key, other, member) if is_text else (key, member, other)
    if waiting:
        log.warning("%s: %d sounds have no JSON, or JSON no sound, and were left out.", tar, len(waiting))


def _members(tar: Path) -> Iterator[_Member]:
    """The complete sounds and JSON files of a tar."""
    try:
        length = tar.stat().st_size
        with tarfile.open(tar, "r:") as opened:
            while (member := opened.next()) is not None:
                if member.offset_data + member.size > length:
                    log.warning("%s: is cut off in %s; what comes before it was read.", tar, member.name)
                    return
                suffix = PurePosixPath(member.name).suffix.lower()
                if member.isreg() and (suffix in SUFFIXES or suffix == ".json"):
                    yield member.name, member.offset_data, member.size
                opened.members.clear()  # type: ignore[attr-defined]  # or a tar of 100,000 members keeps them all
            end = opened.offset
        if _content(tar, ("", end, _BLOCK)) != bytes(_BLOCK):  # tarfile takes a bad header for the end
            log.warning("%s: is cut off or damaged at byte %d; what comes before it was read.", tar, end)
    except (tarfile.TarError, OSError, ValueError) as error:
        log.warning("%s: cannot be read to its end (%s); what comes before was read.", tar, error)


def _content(tar: Path, member: _Member) -> bytes:
    with tar.open("rb") as file:
        file.seek(member[1])
        return file.read(member[2])


def _natural(root: Path, path: Path) -> tuple[str, int, str]:
    """Numbered tars in the order of their numbers, folder by folder."""
    stem = path.stem
    return inside(root, path.parent), int(stem) if stem.isdecimal() else -1, stem


SOURCE = Source(
    name="shards",
    title="WebDataset shards",
    read=read,
    page="https://github.com/LAION-AI/audio-dataset",
    needs="*.tar in any folders, with N.flac and N.json in LAION's layout.",
    licence="as original_data says",
)
