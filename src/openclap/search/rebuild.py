"""Exchange an index for one of another model, which is made beside it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from openclap.errors import DataError
from openclap.paths import is_url
from openclap.search import folder as _folder
from openclap.search.folder import IndexHeader
from openclap.search.index import Index
from openclap.search.paths import is_gone
from openclap.search.place import place_of


def prepare(place: Path) -> tuple[Index, Path]:
    """Finish an exchange that was stopped; return the index at `place`, and the folder for the new one.

    Raises DataError when there is no index, or when a root is missing: its sounds would not be in the new index.
    """
    if is_url(place):
        raise DataError(
            f"{place_of(place)} is in object storage, where no folder can be renamed. Make an index with the other "
            "model at another address, and search that one."
        )
    old, new = _folder.replaced_folder(place), _folder.rebuilding_folder(place)
    if not place.exists() and Index.exists(old):
        (new if Index.exists(new) else old).rename(place)
    if Index.exists(place) and Index.exists(old):
        shutil.rmtree(old, ignore_errors=True)
    index = Index.open(place)
    roots = [root.found(place) for root in index.header().roots]
    if not roots:
        raise DataError(f"{place} knows no folders. Add them once with 'openclap index add FOLDER', then rebuild.")
    if missing := [root for root in roots if is_gone(root)]:
        raise DataError(
            f"{missing[0]} does not exist, so a new index would lack its sounds. Mount it, or remove it with "
            "'openclap index remove'."
        )
    return index, new


def exchange(index: Index, header: IndexHeader, new: Path) -> None:
    """Put the complete index at `new` in the place of `index`, which is removed.

    Args:
        header: of `index`, as it was when the new one was begun.

    Raises DataError when another process is writing to either, folders were added meanwhile, or the folders cannot be
    renamed.
    """
    place = index.folder
    old = _folder.replaced_folder(place)
    with index.place.writing(), place_of(new).writing():
        if index.header() != header:
            raise DataError(f"{place} got other folders while it was rebuilt. Run it again: it resumes.")
        if Index.open(new).count()[0] == 0 < index.count()[0]:
            raise DataError(f"{new} holds no file: none could be embedded. {place} stays as it is.")
        rebuilt = Index.open(new)
        rebuilt.write_header(replace(rebuilt.header(), first_folder=index.key_at_home()))
        try:
            place.rename(old)
            new.rename(place)
        except OSError as error:
            raise DataError(f"{place} cannot be exchanged ({error.strerror}). Run it again.") from error
    shutil.rmtree(old, ignore_errors=True)
