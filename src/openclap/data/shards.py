"""Index the samples in a folder of tars from their headers alone, and read them by offset.

The tars are plain WebDataset. Samples are not read through webdataset's reader, because an order that any process can
compute and resume in the middle needs access by number.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from openclap.errors import DataError
from openclap.sources.columns import is_placeholder
from openclap.sources.phrases import phrases_of_json
from openclap.storage import Place, place_of, unconnected, within_reach
from openclap.types import AUDIO_SUFFIXES, Sample

_BLOCK = 512
CAPTIONS = ("text", "captions", "caption")
"""Keys of a sample's JSON that hold captions: LAION's, and those of other WebDataset shards."""
Fields = Mapping[str, float]
"""Names of fields of a sample's JSON, with weights."""
TEXT: Fields = {"text": 1.0}
"""LAION's field of captions."""


class DamagedTar(NamedTuple):
    """A damaged tar and the reason."""

    tar: str
    reason: str


class MemberSpan(NamedTuple):
    """Position of a member's content in its tar, in bytes."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True, eq=False)
class ShardIndex:
    """The samples of a folder, in the order of its tars (0, 1, 2, … 10) and of their members.

    Attributes:
        tars: file names in natural order.
        keys: each sample's name in its tar, without extension.
        tar_S: each sample's index into `tars`.
        spans_S4: offset and size of the sound, offset and size of the JSON.
        damaged: truncated or invalid tars; their complete samples are in the index.
        unpaired: number of sounds without JSON or JSON without sound; these are left out.
    """

    folder: Place
    tars: tuple[str, ...]
    keys: tuple[str, ...]
    tar_S: NDArray[np.int64]
    spans_S4: NDArray[np.int64]
    damaged: tuple[DamagedTar, ...]
    unpaired: int

    def __len__(self) -> int:
        return len(self.keys)

    def digest(self) -> str:
        """Hash the names, positions and sizes of all samples; their content is not read."""
        # Reading every sound would take as long as an epoch; sizes and offsets change with nearly every other content.
        facts = json.dumps([self.tars, self.keys])
        return hashlib.sha256(facts.encode() + self.tar_S.tobytes() + self.spans_S4.tobytes()).hexdigest()

    def where(self, i: int) -> str:
        """Name the i-th sample for a message."""
        return f"sample {self.keys[i]} of {self.tars[self.tar_S[i]]}"

    def read_sample(self, i: int, fields: Fields = TEXT) -> Sample:
        """Read the i-th sample, its sound still encoded.

        Args:
            fields: the fields of the JSON that hold captions, with their weights (see `captions_of_fields`).

        Raises DataError that names sample and tar when the tar cannot be read, or the JSON is damaged or contains no
        caption.
        """
        audio, text = self._read(i, self.spans_S4[i])
        return _parse(self.keys[i], audio, text, self.where(i), fields)

    def read_audio(self, i: int) -> bytes:
        """Read the encoded sound of the i-th sample. Raises DataError as `read_sample`."""
        [audio] = self._read(i, self.spans_S4[i, :2])
        return audio

    @contextmanager
    def open_audio(self, i: int) -> Iterator[BinaryIO]:
        """Open the encoded sound of the i-th sample within its tar, to read a part of it.

        Raises DataError when the tar cannot be read.
        """
        offset, size = map(int, self.spans_S4[i, :2])
        with self._open(i) as tar:
            yield io.BufferedReader(_Member(tar, MemberSpan(offset, size)), _BLOCK)

    @contextmanager
    def _open(self, i: int) -> Iterator[BinaryIO]:
        try:
            with (self.folder / self.tars[self.tar_S[i]]).open("rb") as file:
                yield file
        except OSError as error:
            raise DataError(
                f"{self.where(i)}: the tar cannot be read ({error.strerror}). Is {self.folder} in place?"
            ) from error

    def _read(self, i: int, spans: NDArray[np.int64]) -> list[bytes]:
        """Read some members of a sample by their offsets and sizes."""
        with self._open(i) as file:
            parts = [_read(file, int(offset), int(size)) for offset, size in spans.reshape(-1, 2)]
        # A tar may have been replaced or cut since it was indexed.
        if any(len(part) < size for part, (_, size) in zip(parts, spans.reshape(-1, 2), strict=True)):
            raise DataError(f"{self.where(i)}: the tar ends before it, against its headers. Put the complete tar back.")
        return parts


class _Member(io.RawIOBase):
    """A member of an open tar as a file."""

    def __init__(self, tar: BinaryIO, span: MemberSpan) -> None:
        self._tar, self._span, self._place = tar, span, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        # Damaged headers make libsndfile seek to negative places.
        self._place = max(0, offset + (0, self._place, self._span.size)[whence])
        return self._place

    def readinto(self, buffer: Any) -> int:
        data = _read(
            self._tar, self._span.offset + self._place, max(0, min(len(buffer), self._span.size - self._place))
        )
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)


def index_shards(folder: str | os.PathLike[str], only: str = "*.tar") -> ShardIndex:
    """Index every tar in a split's folder, or those that match `only`; no sound is read.

    A damaged tar is listed and raises no error. Raises DataError when the folder contains no tar or cannot be read.
    """
    root = place_of(folder)
    with within_reach(root):
        return _indexed(root, only)


def _indexed(root: Place, only: str) -> ShardIndex:
    # Natural order (2 before 10), as the tars were written.
    tars = sorted((path for path in root.glob(only) if path.is_file()), key=lambda path: _natural(path.name))
    if not tars:
        raise DataError(_no_tars(root))
    keys: list[str] = []
    tar_of: list[int] = []
    spans: list[tuple[int, ...]] = []
    damaged = [
        DamagedTar(path.name, "is a folder, expected a tar") for path in sorted(root.glob(only)) if path.is_dir()
    ]
    unpaired = 0
    for place, tar in enumerate(tars):
        sounds, texts, reason = _scan(tar)
        # Damage or another writer may leave either one alone.
        pairs = [key for key in sounds if key in texts]
        keys += pairs
        tar_of += [place] * len(pairs)
        spans += [(*sounds[key], *texts[key]) for key in pairs]
        unpaired += len(sounds.keys() ^ texts.keys())
        damaged += [DamagedTar(tar.name, reason)] if reason else []
    return ShardIndex(
        folder=unconnected(root),  # worker processes read from it as well
        tars=tuple(tar.name for tar in tars),
        keys=tuple(keys),
        tar_S=np.array(tar_of, np.int64),
        spans_S4=np.array(spans, np.int64).reshape(-1, 4),
        damaged=tuple(damaged),
        unpaired=unpaired,
    )


def _scan(path: Place) -> tuple[dict[str, MemberSpan], dict[str, MemberSpan], str | None]:
    """Spans of complete sounds and complete JSON members by key, and the damage to the tar."""
    sounds: dict[str, MemberSpan] = {}
    texts: dict[str, MemberSpan] = {}
    try:
        length = path.stat().st_size
        # "r:" refuses compressed tars: they have no offsets to read by.
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                # tarfile itself notices a truncated member only when it is read.
                if member.offset_data + member.size > length:
                    return sounds, texts, f"cut off in {member.name}"
                name = PurePosixPath(member.name)
                suffix = name.suffix.lower()
                spans = sounds if suffix in AUDIO_SUFFIXES else texts if suffix == ".json" else None
                if member.isreg() and spans is not None:
                    # The name with its folders: tars of other writers may use one name in several folders.
                    spans[str(name.with_suffix(""))] = MemberSpan(member.offset_data, member.size)
                tar.members.clear()  # type: ignore[attr-defined]  # otherwise a tar of 100,000 members keeps them all in memory
            return sounds, texts, _end_damage(path, tar.offset)
    except (tarfile.TarError, OSError, ValueError) as error:
        return sounds, texts, f"cannot be read as a tar to its end ({error})"


def _end_damage(path: Place, end: int) -> str | None:
    """Distinguish the end of a tar, a block of zeros, from a bad header, which tarfile takes for the end."""
    with path.open("rb") as file:
        file.seek(end)
        block = file.read(_BLOCK)
    if block == bytes(_BLOCK):
        return None
    return "cut off between two members" if len(block) < _BLOCK else f"a damaged header at byte {end}"


def _parse(key: str, audio: bytes, text: bytes, where: str, fields: Fields) -> Sample:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise DataError(f"{where}: its JSON is damaged ({error}). Pack the shard again.") from error
    if not isinstance(content, dict):
        raise DataError(
            f'{where}: its JSON is not an object, expected {{"text": [captions], …}}. Pack the shard again.'
        )
    found = captions_of_fields(content, fields)
    if not found:
        names = " or ".join(f'"{name}"' for name in dict.fromkeys((*fields, *(CAPTIONS if "text" in fields else ()))))
        raise DataError(f"{where}: its JSON has no caption under {names}. Pack the shard again.")
    original = content.get("original_data")
    return Sample(
        key=key,
        captions=next(iter(found.values())),
        tags=_strings(content.get("tag")),
        original=original if isinstance(original, dict) else {},
        audio=audio,
        phrases=phrases_of_json(content.get("phrases")),
        by_field=found,
    )


def captions_of_json(content: Any) -> tuple[str, ...]:
    """Read the captions in the JSON of a sample: a text or a list under each of CAPTIONS, without repetitions."""
    return captions_of_fields(content, TEXT).get("text", ())


def captions_of_fields(content: Any, fields: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Read the captions of each field that has some, in the order of `fields`; "a.b" is the field b of a.

    "text" is any of CAPTIONS that is no field of its own: whatever fields are beside it, it finds the captions of other
    tools' shards.
    """
    names = tuple(fields)
    unnamed = [key for key in CAPTIONS if key == "text" or key not in names]
    keys = {name: unnamed if name == "text" else [name] for name in names}
    found = {
        name: tuple(dict.fromkeys(text for key in keys[name] for text in _captions(content, key))) for name in names
    }
    return {name: captions for name, captions in found.items() if captions}


def _captions(content: Any, name: str) -> tuple[str, ...]:
    """The captions of a field whose name has a dot for each level."""
    for part in name.split("."):
        content = content.get(part) if isinstance(content, dict) else None
    return tuple(text for text in _strings(content) if not is_placeholder(text))


def _strings(value: Any) -> tuple[str, ...]:
    """LAION's JSON contains a string or a list, at times with null or an empty string."""
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
    here = "is not a folder" if isinstance(root, Path) and not root.is_dir() else "no .tar file in this folder"
    return f"{root}: {here}, expected the shards of one split; {hint}"
