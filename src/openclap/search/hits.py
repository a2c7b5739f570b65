"""The result of a search: hits, and how they were found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from openclap.types import Hit


@dataclass(frozen=True, slots=True)
class SearchInfo:
    """How a search was done.

    Attributes:
        method: "sketch", "windows" (all were compared in memory), "tables" (LanceDB) or "keywords" (no window was).
        windows: how many were searched.
        scored: how many of them were scored exactly.
        newer: how many of them came later than the snapshot.
        note: a sentence when the snapshot was of no use.
        fit: of a text query, the part of a background of queries that have no better hit in the index; None where the
            index has no background. See `search.fit`.
        probably_nothing: whether the fit is so low that the index probably has no such sound.
        keywords: words of the query by which files were ranked too.
    """

    method: Literal["sketch", "windows", "tables", "keywords"]
    windows: int
    scored: int
    newer: int = 0
    note: str = ""
    fit: float | None = None
    probably_nothing: bool = False
    keywords: tuple[str, ...] = ()

    def __str__(self) -> str:
        words = f", ranked also by the words {' '.join(self.keywords)}" if self.keywords else ""
        return self._method() + words

    def _method(self) -> str:
        newer = f", {self.newer:,} of them newer than the snapshot" if self.newer else ""
        if self.method == "sketch":
            return f"sketch of {self.windows:,} windows{newer}, {self.scored:,} scored exactly"
        if self.method == "keywords":
            return "keywords of names and facts"
        where = " in the tables" if self.method == "tables" else ""
        return f"exact search of {self.windows:,} windows{where}{newer}"

    def as_object(self) -> dict[str, Any]:
        """The facts as a JSON object, with the text of `str` as `summary`."""
        return asdict(self) | {"summary": str(self)}


class Hits(list[Hit]):
    """The hits of a search, best first, and how they were found: `info`."""

    def __init__(self, hits: Iterable[Hit], info: SearchInfo) -> None:
        super().__init__(hits)
        self.info = info

    def from_offset(self, offset: int) -> Hits:
        """The hits without the first ones."""
        return Hits(self[offset:], self.info)
