"""Build shards from the tables of two sources, over a server that misbehaves as the internet does.

Miniatures of Epidemic Sound's folder and of Freesound's table, with URLs on this machine, are decontaminated from a
miniature ESC-50. Every row must be packed, or counted with a reason.
"""

from __future__ import annotations

import io
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars
import pytest
import soundfile

from openclap.audio.io import decode
from openclap.data.build import build, fetch_and_decode, write_tars
from openclap.data.config import DataConfig, DataRecipe
from openclap.data.decode import to_flac, to_pcm
from openclap.data.filters import plan
from openclap.data.layout import read_table
from openclap.data.manifest import BuildReport, finish
from openclap.data.parallel import Share
from openclap.data.shards import index_shards
from openclap.download import FetchLimits
from openclap.errors import DataError
from openclap.sources import Record
from support.misbehaving import Misbehaving

SOUNDS = sorted((Path(__file__).parents[2] / "src/openclap/demo/sounds").glob("scratch-*.ogg"))
QUICK = FetchLimits(allow_private=True, backoff_s=0.005, idle_s=0.5, timeout_s=1.5, max_bytes=1 << 20, attempts=2)
"""Two attempts: what fails once comes, what fails twice does not."""
CONFIG = DataConfig(
    splits={"train": 0.8, "test": 0.2},
    by_source=True,
    licences=("cc0", "by", "epidemic-sound"),
    quietest_db=-90.0,
    drop_duplicates=True,
    shard_size=2,
)
ESC_50_ID = 1000


def wav(number: int) -> bytes:
    """A bundled sound as it is decoded, over 40,000 bytes long."""
    wave_NC, rate = decode(SOUNDS[number])
    file = io.BytesIO()
    soundfile.write(file, np.resize(wave_NC[:, 0], 24_000), rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


FILES = {
    **{f"{number}.wav": wav(number) for number in range(20)},
    "9.flac": to_flac(to_pcm(decode(SOUNDS[9])[0][:, 0])),
    "notes.wav": b"Nothing but text, though the address ends as those of sounds do.\n" * 20,
    "silence.wav": wav(0)[:44] + bytes(48_000),
}
EPIDEMIC = {
    # id: what the server does, the file there, and the kind that is expected
    "fine": ("ok", "0.wav", None),
    "fine-2": ("chunked", "1.wav", None),
    "busy": ("once-429", "2.wav", None),
    "stumbles": ("once-500", "3.wav", None),
    "goes-on": ("cut", "4.wav", "cut off"),
    "gone": ("404", "5.wav", "not found"),
    "forbidden": ("403", "6.wav", "refused"),
    "down": ("503", "6.wav", "server error"),
    "slow": ("slow", "7.wav", "too slow"),
    "short": ("short", "8.wav", "cut off"),
    "long": ("long", "9.flac", "not decoded"),  # it is as long as its server says
    "loop": ("loop", "10.wav", "redirect loop"),
    "page": ("html-as-audio", "11.wav", "not audio"),
    "notes": ("ok", "notes.wav", "not decoded"),
    "empty": ("empty", "12.wav", "empty"),
    "late": ("cut-deaf", "13.wav", "cut off"),
}
FREESOUND = {
    # id: what the server does, the file, the licence, and the kind
    1: ("ok", "14.wav", "CC0", None),
    2: ("redirect", "15.wav", "Attribution 4.0", None),
    3: ("ok", "16.wav", "Attribution Noncommercial", "licence"),
    4: ("ok", "17.wav", None, "licence"),
    5: ("ok", "silence.wav", "CC0", "silent"),
    6: ("chunked", "14.wav", "CC0", "duplicate"),
    7: ("ok", "18.wav", "CC0", "overlap"),  # ESC-50 holds the same samples
    ESC_50_ID: ("ok", "19.wav", "CC0", "overlap"),  # ESC-50 names this upload
    9: ("once-500", "2.wav", "CC0", "duplicate"),  # of Epidemic's
}


@dataclass
class Collection:
    """The input of a build: a server, a root with the sources' folders, and the folder to build in."""

    server: Misbehaving
    root: Path
    out: Path
    recipe: DataRecipe = field(
        default=DataRecipe(
            "Miniature",
            {"epidemic_sound_effects": "epidemic", "freesound": "freesound"},
            CONFIG,
            decontaminate={"esc50": "esc50"},
        )
    )

    def build(self) -> BuildReport:
        return build(
            self.recipe.records(self.root),
            self.out,
            self.recipe.config,
            evaluation_sets=lambda: self.recipe.evaluation_sets(self.root),
            limits=QUICK,
        )


@pytest.fixture
def collection(tmp_path: Path) -> Iterator[Collection]:
    with Misbehaving() as server:
        server.files = dict(FILES)
        for source in ("epidemic", "freesound", "esc50/meta", "esc50/audio"):
            (tmp_path / "root" / source).mkdir(parents=True)
        _epidemic(tmp_path / "root/epidemic", server)
        _freesound(tmp_path / "root/freesound", server)
        _esc50(tmp_path / "root/esc50")
        yield Collection(server, tmp_path / "root", tmp_path / "out")


def _epidemic(folder: Path, server: Misbehaving) -> None:
    rows = [
        {"title": f"Sound {name} 01", "id": name, "url": server.url(does, file), "metadataTags": ["noise", name]}
        for name, (does, file, _) in EPIDEMIC.items()
    ]
    for number, category in enumerate(("Animals", "Rain")):
        polars.DataFrame(rows[number::2]).write_parquet(folder / f"{category}.parquet")


def _freesound(folder: Path, server: Misbehaving) -> None:
    def address(does: str, file: str) -> str:
        return server.url(does, file, to=server.url("ok", file)) if does == "redirect" else server.url(does, file)

    polars.DataFrame(
        [
            {
                "id": identity,
                "title": f"field recording {identity}.wav",
                "tags:": "field,recording",
                "description": "Recorded outdoors.",
                "username": f"user{identity}",
                "download_url": address(does, file),
                "licence": licence,
            }
            for identity, (does, file, licence, _) in FREESOUND.items()
        ]
    ).write_parquet(folder / "freesound.parquet")


def _esc50(folder: Path) -> None:
    names = [f"1-{ESC_50_ID}-A-0.wav", "1-2000-A-0.wav"]
    rows = [f"{name},1,0,dog,False,{name.split('-')[1]},A" for name in names]
    header = "filename,fold,target,category,esc10,src_file,take"
    (folder / "meta/esc50.csv").write_text("\n".join([header, *rows]) + "\n")
    (folder / "audio" / names[1]).write_bytes(FILES["18.wav"])  # the other one's sound is not there


def expected() -> dict[str, str | None]:
    """The kind of every row by its id; None for those that are packed."""
    return {name: kind for name, (*_, kind) in EPIDEMIC.items()} | {
        str(identity): kind for identity, (*_, kind) in FREESOUND.items()
    }


def outcome(out: Path) -> dict[str, str | None]:
    """The outcome of every row, read from the finished folder."""
    packed = dict.fromkeys(read_table(out / "manifest.parquet")["id"].to_list())
    lines = [json.loads(line) for line in (out / "skipped.jsonl").read_text().splitlines()]
    skipped = {line["id"]: line["kind"] for line in lines}
    assert len(skipped) == len(lines) and not packed.keys() & skipped.keys()
    assert all(line["reason"] and line["source"] for line in lines)
    return packed | skipped


def test_every_row_is_packed_or_counted_with_a_reason(collection: Collection) -> None:
    report = collection.build()
    assert outcome(collection.out) == expected()
    assert Counter(skipped.kind for skipped in report.skipped) == Counter(filter(None, expected().values()))
    assert sum(report.packed.values()) + len(report.skipped) == len(EPIDEMIC) + len(FREESOUND)
    _the_tars_hold_what_was_served(collection)
    reasons = {skipped.id: skipped.reason for skipped in report.skipped}
    for name, word in {
        "gone": "404",
        "forbidden": "403",
        "down": "503",
        "loop": "redirected more than",
        "page": "a page (HTML or XML)",
        "long": "damaged",
        "3": "CC-BY-NC",
        "4": "unknown",
        "6": "same samples as 1 of freesound",
        "9": "same samples as busy of epidemic_sound_effects",
        "7": "is in ESC-50",
        str(ESC_50_ID): "is in ESC-50",
    }.items():
        assert word in reasons[name], reasons[name]


def _the_tars_hold_what_was_served(collection: Collection) -> None:
    served = {name: FILES[file] for name, (_, file, _) in EPIDEMIC.items()}
    served |= {str(identity): FILES[file] for identity, (_, file, *_) in FREESOUND.items()}
    seen = []
    for folder in sorted({tar.parent for tar in collection.out.glob("*/*/*.tar")}):
        index = index_shards(folder)
        for number in range(len(index)):
            sample = index.read_sample(number)
            served_NC, rate = decode(served[sample.original["id"]])
            packed_NC, packed_rate = decode(sample.audio)
            assert packed_rate == 48_000 and abs(len(packed_NC) / 48_000 - len(served_NC) / rate) < 0.001
            assert sample.original["source"] == folder.parent.name
            seen.append(sample.original["id"])
    assert sorted(seen) == sorted(name for name, kind in expected().items() if kind is None)


def test_excluded_records_are_never_requested(collection: Collection) -> None:
    collection.build()
    assert [collection.server.count("ok", file) for file in ("16.wav", "17.wav", "19.wav")] == [0, 0, 0]
    assert collection.server.count("ok", "18.wav") == 1  # what it is shows when it is decoded


def test_second_run_sends_no_request(collection: Collection) -> None:
    first = collection.build()
    asked = len(collection.server.requests)
    assert collection.build() == first
    assert len(collection.server.requests) == asked


def test_resumed_run_retries_only_temporary_failures(collection: Collection) -> None:
    collection.build()
    (collection.out / "work/examined/0.parquet").unlink()  # as if it had been stopped before anything was decoded
    before = Counter(request.path for request in collection.server.requests)
    collection.build()
    more = Counter(request.path for request in collection.server.requests) - before
    passing = {"goes-on", "down", "slow", "short", "empty", "late"}
    assert set(more) == {f"/{does}/{file}" for name, (does, file, _) in EPIDEMIC.items() if name in passing}
    assert outcome(collection.out) == expected() | {"goes-on": None, "late": None}


def test_retry_failed_requests_failed_downloads_again(collection: Collection) -> None:
    collection.build()
    before = Counter(request.path for request in collection.server.requests)
    fetch_and_decode(collection.out, limits=QUICK, retry_failed=True)
    more = Counter(request.path for request in collection.server.requests) - before
    assert {path.split("/")[1] for path in more} == {
        *("cut", "404", "403", "503", "slow", "short", "loop", "html-as-audio", "empty", "cut-deaf")
    }
    write_tars(collection.out)
    report = finish(collection.out)
    assert outcome(collection.out) == expected() | {"goes-on": None, "late": None}
    assert sum(report.packed.values()) + len(report.skipped) == len(EPIDEMIC) + len(FREESOUND)
    tars = {path.relative_to(collection.out).as_posix() for path in collection.out.glob("*/*/*.tar")}
    sizes = {
        f"{path.parent.relative_to(collection.out).as_posix()}/{name}"
        for path in collection.out.glob("*/*/sizes.json")
        for name in json.loads(path.read_text())
    }
    assert tars == sizes


def test_evaluation_sets_cannot_be_added_later(collection: Collection) -> None:
    records = list(collection.recipe.records(collection.root))[:2]
    build(records, collection.out, collection.recipe.config, limits=QUICK)
    with pytest.raises(DataError, match="evaluation sets"):
        collection.build()


def test_parts_download_their_own_records(tmp_path: Path) -> None:
    records = [Record(str(n), "", (f"Tone {n}.",), "test", group=f"g{n}") for n in range(260)]
    with Misbehaving() as server:
        server.files = {f"{n}.wav": _tone(n) for n in range(len(records))}
        there = [
            Record(r.id, server.url("404" if n % 50 == 7 else "ok", f"{n}.wav"), r.captions, r.source, group=r.group)
            for n, r in enumerate(records)
        ]
        parts, whole = tmp_path / "parts", tmp_path / "whole"
        plan(there, parts, DataConfig(shard_size=64))
        for number in (3, 1, 2):
            fetch_and_decode(parts, Share(number, 3), limits=QUICK)
        for number in (2, 1):
            write_tars(parts, Share(number, 2))
        report = finish(parts)
        assert {skipped.id: skipped.kind for skipped in report.skipped} == {
            str(n): "not found" for n in range(7, 260, 50)
        }
        assert len(server.requests) == 260
        shutil.copytree(parts / "work/audio", whole / "work/audio")  # otherwise all would be downloaded again
        assert build(there, whole, DataConfig(shard_size=64), limits=QUICK).packed == report.packed
    for name in ("manifest.parquet", "skipped.jsonl", "train/0.tar", "train/3.tar", "test/0.tar"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes()


def _tone(n: int) -> bytes:
    file = io.BytesIO()
    wave_N = 0.3 * np.sin(np.arange(800) * (0.05 + 0.001 * n))
    soundfile.write(file, wave_N, 16_000, format="WAV", subtype="PCM_16")
    return file.getvalue()
