"""Build a small data set in a second, in a process that reports its progress so that a test can kill it.

Slow imports are at the top, for the process that forks the builders; polars, which starts threads, is not among them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import httpx2  # noqa: F401

from openclap.audio.io import decode
from openclap.captions import makers
from openclap.data import build as build_steps
from openclap.data import captioning, download, write
from openclap.data import decode as decode_step
from openclap.data.build import build
from openclap.data.config import DataConfig
from openclap.data.decode import to_flac, to_pcm
from openclap.data.overlap import SplitIds, ids_of_frame
from openclap.download import FetchLimits, hosts  # noqa: F401
from openclap.sources import Record
from support.misbehaving import Misbehaving

SOUNDS = sorted((Path(__file__).parents[2] / "src/openclap/demo/sounds").glob("scratch-*.ogg"))
STEPS = ("plan", "fetch", "decode", "caption", "pack", "finish")
QUICK = FetchLimits(allow_private=True, backoff_s=0.005, idle_s=5.0, timeout_s=60.0, attempts=4)
CONFIG = DataConfig(
    splits={"train": 0.7, "test": 0.3}, licences=("cc0",), quietest_db=-90.0, drop_duplicates=True, shard_size=3
)
SMALL = 6
"""Records in each chunk, instead of hundreds."""
RECORDS = 40


@dataclass(frozen=True)
class Spelled:
    """Writes the keywords as a sentence; none for "take 13"."""

    name: str = "spelled"
    identity: str = "spelled 1"

    def make(self, keywords: Sequence[tuple[str, ...]]) -> list[str | None]:
        time.sleep(0.01)
        return [None if "take 13" in words else f"The sound of {' and '.join(words)}" for words in keywords]


def serve(server: Misbehaving) -> None:
    """Serve a sound of over two seconds for each record: 17 is silent, 18 is text, 20 is a copy of 19."""
    for n in range(RECORDS):
        wave_NC, _ = decode(SOUNDS[n % len(SOUNDS)])
        wave_N = wave_NC[:, 0].repeat(-(-110_000 // len(wave_NC)))[:110_000]
        server.files[f"{n}.flac"] = to_flac(to_pcm(wave_N * (0 if n == 17 else 0.5)))
    server.files["18.flac"] = b"some text, which nobody can hear\n" * 50
    server.files["20.flac"] = server.files["19.flac"]


def records(server: str, local: Path) -> Iterator[Record]:
    """Records: the first four are in a folder, the others on the server, which lacks some of them."""
    does = {5: "once-500", 6: "404", 7: "html", 8: "steady", 9: "loop", 10: "403", 11: "steady", 12: "chunked"}
    for n in range(RECORDS):
        yield Record(
            id=str(n),
            audio=local / f"{n}.flac" if n < 4 else f"{server}/{does.get(n, 'ok')}/{n}.flac",
            captions=() if n == 16 else (f"Sound {n}.",),
            source="test",
            tags=() if n in (3, 16) else ("sound", f"take {n}"),
            group=f"group {n // 2}",
            licence="CC-BY-4.0" if n == 14 else "CC0-1.0",
            freesound_id=1000 + n,
        )


def evaluation_sets(pcm_sha256: str) -> list[SplitIds]:
    """An evaluation set with the upload of 15, and a sound."""
    import polars

    return [
        ids_of_frame(polars.DataFrame({"freesound_id": [1015, None], "pcm_sha256": [None, pcm_sha256]}), "SplitIds")
    ]


LEFT_OUT = {
    **{"6": "not found", "7": "not audio", "9": "redirect loop", "10": "refused", "14": "licence", "15": "overlap"},
    **{"16": "no caption", "17": "silent", "18": "not decoded", "20": "duplicate", "21": "overlap"},
}
"""The kind of each record that is left out; `evaluation_sets` gets the hash of 21."""


def run(out: Path, server: str, local: Path, pcm_sha256: str, *, processes: int, reports: Connection) -> None:
    """Build, and report which of `STEPS` has begun, and when. Worker processes use the normal chunk size."""
    for module in (captioning, decode_step, download, makers, build_steps, write):
        module.CHUNK = SMALL if processes == 1 else module.CHUNK  # type: ignore[attr-defined]

    def report(step: str) -> None:
        reports.send((step, time.monotonic()))

    def all_records() -> Iterator[Record]:
        report("plan")
        yield from records(server, local)

    def progress(done: int, total: int) -> None:
        if done == 0:
            report("fetch")
        elif done <= total / 2:
            report("decode")
        else:
            report("pack" if done < total else "finish")

    def maker() -> Spelled:
        report("caption")
        return Spelled()

    build(
        all_records(),
        out,
        CONFIG,
        evaluation_sets=lambda: evaluation_sets(pcm_sha256),
        limits=QUICK,
        maker=maker,
        processes=processes,
        progress=progress,
    )
    report("done")
