"""Queries with several right clips each, read from a file in the form of DCASE 2025, task 6.

The file is CSV with the columns `query`, a caption, and `audio_filenames`, a Python list of file names written as text,
such as "['rain.wav', 'storm.wav']". DCASE's own is `metadata_eval.csv`, for the test split of Clotho.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from openclap.errors import DataError
from openclap.formatting import join_first
from openclap.sources.files import csv_rows

if TYPE_CHECKING:
    from openclap.evals.dataset import EvalClip, EvalClips

QUERY, CLIPS = "query", "audio_filenames"
NAMED = 5
"""Names of offending items in one sentence."""


@dataclass(frozen=True, slots=True)
class RelevantClips:
    """A query, and the names of all clips that are right for it."""

    query: str
    clips: tuple[str, ...]


def read_relevance(path: Path) -> tuple[tuple[RelevantClips, ...], tuple[str, ...]]:
    """Read (the queries, sentences on rows that were left out).

    A row whose list is malformed or empty is left out. Of a query in several rows, the clips of all rows are right.
    Raises DataError for a file that cannot be read, lacks a column, or holds no query.
    """
    clips: dict[str, dict[str, None]] = {}
    malformed, empty, repeated = list[str](), list[str](), list[str]()
    for cell, text in csv_rows(path, [QUERY, CLIPS]):
        query, names = cell.strip(), _parse_names(text)
        if names is None:
            malformed.append(f"{query!r}")
        elif not names:
            empty.append(f"{query!r}")
        else:
            repeated += [f"{query!r}"] if query in clips else []
            clips.setdefault(query, {}).update(dict.fromkeys(names))
    if not clips:
        raise DataError(
            f"{path}: no query has a list of clips, expected rows with a caption in {QUERY} and a list such as "
            f"['rain.wav', 'storm.wav'] in {CLIPS}."
        )
    notes = [
        f"{path.name}: {len(queries)} {sentence}: {join_first(queries, NAMED)}."
        for queries, sentence in (
            (malformed, f"queries were left out, whose {CLIPS} is no list of names"),
            (empty, "queries were left out, which name no clip"),
            (repeated, "rows repeat a query; the clips of all its rows are right"),
        )
        if queries
    ]
    return tuple(RelevantClips(query, tuple(names)) for query, names in clips.items()), tuple(notes)


def _parse_names(text: str) -> tuple[str, ...] | None:
    """The names in a list of texts; None for anything else."""
    # Literals only, so that nothing in a file can run. csv bounds a cell at 131,072 characters, and the parser nesting.
    try:
        names = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
        return None
    return tuple(dict.fromkeys(name.strip() for name in names))


def check_names(
    named: Sequence[RelevantClips], clips: Sequence[EvalClip], file: Path
) -> tuple[tuple[RelevantClips, ...], tuple[str, ...]]:
    """(The queries with those of their clips that exist, sentences on the others). Raises DataError for no query."""
    positions = _positions(clips)
    unknown = dict.fromkeys(name for each in named for name in each.clips if name not in positions)
    if not unknown:
        return tuple(named), ()
    found = [RelevantClips(each.query, tuple(n for n in each.clips if n in positions)) for each in named]
    queries = tuple(each for each in found if each.clips)
    sentence = (
        f"{file.name}: {len(unknown)} clips that it names are not among the {len(clips)} clips of the split: "
        f"{join_first(unknown, NAMED)}."
    )
    if not queries:
        raise DataError(f"{sentence} No query is left. Expected names as the data set has them.")
    lost = len(named) - len(queries)
    return queries, (f"{sentence} {lost} queries name no other clip and were left out." if lost else sentence,)


def match_clips(named: Iterable[RelevantClips], clips: EvalClips) -> list[tuple[str, int]]:
    """(query, position of a right clip) for all right clips that are among `clips`."""
    positions = _positions(clips.clips)
    return [(each.query, positions[name]) for each in named for name in each.clips if name in positions]


def _positions(clips: Sequence[EvalClip]) -> dict[str, int]:
    """Positions by id and, where only one clip has it, by file name."""
    files: dict[str, int | None] = {}
    for position, clip in enumerate(clips):
        name = Path(clip.path).name
        files[name] = None if name in files else position
    by_file = {name: position for name, position in files.items() if name and position is not None}
    return by_file | {clip.key: position for position, clip in enumerate(clips)}
