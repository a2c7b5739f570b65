"""Sentences that were made before, in a file that only grows.

One line of JSON a sentence: {"maker": identity, "keywords": [...], "text": ...}. Sentences of several makers may share
a file, and several processes may write to it: each batch is one write at its end. What a kill leaves half written is
passed over, and stays where it is.
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


class Cache:
    """The sentences of one maker: read whole when opened, written through. Without a path, kept in memory alone.

    The order of keywords counts, for it changes what a model writes.
    """

    def __init__(self, path: Path | None, maker: str) -> None:
        """Raises DataError when the file cannot be read, or is not a cache."""
        self._path, self._maker = path, maker
        self._texts: dict[Keywords, str] = {}
        self._torn = False
        if path is not None:
            try:
                self._read(path)
            except OSError as error:
                raise DataError(
                    f"{path}: cannot be read ({error.strerror}). It should hold captions made before."
                ) from error

    def __len__(self) -> int:
        return len(self._texts)

    def get(self, keywords: Keywords) -> str | None:
        return self._texts.get(keywords)

    def add(self, made: Iterable[tuple[Keywords, str]]) -> None:
        """Keep sentences; when this returns they are on the disk. Raises DataError when they cannot be written."""
        new = dict(made)
        self._texts.update(new)
        if self._path is None or not new:
            return
        lines = "".join(
            json.dumps({"maker": self._maker, "keywords": keywords, "text": text}, ensure_ascii=False) + "\n"
            for keywords, text in new.items()
        )
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab", buffering=0) as file:
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
                if number == 0 and not line.startswith(_START[: len(line)]):
                    raise DataError(
                        f"{path}: is no file of captions made before. Name another; nothing was written to it."
                    )
                damaged += not self._take(line)
        self._torn = not line.endswith(b"\n")
        if damaged:
            log.warning("%s: %d damaged lines were passed over; their captions are made again.", path, damaged)

    def _take(self, line: bytes) -> bool:
        """Is this line whole (or blank)? If it is this maker's, keep what it says."""
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
