"""Captions, labels, groups and licences of sounds, from the tables beside this file.

captions.csv    source, files, label, captions, group: the first row whose pattern matches a file gives its words
licences.csv    source, files, licence, author, link: as the package's copyright file and credits say, the first match

Patterns are those of `fnmatch`; `*` also matches slashes. All files of a row are one group, as are the rows with one
`group`: numbered takes of a sound, and everything that one voice says. Captions and groups may hold fields:
    {parent}      name of the file's folder
    {last}        the last word of the file's name: "egypt_camel.ogg" is "camel"
    {strum}       direction and chord: "Csharp minor_DOWN_02.flac" is "a down strum of a C sharp minor chord"
    {transcript}  the words that are spoken, from the package's transcripts; files without one are left out
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path, PurePosixPath

HERE = Path(__file__).parent
SHIPPED = re.compile(r"CC0-1\.0|CC-BY-[34]\.0|MIT")
"""Licences of sounds that the shipped weights may learn from. Others serve evaluation alone."""
LONGEST_TRANSCRIPT = 12
"""Words of a transcript that a caption quotes."""


@dataclass(frozen=True)
class Words:
    """What is said of one sound; `caption_from` names the rule: name, transcript, or those of the demo's table."""

    captions: tuple[str, ...]
    label: str
    group: str
    caption_from: str


@dataclass(frozen=True)
class Terms:
    licence: str
    author: str
    link: str

    @property
    def shipped(self) -> bool:
        return SHIPPED.fullmatch(self.licence) is not None


def words_of(source: str, key: str, transcripts: Mapping[str, str]) -> Words | None:
    """Return the words of the file `key` of a package; None where no row matches, or it has no transcript."""
    row = _first(_table("captions.csv").get(source, ()), key)
    if row is None:
        return None
    path = PurePosixPath(key)
    fields = {"parent": path.parent.name, "last": path.stem.split("_")[-1], "strum": _strum(path.stem)}
    if transcript := transcripts.get(str(path.with_suffix(""))):
        spoken = transcript.split()
        fields["transcript"] = " ".join(spoken[:LONGEST_TRANSCRIPT]) + (
            " …" if len(spoken) > LONGEST_TRANSCRIPT else ""
        )
    try:
        captions = tuple(caption.format(**fields) for caption in row["captions"].split(" | "))
    except KeyError:
        return None
    group = row["group"].format(**fields) or row["files"]
    spoken_words = "{transcript}" in row["captions"]
    return Words(captions, row["label"], f"{source} {group}", "transcript" if spoken_words else "name")


def terms_of(source: str, key: str) -> Terms:
    """Return licence, author and link of the file `key` of a package; a file without a row is an error."""
    row = _first(_table("licences.csv")[source], key)
    if row is None:
        raise SystemExit(f"licences.csv: no row of {source} matches {key}. Read its terms, add them.")
    return Terms(row["licence"], row["author"], row["link"])


def read_transcripts(text: str) -> dict[str, str]:
    """Read lines "name: words." by name. Descriptions of tones, in brackets, are left out."""
    found = re.findall(r"^([\w/-]+): (.+)$", text, flags=re.MULTILINE)
    return {name: words.strip() for name, words in found if not words.startswith("[")}


def rows_of(table: str) -> list[dict[str, str]]:
    with (HERE / table).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@cache
def _table(name: str) -> dict[str, list[dict[str, str]]]:
    by_source: dict[str, list[dict[str, str]]] = {}
    for row in rows_of(name):
        by_source.setdefault(row["source"], []).append(row)
    return by_source


def _first(rows: Sequence[dict[str, str]], key: str) -> dict[str, str] | None:
    return next((row for row in rows if fnmatchcase(key, row["files"])), None)


def _strum(stem: str) -> str:
    match = re.fullmatch(
        r"([A-G])(sharp|flat)? ?(major|min[or]+(?:7b5)?)_?(down|up)?_?\d+(?:wav)?", stem, re.IGNORECASE
    )
    if match is None:
        return "a strum"
    note, sign, kind, direction = match.groups()
    kind = {"major": "major", "minor": "minor"}.get(kind.lower(), "half-diminished")
    return f"{'an up' if (direction or '').lower() == 'up' else 'a down' if direction else 'a'} strum of " + (
        f"{'an' if note in 'AE' else 'a'} {' '.join(filter(None, (note, sign, kind)))} chord"
    )
