"""Real wavs and a real, if simple, embedder: the shape of a sound's spectrum, in windows of one second.

Also a program of its own, so that tests can kill it and run it twice at once:
`python search_helpers.py INDEX SOUNDS BATCH SECONDS_PER_CALL HOLD [PART]`.
"""

from __future__ import annotations

import hashlib
import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from openclap.data.parallel import Share
from openclap.errors import AudioError, OpenClapError
from openclap.search.index import FileRow, Index, IndexIdentity
from openclap.search.scan import ScanReport, add
from openclap.types import FileContent, Recording, Window

RATE = 8000
DIM = 64
IDENTITY = IndexIdentity(digest="d" * 64, model="spectrum", dim=DIM, length_s=1.0, hop_s=1.0)


def tone(hertz: float, seconds: float = 1.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE)).astype(np.float32)


def write_tone(path: Path, hertz: float, seconds: float = 1.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tone(hertz, seconds), RATE, format="WAV")
    return path


def spectrum(wave_N: np.ndarray) -> np.ndarray:
    """The (DIM,) unit vector of magnitudes in bands of equal width."""
    power = np.abs(np.fft.rfft(wave_N, n=RATE)) ** 2
    bands = np.sqrt(np.add.reduceat(power, np.linspace(0, RATE // 2, DIM, endpoint=False).astype(int)))
    return (bands / np.linalg.norm(bands)).astype(np.float32)


class SpectrumEmbedder:
    """Sounds to windows; records the names of the sounds."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, sounds: Iterable[Path | FileContent]) -> Iterator[Recording | Exception]:
        for sound in sounds:
            self.seen.append(sound.name)
            yield self._embed(sound)

    def _embed(self, sound: Path | FileContent) -> Recording | Exception:
        try:
            wave_N, rate = soundfile.read(
                io.BytesIO(sound) if isinstance(sound, FileContent) else sound, dtype="float32"
            )
        except soundfile.LibsndfileError:
            return AudioError(f"{sound.name}: cannot be decoded. Is it damaged?")
        parts = [wave_N[first : first + rate] for first in range(0, len(wave_N), rate)]
        windows = [Window(float(i), i + len(part) / rate, spectrum(part)) for i, part in enumerate(parts)]
        return Recording(windows, len(wave_N) / rate, rate, 1 if wave_N.ndim == 1 else wave_N.shape[1])


def one_window(vector: np.ndarray) -> Recording:
    """A recording of one second with one window."""
    return Recording([Window(0, 1, vector)], 1.0, RATE, 1)


def describe(path: Path) -> tuple[float, int, int]:
    info = soundfile.info(path)
    return info.duration, info.samplerate, info.channels


def paths_in(index: Index) -> set[str]:
    with index.writing() as writer:
        return set(writer.known())


def report(**counts: int) -> ScanReport:
    zero = {"added": 0, "unchanged": 0, "moved": 0, "removed": 0}
    return ScanReport(**{**zero, **counts}, skipped=[])


def row(path: str, digest: str, **facts: Any) -> FileRow:
    return FileRow(path, digest, size=1, mtime_ns=1, duration_s=1.0, rate=RATE, channels=1, **facts)


def axis(i: int) -> np.ndarray:
    return np.eye(DIM, dtype=np.float32)[i]


def fill(index: Index, vectors_by_file: list[np.ndarray]) -> None:
    """File i is /s/i.wav, with a window each second."""
    files = [row(f"/s/{i}.wav", f"{i:064x}") for i in range(len(vectors_by_file))]
    windows = {
        file.hash: [Window(float(at), at + 1.0, vector) for at, vector in enumerate(vectors)]
        for file, vectors in zip(files, vectors_by_file, strict=True)
    }
    index.add(files, windows)


def fingerprint(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Size, mtime and content of every file under a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path): (
            path.stat().st_size,
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in files
    }


def start_scan(
    index: Path | str, sounds: Path, *, batch: int = 4, seconds: float = 0.0, hold: int = 0, part: str | None = None
) -> subprocess.Popen[str]:
    """Add a folder in a process, which prints a line and waits before each batch.

    Args:
        hold: the number of the batch before which it waits until its input ends, so that a signal comes before its end
            however busy the machine is; 0 for none.
    """
    options = [str(index), str(sounds), str(batch), str(seconds), str(hold), *([part] if part else [])]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen([sys.executable, __file__, *options], text=True, **pipes)


def main(folder: str, sounds: str, *options: str) -> None:
    batch, seconds, hold, *part = options
    embed = SpectrumEmbedder()

    def slowly(sounds: Iterable[Path | FileContent]) -> Iterator[Recording | Exception]:
        """Print a line and wait before each batch."""
        for number, recording in enumerate(embed(sounds)):
            if number % int(batch) == 0:
                print("embedding", flush=True)
                time.sleep(float(seconds))
                if number // int(batch) + 1 == int(hold):
                    sys.stdin.read()
            yield recording

    try:
        share = Share.parse(part[0]) if part else None
        index = Index.open_or_create(folder, IDENTITY)
        report = add(index, [sounds], slowly, describe, part=share, batch=int(batch))
    except OpenClapError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    print(json.dumps({**asdict(report), "embedded": len(embed.seen)}))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started the tests with it ignored
    main(*sys.argv[1:])
