"""Read the group files of OpenClonk (.ocg, .ocd, .ocf): archives of files and of other groups.

A group file is a gzip stream with two changed bytes of magic. It holds a scrambled header of 204 bytes with the
number of entries, that many entries of 316 bytes, and the contents. A group inside a group is not compressed again.
Read off src/c4group/C4Group.h of https://github.com/openclonk/openclonk.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

HEADER, ENTRY = 204, 316
MAGIC, GZIP = b"\x1e\x8c", b"\x1f\x8b"
TITLE = b"RedWolf Design GrpFolder"


def is_group(path: Path) -> bool:
    """Whether a file begins as a group file does."""
    with path.open("rb") as file:
        return file.read(2) == MAGIC


def read_group(packed: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield path and content of each file of a group file, those of groups inside it as well.

    Raises ValueError for anything else than a group file.
    """
    if packed[:2] != MAGIC:
        raise ValueError("not a group file of OpenClonk: it does not start with 1e 8c")
    try:
        group = zlib.decompress(GZIP + packed[2:], wbits=31)
    except zlib.error as error:
        raise ValueError(f"a damaged group file of OpenClonk: {error}") from None
    yield from _files(group, "")


def _files(group: bytes, folder: str) -> Iterator[tuple[str, bytes]]:
    header = _unscramble(group[:HEADER])
    if not header.startswith(TITLE):
        raise ValueError(f"not a group of OpenClonk: {folder or 'the file'} lacks its title")
    (count,) = struct.unpack_from("<i", header, 36)
    contents = HEADER + ENTRY * count
    for number in range(count):
        entry = group[HEADER + ENTRY * number :][:ENTRY]
        name = entry[:260].split(b"\0")[0].decode("latin-1")
        _, is_group, size, _, offset = struct.unpack_from("<5i", entry, 260)
        content = group[contents + offset :][:size]
        if is_group:
            yield from _files(content, f"{folder}{name}/")
        else:
            yield folder + name, content


def _unscramble(header: bytes) -> bytes:
    mixed = bytearray(byte ^ 237 for byte in header)
    for place in range(0, len(mixed) - 2, 3):
        mixed[place], mixed[place + 2] = mixed[place + 2], mixed[place]
    return bytes(mixed)
