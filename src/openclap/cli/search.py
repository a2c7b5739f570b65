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
    from openclap.search.index import Hits

K = Annotated[int, Parameter(name=["--k", "-k"])]


def search(
    query: str,
    *,
    index: Path | None = None,
    tokenizer: TokenizerFile = None,
    k: K = 10,
    exact: bool = False,
    json: bool = False,
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
    exact
        Compare every window, also in a large index, which takes longer.
    json
        Print one JSON array of hits instead of a table.
    """
    from openclap.errors import ConfigError
    from openclap.library import Library

    if not query.strip():
        raise ConfigError("The query is empty, expected a few words such as 'rain on a tin roof'.")
    show(Library.open(index or default_index(), tokenizer=tokenizer).search(query, k, exact=exact), json=json)


def similar(
    file: Path,
    *,
    index: Path | None = None,
    tokenizer: TokenizerFile = None,
    k: K = 10,
    exact: bool = False,
    json: bool = False,
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
    exact
        Compare every window, also in a large index, which takes longer.
    json
        Print one JSON array of hits instead of a table.
    """
    from openclap.library import Library

    show(Library.open(index or default_index(), tokenizer=tokenizer).similar(file, k, exact=exact), json=json)


def show(hits: Hits, *, json: bool) -> None:
    """Print hits: score, time in the file, file name and caption; and how a large index was searched."""
    if hits.info.note:
        note(hits.info.note)
    if json:
        print_json([asdict(hit) for hit in hits])
        return
    rows = [
        [f"{hit.score:.3f}", f"{hit.start_s:.1f}–{hit.end_s:.1f} s", Path(hit.path).name, hit.caption or ""]
        for hit in hits
    ]
    print_table(["score", "where", "file", "caption"], rows, right=[0, 1])
    if hits.info.method == "sketch":
        note(f"{hits.info}.".capitalize())
    if not hits:
        note("Nothing found: the index is empty. Add sounds with: openclap index add FOLDER")
