"""Sounds for the page: any format as a WAV with ranges of bytes, spectrograms, and the file manager of this machine.

N samples, C channels, B bands, P columns.
"""

from __future__ import annotations

import base64
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from numpy.typing import NDArray

from openclap.arrays import Wave
from openclap.audio.io import decoded
from openclap.errors import AudioError
from openclap.server.batching import ModelTask
from openclap.server.errors import ApiError
from openclap.server.inputs import IndexName, Upload, check_times
from openclap.server.page_schemas import RevealRequest, Spectrogram
from openclap.server.schemas import Status
from openclap.server.service import ServedIndex, Service
from openclap.server.sounds import End, Path_, Start, indexed_file, read_part

HEADER_BYTES = 44
MOST_BYTES = 2**32 - 1 - HEADER_BYTES
"""The largest WAV file: its header has the size in 32 bits."""
WINDOW = 2048
"""Samples of a column of a spectrogram."""
LOWEST_HZ = 40.0
FLOOR_DB = -100.0
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
"""Positions of any file; a header with longer ones is ignored, since `int` refuses thousands of digits."""


def router(service: Service, *, can_reveal: bool) -> APIRouter:
    """The routes of this module."""
    routes = APIRouter(tags=["Sounds"])

    @routes.get("/v1/sounds/stream", operation_id="sound_stream", response_class=StreamingResponse)
    async def sound_stream(request: Request, path: Path_, index: IndexName = None) -> Response:
        """An indexed sound of any format as WAV of 16 bits, decoded while it is sent. Ranges of bytes are answered;
        what comes before a range is decoded, too."""
        served = service.index(index)
        rate, channels, duration_s = await service.run(request, "files", lambda task: _form(served, path))
        size = HEADER_BYTES + round(duration_s * rate) * 2 * channels
        if size > MOST_BYTES:
            raise ApiError(400, "This sound is longer than a WAV file can be. Download the file.", param="path")
        span = byte_range(request.headers.get("range"), size)
        if span is None:
            return Response(status_code=416, headers={"Content-Range": f"bytes */{size}"})
        first, last, is_part = span
        headers = {"Accept-Ranges": "bytes", "Content-Length": str(last + 1 - first), "Cache-Control": "no-store"}
        if is_part:
            headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        body = _wav_bytes(served, path, (rate, channels, size), first, last)
        return StreamingResponse(body, status_code=206 if is_part else 200, media_type="audio/wav", headers=headers)

    @routes.get("/v1/sounds/spectrogram", operation_id="sound_spectrogram")
    async def sound_spectrogram(
        *,
        request: Request,
        path: Path_,
        index: IndexName = None,
        start_s: Start = 0.0,
        end_s: End = None,
        columns: Annotated[int, Query(ge=1, le=2000)] = 800,
        bands: Annotated[int, Query(ge=1, le=512)] = 128,
    ) -> Spectrogram:
        """The spectrogram of a part of an indexed sound, over frequencies in equal ratios."""
        served = service.index(index)
        check_times(start_s, end_s)

        def work(task: ModelTask) -> Spectrogram:
            with indexed_file(served, path) as (row, file):
                wave_NC, rate = read_part(file, row.path, start_s, end_s, service.limits.clip_s)
            levels_BP, high_hz = spectrogram(wave_NC, rate, columns, bands)
            return Spectrogram(
                start_s=start_s,
                end_s=start_s + len(wave_NC) / rate,
                low_hz=LOWEST_HZ,
                high_hz=high_hz,
                columns=columns,
                bands=bands,
                levels=base64.b64encode(levels_BP.tobytes()).decode(),
            )

        return await service.run(request, "files", work)

    @routes.post("/v1/sounds/reveal", operation_id="reveal_sound")
    async def reveal_sound(body: RevealRequest, request: Request) -> Status:
        """Show an indexed sound in the file manager of this machine. Only a server that listens on loopback does."""
        served = service.index(body.index)
        if not can_reveal:
            raise ApiError(403, "This server runs on another machine. Copy the path in place of it.")

        def work(task: ModelTask) -> None:
            with indexed_file(served, body.path) as (row, _):
                reveal(Path(row.path))

        await service.run(request, "files", work)
        return Status()

    return routes


def byte_range(header: str | None, size: int) -> tuple[int, int, bool] | None:
    """First and last byte of the answer, and whether they are a part of the file. They are all of it without a header,
    and for one that asks for several ranges (RFC 9110 lets a server ignore it). None for a range beyond the end."""
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or not any(match.groups()):
        return 0, size - 1, False
    first, last = match.groups()
    if not first:
        return (max(0, size - int(last)), size - 1, True) if int(last) else None
    if int(first) >= size or (last and int(last) < int(first)):
        return None
    return int(first), min(int(last or size - 1), size - 1), True


def _form(index: ServedIndex, path: str) -> tuple[int, int, float]:
    """Rate, channels (two at most) and duration of a sound as it is decoded. Raises ApiError and AudioError."""
    with indexed_file(index, path) as (row, file):
        sound: Any = Upload(file, row.path)  # errors name the file, and not its descriptor
        for wave_NC, rate in decoded(sound):
            return rate, min(2, wave_NC.shape[1]), row.duration_s
    raise AudioError(f"{Path(path).name}: contains no samples.")


def _wav_bytes(index: ServedIndex, path: str, form: tuple[int, int, int], first: int, last: int) -> Iterator[bytes]:
    """Bytes `first` to `last` of the WAV file. A file that ends early, or is damaged further on, is followed
    by silence, since the length was promised."""
    rate, channels, size = form
    place = HEADER_BYTES
    if first < HEADER_BYTES:
        yield wav_header(rate, channels, size)[first : last + 1]
    try:
        with indexed_file(index, path) as (_, file):
            for wave_NC, _ in decoded(file):
                end = place + len(wave_NC) * 2 * channels
                if end > first and place <= last:
                    yield pcm(wave_NC, channels)[max(0, first - place) : last + 1 - place]
                place = end
                if place > last:
                    return
    except AudioError:
        pass  # the head of the answer is sent, so no error can be
    place = max(place, first)
    while place <= last:
        silence = min(1 << 16, last + 1 - place)
        yield bytes(silence)
        place += silence


def wav_header(rate: int, channels: int, size: int) -> bytes:
    """The header of a WAV file of 16 bits with `size` bytes in all."""
    layout = struct.pack("<IHHIIHH", 16, 1, channels, rate, rate * 2 * channels, 2 * channels, 16)
    return (
        struct.pack("<4sI4s4s", b"RIFF", size - 8, b"WAVE", b"fmt ")
        + layout
        + struct.pack("<4sI", b"data", size - HEADER_BYTES)
    )


def pcm(wave_NC: Wave, channels: int) -> bytes:
    """The first channels of a waveform as little-endian samples of 16 bits."""
    return np.rint(np.clip(wave_NC[:, :channels], -1, 1) * 32767).astype("<i2").tobytes()


def spectrogram(wave_NC: Wave, rate: int, columns: int, bands: int) -> tuple[NDArray[np.uint8], float]:
    """Levels (B, P) of the mean of all channels, and the highest frequency in Hz.

    A column is the power of a Hann window of WINDOW samples around its time, at frequencies in equal ratios; a sine of
    full scale has 0 dB, which is 255.
    """
    wave_N = np.pad(wave_NC.mean(axis=1), WINDOW // 2)
    high_hz = rate / 2
    centers_P = ((np.arange(columns) + 0.5) * len(wave_NC) / columns).astype(np.int64)
    window = np.hanning(WINDOW + 1)[:-1]
    magnitude_PF = np.empty((columns, WINDOW // 2 + 1), np.float32)
    for column, center in enumerate(centers_P):
        magnitude_PF[column] = np.abs(np.fft.rfft(wave_N[center : center + WINDOW] * window))
    edges = np.geomspace(min(LOWEST_HZ, high_hz / 2), high_hz, bands + 1) * WINDOW / rate
    levels_BP = np.stack([_band(magnitude_PF, low, high) for low, high in pairwise(edges)])
    level_db = 20 * np.log10(np.maximum(levels_BP / (window.sum() / 2), 1e-9))
    return np.rint(np.clip(1 - level_db / FLOOR_DB, 0, 1) * 255).astype(np.uint8), high_hz


def _band(magnitude_PF: NDArray[np.float32], low: float, high: float) -> Any:
    """The highest magnitude between two fractional bins; interpolated where no bin lies between them."""
    first, last = int(np.ceil(low)), int(np.floor(high))
    if first > last:
        middle = (low + high) / 2
        left = min(int(middle), magnitude_PF.shape[1] - 2)
        part = middle - left
        return (1 - part) * magnitude_PF[:, left] + part * magnitude_PF[:, left + 1]
    return magnitude_PF[:, first : last + 1].max(axis=1)


def reveal(path: Path) -> None:
    """Show a file, or open a folder, in the file manager. Raises ApiError where there is none."""
    is_folder = path.is_dir()
    if sys.platform == "darwin":
        command = ["open", str(path)] if is_folder else ["open", "-R", str(path)]
    elif sys.platform == "win32":
        command = ["explorer", str(path) if is_folder else f"/select,{path}"]
    else:  # Linux has no common way to select a file
        command = ["xdg-open", str(path if is_folder else path.parent)]
    if shutil.which(command[0]) is None:
        raise ApiError(501, f"This machine has no {command[0]}, which opens folders. Copy the path in place of it.")
    subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
