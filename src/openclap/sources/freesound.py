"""Freesound: half a million sounds with a title, tags and a description each, under Creative Commons licences.

Two forms of its metadata are read from one folder: the parquet file of LAION-Audio-630K (`id, title, tags:,
description, username, download_url`; tags are one text split at ","), and pages of Freesound's own API, which
`freesound_api.fetch_pages` writes. Audio files lie in `audio/` under the root as `ID.*` or under Freesound's names,
`ID__user__title.*`. Missing ones are recorded by their URL: from the parquet file that of the original, which only
logged-in users can download, from the API's pages that of the preview. Shards that hold the audio already
(huggingface.co/datasets/Meranti/CLAP_freesound) are read by `shards`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from openclap.sources.files import as_int, audio_files, parquet_columns, parquet_rows, split_text
from openclap.sources.freesound_api import read_pages
from openclap.sources.grouping import freesound_page, freesound_user
from openclap.sources.licence import normalise_licence
from openclap.sources.record import Record
from openclap.sources.source import PublishedSize, Root, Source

_COLUMNS = ("id", "title", "tags:", "description", "username", "download_url")
_LICENCES = ("licence", "license")


def read(root: Root) -> Iterator[Record]:
    """Yield records of every `*.parquet` and `page-*.json` in the root; `root` may also be a single parquet file."""
    folder = Path(root)
    if folder.is_file():
        return _tables([folder], _files_by_id(folder.parent))
    tables, pages = sorted(folder.glob("*.parquet")), sorted(folder.glob("page-*.json"))
    if not tables and not pages:
        raise SOURCE.missing(root, "*.parquet", "page-*.json")
    local = _files_by_id(folder)
    return chain(_tables(tables, local), read_pages(folder, local) if pages else ())


def _tables(tables: Sequence[Path], local: dict[int, Path]) -> Iterator[Record]:
    for table in tables:
        columns = parquet_columns(table)[0]
        licence = next((name for name in _LICENCES if name in columns), _LICENCES[0])
        for cell, title, tags, description, username, address, terms in parquet_rows(table, _COLUMNS, [licence]):
            identity = as_int(cell)
            if identity is None:
                continue
            yield Record(
                id=str(identity),
                audio=local.get(identity) or address or f"https://freesound.org/apiv2/sounds/{identity}/download/",
                captions=(),
                source=SOURCE.name,
                tags=split_text(tags),
                group=freesound_user(username),
                title=title,
                licence=normalise_licence(terms),
                author=username,
                link=freesound_page(identity),
                description=description,
                freesound_id=identity,
            )


def _files_by_id(folder: Path) -> dict[int, Path]:
    """Map the audio files by the id at the beginning of their names."""
    found: dict[int, Path] = {}
    for path in audio_files(folder / "audio"):
        digits = path.stem.split("_", 1)[0]
        if digits.isdecimal():
            # Freesound's own names, ID__user__title, and plain ids both begin with the id.
            found.setdefault(int(digits), path)
    return found


SOURCE = Source(
    name="freesound",
    title="Freesound",
    read=read,
    page="https://freesound.org (API: https://freesound.org/docs/api/)",
    needs="the metadata as *.parquet, or pages of the API as page-*.json; and, once fetched, the sounds in audio/.",
    licence="each sound's own: CC0-1.0, CC-BY, CC-BY-NC or Sampling+",
    get="Ask freesound.org for an API key and fetch pages of metadata (openclap.sources.freesound_api), or take "
    "LAION's table; sounds are fetched while a data set is built.",
    use="Each sound under its own licence: CC-BY needs credit, CC-BY-NC and Sampling+ forbid commercial use or parts "
    "of it.",
    faults="LAION's table states no licences, so that a choice of licences leaves all of it out. ESC-50, "
    "UrbanSound8K, FSD50K, Clotho and TACOS are sounds of Freesound.",
    published=PublishedSize(515_581, 3003.38),
)
