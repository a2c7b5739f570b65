"""Collections of sounds and judgements of hits, stored under openclap's home: an index may be on a read-only disk."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request

from openclap import paths
from openclap.search.rows import FileRow
from openclap.server.batching import ModelTask
from openclap.server.errors import ApiError
from openclap.server.inputs import IndexName
from openclap.server.page_schemas import (
    CollectionChange,
    CollectionNames,
    CollectionPaths,
    Judgement,
    JudgementRequest,
    Judgements,
    SoundCollection,
)
from openclap.server.schemas import Status
from openclap.server.service import ServedIndex, Service
from openclap.server.sounds import no_such_sound

FILE = "server.sqlite3"
WAIT_S = 10.0
"""Longest wait for another process that writes."""
_TABLES = """
CREATE TABLE IF NOT EXISTS collections (folder TEXT, name TEXT, place INTEGER, path TEXT, hash TEXT,
    PRIMARY KEY (folder, name, place)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS judgements (folder TEXT, query TEXT, path TEXT, start_s REAL, end_s REAL, relevant INTEGER,
    hash TEXT, PRIMARY KEY (folder, query, path, start_s, end_s)) WITHOUT ROWID;
"""
"""`folder` is `Index.key_at_home`. `hash` is a sound's content, which finds a sound that was renamed or moved; rows of
older versions have none until they are read."""
TABLES = ("collections", "judgements")

Name = Annotated[str, Path(min_length=1, max_length=200, description="The name of a collection.")]


class Store:
    """The database of collections and judgements, by index. Paths of sounds are those that they have now."""

    def names(self, index: ServedIndex) -> list[str]:
        """The names of all collections, in order."""
        sql = "SELECT DISTINCT name FROM collections WHERE folder = ? ORDER BY name"
        with _database(index) as (database, key):
            return [name for (name,) in database.execute(sql, [key])]

    def collection(self, index: ServedIndex, name: str) -> list[str]:
        """The paths of a collection in their order; empty when there is none."""
        _follow_sounds(index, "collections")
        sql = "SELECT path FROM collections WHERE folder = ? AND name = ? AND path IS NOT NULL ORDER BY place"
        with _database(index) as (database, key):
            return list(dict.fromkeys(path for (path,) in database.execute(sql, [key, name])))

    def exists(self, index: ServedIndex, name: str) -> bool:
        """Whether there is a collection of this name."""
        return name in self.names(index)

    def replace(self, index: ServedIndex, name: str, sounds: Sequence[FileRow] | None) -> None:
        """Store a collection of sounds in place of the one with its name; delete it for None."""
        with _database(index) as (database, key):
            database.execute("DELETE FROM collections WHERE folder = ? AND name = ?", [key, name])
            if sounds is not None:
                _begin(database, key, name)
                _append(database, key, name, 1, sounds)

    def change(self, index: ServedIndex, name: str, added: Sequence[FileRow], removed: Sequence[str]) -> None:
        """Remove some sounds from a collection and add others at its end, in one transaction, so that changes of
        several pages at once all hold; one that is already there keeps its place. A missing collection is made."""
        _follow_sounds(index, "collections")
        with _database(index) as (database, key):
            _begin(database, key, name)
            database.executemany(
                "DELETE FROM collections WHERE folder = ? AND name = ? AND path = ?",
                [(key, name, path) for path in removed],
            )
            sql = "SELECT place, path FROM collections WHERE folder = ? AND name = ? ORDER BY place"
            rows = database.execute(sql, [key, name]).fetchall()
            there = {path for _, path in rows}
            _append(database, key, name, rows[-1][0] + 1, [row for row in added if row.path not in there])

    def judge(self, index: ServedIndex, judgement: JudgementRequest, sound: FileRow) -> None:
        """Store a judgement in place of an earlier one; delete it for None."""
        _follow_sounds(index, "judgements")
        with _database(index) as (database, key):
            row = [key, judgement.query, sound.path, judgement.start_s, judgement.end_s]
            if judgement.relevant is None:
                sql = "DELETE FROM judgements WHERE folder = ? AND query = ? AND path = ? AND start_s = ? AND end_s = ?"
                database.execute(sql, row)
            else:
                sql = "INSERT OR REPLACE INTO judgements (folder, query, path, start_s, end_s, relevant, hash)"
                database.execute(f"{sql} VALUES (?, ?, ?, ?, ?, ?, ?)", [*row, judgement.relevant, sound.hash])

    def judgements(self, index: ServedIndex, query: str | None) -> list[Judgement]:
        """The judgements of a query, or of all."""
        _follow_sounds(index, "judgements")
        sql = (
            "SELECT query, path, start_s, end_s, relevant FROM judgements WHERE folder = ? AND query = ifnull(?, query)"
        )
        with _database(index) as (database, key):
            return [
                Judgement(query=text, path=path, start_s=start_s, end_s=end_s, relevant=bool(relevant))
                for text, path, start_s, end_s, relevant in database.execute(sql, [key, query])
            ]


def _begin(database: sqlite3.Connection, key: str, name: str) -> None:
    """Make a collection unless it is there. A first row without a path keeps an empty one."""
    database.execute("INSERT OR IGNORE INTO collections VALUES (?, ?, 0, NULL, NULL)", [key, name])


def _append(database: sqlite3.Connection, key: str, name: str, place: int, sounds: Iterable[FileRow]) -> None:
    rows = [(key, name, number, sound.path, sound.hash) for number, sound in enumerate(sounds, place)]
    database.executemany("INSERT INTO collections (folder, name, place, path, hash) VALUES (?, ?, ?, ?, ?)", rows)


def _add_hash(database: sqlite3.Connection, table: str) -> None:
    """Add the column to a table of an older version. Raises sqlite3.Error."""
    if "hash" not in {column[1] for column in database.execute(f"PRAGMA table_info({table})")}:
        with suppress(sqlite3.OperationalError):  # another process was first
            database.execute(f"ALTER TABLE {table} ADD COLUMN hash TEXT")


def _follow_sounds(index: ServedIndex, table: str) -> None:
    """Store the paths that the sounds of an index have now; a sound that is in it no more keeps its last one."""
    with _database(index) as (database, key):
        sql = f"SELECT DISTINCT path, hash FROM {table} WHERE folder = ? AND path IS NOT NULL"
        stored = database.execute(sql, [key]).fetchall()
    found = index.library.index.present_files(dict(stored))
    changes = [
        (found[path].path, found[path].hash, key, path)
        for path, digest in stored
        if path in found and (found[path].path, found[path].hash) != (path, digest)
    ]
    if changes:
        with _database(index) as (database, _):
            sql = f"UPDATE OR REPLACE {table} SET path = ?, hash = ? WHERE folder = ? AND path = ?"
            database.executemany(sql, changes)


def router(service: Service) -> APIRouter:
    """The routes of this module."""
    routes = APIRouter(tags=["Collections"])
    store = Store()

    @routes.get("/v1/collections", operation_id="list_collections")
    async def list_collections(request: Request, index: IndexName = None) -> CollectionNames:
        """The names of the collections of an index."""
        served = service.index(index)
        return CollectionNames(names=await service.run(request, "files", lambda task: store.names(served)))

    @routes.get("/v1/collections/{name:path}", operation_id="read_collection")
    async def read_collection(request: Request, name: Name, index: IndexName = None) -> SoundCollection:
        """The sounds of a collection, in their order."""
        served = service.index(index)

        def work(task: ModelTask) -> SoundCollection:
            if not store.exists(served, name):
                raise ApiError(404, f"There is no collection {name!r}.", param="name")
            return SoundCollection(name=name, paths=store.collection(served, name))

        return await service.run(request, "files", work)

    @routes.put("/v1/collections/{name:path}", operation_id="write_collection")
    async def write_collection(
        body: CollectionPaths, request: Request, name: Name, index: IndexName = None
    ) -> SoundCollection:
        """Store a collection of indexed sounds, in place of the one with its name."""
        served = service.index(index)

        def work(task: ModelTask) -> SoundCollection:
            store.replace(served, name, _indexed(served, body.paths))
            return SoundCollection(name=name, paths=store.collection(served, name))

        return await service.run(request, "files", work)

    @routes.patch("/v1/collections/{name:path}", operation_id="change_collection")
    async def change_collection(
        body: CollectionChange, request: Request, name: Name, index: IndexName = None
    ) -> SoundCollection:
        """Add indexed sounds to a collection, and remove others. A missing collection is made."""
        served = service.index(index)

        def work(task: ModelTask) -> SoundCollection:
            store.change(served, name, _indexed(served, body.add), body.remove)
            return SoundCollection(name=name, paths=store.collection(served, name))

        return await service.run(request, "files", work)

    @routes.delete("/v1/collections/{name:path}", operation_id="delete_collection")
    async def delete_collection(request: Request, name: Name, index: IndexName = None) -> Status:
        """Delete a collection; its sounds stay."""
        served = service.index(index)
        await service.run(request, "files", lambda task: store.replace(served, name, None))
        return Status()

    @routes.get("/v1/judgements", operation_id="list_judgements")
    async def list_judgements(
        request: Request,
        index: IndexName = None,
        query: Annotated[str | None, Query(max_length=10_000, description="One query; all without it.")] = None,
    ) -> Judgements:
        """The judgements of hits."""
        served = service.index(index)
        return Judgements(data=await service.run(request, "files", lambda task: store.judgements(served, query)))

    @routes.post("/v1/judgements", operation_id="judge")
    async def judge(body: JudgementRequest, request: Request) -> Status:
        """Judge whether a hit fits its query, in place of an earlier judgement."""
        served = service.index(body.index)

        def work(task: ModelTask) -> None:
            [sound] = _indexed(served, [body.path])
            store.judge(served, body, sound)

        await service.run(request, "files", work)
        return Status()

    return routes


def _indexed(index: ServedIndex, sounds: Sequence[str]) -> list[FileRow]:
    """The rows of sounds in their order, each once. Raises ApiError for a path that the index does not have."""
    found = index.library.index.present_files(dict.fromkeys(sounds))
    if found.keys() != set(sounds):
        raise no_such_sound(index)
    return list({found[path].path: found[path] for path in sounds}.values())


@contextmanager
def _database(index: ServedIndex) -> Iterator[tuple[sqlite3.Connection, str]]:
    """Open the database for one transaction, and the key of an index in it. Raises ApiError when it cannot be read or
    written."""
    place, key = paths.home() / FILE, index.library.index.key_at_home()
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(place, timeout=WAIT_S)) as database, database:
            database.executescript(_TABLES)
            for table in TABLES:
                _add_hash(database, table)
            yield database, key
    except (sqlite3.Error, OSError) as error:
        raise ApiError(
            503, f"{place.name} in openclap's home cannot be read or written ({error}).", "server_error"
        ) from error
