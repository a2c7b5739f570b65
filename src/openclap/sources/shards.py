"""WebDataset shards: tars of sounds and JSON in LAION's layout, such as Meranti/CLAP_freesound on the Hugging Face hub.

`N.flac` (or another sound) and `N.json` (`text`, `tag`, `original_data`; or any object, see `fields`) or `N.txt` (a
caption a line) or both, in any order within a tar, tars in any folders. Each sound is written out once (`embedded`). A
split is read from the folders' names (`train/0.tar`).
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from openclap.sources.embedded import default_folder, group_of, write_out
from openclap.sources.folder import captions_in, from_json
from openclap.sources.layout import SUFFIXES, inside, log
from openclap.sources.record import Record
from openclap.sources.source import Root, Source
from openclap.sources.splits import split_of
from openclap.sources.text import decode_text

_Member = tuple[str, int, int]
"""Name, offset and size of what a tar holds, in bytes."""
_BLOCK = 512


def read(root: Root, *, cache: Path | None = None) -> Iterator[Record]:
    """Records in the order of the tars' names (0, 1, 2, … 10) and, within one, as pairs are complete.

    `cache` is where sounds are written out. Of a damaged tar, what comes before the damage is read; damage, and members
    without a partner, are logged.
    """
    folder = Path(root)
    tars = tars_of(folder)
    if not tars:
        raise SOURCE.missing(root, "*.tar")
    base = folder.parent if folder.is_file() else folder
    return (record for tar in tars for record in _records(base, tar, cache or default_folder()))


def tars_of(root: Path) -> list[Path]:
    """A tar, or all tars of a folder in the order of their names. A folder of such a name is logged."""
    if root.is_file():
        return [root]
    found = sorted(root.rglob("*.tar"), key=lambda path: _natural(root, path))
    for path in found:
        if path.is_dir():
            log.warning(
                "%s: is a folder, expected a tar, and was left out. If a tar was unpacked there, pack it again.", path
            )
    return [path for path in found if path.is_file()]


def _records(root: Path, tar: Path, cache: Path) -> Iterator[Record]:
    shard = inside(root, tar)
    for sample in samples_of(tar):
        said: dict[str, Any] = {"captions": ()}
        try:
            if sample.json:
                said = from_json(json.loads(_content(tar, sample.json)))
        except (ValueError, RecursionError) as error:
            log.warning("%s: %s is damaged (%s) and was left out.", tar, sample.json and sample.json[0], error)
            continue
        if sample.text:
            text, _ = decode_text(_content(tar, sample.text))
            said["captions"] = (*said["captions"], *captions_in(text))
        audio = write_out(_content(tar, sample.sound), sample.sound[0], cache)
        identity = {"id": f"{shard}/{sample.key}", "source": root.resolve().name, "group": group_of(audio)}
        yield Record(**{**identity, "split": split_of(shard), **said, "audio": audio})


class Sample(NamedTuple):
    """What a tar holds under one name: a sound, and what is said of it."""

    key: str
    sound: _Member
    json: _Member | None
    text: _Member | None


def samples_of(tar: Path) -> Iterator[Sample]:
    """The samples of a tar, in the order in which they become complete. Members without a partner are logged."""
    found: dict[str, dict[str, _Member]] = {}
    for member in _members(tar):
        name = PurePosixPath(member[0])
        suffix = name.suffix.lower()
        parts = found.setdefault(str(name.with_suffix("")), {})
        parts[suffix if suffix in (".json", ".txt") else "sound"] = member
    lone = [parts for parts in found.values() if "sound" not in parts or len(parts) == 1]
    whole = [
        (
            max(member[1] for member in parts.values()),
            Sample(key, parts["sound"], parts.get(".json"), parts.get(".txt")),
        )
        for key, parts in found.items()
        if "sound" in parts and len(parts) > 1
    ]
    yield from (sample for _, sample in sorted(whole, key=lambda each: each[0]))
    if lone:
        log.warning("%s: %d sounds have no JSON or text, or these no sound, and were left out.", tar, len(lone))


def _members(tar: Path) -> Iterator[_Member]:
    """The complete sounds, JSON and text files of a tar."""
    try:
        length = tar.stat().st_size
        with tarfile.open(tar, "r:") as opened:
            while (member := opened.next()) is not None:
                if member.offset_data + member.size > length:
                    log.warning("%s: is cut off in %s; what comes before it was read.", tar, member.name)
                    return
                suffix = PurePosixPath(member.name).suffix.lower()
                if member.isreg() and (suffix in SUFFIXES or suffix in (".json", ".txt")):
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
    needs="*.tar in any folders, with N.flac and N.json in LAION's layout, or N.txt.",
    licence="as original_data says",
)
