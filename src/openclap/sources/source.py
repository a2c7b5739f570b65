"""The description of a source, as the registry lists it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from openclap.errors import DataError
from openclap.sources.record import Record

Root = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class PublishedSize:
    """The size of a collection as its paper or page states it."""

    samples: int
    hours: float | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """One collection, or one layout that collections come in.

    Attributes:
        name: its name in the registry and on the command line.
        title: its usual name.
        read: yields the records under a root lazily. Raises DataError for missing files when called, before the first
            record.
        page: where it is published or described.
        needs: one sentence on the files that must be under the root.
        licence: the licence of all sounds, or a few words on where it is stated.
        get: how to get it, in sentences; "" for a layout.
        use: what it may be used for, in sentences; "" for a layout. No legal advice.
        faults: what is known to be wrong with it, in sentences; "" for a layout.
        published: its published size; None for a layout, and where nothing is stated.
    """

    name: str
    title: str
    read: Callable[..., Iterator[Record]]
    page: str
    needs: str
    licence: str
    get: str = ""
    use: str = ""
    faults: str = ""
    published: PublishedSize | None = None

    def find(self, root: Root, *places: str) -> Path:
        """Return the first of `places` (paths from the root) that exists. Raises DataError when none does."""
        found = next((path for place in places if (path := Path(root, place)).exists()), None)
        if found is None:
            raise self.missing(root, *places)
        return found

    def missing(self, root: Root, *places: str) -> DataError:
        """Return the error for missing `places`: what is missing, where it was expected, and how to get it."""
        reason = f"no {' and no '.join(places)} in it" if Path(root).is_dir() else "no such folder"
        return DataError(f"{root}: {reason}. {self.title} needs {self.needs} See {self.page}.")
