"""A collection as a folder of links, for programs that open folders: samplers, editors, file managers.

Symbolic links, since sounds may be on several disks, and a link shows where its sound is; hard links where this
machine refuses those (Windows, without the right to make them). The folder is made in openclap's home. One that is
there is never changed, as its owner may have put something into it: when it differs, the next one has a number.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path, PurePath

from fastapi import APIRouter, Request

from openclap import paths
from openclap.server.batching import ModelTask
from openclap.server.errors import ApiError
from openclap.server.page_schemas import CollectionLinks, LinksRequest
from openclap.server.playback import reveal
from openclap.server.service import Service
from openclap.server.store import Name, Store

FOLDER = "collections"
"""The folder in openclap's home."""
MOST_FOLDERS = 1000
"""Folders of one name."""
_FOLDER_BYTES, _FILE_BYTES = 120, 240
"""Longest names in UTF-8: file systems take 255 bytes."""
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Names that Windows has for devices."""


def router(service: Service, *, is_local: bool) -> APIRouter:
    """The routes of this module."""
    routes = APIRouter(tags=["Collections"])
    store = Store()

    @routes.post("/v1/collections/{name:path}/links", operation_id="link_collection")
    async def link_collection(body: LinksRequest, request: Request, name: Name) -> CollectionLinks:
        """Make a folder with a link to each sound of a collection, on this machine. Only a server that listens on
        loopback does. The same collection again gives the same folder."""
        served = service.index(body.index)
        if not is_local:
            raise ApiError(403, "This server runs on another machine. Export the collection as CSV in place of it.")

        def work(task: ModelTask) -> CollectionLinks:
            sounds = store.collection(served, name)
            found = [sound for sound in sounds if os.path.exists(sound)]  # noqa: PTH110 (no error without access)
            if not found:
                raise ApiError(404, f"The collection {name!r} has no sounds that are still there.", param="name")
            folder = link_folder(paths.home() / FOLDER, name, found)
            if body.reveal:
                reveal(folder)
            here = set(found)
            missing = [sound for sound in sounds if sound not in here]
            return CollectionLinks(folder=str(folder), links=len(found), missing=missing)

        return await service.run(request, "files", work)

    return routes


def link_folder(parent: Path, name: str, sounds: Sequence[str]) -> Path:
    """A folder in `parent` that has a link to each sound, and nothing else: a new one, unless it is there already.

    Raises ApiError when it cannot be made; what was made until then is removed.
    """
    wanted = dict(zip(link_names(sounds), sounds, strict=True))
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for folder in _folders(parent, name):
            try:
                folder.mkdir()
            except FileExistsError:
                if _has_just(folder, wanted):
                    return folder
                continue
            _fill(folder, wanted)
            return folder
    except OSError as error:
        raise ApiError(
            503,
            f"The links of {name!r} cannot be made in {parent} ({error.strerror or error}). Export it as CSV in place "
            "of them, or set OPENCLAP_HOME to a folder where links can be made.",
            "server_error",
        ) from error
    raise ApiError(409, f"{parent} has {MOST_FOLDERS} folders of this collection. Remove some.", param="name")


def link_names(sounds: Iterable[str]) -> list[str]:
    """A name for each sound, without characters that some file systems refuse; equal ones are numbered, whatever their
    case: "kick.wav", "Kick (2).wav"."""
    names: list[str] = []
    used: set[str] = set()
    for sound in sounds:
        base = PurePath(safe_name(PurePath(sound).name, _FILE_BYTES))
        name, number = base.name, 1
        while name.casefold() in used:
            number += 1
            name = f"{base.stem} ({number}){base.suffix}"
        used.add(name.casefold())
        names.append(name)
    return names


def safe_name(name: str, most_bytes: int) -> str:
    """A name that every file system takes, as near to `name` as that can be; a suffix is kept."""
    clean = _FORBIDDEN.sub("_", name.encode("utf-8", "replace").decode()).strip(" .") or "collection"
    if _RESERVED.fullmatch(clean):
        clean = f"_{clean}"
    suffix = PurePath(clean).suffix if len(PurePath(clean).suffix) <= 8 else ""
    room = most_bytes - len(suffix.encode())
    stem = clean[: len(clean) - len(suffix)].encode()[:room].decode(errors="ignore")
    return stem + suffix


def _folders(parent: Path, name: str) -> Iterable[Path]:
    base = safe_name(name, _FOLDER_BYTES)
    yield parent / base
    for number in range(2, MOST_FOLDERS + 1):
        yield parent / f"{base} {number}"


def _has_just(folder: Path, wanted: dict[str, str]) -> bool:
    """Whether a folder has these links, and nothing else."""
    try:
        entries = {entry.name: entry for entry in folder.iterdir()}
        return entries.keys() == wanted.keys() and all(
            _leads_to(entry, wanted[name]) for name, entry in entries.items()
        )
    except OSError:
        return False


def _leads_to(entry: Path, sound: str) -> bool:
    """Whether an entry is a link to a sound, of either kind. Raises OSError for a sound that is gone."""
    return str(entry.readlink()) == sound if entry.is_symlink() else entry.samefile(sound)


def _fill(folder: Path, wanted: dict[str, str]) -> None:
    """Make the links in a new folder, or remove it again. Raises OSError."""
    made: list[Path] = []
    try:
        for name, sound in wanted.items():
            link = folder / name
            try:
                link.symlink_to(sound)
            except FileExistsError:
                raise
            except OSError:
                link.hardlink_to(sound)
            made.append(link)
    except OSError:
        with suppress(OSError):
            for link in made:
                link.unlink()
            folder.rmdir()
        raise
