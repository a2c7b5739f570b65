"""Search tools for assistants, by the Model Context Protocol (MCP)."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any, TypeVar

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field

import openclap
from openclap.errors import OpenClapError
from openclap.library import Library
from openclap.types import Hit, KeywordUse

T = TypeVar("T")

INSTRUCTIONS = (
    "Find sound files in the user's collection by describing them. Scores are cosines: compare them within one answer "
    "only. Paths are files on the user's machine."
)
Count = Annotated[int, Field(ge=1, le=100, description="The number of sounds.")]
WhereExpressions = Annotated[
    list[str] | None,
    Field(description="Conditions on facts, all of which must hold: duration_s<10, tags=rain|wind."),
]
SoundPath = Annotated[str, Field(min_length=1, description="The path of a sound.")]


def create_server(library: Library) -> MCPServer[Any]:
    """The MCP server of a library; `run("stdio")` serves it on standard input and output."""
    server: MCPServer[Any] = MCPServer("openclap", instructions=INSTRUCTIONS, version=openclap.__version__)
    lock = threading.Lock()  # a model is used by one thread at a time

    def using(work: Callable[[], T]) -> T:
        try:
            with lock:
                return work()
        except OpenClapError as error:
            raise ToolError(str(error)) from error

    @server.tool()
    def search_text(
        text: Annotated[str, Field(min_length=1, description="A description: rain on a tin roof.")],
        k: Count = 10,
        where: WhereExpressions = None,
        keywords: KeywordUse = "off",
    ) -> dict[str, Any]:
        """Find sounds by describing them in plain words; `keywords` also, or only, by words of names and facts.

        `fit` is the part of a background of queries that have no better hit, and `probably_nothing` whether it is so
        low that the collection probably has no such sound; the nearest hits are listed all the same.
        """
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
        return using(lambda: hits(library.index.similar_to(path, k)))

    @server.tool()
    def duplicates(
        most: Annotated[int, Field(ge=1, le=1000, description="The number of groups.")] = 50,
    ) -> list[list[str]]:
        """Groups of indexed files with identical content, by their paths; the largest groups first."""
        return using(lambda: identical_files(library))[:most]

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


def identical_files(library: Library) -> list[list[str]]:
    """The paths of indexed files with equal bytes, in groups of two or more, the largest first."""
    files = library.index.facts()
    groups: dict[str, list[str]] = defaultdict(list)
    for path, digest in zip(files.column("path").to_pylist(), files.column("hash").to_pylist(), strict=True):
        groups[digest].append(path)
    return sorted(
        (sorted(group) for group in groups.values() if len(group) > 1), key=lambda group: (-len(group), group)
    )


def hits(found: list[Hit]) -> list[dict[str, Any]]:
    """Hits as JSON objects."""
    return [asdict(hit) for hit in found]
