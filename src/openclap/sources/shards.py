"""Read WebDataset shards in LAION's layout, such as Meranti/CLAP_freesound on the Hugging Face hub.

A tar holds `N.flac` (or another audio file) with `N.json` (`text`, `tag`, `original_data`; or any object, see
`columns`), `N.txt` (one caption per line), or both, in any order; tars lie in any folders. Audio is extracted to files
once (`extracted_audio`). The split is read from the folders' names (`train/0.tar`).
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from openclap.sources.audio_folder import caption_lines, parse_json_notes
from openclap.sources.extracted_audio import default_folder, extract_audio, own_group
from openclap.sources.files import AUDIO_AND_VIDEO_SUFFIXES, log, relative_name
from openclap.sources.record import Record
from openclap.sources.source import Root, Source
from openclap.sources.split_names import split_of
from openclap.sources.text_encoding import decode_text

_Member = tuple[str, int, int]
"""The name of a member, its offset and its size in bytes."""
_BLOCK = 512
"""Bytes of a tar's header; two blocks of zeros end it."""


def read(root: Root, *, cache: Path | None = None) -> Iterator[Record]:
    """Yield records tar by tar in numeric order (0, 1, 2, … 10) and, within one, as samples become complete.

    A damaged tar is read up to the damage. Damage, and members without a partner, are logged.

    Args:
        cache: the folder that audio is extracted to.
    """
    folder = Path(root)
    tars = tars_of(folder)
    if not tars:
        raise SOURCE.missing(root, "*.tar")
    base = folder.parent if folder.is_file() else folder
    return (record for tar in tars for record in _records(base, tar, cache or default_folder()))


def tars_of(root: Path) -> list[Path]:
    """Return a tar, or all tars under a folder in numeric order. Folders with the name of a tar are logged."""
    if root.is_file():
        return [root]
    found = sorted(root.rglob("*.tar"), key=lambda path: _numeric_order(root, path))
    for path in found:
        if path.is_dir():
            log.warning(
                "%s: is a folder, expected a tar, and was left out. If a tar was unpacked there, pack it again.", path
            )
    return [path for path in found if path.is_file()]


def _records(root: Path, tar: Path, cache: Path) -> Iterator[Record]:
    shard = relative_name(root, tar)
    for sample in samples_of(tar):
        values: dict[str, Any] = {"captions": ()}
        try:
            if sample.json:
                values = parse_json_notes(json.loads(_read_member(tar, sample.json)))
        except (ValueError, RecursionError) as error:
            log.warning("%s: %s is damaged (%s) and was left out.", tar, sample.json and sample.json[0], error)
            continue
        if sample.text:
            text, _ = decode_text(_read_member(tar, sample.text))
            values["captions"] = (*values["captions"], *caption_lines(text))
        audio = extract_audio(_read_member(tar, sample.audio), sample.audio[0], cache)
        identity = {"id": f"{shard}/{sample.key}", "source": root.resolve().name, "group": own_group(audio)}
        yield Record(**{**identity, "split": split_of(shard), **values, "audio": audio})


class TarSample(NamedTuple):
    """The members of a tar with one name: audio, and text about it."""

    key: str
    audio: _Member
    json: _Member | None
    text: _Member | None


def samples_of(tar: Path) -> Iterator[TarSample]:
    """Yield the samples of a tar in the order in which they become complete. Members without a partner are logged."""
    found: dict[str, dict[str, _Member]] = {}
    for member in _members(tar):
        name = PurePosixPath(member[0])
        suffix = name.suffix.lower()
        parts = found.setdefault(str(name.with_suffix("")), {})
        # Of two audio files with one name the later replaces the earlier.
        parts[suffix if suffix in (".json", ".txt") else "audio"] = member
    unpaired = [parts for parts in found.values() if "audio" not in parts or len(parts) == 1]
    samples = [
        (
            max(member[1] for member in parts.values()),  # the offset of the last member completes the sample
            TarSample(key, parts["audio"], parts.get(".json"), parts.get(".txt")),
        )
        for key, parts in found.items()
        if "audio" in parts and len(parts) > 1
    ]
    yield from (sample for _, sample in sorted(samples, key=lambda pair: pair[0]))
    if unpaired:
        log.warning("%s: %d members have no partner (audio, JSON or text) and were left out.", tar, len(unpaired))


def _members(tar: Path) -> Iterator[_Member]:
    """Yield the complete audio, JSON and text members of a tar."""
    try:
        length = tar.stat().st_size
        # "r:" is uncompressed: samples are read by their offsets afterwards.
        with tarfile.open(tar, "r:") as opened:
            while (member := opened.next()) is not None:
                # tarfile does not notice that the data of the last member are missing.
                if member.offset_data + member.size > length:
                    log.warning("%s: is truncated in %s; it was read up to there.", tar, member.name)
                    return
                suffix = PurePosixPath(member.name).suffix.lower()
                if member.isreg() and (suffix in AUDIO_AND_VIDEO_SUFFIXES or suffix in (".json", ".txt")):
                    yield member.name, member.offset_data, member.size
                opened.members.clear()  # type: ignore[attr-defined]  # tarfile would keep every member in memory
            end = opened.offset
        if _read_member(tar, ("", end, _BLOCK)) != bytes(_BLOCK):  # tarfile takes a damaged header for the end
            log.warning("%s: is truncated or damaged at byte %d; it was read up to there.", tar, end)
    except (tarfile.TarError, OSError, ValueError) as error:
        log.warning("%s: cannot be read to its end (%s); it was read up to there.", tar, error)


def _read_member(tar: Path, member: _Member) -> bytes:
    with tar.open("rb") as file:
        file.seek(member[1])
        return file.read(member[2])


def _numeric_order(root: Path, path: Path) -> tuple[str, int, str]:
    """Sort numbered tars by their numbers, folder by folder."""
    stem = path.stem
    return relative_name(root, path.parent), int(stem) if stem.isdecimal() else -1, stem


SOURCE = Source(
    name="shards",
    title="WebDataset shards",
    read=read,
    page="https://github.com/LAION-AI/audio-dataset",
    needs="*.tar in any folders, with N.flac and N.json in LAION's layout, or N.txt.",
    licence="as original_data says",
)
