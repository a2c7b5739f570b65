"""What the registry says of a source."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from openclap.errors import DataError
from openclap.sources.record import Record

Root = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Published:
    """What its paper or page says there is of it."""

    samples: int
    hours: float | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """One collection, or one layout that collections come in.

    Attributes:
        name: as the registry and the command line call it.
        title: as people call it.
        read: (root) to records, one after the other; what is missing raises DataError at the call, before the first.
        page: where it is published, or described.
        needs: one sentence on what must lie under the root.
        licence: of the sounds where all have one, otherwise a few words on where it stands.
        published: samples and hours as published; None where it is a layout, or nothing is stated.
    """

    name: str
    title: str
    read: Callable[..., Iterator[Record]]
    page: str
    needs: str
    licence: str
    published: Published | None = None

    def find(self, root: Root, *places: str) -> Path:
        """The first of `places` (paths from the root) that is there. Raises DataError when none is."""
        found = next((path for place in places if (path := Path(root, place)).exists()), None)
        if found is None:
            raise self.missing(root, *places)
        return found

    def missing(self, root: Root, *places: str) -> DataError:
        """What to raise when none of `places` is under the root: what, where it was looked for, how to get it."""
        what = f"no {' and no '.join(places)} in it" if Path(root).is_dir() else "no such folder"
        return DataError(f"{root}: {what}. {self.title} needs {self.needs} See {self.page}.")
