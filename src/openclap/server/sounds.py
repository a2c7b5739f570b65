"""Indexed sounds over HTTP: the file, a part of it as WAV, its waveform, its facts.

Only files that an index names are read, and only while their size and time are those of the index: a link that now
leads elsewhere, or another file under the same name, is not sent.

N samples, C channels, P columns of a waveform.
"""

from __future__ import annotations

import io
import math
import mimetypes
import os
import stat
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from email.utils import formatdate
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Annotated, Any, BinaryIO

import numpy as np
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse
from numpy.typing import NDArray
from starlette.background import BackgroundTask

from openclap import paths
from openclap.arrays import Wave
from openclap.audio.inputs import Sound
from openclap.audio.io import decode_part, decoded, name_of
from openclap.errors import AudioError
from openclap.search.labels import labels_of
from openclap.search.rows import FileRow, iso_time
from openclap.server.batching import ModelTask
from openclap.server.errors import ApiError
from openclap.server.index_schemas import Peaks, SoundFacts
from openclap.server.inputs import IndexName, Upload, check_times
from openclap.server.service import ServedIndex, Service
from openclap.storage import write_bytes
from openclap.types import Hit

COLUMNS = 1000
"""Columns of a stored waveform: 2 kB a file, enough for the width of a page."""
MOST_SAMPLES = 64 << 20
"""Samples of a part over all channels, which take 256 MB: ten minutes in stereo at 48 kHz. A file of 1 MB may decode to
many more, of silence in eight channels at 192 kHz."""
PREPARED, PREPARED_S = 20, 60.0
"""The first hits of a search, up to this length, have their waveforms computed before they are asked for."""

Path_ = Annotated[str, Query(alias="path", description="The path of an indexed sound, as hits have it.")]
Start = Annotated[float, Query(ge=0, le=1e9, allow_inf_nan=False, description="Seconds.")]
End = Annotated[float | None, Query(ge=0, le=1e9, allow_inf_nan=False, description="Seconds; the sound's end.")]


def router(service: Service, peaker: Peaker) -> APIRouter:
    """The routes of this module."""
    routes = APIRouter(tags=["Sounds"])

    @routes.get("/v1/sounds", operation_id="sound_facts")
    async def sound_facts(request: Request, path: Path_, index: IndexName = None) -> SoundFacts:
        """The facts of an indexed sound."""
        served = service.index(index)

        def work(task: ModelTask) -> tuple[FileRow, tuple[str, ...]]:
            return row_of(served, path), labels_of(served.library.index, [path]).get(path, ())

        row, labels = await service.run(request, "files", work)
        return SoundFacts(index=served.name, modified=iso_time(row.mtime_ns), labels=list(labels), **asdict(row))

    @routes.get("/v1/sounds/file", operation_id="sound_file", response_class=FileResponse)
    async def sound_file(request: Request, path: Path_, index: IndexName = None) -> Response:
        """The file of an indexed sound, unchanged. Ranges of bytes are answered."""
        served = service.index(index)

        def work(task: ModelTask) -> tuple[FileRow, os.stat_result]:
            with indexed_file(served, path) as (row, file):
                return row, os.fstat(file.fileno())

        row, status = await service.run(request, "files", work)
        return FileResponse(
            row.path,
            media_type=media_type(row.path),
            filename=Path(row.path).name,
            stat_result=status,
            content_disposition_type="inline",
            headers={"ETag": f'"{row.hash[:32]}"', "Cache-Control": "private, no-cache"},
        )

    @routes.get("/v1/sounds/clip", operation_id="sound_clip", response_class=FileResponse)
    async def sound_clip(
        request: Request, path: Path_, index: IndexName = None, start_s: Start = 0.0, end_s: End = None
    ) -> Response:
        """A part of an indexed sound as WAV of 16 bits, which every browser plays. Ranges of bytes are answered."""
        served = service.index(index)
        check_times(start_s, end_s)
        row, wav = await service.run(
            request, "files", lambda task: _clip(served, path, start_s, end_s, service.limits.clip_s)
        )
        return FileResponse(
            wav.path,
            media_type="audio/wav",
            filename=f"{Path(row.path).stem}.wav",
            content_disposition_type="inline",
            headers={
                "ETag": f'"{row.hash[:32]}-{start_s:g}-{"end" if end_s is None else f"{end_s:g}"}"',
                "Last-Modified": formatdate(row.mtime_ns / 1e9, usegmt=True),
                "Cache-Control": "private, no-cache",
            },
            background=BackgroundTask(wav.delete),
        )

    @routes.get("/v1/sounds/peaks", operation_id="sound_peaks")
    async def sound_peaks(
        request: Request,
        path: Path_,
        index: IndexName = None,
        columns: Annotated[int, Query(ge=1, le=COLUMNS)] = 500,
    ) -> Peaks:
        """The waveform of an indexed sound: the lowest and the highest sample of each column, from -127 to 127."""
        served = service.index(index)
        row, peaks_2P = await service.run(request, "files", lambda task: peaker.peaks(served, path))
        low_P, high_P = reduced(peaks_2P, columns)
        return Peaks(duration_s=row.duration_s, low=low_P.tolist(), high=high_P.tolist())

    return routes


def row_of(index: ServedIndex, path: str) -> FileRow:
    """The row of an indexed file. Raises ApiError for any other path."""
    row = index.library.index.files([path]).get(path)
    if row is None:
        raise no_such_sound(index)
    return row


def no_such_sound(index: ServedIndex) -> ApiError:
    """The error of a path that the index does not have."""
    return ApiError(404, f"The index {index.name} has no such sound. Use a path from its hits.", param="path")


@contextmanager
def indexed_file(index: ServedIndex, path: str) -> Iterator[tuple[FileRow, BinaryIO]]:
    """Open an indexed file for reading. Raises ApiError when the index has no such path, the file is gone, or it is not
    the one that was indexed."""
    row = row_of(index, path)
    try:
        # Not blocking: a pipe under this name would wait for its writer for ever.
        descriptor = os.open(row.path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError:
        raise ApiError(404, "This sound is no longer there. Bring the index up to date.", param="path") from None
    with open(descriptor, "rb") as file:  # noqa: PTH123 (a descriptor)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or (status.st_size, status.st_mtime_ns) != (row.size, row.mtime_ns):
            raise ApiError(409, "This sound changed since it was indexed. Bring the index up to date.", param="path")
        yield row, file


def media_type(path: str) -> str:
    """The type of a sound by its name; never one that a browser runs or shows."""
    guessed = mimetypes.guess_type(path)[0] or ""
    return guessed if guessed.startswith("audio/") else "application/octet-stream"


def part_of(file: Any, name: str, start_s: float | None, end_s: float | None, longest_s: float) -> Sound:
    """A part of a sound as a waveform; the file itself where no part is wanted. Raises AudioError and ApiError."""
    if start_s is None and end_s is None:
        return file  # type: ignore[no-any-return]
    return read_part(file, name, start_s or 0.0, end_s, longest_s)


def read_part(file: Any, name: str, start_s: float, end_s: float | None, longest_s: float) -> tuple[Wave, int]:
    """Decode from `start_s` to `end_s` (None: the end): (N, C) and the rate in Hz.

    Raises AudioError when nothing can be decoded or the sound ends before the part, and ApiError for a part that is
    longer than `longest_s`.
    """
    # A second more than the limit shows that the part is longer, without decoding all of it.
    end = min(math.inf if end_s is None else end_s, start_s + longest_s + 1.0)
    try:
        wave_NC, rate = decode_part(file, start_s, end, MOST_SAMPLES)
    except AudioError as error:
        raise AudioError(str(error).replace(name_of(file), Path(name).name, 1)) from None
    if len(wave_NC) > longest_s * rate:
        raise ApiError(400, f"The part is longer than {longest_s:g} s, the limit here.", param="end_s")
    return wave_NC, rate


class _TemporaryFile:
    """A temporary file with some content. It is deleted with this object at the latest: nobody takes it where the
    client has gone in the meantime."""

    def __init__(self, content: bytes, suffix: str) -> None:
        with NamedTemporaryFile(prefix="openclap-", suffix=suffix, delete=False) as file:
            self.path = file.name
            self._finalize = weakref.finalize(self, _unlink, file.name)
            file.write(content)

    def delete(self) -> None:
        """Delete the file now."""
        self._finalize()


def _unlink(path: str) -> None:
    Path(path).unlink(missing_ok=True)


def _clip(
    index: ServedIndex, path: str, start_s: float, end_s: float | None, longest_s: float
) -> tuple[FileRow, _TemporaryFile]:
    """A part of a sound as a WAV file, and the sound's row. Raises ApiError for a full disk, and as `read_part`."""
    with indexed_file(index, path) as (row, file):
        wave_NC, rate = read_part(file, row.path, start_s, end_s, longest_s)
    try:
        return row, _TemporaryFile(wav_bytes(wave_NC, rate), ".wav")
    except OSError as error:
        raise ApiError(
            503, f"The clip cannot be written to the temporary folder ({error.strerror}).", "server_error"
        ) from error


def wav_bytes(wave_NC: Wave, rate: int) -> bytes:
    """A waveform as a WAV file of 16 bits; of more than two channels, the first two."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(wave_NC[:, :2], -1.0, 1.0), rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


class Peaker:
    """Waveforms of indexed sounds: computed once and stored under openclap's home, by the hash of the content."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def peaks(self, index: ServedIndex, path: str) -> tuple[FileRow, NDArray[np.int8]]:
        """The row of an indexed sound and its (2, P) lowest and highest samples. Raises ApiError and AudioError."""
        row = row_of(index, path)
        stored = self._stored(row)
        if stored is not None:
            return row, stored
        with indexed_file(index, path) as (row, file):
            peaks_2P = waveform(Upload(file, row.path), row.duration_s)
        buffer = io.BytesIO()
        np.save(buffer, peaks_2P)
        with suppress(OSError):  # a full or read-only home: it is computed again next time
            place = self._place(row)
            place.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(place, buffer.getvalue())
        return row, peaks_2P

    def prepare(self, index: ServedIndex, hits: Sequence[Hit]) -> None:
        """Compute the waveforms of the first hits in the background: a page will show them next."""
        for hit in hits[:PREPARED]:
            if hit.duration_s <= PREPARED_S:
                self._service.in_background(partial(self.peaks, index, hit.path))

    def _place(self, row: FileRow) -> Path:
        return paths.home() / "peaks" / row.hash[:2] / f"{row.hash}.npy"

    def _stored(self, row: FileRow) -> NDArray[np.int8] | None:
        try:
            peaks_2P = np.load(self._place(row), allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        is_valid = peaks_2P.dtype == np.int8 and peaks_2P.ndim == 2 and len(peaks_2P) == 2 and peaks_2P.shape[1] > 0
        return peaks_2P if is_valid else None


def waveform(file: Any, duration_s: float, columns: int = COLUMNS) -> NDArray[np.int8]:
    """The lowest and highest sample over all channels in each of P stretches of equal length: (2, P), ±127 for ±1.

    A sound has no more columns than samples. Raises AudioError when it cannot be decoded.
    """
    peaks_2P, position, total = np.zeros((2, 0), np.float32), 0, 0
    for wave_NC, rate in decoded(file):
        if not total:
            total = max(1, round(duration_s * rate))
            peaks_2P = np.tile(np.array([[np.inf], [-np.inf]], np.float32), min(columns, total))
        count = peaks_2P.shape[1]
        column_N = np.minimum((position + np.arange(len(wave_NC))) * count // total, count - 1)
        starts = np.flatnonzero(np.diff(column_N, prepend=-1))
        own = column_N[starts]
        peaks_2P[0, own] = np.minimum(peaks_2P[0, own], np.minimum.reduceat(wave_NC.min(axis=1), starts))
        peaks_2P[1, own] = np.maximum(peaks_2P[1, own], np.maximum.reduceat(wave_NC.max(axis=1), starts))
        position += len(wave_NC)
    if not position:
        raise AudioError("The sound contains no samples.")
    peaks_2P[~np.isfinite(peaks_2P)] = 0.0  # columns after the end of a file that is shorter than it was
    return np.rint(np.clip(peaks_2P, -1, 1) * 127).astype(np.int8)


def reduced(peaks_2P: NDArray[np.int8], columns: int) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """The lowest and highest samples in fewer columns."""
    count = peaks_2P.shape[1]
    if columns >= count:
        return peaks_2P[0], peaks_2P[1]
    starts = np.arange(columns) * count // columns
    return np.minimum.reduceat(peaks_2P[0], starts), np.maximum.reduceat(peaks_2P[1], starts)
