"""Search tools for assistants, by the Model Context Protocol (MCP)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any, TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field, ValidationError

import openclap
from openclap.errors import OpenClapError
from openclap.library import Library
from openclap.search.duplicates import judged_file, page_of, read_judged
from openclap.search.queries import as_found
from openclap.types import Hit, KeywordUse

T = TypeVar("T")

INSTRUCTIONS = (
    "Find sound files in the user's collection by describing them. Scores are cosines: compare them within one answer "
    "only. Paths are files on the user's machine."
)
PROGRESS_PAIRS = 50
"""Compared pairs between two notices of progress."""
Count = Annotated[int, Field(ge=1, le=100, description="The number of sounds.")]
WhereExpressions = Annotated[
    list[str] | None,
    Field(description="Conditions on facts, all of which must hold: duration_s<10, tags=rain|wind."),
]
SoundPath = Annotated[str, Field(min_length=1, description="The path of a sound.")]


class _Server(MCPServer[Any]):
    """The SDK's server, with sentences for wrong arguments in place of pydantic's reports of several lines."""

    async def call_tool(self, name: str, arguments: dict[str, Any], context: Context[Any, Any] | None = None) -> Any:
        """Call a tool. Raises ToolError."""
        try:
            return await super().call_tool(name, arguments, context)
        except ToolError as error:
            if not isinstance(error.__cause__, ValidationError):
                raise
            found = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}." for each in error.__cause__.errors()]
            raise ToolError(" ".join(found)) from None


def create_server(library: Library) -> MCPServer[Any]:
    """The MCP server of a library; `run("stdio")` serves it on standard input and output."""
    server = _Server("openclap", instructions=INSTRUCTIONS, version=openclap.__version__)
    lock = threading.Lock()  # a model is used by one thread at a time

    def answering(work: Callable[[], T]) -> T:
        try:
            return work()
        except OpenClapError as error:
            raise ToolError(str(error)) from error

    def using(work: Callable[[], T]) -> T:
        with lock:
            return answering(work)

    @server.tool()
    def search_text(
        text: Annotated[str, Field(min_length=1, description="A description: rain on a tin roof.")],
        k: Count = 10,
        where: WhereExpressions = None,
        keywords: KeywordUse = "auto",
    ) -> dict[str, Any]:
        """Find sounds by describing them in plain words, and by those of the words that few files have in their names
        or facts; by all words with `keywords` "fused", by them alone with "only".

        `fit` is the part of a background of queries that have no better hit, and `probably_nothing` whether it is so
        low that the collection probably has no such sound; the nearest hits are listed all the same.
        """
        if not text.strip():
            raise ToolError("The text is empty, expected a few words such as 'rain on a tin roof'.")
        found = using(lambda: library.search(text, k, where=where, keywords=keywords))
        return {"hits": hits(found), "fit": found.info.fit, "probably_nothing": found.info.probably_nothing}

    @server.tool()
    def search_sound(
        path: SoundPath, k: Count = 10, from_s: float = 0.0, to_s: float | None = None, where: WhereExpressions = None
    ) -> list[dict[str, Any]]:
        """Find sounds that are similar to any sound file on this machine, indexed or not, or to a part of it."""
        return using(lambda: hits(library.similar(path, k, from_s=from_s, to_s=to_s, where=where)))

    @server.tool()
    def similar(path: SoundPath, k: Count = 10) -> list[dict[str, Any]]:
        """Find sounds that are similar to an indexed one, by its path in a hit. Nothing is decoded."""
        return using(lambda: hits(as_found(library.index, library.index.similar_to(path, k))))

    @server.tool()
    async def duplicates(
        context: Context[Any, Any],
        page: Annotated[int, Field(ge=1, description="The page of groups.")] = 1,
        page_size: Annotated[int, Field(ge=1, le=1000, description="The number of groups on a page.")] = 20,
    ) -> dict[str, Any]:
        """Groups of indexed files that are the same recording: identical bytes, identical samples, or another format,
        level, rate or cut; without those that the user has judged. The first call may take minutes."""

        def progress(done: int, total: int) -> None:
            anyio.from_thread.check_cancelled()
            if total and (done == total or done % PROGRESS_PAIRS == 0):
                anyio.from_thread.run(context.report_progress, done, total)

        def work() -> dict[str, Any]:
            # Without the lock, since no model is used, and other tools should not wait for minutes.
            groups, skipped = library.duplicates(progress=progress)
            judged = read_judged(judged_file(library.index))
            return page_of(groups, skipped, judged, page, page_size).as_object()

        return await anyio.to_thread.run_sync(lambda: answering(work))

    @server.tool()
    def values(
        fact: Annotated[str, Field(description="The name of a fact: tags, category, folder, rate, licence.")],
        where: WhereExpressions = None,
        most: Annotated[int, Field(ge=1, le=1000, description="The number of values.")] = 50,
    ) -> list[dict[str, Any]]:
        """The values of a fact that conditions can use, with the number of files that have each."""
        counts = using(lambda: library.facets(fact, where))
        return [{"value": value, "files": count} for value, count in counts[:most]]

    @server.tool()
    def facts(path: SoundPath) -> dict[str, Any]:
        """The facts of an indexed sound, by its path in a hit: length, rate, channels, size, caption, tags, licence."""
        row = using(lambda: library.index.files([path])).get(path)
        if row is None:
            raise ToolError(f"{path} is not in the index. Use a path from a hit.")
        return asdict(row)

    return server


def hits(found: list[Hit]) -> list[dict[str, Any]]:
    """Hits as JSON objects."""
    return [asdict(hit) for hit in found]
