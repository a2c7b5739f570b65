"""WavCaps: 403,050 sounds of AudioSet's strongly labelled part, the BBC, Freesound and SoundBible, each with a caption
that a language model wrote from its labels or description.

As published: `json_files/AudioSet_SL/as_final.json`, `json_files/BBC_Sound_Effects/bbc_final.json`,
`json_files/FreeSound/fsd_final.json` and `json_files/SoundBible/sb_final.json` (or as many of them as there are; in
folders of their own or in the root as well), each `{"num_captions_per_audio": 1, "data": [{"id", "caption",
"duration", …}]}`; and lists of clips of evaluation sets in `json_files/blacklist/*.json` (`{"AudioSet": ["Y….wav"],
"FreeSound": ["…"]}`), whose entries are left out. `blacklist_exclude_all_ac.json` is not applied: it names all of
AudioCaps and Clotho, the clips that people train on included.

Audio files lie under folders named like the parts (`AudioSet_SL`, `FreeSound_flac`, …) anywhere under the root, as
`Y<id>.flac` in AudioSet's part, where ids end in `.wav`, and `<id>.flac` in the others; with one part only, in any
folder. A missing file keeps its record.

A JSON file that is cut off or damaged is refused, however much of it is intact: it can be fetched again, and half of a
set would pass for all of it. Files are read entry by entry, whatever their size.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

from openclap.errors import DataError, require
from openclap.sources.columns import cell_text, cell_texts
from openclap.sources.files import DamagedTableError, LeftOut, as_float, as_int, audio_files, log
from openclap.sources.grouping import freesound_page, freesound_user
from openclap.sources.record import Record
from openclap.sources.repeated import join_repeated
from openclap.sources.source import PublishedSize, Root, Source
from openclap.sources.youtube import clip_id, youtube_page, youtube_video

LICENCE = "LicenseRef-WavCaps-academic"
UNAPPLIED = ("blacklist_exclude_all_ac.json",)
"""Lists that are not applied, since they name training clips of other sets."""
Entry = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Subset:
    """A part of WavCaps.

    Attributes:
        source: its name in records.
        folder: of its JSON and its audio files, which may have a suffix ("FreeSound_flac").
        blacklist: its key in the lists of clips of evaluation sets; "" where they name none of it.
        facts: the fields of a record that an entry's other keys fill, by the name in its id.
    """

    source: str
    folder: str
    file: str
    blacklist: str
    facts: Callable[[str, Entry], dict[str, Any]]

    def place(self, root: Path) -> Path | None:
        """Return its JSON file, where it is there."""
        names = (f"json_files/{self.folder}/{self.file}", f"{self.folder}/{self.file}", self.file)
        return next((path for name in names if (path := root / name).is_file()), None)

    def holds(self, folder: str) -> bool:
        """Return whether audio files of this part lie in a folder of that name."""
        return folder.lower().startswith(self.folder.lower())


def _audioset(name: str, entry: Entry) -> dict[str, Any]:
    clip = clip_id(name)
    if clip is None:
        return {}
    return {"youtube_id": clip.video, "group": youtube_video(clip.video), "link": youtube_page(clip.video)}


def _freesound(name: str, entry: Entry) -> dict[str, Any]:
    identity = as_int(name)
    return {
        "freesound_id": identity,
        "group": freesound_user(cell_text(entry.get("author"))),
        "title": cell_text(entry.get("file_name")),
        "link": freesound_page(identity) if identity is not None else None,
    }


def _bbc(name: str, entry: Entry) -> dict[str, Any]:
    return {"author": "BBC", "link": f"https://sound-effects.bbcrewind.co.uk/search?q={name}"}


def _soundbible(name: str, entry: Entry) -> dict[str, Any]:
    return {"title": cell_text(entry.get("title")), "link": cell_text(entry.get("href"))}


PARTS = (
    Subset("wavcaps_audioset", "AudioSet_SL", "as_final.json", "AudioSet", _audioset),
    Subset("wavcaps_bbc", "BBC_Sound_Effects", "bbc_final.json", "", _bbc),
    Subset("wavcaps_freesound", "FreeSound", "fsd_final.json", "FreeSound", _freesound),
    Subset("wavcaps_soundbible", "SoundBible", "sb_final.json", "", _soundbible),
)


def read(root: Root) -> Iterator[Record]:
    """Yield records part by part. The group is the YouTube video, or the Freesound user.

    Entries of the lists of evaluation clips, and entries without an id, are left out and logged.
    """
    folder = Path(root)
    tables = {part: table for part in PARTS if (table := part.place(folder))}
    if not tables:
        raise SOURCE.missing(root, *(f"json_files/{part.folder}/{part.file}" for part in PARTS))
    files, blacklists = _files_by_part(folder, list(tables)), _blacklists(folder)
    return chain.from_iterable(
        _records(folder, part, table, files[part], blacklists.get(part.blacklist, frozenset()))
        for part, table in tables.items()
    )


def _records(
    root: Path, part: Subset, table: Path, files: Mapping[str, Path], blacklist: frozenset[str]
) -> Iterator[Record]:
    ids = (name for entry in _entries(table) if (name := _name(entry)))
    nameless = LeftOut(table, "entries have no id and were left out")
    listed = LeftOut(table, "entries are in the lists of clips of evaluation sets (blacklist) and were left out")

    def included() -> Iterator[Record]:
        for number, entry in enumerate(_entries(table)):
            name = _name(entry)
            if not name:
                nameless.add(f"entry {number}")
            elif _bare(name) in blacklist:
                listed.add(name)
            else:
                yield _record(root, part, files, name, entry)

    yield from join_repeated(ids, included(), table)
    nameless.log()
    listed.log()


def _record(root: Path, part: Subset, files: Mapping[str, Path], name: str, entry: Entry) -> Record:
    facts = {
        "author": cell_text(entry.get("author")),
        "description": cell_text(entry.get("description")),
        **part.facts(name, entry),
    }
    return Record(
        **facts,
        id=name,
        audio=files.get(name) or root / part.folder / f"{name}.flac",
        captions=tuple(cell_texts(entry.get("caption"))),
        source=part.source,
        tags=tuple(cell_texts(entry.get("tags"), ",")),
        licence=LICENCE,
        length_s=as_float(entry.get("duration")),
    )


def _name(entry: Entry) -> str:
    """Return an entry's id without the suffix of a file, which is not that of its file: the name of its file."""
    text = cell_text(entry.get("id")) or ""
    return text.removesuffix(".wav").removesuffix(".flac")


def _bare(name: str) -> str:
    """Return an id in the one form by which the lists are searched."""
    clip = clip_id(name)
    return clip.video if clip else PurePosixPath(name).stem


def _entries(table: Path) -> Iterator[Entry]:
    """Yield the objects in `data`, a few at a time in memory. Raises DamagedTableError where the file ends early."""
    ijson = require("ijson", "data")
    count = 0
    try:
        with table.open("rb") as file:
            for entry in ijson.items(file, "data.item", use_float=True):
                if isinstance(entry, dict):
                    count += 1
                    yield entry
    except (ijson.JSONError, OSError, UnicodeDecodeError) as error:
        why = " ".join(str(error).split())[:80].rstrip(". ")
        raise DamagedTableError(
            f"{table}: is cut off or damaged after {count:,} entries ({why}), and none of it was used. Fetch it again."
        ) from error
    if not count:
        raise DamagedTableError(f'{table}: holds no entries, expected {{"data": [{{"id": …}}, …]}}. Fetch it again.')


def _blacklists(root: Path) -> dict[str, frozenset[str]]:
    """Read the names of clips of evaluation sets by part. Raises DataError for a damaged list."""
    names: dict[str, set[str]] = {}
    tables = [path for place in ("json_files/blacklist", "blacklist") for path in sorted((root / place).glob("*.json"))]
    for table in tables:
        if table.name in UNAPPLIED:
            log.warning("%s: is not applied, since it names clips that other sets train on.", table)
            continue
        try:
            content = json.loads(table.read_bytes())
            for part, ids in content.items():
                names.setdefault(part, set()).update(_bare(str(each).removesuffix(".wav")) for each in ids)
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise DataError(
                f'{table}: is damaged ({error}), expected lists of ids ({{"AudioSet": […], "FreeSound": […]}}). Fetch '
                "it again: without it, clips of evaluation sets would be trained on."
            ) from error
    return {part: frozenset(ids) for part, ids in names.items()}


def _files_by_part(root: Path, parts: list[Subset]) -> dict[Subset, dict[str, Path]]:
    """Map the audio files of each part by their names without suffix. Files in folders of no part are logged."""
    found: dict[Subset, dict[str, Path]] = {part: {} for part in parts}
    stray = LeftOut(root, "audio files are in no folder of a part (AudioSet_SL, FreeSound, …) and were not used")
    for path in audio_files(root):
        folders = path.relative_to(root).parts[:-1]
        # The same number may be a sound of Freesound and another one of SoundBible.
        part = next((part for part in parts if any(map(part.holds, folders))), parts[0] if len(parts) == 1 else None)
        if part:
            found[part].setdefault(path.stem, path)
        else:
            stray.add(path.relative_to(root).as_posix())
    stray.log()
    return found


SOURCE = Source(
    name="wavcaps",
    title="WavCaps",
    read=read,
    page="https://huggingface.co/datasets/cvssp/WavCaps",
    needs="json_files (AudioSet_SL/as_final.json, BBC_Sound_Effects/bbc_final.json, FreeSound/fsd_final.json, "
    "SoundBible/sb_final.json, or some of them; blacklist/*.json), and the sounds, unpacked, in folders named so.",
    licence=LICENCE,
    get="Download json_files and Zip_files from the Hugging Face hub, join the parts of the archives and unpack them.",
    use="Academic use only, whatever the licence of a single sound. The card on the hub states CC-BY-4.0 for the set.",
    faults="Files and entries differ by some (SoundBible: 1,232 entries, 1,320 files); some entries have no duration; "
    "ids of AudioSet's part end in .wav, the files in .flac. Clips of AudioCaps, Clotho, ESC-50, UrbanSound8K and "
    "VGGSound are in it, its blacklists name only those that its authors found.",
    published=PublishedSize(403_050, 7_567.92),
)
