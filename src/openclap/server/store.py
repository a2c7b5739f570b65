"""Collections of sounds and judgements of hits, stored under openclap's home: an index may be on a read-only disk."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request

from openclap import paths
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
from openclap.server.sounds import no_such_sound, row_of

FILE = "server.sqlite3"
WAIT_S = 10.0
"""Longest wait for another process that writes."""
_TABLES = """
CREATE TABLE IF NOT EXISTS collections (folder TEXT, name TEXT, place INTEGER, path TEXT,
    PRIMARY KEY (folder, name, place)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS judgements (folder TEXT, query TEXT, path TEXT, start_s REAL, end_s REAL, relevant INTEGER,
    PRIMARY KEY (folder, query, path, start_s, end_s)) WITHOUT ROWID;
"""

Name = Annotated[str, Path(min_length=1, max_length=200, description="The name of a collection.")]


class Store:
    """The database of collections and judgements, by the folder of the index."""

    def names(self, index: ServedIndex) -> list[str]:
        """The names of all collections, in order."""
        sql = "SELECT DISTINCT name FROM collections WHERE folder = ? ORDER BY name"
        with _database() as database:
            return [name for (name,) in database.execute(sql, [_key(index)])]

    def collection(self, index: ServedIndex, name: str) -> list[str]:
        """The paths of a collection in their order; empty when there is none."""
        sql = "SELECT path FROM collections WHERE folder = ? AND name = ? AND path IS NOT NULL ORDER BY place"
        with _database() as database:
            return [path for (path,) in database.execute(sql, [_key(index), name])]

    def exists(self, index: ServedIndex, name: str) -> bool:
        """Whether there is a collection of this name."""
        return name in self.names(index)

    def replace(self, index: ServedIndex, name: str, sounds: Sequence[str] | None) -> None:
        """Store a collection in place of the one with its name; delete it for None."""
        # A first row without a path keeps an empty collection.
        rows = [] if sounds is None else [None, *dict.fromkeys(sounds)]
        with _database() as database:
            database.execute("DELETE FROM collections WHERE folder = ? AND name = ?", [_key(index), name])
            database.executemany(
                "INSERT INTO collections VALUES (?, ?, ?, ?)",
                [(_key(index), name, place, path) for place, path in enumerate(rows)],
            )

    def change(self, index: ServedIndex, name: str, added: Sequence[str], removed: Sequence[str]) -> None:
        """Remove some sounds from a collection and add others at its end, in one transaction, so that changes of
        several pages at once all hold; one that is already there keeps its place. A missing collection is made."""
        folder = _key(index)
        with _database() as database:
            database.execute("INSERT OR IGNORE INTO collections VALUES (?, ?, 0, NULL)", [folder, name])
            database.executemany(
                "DELETE FROM collections WHERE folder = ? AND name = ? AND path = ?",
                [(folder, name, path) for path in removed],
            )
            sql = "SELECT place, path FROM collections WHERE folder = ? AND name = ? ORDER BY place"
            rows = database.execute(sql, [folder, name]).fetchall()
            there = {path for _, path in rows}
            new = [path for path in dict.fromkeys(added) if path not in there]
            database.executemany(
                "INSERT INTO collections VALUES (?, ?, ?, ?)",
                [(folder, name, place, path) for place, path in enumerate(new, rows[-1][0] + 1)],
            )

    def judge(self, index: ServedIndex, judgement: JudgementRequest) -> None:
        """Store a judgement in place of an earlier one; delete it for None."""
        key = [_key(index), judgement.query, judgement.path, judgement.start_s, judgement.end_s]
        with _database() as database:
            if judgement.relevant is None:
                sql = "DELETE FROM judgements WHERE folder = ? AND query = ? AND path = ? AND start_s = ? AND end_s = ?"
                database.execute(sql, key)
            else:
                database.execute(
                    "INSERT OR REPLACE INTO judgements VALUES (?, ?, ?, ?, ?, ?)", [*key, judgement.relevant]
                )

    def judgements(self, index: ServedIndex, query: str | None) -> list[Judgement]:
        """The judgements of a query, or of all."""
        sql = (
            "SELECT query, path, start_s, end_s, relevant FROM judgements WHERE folder = ? AND query = ifnull(?, query)"
        )
        with _database() as database:
            return [
                Judgement(query=text, path=path, start_s=start_s, end_s=end_s, relevant=bool(relevant))
                for text, path, start_s, end_s, relevant in database.execute(sql, [_key(index), query])
            ]


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
            _check_indexed(served, body.paths)
            store.replace(served, name, body.paths)
            return SoundCollection(name=name, paths=store.collection(served, name))

        return await service.run(request, "files", work)

    @routes.patch("/v1/collections/{name:path}", operation_id="change_collection")
    async def change_collection(
        body: CollectionChange, request: Request, name: Name, index: IndexName = None
    ) -> SoundCollection:
        """Add indexed sounds to a collection, and remove others. A missing collection is made."""
        served = service.index(index)

        def work(task: ModelTask) -> SoundCollection:
            _check_indexed(served, body.add)
            store.change(served, name, body.add, body.remove)
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
            row_of(served, body.path)
            store.judge(served, body)

        await service.run(request, "files", work)
        return Status()

    return routes


def _check_indexed(index: ServedIndex, sounds: Sequence[str]) -> None:
    """Raise ApiError for a path that the index does not have."""
    if index.library.index.files(set(sounds)).keys() != set(sounds):
        raise no_such_sound(index)


def _key(index: ServedIndex) -> str:
    return str(index.library.index.folder)


@contextmanager
def _database() -> Iterator[sqlite3.Connection]:
    """Open the database for one transaction. Raises ApiError when it cannot be read or written."""
    place = paths.home() / FILE
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(place, timeout=WAIT_S)) as database, database:
            database.executescript(_TABLES)
            yield database
    except (sqlite3.Error, OSError) as error:
        raise ApiError(
            503, f"{place.name} in openclap's home cannot be read or written ({error}).", "server_error"
        ) from error
