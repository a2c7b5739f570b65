"""`openclap search` and `openclap similar`: find sounds by words or by a sound."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from openclap.cli import running_server
from openclap.cli.console import note, print_json, print_table
from openclap.cli.defaults import advise_model, default_index
from openclap.cli.index import Conditions
from openclap.cli.model_options import TokenizerFile
from openclap.limits import check_count
from openclap.types import KeywordUse

if TYPE_CHECKING:
    from openclap.library import Library
    from openclap.search.index import Hits

K = Annotated[int, Parameter(name=["--k", "-k"])]
EveryWindow = Annotated[bool, Parameter(help="Show every window that fits, not only the best one of each file.")]
Offset = Annotated[int, Parameter(help="The number of hits to skip, for the next page.")]
UNLIKE_WEIGHT = -0.5
"""Weight of queries that hits should not be like."""


def search(
    query: str,
    *,
    index: Path | None = None,
    tokenizer: TokenizerFile = None,
    k: K = 10,
    where: Conditions = (),
    keywords: KeywordUse = "auto",
    also: tuple[str, ...] = (),
    unlike: tuple[str, ...] = (),
    every_window: EveryWindow = False,
    offset: Offset = 0,
    exact: bool = False,
    json: bool = False,
) -> None:
    """Find sounds by describing them. A running `openclap serve` of the index answers, without loading a model again.

    Parameters
    ----------
    query
        A description in plain words: "rain on a tin roof".
    index
        The index folder. Default: your own (`openclap index add`), or the demo's if there is none.
    k
        The number of sounds to show.
    keywords
        Words of file names, titles, tags and captions: fused with the embeddings; auto, only those that few files have;
        off; or only, which needs no model.
    also
        Another description that counts as much, or with a weight behind a colon: "thunder:0.5".
    unlike
        A description of sounds that are not wanted; its weight is 0.5, or is given behind a colon.
    exact
        Compare every window, also in a large index, which takes longer.
    json
        Print one JSON array of hits instead of a table.
    """
    from openclap.errors import ConfigError

    if not query.strip():
        raise ConfigError("The query is empty, expected a few words such as 'rain on a tin roof'.")
    folder = index or default_index()
    weights = {query: 1.0, **_weighted(also, 1.0), **_weighted(unlike, UNLIKE_WEIGHT)}
    if tokenizer is None:
        text = query if keywords == "only" else weights
        served = running_server.search_text(
            folder,
            {"text": text, "k": k, "where": list(where) or None, "keywords": keywords, "every_window": every_window}
            | {"offset": offset, "exact": exact},
        )
        if served:
            show_objects(served["hits"], served["info"], json=json)
            return
    if keywords == "only":
        from openclap.search.index import Index
        from openclap.search.queries import SearchQuery, find

        words = SearchQuery(words=query, where=where, keywords="only")
        show(find(Index.open(folder), words, check_count("k", k), check_count("offset", offset, least=0)), json=json)
        return
    library = open_for_query(folder, tokenizer)
    hits = library.search(
        weights, k, where=where, keywords=keywords, every_window=every_window, offset=offset, exact=exact
    )
    show(hits, json=json)
    if not json:
        advise_model(library.index)


def similar(
    file: Path,
    *,
    index: Path | None = None,
    tokenizer: TokenizerFile = None,
    k: K = 10,
    from_: float = 0.0,
    to: float | None = None,
    where: Conditions = (),
    unlike: tuple[Path, ...] = (),
    every_window: EveryWindow = False,
    offset: Offset = 0,
    exact: bool = False,
    json: bool = False,
) -> None:
    """Find sounds that are similar to a sound. A running `openclap serve` of the index answers, as for `search`.

    Parameters
    ----------
    file
        The sound to compare with; it need not be in the index.
    index
        The index folder. Default: your own (`openclap index add`), or the demo's if there is none.
    k
        The number of sounds to show.
    from_
        Start of the part to compare with, in seconds.
    to
        End of the part in seconds. Default: the end of the sound.
    unlike
        A sound that hits should not be like; its weight is 0.5.
    exact
        Compare every window, also in a large index, which takes longer.
    json
        Print one JSON array of hits instead of a table.
    """
    if tokenizer is None and not unlike:  # an upload is one sound
        part = ({"start_s": repr(from_)} if from_ else {}) | ({} if to is None else {"end_s": repr(to)})
        served = running_server.search_sound(
            index or default_index(),
            file,
            {"k": str(k), "offset": str(offset), "where": list(where), "without": os.path.realpath(file), **part}
            | {"every_window": str(every_window), "exact": str(exact)},
        )
        if served:
            show_objects(served["hits"], served["info"], json=json)
            return
    library = open_for_query(index, tokenizer)
    weights = {str(file): 1.0, **{str(path): UNLIKE_WEIGHT for path in unlike}}
    hits = library.similar(
        weights, k, from_s=from_, to_s=to, where=where, every_window=every_window, offset=offset, exact=exact
    )
    show(hits, json=json)
    if not json:
        advise_model(library.index)


def open_for_query(index: Path | None, tokenizer: Path | None) -> Library:
    """Open an index on the CPU in fp32, which embeds one query sooner than a GPU or another precision can be
    prepared."""
    from openclap.library import Library

    place = index or default_index()
    return Library.open(place, tokenizer=tokenizer, device="cpu", precision="fp32", create=False)


def _weighted(texts: tuple[str, ...], weight: float) -> dict[str, float]:
    """Descriptions with weights: "thunder:0.5" multiplies the weight, "thunder" has it."""
    weights = {}
    for text in texts:
        words, colon, number = text.rpartition(":")
        try:
            weights[words if colon else text] = math.copysign(float(number), weight) if colon else weight
        except ValueError:  # the colon is part of the text
            weights[text] = weight
    return weights


def show(hits: Hits, *, json: bool) -> None:
    """Print hits: score, time in the file, file name and caption, or else the title; as notes, whether there is
    probably no such sound, and how a large index was searched."""
    show_objects([asdict(hit) for hit in hits], hits.info.as_object(), json=json)


def show_objects(hits: list[dict[str, Any]], info: Mapping[str, Any], *, json: bool) -> None:
    """Print hits as `show` does, from the JSON objects of a server."""
    if info["note"]:
        note(info["note"])
    if info["probably_nothing"]:
        note(f"Probably nothing here: {1 - info['fit']:.0%} of the background queries have a better best hit.")
    if json:
        print_json(hits)
        return
    rows = [
        [
            f"{hit['score']:.3f}",
            f"{hit['start_s']:.1f}–{hit['end_s']:.1f} s",
            Path(hit["path"]).name,
            hit["caption"] or hit["title"] or "",
        ]
        for hit in hits
    ]
    print_table(["score", "where", "file", "caption"], rows, right=[0, 1])
    if info["keywords"]:
        note(f"Ranked also by the words: {', '.join(info['keywords'])}.")
    if info["method"] == "sketch":
        note(f"{info['summary'][0].upper()}{info['summary'][1:]}.")
    if not hits:
        note("Nothing found: the index is empty, or no file fits. Add sounds with: openclap index add FOLDER")
