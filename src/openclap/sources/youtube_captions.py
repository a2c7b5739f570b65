"""Read tables of captions by YouTube clip, such as those of AudioSetCaps and Auto-ACD: millions of rows, one a clip."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from openclap.sources.files import LeftOut, csv_header, csv_rows
from openclap.sources.record import Record
from openclap.sources.repeated import join_repeated
from openclap.sources.youtube import ClipId, clip_id, youtube_clip, youtube_page, youtube_video

CLIP_S = 10.0
"""The usual length of a clip, by which files with beginning and end in their names are found."""


@dataclass(frozen=True, slots=True)
class CaptionTable:
    """A table of captions by YouTube clip.

    Attributes:
        source: the name of the collection in records.
        id_column: the column of ids, in any of the forms of `openclap.sources.youtube`. The column of captions is
            `caption`.
        split: of all clips.
    """

    path: Path
    source: str
    id_column: str
    split: str | None = None

    def records(self, root: Path, files: Mapping[str, Path]) -> Iterator[Record]:
        """Yield a record per clip, in table order, clips with several rows last (`join_repeated`).

        Rows with an id of another form are left out and logged. All clips of a video are one group. Clips are found
        among `files` (by stem); a missing one keeps its record, with the file's place under `root`.
        """
        # The first pass normalises as the second does, or "Yabc…" and "abc…" would be two clips.
        ids = (_name(clip) for text, _ in self._rows() if (clip := clip_id(text)))
        return join_repeated(ids, self._read(root, files), self.path)

    def _rows(self) -> Iterator[tuple[str, ...]]:
        columns = [self.id_column, "caption"]
        header = csv_header(self.path)
        # Copies without a header: their first row is a clip already.
        headless = len(header) == len(columns) and clip_id(header[0]) is not None
        return csv_rows(self.path, columns, header=columns if headless else None)

    def _read(self, root: Path, files: Mapping[str, Path]) -> Iterator[Record]:
        left_out = LeftOut(self.path, "rows have an id that is none of a YouTube clip and were left out")
        folder = root / "audio"
        for text, caption in self._rows():
            clip = clip_id(text)
            if clip is None:
                left_out.add(text)
                continue
            start_s, name = clip.times[0] if clip.times else 0.0, text.strip()
            yield Record(
                id=_name(clip),
                audio=youtube_clip(files, clip.video, start_s, start_s + CLIP_S, name) or folder / f"{name}.flac",
                captions=(said,) if (said := caption.strip()) else (),
                source=self.source,
                group=youtube_video(clip.video),
                link=youtube_page(clip.video, start_s),
                split=self.split,
                youtube_id=clip.video,
            )
        left_out.log()


def _name(clip: ClipId) -> str:
    return "_".join([clip.video, *[f"{time:g}" for time in clip.times]]) if clip.times else clip.video
