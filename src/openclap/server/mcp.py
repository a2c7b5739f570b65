"""Search tools for assistants, by the Model Context Protocol (MCP)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any, TypeVar

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field

import openclap
from openclap.errors import OpenClapError
from openclap.library import Library
from openclap.types import Hit

T = TypeVar("T")

INSTRUCTIONS = (
    "Find sound files in the user's collection by describing them. Scores are cosines: compare them within one answer "
    "only. Paths are files on the user's machine."
)
Count = Annotated[int, Field(ge=1, le=100, description="The number of sounds.")]
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
        text: Annotated[str, Field(min_length=1, description="A description: rain on a tin roof.")], k: Count = 10
    ) -> list[dict[str, Any]]:
        """Find sounds by describing them in plain words."""
        return using(lambda: hits(library.search(text, k)))

    @server.tool()
    def search_sound(path: SoundPath, k: Count = 10) -> list[dict[str, Any]]:
        """Find sounds that are similar to any sound file on this machine, indexed or not."""
        return using(lambda: hits(library.similar(path, k)))

    @server.tool()
    def similar(path: SoundPath, k: Count = 10) -> list[dict[str, Any]]:
        """Find sounds that are similar to an indexed one, by its path in a hit. Nothing is decoded."""
        return using(lambda: hits(library.index.similar_to(path, k)))

    @server.tool()
    def facts(path: SoundPath) -> dict[str, Any]:
        """The facts of an indexed sound, by its path in a hit: length, rate, channels, size, caption, tags, licence."""
        row = using(lambda: library.index.file(path))
        if row is None:
            raise ToolError(f"{path} is not in the index. Use a path from a hit.")
        return asdict(row) | {"tags": list(row.tags)}

    return server


def hits(found: list[Hit]) -> list[dict[str, Any]]:
    """Hits as JSON objects."""
    return [asdict(hit) | {"tags": list(hit.tags)} for hit in found]
