"""`openclap mcp`: search tools for assistants."""

from __future__ import annotations

from pathlib import Path

from openclap.cli.defaults import default_index
from openclap.cli.model_options import TokenizerFile


def mcp(*, index: Path | None = None, tokenizer: TokenizerFile = None) -> None:
    """Serve search tools to assistants by the Model Context Protocol (MCP), on standard input and output.

    Name this command in the settings of an assistant: it starts the command itself. Sound files are only read.

    Parameters
    ----------
    index
        The index folder. Default: your own (`openclap index add`), or the demo's if there is none.
    """
    from openclap.errors import require

    require("mcp", "mcp")
    from openclap.library import Library
    from openclap.server.mcp import create_server

    create_server(Library.open(index or default_index(), tokenizer=tokenizer, create=False)).run("stdio")
