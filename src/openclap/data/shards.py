"""Where every sample stands in a folder of tars, from their headers alone.

The tars are plain webdataset. Samples are read by offset, not through webdataset's reader, because an order
that any process can compute, and resume in the middle, needs a sample by its number.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from openclap.errors import DataError
from openclap.sources.columns import is_placeholder
from openclap.storage import Place, place_of, unconnected, within_reach
from openclap.types import AUDIO_SUFFIXES, Sample

_BLOCK = 512


class Damage(NamedTuple):
    """A tar that is not whole, and in what way."""

    tar: str
    reason: str


class Span(NamedTuple):
    """Where a member's content stands in its tar, in bytes."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True, eq=False)
class ShardIndex:
    """The samples of a folder, in the order of its tars (0, 1, 2, … 10) and within each as it holds them.

    Attributes:
        tars: file names in natural order.
        keys: each sample's name without its extension, as the tar has it.
        tar_S: each sample's place in `tars`.
        spans_S4: offset and size of the sound, offset and size of the JSON.
        damaged: tars that are cut off or not tars; their complete samples are in the index.
        unpaired: how many sounds have no JSON, or JSON no sound; these are left out.
    """

    folder: Place
    tars: tuple[str, ...]
    keys: tuple[str, ...]
    tar_S: NDArray[np.int64]
    spans_S4: NDArray[np.int64]
    damaged: tuple[Damage, ...]
    unpaired: int

    def __len__(self) -> int:
        return len(self.keys)

    def digest(self) -> str:
        """A SHA-256 of which samples there are, where they stand and how large they are; payloads are not read."""
        facts = json.dumps([self.tars, self.keys])
        return hashlib.sha256(facts.encode() + self.tar_S.tobytes() + self.spans_S4.tobytes()).hexdigest()

    def where(self, i: int) -> str:
        """What to call the i-th sample in a message."""
        return f"sample {self.keys[i]} of {self.tars[self.tar_S[i]]}"

    def read_sample(self, i: int) -> Sample:
        """The i-th sample, its sound still encoded.

        Raises DataError, naming sample and tar, when the tar cannot be read, or the JSON is damaged or holds
        no caption.
        """
        where = self.where(i)
        offset, size, json_offset, json_size = map(int, self.spans_S4[i])
        try:
            with (self.folder / self.tars[self.tar_S[i]]).open("rb") as file:
                audio, text = _read(file, offset, size), _read(file, json_offset, json_size)
        except OSError as error:
            raise DataError(
                f"{where}: the tar cannot be read ({error.strerror}). Is {self.folder} in place?"
            ) from error
        if len(audio) < size or len(text) < json_size:
            raise DataError(
                f"{where}: the tar ends before it, though its headers said otherwise. Put the whole tar back."
            )
        return _parse(self.keys[i], audio, text, where)


def index_shards(folder: str | os.PathLike[str], only: str = "*.tar") -> ShardIndex:
    """Index every tar in a split's folder, or those that `only` matches; no sound is read.

    A damaged tar is listed and does not raise. Raises DataError when the folder holds no tar or is out of reach.
    """
    root = place_of(folder)
    with within_reach(root):
        return _indexed(root, only)


def _indexed(root: Place, only: str) -> ShardIndex:
    tars = sorted((path for path in root.glob(only) if path.is_file()), key=lambda path: _natural(path.name))
    if not tars:
        raise DataError(_no_tars(root))
    keys: list[str] = []
    tar_of: list[int] = []
    spans: list[tuple[int, ...]] = []
    damaged = [Damage(path.name, "is a folder, expected a tar") for path in sorted(root.glob(only)) if path.is_dir()]
    unpaired = 0
    for place, tar in enumerate(tars):
        sounds, texts, reason = _scan(tar)
        pairs = [key for key in sounds if key in texts]
        keys += pairs
        tar_of += [place] * len(pairs)
        spans += [(*sounds[key], *texts[key]) for key in pairs]
        unpaired += len(sounds.keys() ^ texts.keys())
        damaged += [Damage(tar.name, reason)] if reason else []
    return ShardIndex(
        folder=unconnected(root),  # worker processes read from it, too
        tars=tuple(tar.name for tar in tars),
        keys=tuple(keys),
        tar_S=np.array(tar_of, np.int64),
        spans_S4=np.array(spans, np.int64).reshape(-1, 4),
        damaged=tuple(damaged),
        unpaired=unpaired,
    )


def _scan(path: Place) -> tuple[dict[str, Span], dict[str, Span], str | None]:
    """Spans of complete sounds and of complete JSON members by key, and what is wrong with the tar."""
    sounds: dict[str, Span] = {}
    texts: dict[str, Span] = {}
    try:
        length = path.stat().st_size
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                if member.offset_data + member.size > length:
                    return sounds, texts, f"cut off in {member.name}"
                name = PurePosixPath(member.name)
                suffix = name.suffix.lower()
                found = sounds if suffix in AUDIO_SUFFIXES else texts if suffix == ".json" else None
                if member.isreg() and found is not None:
                    found[str(name.with_suffix(""))] = Span(member.offset_data, member.size)
                tar.members.clear()  # type: ignore[attr-defined]  # or a tar of 100,000 members keeps them all
            return sounds, texts, _end_damage(path, tar.offset)
    except (tarfile.TarError, OSError, ValueError) as error:
        return sounds, texts, f"cannot be read as a tar to its end ({error})"


def _end_damage(path: Place, end: int) -> str | None:
    """tarfile takes a bad header for the end; a real end is marked by a block of zeros."""
    with path.open("rb") as file:
        file.seek(end)
        block = file.read(_BLOCK)
    if block == bytes(_BLOCK):
        return None
    return "cut off between two members" if len(block) < _BLOCK else f"a damaged header at byte {end}"


def _parse(key: str, audio: bytes, text: bytes, where: str) -> Sample:
    try:
        fields = json.loads(text)
    except ValueError as error:
        raise DataError(f"{where}: its JSON is damaged ({error}). Pack the shard again.") from error
    if not isinstance(fields, dict):
        raise DataError(f'{where}: its JSON is no object, expected {{"text": [captions], …}}. Pack the shard again.')
    captions = captions_of_json(fields)
    if not captions:
        raise DataError(f'{where}: its JSON has no caption under "text". Pack the shard again.')
    original = fields.get("original_data")
    return Sample(key, captions, _strings(fields.get("tag")), original if isinstance(original, dict) else {}, audio)


def captions_of_json(fields: Any) -> tuple[str, ...]:
    """The captions in the JSON of a sample."""
    texts = _strings(fields.get("text")) if isinstance(fields, dict) else ()
    return tuple(text for text in texts if not is_placeholder(text))


def _strings(value: Any) -> tuple[str, ...]:
    """LAION's JSON holds a string or a list, and at times null or an empty string in it."""
    parts = value if isinstance(value, list) else [value]
    return tuple(part.strip() for part in parts if isinstance(part, str) and part.strip())


def _read(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _no_tars(root: Place) -> str:
    inside = sorted({path.parent.name for path in root.glob("*/*.tar")})
    hint = f"did you mean {root / inside[0]}?" if inside else "openclap dataset build makes them."
    named = next((path.name for path in sorted(root.glob("*.tar")) if path.is_dir()), None)
    if named:
        hint = f"{named} is a folder: if a tar was unpacked there, pack it again."
    here = "is no folder" if isinstance(root, Path) and not root.is_dir() else "no .tar file in this folder"
    return f"{root}: {here}, expected the shards of one split; {hint}"
