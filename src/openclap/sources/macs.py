"""MACS: captions and tags by two to five people for ten-second scenes of TAU Urban Acoustic Scenes 2019.

`MACS.yaml` (`files`: a list of `filename` and `annotations`, each with `annotator_id`, `sentence` and `tags`) and the
scenes in `TAU-urban-acoustic-scenes-2019-development/audio`, or in `audio`. File names hold scene, city, place,
segment and device: `airport-barcelona-0-12-a.wav`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from openclap.errors import DataError, require
from openclap.sources.files import unslug
from openclap.sources.record import Record
from openclap.sources.source import PublishedSize, Root, Source

LICENCE = "LicenseRef-Tampere-University-NC"


def read(root: Root) -> Iterator[Record]:
    """Yield records in file order. The group is the place in its city, which was recorded in one session."""
    table = SOURCE.find(root, "MACS.yaml")
    audio = SOURCE.find(root, "TAU-urban-acoustic-scenes-2019-development/audio", "audio")
    return _records(table, audio)


def _records(table: Path, audio: Path) -> Iterator[Record]:
    for file in _files(table):
        name = str(file["filename"])
        annotations = [entry for entry in file.get("annotations") or [] if isinstance(entry, dict)]
        scene, city, place = (*PurePosixPath(name).stem.split("-"), "", "", "")[:3]
        tags = dict.fromkeys(unslug(str(tag)) for entry in annotations for tag in entry.get("tags") or [])
        yield Record(
            id=name,
            audio=audio / name,
            captions=tuple([text for entry in annotations if (text := str(entry.get("sentence") or "").strip())]),
            source=SOURCE.name,
            tags=tuple(tags),
            label=unslug(scene),
            group=f"tau2019:{city}-{place}",
            licence=LICENCE,
            length_s=10.0,
            rate=48_000,
        )


def _files(table: Path) -> list[dict[str, Any]]:
    """Read the entries of the YAML file. Raises DataError when it is damaged."""
    yaml = require("yaml", "data")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where libyaml is there
    try:
        content = yaml.load(table.read_bytes(), Loader=loader)
        return [file for file in content["files"] if isinstance(file, dict) and "filename" in file]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise DataError(f"{table}: is damaged ({type(error).__name__}). Fetch it again.") from error


SOURCE = Source(
    name="macs",
    title="MACS",
    read=read,
    page="https://zenodo.org/records/5114771",
    needs="MACS.yaml, and the audio of TAU Urban Acoustic Scenes 2019 (development), as unpacked or in audio/.",
    licence=LICENCE,
    get="Download MACS.yaml and TAU Urban Acoustic Scenes 2019 (development) from Zenodo.",
    use="Research, not commerce.",
    faults="Scenes of ten European cities only; the captions of one clip differ in what they notice.",
    published=PublishedSize(3_930, 10.9),
)
