"""Build shards from a thousand real recordings of four packages, from a server that misbehaves.

The packages come from the registries of Debian and npm, so this is a long test. What each row must end as is known
from what the server does to it and, independently, from the file itself.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import polars
import pytest
import soundfile

from openclap.audio.io import decode
from openclap.captions.keyword_to_caption import BUNDLED, load
from openclap.data.build import build
from openclap.data.config import DataConfig
from openclap.data.layout import read_table as read_parquet
from openclap.data.shards import index_shards
from openclap.download import FetchLimits
from openclap.sources import read_table
from support.misbehaving import Misbehaving

DEBIAN = {"scratch": "CC-BY-SA-3.0", "minetest-data": "CC-BY-SA-3.0", "asterisk-core-sounds-en-wav": "CC-BY-SA-3.0"}
NPM = "supersonic-scsynth-samples"
SUFFIXES = (".wav", ".ogg", ".flac", ".mp3")
LIMITS = FetchLimits(allow_private=True, backoff_s=0.01, idle_s=1.0, timeout_s=3.0, max_bytes=8 << 20, attempts=3)
DOES = {
    # what the server does: the kind that comes of it; None where the sound comes in the end
    **dict.fromkeys(("ok", "chunked", "closed", "dated", "once-429", "once-500", "cut-once", "redirect"), None),
    **{"404": "not found", "403": "refused", "503": "server error", "429": "rate limited", "slow": "too slow"},
    **{"short": "cut off", "hang-up": "cut off", "loop": "redirect loop", "nowhere": "refused"},
    **{"html-as-audio": "not audio", "png": "not audio", "zip": "not audio", "text": "not audio", "empty": "empty"},
    "huge": "too large",
}
CONFIG = DataConfig(by_source=True, licences=("cc0", "by-sa"), quietest_db=-90.0, drop_duplicates=True)


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A folder of sounds for each package."""
    place = tmp_path / "packages"
    for name in DEBIAN:
        (place / name).mkdir(parents=True)
        _run("apt-get", "download", "-qq", name, at=place)
        _run("dpkg", "-x", str(next(place.glob(f"{name}_*.deb"))), str(place / name), at=place)
    (place / NPM).mkdir()
    _run("npm", "pack", "--silent", NPM, at=place)
    _run("tar", "xzf", str(next(place.glob("*.tgz"))), "-C", NPM, at=place)
    return place


def _run(*command: str, at: Path) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"there is no {command[0]} here")
    subprocess.run(command, cwd=at, check=True, capture_output=True)


def sounds(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def made_of(path: Path) -> str | None:
    """Identify a sound without openclap: None for silence, else a hash of its samples."""
    wave_NC, rate = soundfile.read(path, dtype="float32", always_2d=True)
    if not len(wave_NC) or np.abs(wave_NC).max() < 10 ** (-90 / 20):
        return None
    return hashlib.sha256(wave_NC.tobytes() + str((rate, wave_NC.shape[1])).encode()).hexdigest()


@pytest.mark.long
def test_every_row_of_real_packages_is_packed_or_counted_with_a_reason(packages: Path, tmp_path: Path) -> None:
    paths = [(name, path) for name in (*DEBIAN, NPM) for path in sounds(packages / name)]
    assert len(paths) > 900
    does = list(DOES)
    rows, expected, heard = [], {}, set()
    with Misbehaving() as server:
        for number, (name, path) in enumerate(paths):
            way = does[number // 3 % len(does)] if number % 3 == 0 else "ok"
            file = f"{number}{path.suffix.lower()}"
            server.files[file] = path.read_bytes()
            url = server.url(way, file, to=server.url("ok", file)) if way == "redirect" else server.url(way, file)
            licence = DEBIAN.get(name, "CC0-1.0") if number % 50 else "CC-BY-NC-4.0"
            words = [word.lower() for word in re.findall(r"[A-Z]?[a-z]+", path.stem) if len(word) > 2]
            row = {"id": str(number), "url": url, "tags": ",".join(words), "caption": path.stem, "source": name}
            rows.append(row | {"group": re.sub(r"\d+", "", path.stem), "licence": licence})
            kind = "licence" if number % 50 == 0 else DOES[way]
            if kind is None:
                what = made_of(path)
                kind = "silent" if what is None else "duplicate" if what in heard else None
                heard.add(what)
            expected[str(number)] = kind
        polars.DataFrame(rows).write_csv(tmp_path / "table.csv")
        records = read_table(tmp_path / "table.csv")
        maker = load(BUNDLED)
        report = build(records, tmp_path / "out", CONFIG, limits=LIMITS, maker=lambda: maker, processes=2)

    skipped = [json.loads(line) for line in (tmp_path / "out/skipped.jsonl").read_text().splitlines()]
    manifest = read_parquet(tmp_path / "out/manifest.parquet")
    outcome = dict.fromkeys(manifest["id"].to_list()) | {line["id"]: line["kind"] for line in skipped}
    assert {key: (outcome.get(key), kind) for key, kind in expected.items() if outcome.get(key) != kind} == {}
    assert len(manifest) + len(skipped) == len(rows) == sum(report.packed.values()) + len(report.skipped)
    assert Counter(line["kind"] for line in skipped) == Counter(filter(None, expected.values()))
    _the_shards_hold_what_was_served(tmp_path / "out", dict(enumerate(path for _, path in paths)))
    print(len(rows), "rows:", sum(report.packed.values()), "packed;", dict(Counter(line["kind"] for line in skipped)))


def _the_shards_hold_what_was_served(out: Path, served: dict[int, Path]) -> None:
    seen = 0
    for folder in sorted({tar.parent for tar in out.glob("*/*/*.tar")}):
        index = index_shards(folder)
        for number in range(len(index)):
            sample = index.read_sample(number)
            wave_NC, rate = decode(sample.audio)
            theirs_NC, their_rate = soundfile.read(served[int(sample.original["id"])], always_2d=True)
            assert rate == 48_000 and abs(len(wave_NC) / rate - len(theirs_NC) / their_rate) < 0.001
            if their_rate == 48_000:
                np.testing.assert_allclose(wave_NC[:, 0], theirs_NC.mean(axis=1).clip(-1, 1), atol=1e-4)
            assert sample.captions and sample.original["source"] == folder.parent.name
            seen += 1
    assert seen == len(read_parquet(out / "manifest.parquet"))
