"""Every tool of `openclap mcp`, by the client of MCP's own SDK, over standard input and output."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import soundfile
from mcp import Client, StdioServerParameters, stdio_client

from openclap.library import Library
from openclap.search.duplicates import add_judgement, judged_file, page_of
from openclap.server.mcp import create_server


@pytest.fixture
def path(library: Library) -> str:
    return str(library.index.folder.parent / "sounds" / "1.wav")


async def call(client: Any, name: str, **arguments: Any) -> Any:
    """The result of a tool; the message of its error."""
    result = await client.call_tool(name, arguments)
    if result.is_error:
        return result.content[0].text
    return result.structured_content.get("result", result.structured_content)


def test_the_sdk_calls_every_tool(library: Library, path: str) -> None:
    check_every_tool(Client(create_server(library)), library, path)


@pytest.mark.long
def test_the_sdk_calls_every_tool_over_stdio(library: Library, path: str) -> None:
    command = ["-m", "openclap", "mcp", "--index", str(library.index.folder)]
    server = StdioServerParameters(command=sys.executable, args=command, env=dict(os.environ))
    check_every_tool(Client(stdio_client(server)), library, path)


def check_every_tool(client: Client, library: Library, path: str) -> None:
    """List and call the tools, and compare their results with the library's."""

    async def converse() -> tuple[list[str], dict[str, Any]]:
        async with client:
            tools = (await client.list_tools()).tools
            assert all(tool.description and tool.input_schema["properties"] for tool in tools)
            return [tool.name for tool in tools], {
                "text": await call(client, "search_text", text="noise", k=6),
                "sound": await call(client, "search_sound", path=path, k=5),
                "similar": await call(client, "similar", path=path, k=5),
                "facts": await call(client, "facts", path=path),
                "duplicates": await call(client, "duplicates"),
                "values": await call(client, "values", fact="channels", where=["channels=2"]),
                "part": await call(client, "search_sound", path=path, k=5, from_s=0.1, to_s=0.3, where=["channels=2"]),
            }

    names, results = asyncio.run(converse())
    assert names == ["search_text", "search_sound", "similar", "duplicates", "values", "facts"]
    assert [hit["path"] for hit in results["text"]["hits"]] == [hit.path for hit in library.search("noise", 6)]
    assert [hit["path"] for hit in results["sound"]] == [hit.path for hit in library.similar(path, 5)]
    assert [hit["path"] for hit in results["similar"]] == [hit.path for hit in library.index.similar_to(path, 5)]
    assert (results["facts"]["path"], results["facts"]["channels"]) == (path, 2)
    assert (results["text"]["fit"], results["text"]["probably_nothing"]) == (None, False)  # a small index has none
    assert results["duplicates"] == page_of([], [], []).as_object()
    assert results["values"] == [{"value": 2, "files": 3}]
    part = library.similar(path, 5, from_s=0.1, to_s=0.3, where=["channels=2"])
    assert [hit["path"] for hit in results["part"]] == [hit.path for hit in part]
    json.dumps(results)


def test_duplicates_are_those_of_the_library_with_progress(library: Library, tmp_path: Path) -> None:
    for number, name in enumerate(("a.wav", "b.wav", "c.wav", "d.wav")):
        shutil.copy(library.index.folder.parent / "sounds" / f"{(0, 1, 1, 2)[number]}.wav", tmp_path / name)
    wave_NC, rate = soundfile.read(tmp_path / "d.wav", dtype="int16")
    soundfile.write(tmp_path / "e.flac", wave_NC, rate)
    copies = Library.open(tmp_path / "index", library.index.identity.model)
    copies.add([tmp_path])
    groups, _ = copies.duplicates()
    (tmp_path / "a.wav").write_bytes(b"changed")
    seen: list[float] = []

    async def on_progress(done: float, total: float | None, message: str | None) -> None:
        seen.append(done)

    async def converse() -> list[Any]:
        async with Client(create_server(copies)) as client:
            first = await client.call_tool("duplicates", {"page_size": 1}, progress_callback=on_progress)
            add_judgement(judged_file(copies.index), groups[0])
            return [
                first.structured_content,
                await call(client, "duplicates"),
                await call(client, "duplicates", page=0),
            ]

    found, judged, mistake = asyncio.run(converse())
    assert [group.kind for group in groups] == ["identical bytes", "identical samples"]
    assert found["groups"] == 2 and seen
    assert found["listed"] == json.loads(json.dumps(page_of(groups[:1], [], []).as_object()["listed"]))
    assert (judged["judged"], [group["id"] for group in judged["listed"]]) == (1, [groups[1].id])
    assert isinstance(mistake, str)


def test_sounds_that_moved_with_their_index_have_their_present_paths(own: Library, tmp_path: Path) -> None:
    (tmp_path / "drive").mkdir()
    for name in ("index", "sounds"):
        (tmp_path / name).rename(tmp_path / "drive" / name)
    sounds = tmp_path / "drive" / "sounds"

    async def converse() -> Any:
        async with Client(create_server(Library.open(tmp_path / "drive" / "index"))) as client:
            return await call(client, "similar", path=str(sounds / "1.wav"), k=5)

    assert {Path(hit["path"]).parent for hit in asyncio.run(converse())} == {sounds}


def test_mistakes_are_sentences_for_the_assistant(library: Library, path: str, tmp_path: Path) -> None:
    (tmp_path / "no-sound.wav").write_bytes(b"text")

    async def converse() -> list[str]:
        async with Client(create_server(library)) as client:
            return [
                await call(client, "search_sound", path=str(tmp_path / "missing.wav")),
                await call(client, "search_sound", path=str(tmp_path / "no-sound.wav")),
                await call(client, "similar", path="/etc/passwd"),
                await call(client, "facts", path="/etc/passwd"),
                await call(client, "search_text", text="noise", k=0),
                await call(client, "search_text", text=""),
                await call(client, "search_text", text=" "),
                await call(client, "search_text"),
                await call(client, "search_text", text="noise", keywords="maybe", k="many"),
                await call(client, "search_text", text="noise", where=["colour=red"]),
                await call(client, "search_sound", path=path, from_s=3, to_s=1),
                await call(client, "values", fact="colour"),
                await call(client, "duplicates", page=0),
                await call(client, "nothing"),
            ]

    messages = asyncio.run(converse())
    assert "no such file" in messages[0] and "no-sound.wav" in messages[1]
    assert all("not in the index" in message for message in messages[2:4])
    for message in messages:
        assert isinstance(message, str) and "\n" not in message and "pydantic" not in message, message
    assert messages[4] == "k: Input should be greater than or equal to 1."
    assert messages[8].count(": ") == 2  # both mistakes are named
