"""An append-only cache of captions written from keywords.

One line of JSON per caption: {"maker": identity, "keywords": [...], "text": ...}. Several makers may share a file, and
several processes may append to it, since each batch is one write. A line that a kill left incomplete is skipped, and
stays in the file.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path

from openclap.errors import DataError

Keywords = tuple[str, ...]

log = logging.getLogger(__name__)
_START = b'{"maker": '
"""The beginning of every line, by which a cache is recognised."""


class CaptionCache:
    """The captions of one maker, read completely when opened and written through. Without a path, in memory only.

    The order of keywords matters, because models write other captions for another order.
    """

    def __init__(self, path: Path | None, maker: str) -> None:
        """Open the cache. Raises DataError when the file cannot be read, or is not a cache."""
        self._path, self._maker = path, maker
        self._texts: dict[Keywords, str] = {}
        self._torn = False
        if path is not None:
            try:
                self._read(path)
            except OSError as error:
                raise DataError(f"{path}: cannot be read ({error.strerror}), expected a cache of captions.") from error

    def __len__(self) -> int:
        return len(self._texts)

    def get(self, keywords: Keywords) -> str | None:
        return self._texts.get(keywords)

    def add(self, captions: Iterable[tuple[Keywords, str]]) -> None:
        """Add captions; they are on the disk when this returns. Raises DataError when they cannot be written."""
        new = dict(captions)
        self._texts.update(new)
        if self._path is None or not new:
            return
        lines = "".join(
            json.dumps({"maker": self._maker, "keywords": keywords, "text": text}, ensure_ascii=False) + "\n"
            for keywords, text in new.items()
        )
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered and in append mode: one write, so that lines of other processes are not interleaved.
            with self._path.open("ab", buffering=0) as file:
                # After a torn line, begin a new one, or the first caption would be lost with it.
                file.write(b"\n" * self._torn + lines.encode("utf-8"))
                os.fsync(file.fileno())
        except OSError as error:
            raise DataError(f"{self._path}: captions cannot be written there ({error.strerror}).") from error
        self._torn = False

    def _read(self, path: Path) -> None:
        if not path.exists():
            return
        damaged, line = 0, b"\n"
        with path.open("rb") as file:
            for number, line in enumerate(file):
                # A file that is torn within its first bytes is a cache as well.
                if number == 0 and not line.startswith(_START[: len(line)]):
                    raise DataError(
                        f"{path}: is not a cache of captions. Name another file; nothing was written to this one."
                    )
                damaged += not self._read_line(line)
        self._torn = not line.endswith(b"\n")
        if damaged:
            log.warning("%s: %d damaged lines were skipped; their captions are made again.", path, damaged)

    def _read_line(self, line: bytes) -> bool:
        """Take a caption of this maker from a line. Returns False for a damaged line."""
        if not line.strip():
            return True
        try:
            entry = json.loads(line)
            maker, keywords, text = entry["maker"], tuple(entry["keywords"]), entry["text"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return False
        if not isinstance(text, str) or not all(isinstance(keyword, str) for keyword in keywords):
            return False
        if maker == self._maker:
            self._texts[keywords] = text
        return True
