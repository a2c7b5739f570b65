"""Clips to leave out of training, by the ids of their uploads: a CSV file without sounds.

DCASE publishes one with each challenge (2025, task 6: `dcase2025_task6_excluded_freesound_ids.csv`, with a column
`sound_id` of Freesound ids), so that evaluation clips are not trained on. Any file serves that has a column `sound_id`,
`freesound_id` or `youtube_id`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from openclap.errors import DataError
from openclap.sources.files import DamagedTableError, as_int, csv_rows, log
from openclap.sources.record import Record
from openclap.sources.source import Root, Source

FREESOUND, YOUTUBE = ("sound_id", "freesound_id"), ("youtube_id",)


def read(root: Root) -> Iterator[Record]:
    """Yield a record of each id, whose sound is not there: it serves to exclude clips, not to build from.

    Raises DataError when the file has none of the columns, or no valid id.
    """
    path = Path(root)
    if not path.is_file():
        raise SOURCE.missing(root, "list of ids")
    for column in (*FREESOUND, *YOUTUBE):
        try:
            cells = [cell.strip() for (cell,) in csv_rows(path, [column])]
        except DamagedTableError:
            continue
        records = [record for cell in cells if (record := _record(path, column, cell))]
        if lost := len(cells) - len(records):
            # Clotho's own tables have "Not found" for some uploads.
            log.warning("%s: %d cells of %s are no ids and were left out.", path.name, lost, column)
        if not records:
            raise DataError(f"{path}: holds no id in its column {column}, expected whole numbers or ids of videos.")
        return iter(records)
    raise DataError(f"{path}: has none of the columns {', '.join((*FREESOUND, *YOUTUBE))}. Expected a list of ids.")


def _record(path: Path, column: str, cell: str) -> Record | None:
    sound = path.parent / cell
    if column in YOUTUBE:
        return Record(cell, sound, (), SOURCE.name, youtube_id=cell)
    number = as_int(cell)
    return Record(cell, sound, (), SOURCE.name, freesound_id=number) if number else None


SOURCE = Source(
    name="id_list",
    title="Excluded ids",
    read=read,
    page="https://dcase.community/challenge2025/task-language-based-audio-retrieval",
    needs="a CSV file with a column sound_id, freesound_id or youtube_id; it names clips to hold out.",
    licence="none: ids alone",
    get="Download the list of a challenge from its page, or write one: a line for each upload to leave out.",
    use="To hold out clips: `openclap dataset build --decontaminate id_list=FILE.csv`. Nothing can be built from it.",
    faults="Tables of Clotho have “Not found” for some uploads; such cells are left out, and counted. An id finds "
    "clips whose source states the id of their upload, and no others.",
)
