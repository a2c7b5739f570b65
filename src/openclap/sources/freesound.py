"""Freesound: half a million sounds with a title, tags and a description each, under Creative Commons licences.

Two forms of its metadata are read from one folder: the parquet file of LAION-Audio-630K (`id, title, tags:,
description, username, download_url`; tags are one text split at ","), and pages of Freesound's own API, which
`freesound_api.fetch_pages` writes. Sounds lie in `audio/` under the root as `ID.*` or as Freesound names them,
`ID__user__title.*`; what is not there is given by its address: in the parquet file that of the original, which
Freesound gives to logged-in users alone, and in the API's pages that of the preview. Shards that hold sounds already
(huggingface.co/datasets/Meranti/CLAP_freesound) are read by `shards`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from openclap.sources.freesound_api import read_pages
from openclap.sources.identity import freesound_page, freesound_user
from openclap.sources.layout import parquet_columns, parquet_rows, sounds, split_text, whole
from openclap.sources.licence import normalise
from openclap.sources.record import Record
from openclap.sources.source import Published, Root, Source

_COLUMNS = ("id", "title", "tags:", "description", "username", "download_url")
_LICENCES = ("licence", "license")


def read(root: Root) -> Iterator[Record]:
    """Records of every `*.parquet` and `page-*.json` in the root; `root` may be one parquet file too."""
    folder = Path(root)
    if folder.is_file():
        return _tables([folder], _local(folder.parent))
    tables, pages = sorted(folder.glob("*.parquet")), sorted(folder.glob("page-*.json"))
    if not tables and not pages:
        raise SOURCE.missing(root, "*.parquet", "page-*.json")
    local = _local(folder)
    return chain(_tables(tables, local), read_pages(folder, local) if pages else ())


def _tables(tables: Sequence[Path], local: dict[int, Path]) -> Iterator[Record]:
    for table in tables:
        given = parquet_columns(table)[0]
        licence = next((name for name in _LICENCES if name in given), _LICENCES[0])
        for cell, title, tags, description, username, address, terms in parquet_rows(table, _COLUMNS, [licence]):
            identity = whole(cell)
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
                licence=normalise(terms),
                author=username,
                link=freesound_page(identity),
                description=description,
                freesound_id=identity,
            )


def _local(folder: Path) -> dict[int, Path]:
    """The sounds that are there, by the id in front of their names."""
    found: dict[int, Path] = {}
    for path in sounds(folder / "audio"):
        digits = path.stem.split("_", 1)[0]
        if digits.isdecimal():
            found.setdefault(int(digits), path)
    return found


SOURCE = Source(
    name="freesound",
    title="Freesound",
    read=read,
    page="https://freesound.org (API: https://freesound.org/docs/api/)",
    needs="the metadata as *.parquet, or pages of the API as page-*.json; and, once fetched, the sounds in audio/.",
    licence="each sound's own: CC0-1.0, CC-BY, CC-BY-NC or Sampling+",
    published=Published(515_581, 3003.38),
)
