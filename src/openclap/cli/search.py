"""`openclap search` and `openclap similar`: find sounds by words or by a sound."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from openclap.cli.console import note, print_json, print_table
from openclap.cli.defaults import default_index
from openclap.cli.model_options import TokenizerFile

if TYPE_CHECKING:
    from openclap.library import Library
    from openclap.types import Hit

K = Annotated[int, Parameter(name=["--k", "-k"])]


def search(
    query: str, *, index: Path | None = None, tokenizer: TokenizerFile = None, k: K = 10, json: bool = False
) -> None:
    """Find sounds by describing them.

    Parameters
    ----------
    query
        A description in plain words: "rain on a tin roof".
    index
        The index folder. Default: your own (`openclap index add`), or the demo's if there is none.
    k
        The number of sounds to show.
    json
        Print one JSON array of hits instead of a table.
    """
    from openclap.errors import ConfigError

    if not query.strip():
        raise ConfigError("The query is empty, expected a few words such as 'rain on a tin roof'.")
    show(open_for_query(index, tokenizer).search(query, k), json=json)


def similar(
    file: Path, *, index: Path | None = None, tokenizer: TokenizerFile = None, k: K = 10, json: bool = False
) -> None:
    """Find sounds that are similar to a sound.

    Parameters
    ----------
    file
        The sound to compare with; it need not be in the index.
    index
        The index folder. Default: your own (`openclap index add`), or the demo's if there is none.
    k
        The number of sounds to show.
    json
        Print one JSON array of hits instead of a table.
    """
    show(open_for_query(index, tokenizer).similar(file, k), json=json)


def open_for_query(index: Path | None, tokenizer: Path | None) -> Library:
    """Open an index on the CPU, which embeds one query sooner than a GPU can be prepared."""
    from openclap.library import Library

    return Library.open(index or default_index(), tokenizer=tokenizer, device="cpu")


def show(hits: list[Hit], *, json: bool) -> None:
    """Print hits: score, time in the file, file name and caption."""
    if json:
        print_json([asdict(hit) for hit in hits])
        return
    rows = [
        [f"{hit.score:.3f}", f"{hit.start_s:.1f}–{hit.end_s:.1f} s", Path(hit.path).name, hit.caption or ""]
        for hit in hits
    ]
    print_table(["score", "where", "file", "caption"], rows, right=[0, 1])
    if not hits:
        note("Nothing found: the index is empty. Add sounds with: openclap index add FOLDER")
