"""Stop a build at every step, by a kill or a full disk, and resume it; refuse wrong folders."""

from __future__ import annotations

import errno
import fcntl
import os
import pickle
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from openclap.data.build import fetch_and_decode, pack
from openclap.data.config import DataConfig
from openclap.data.decode import sounds_of_chunk
from openclap.data.filters import plan
from openclap.data.shards import index_shards
from openclap.errors import DataError, LockedError
from openclap.locks import LOCK
from openclap.sources import Record
from support.errors import raises_naming
from support.packs import MakeRecords, contents


def mixed(make_records: MakeRecords, folder: Path) -> list[Record]:
    """Nine good records with unusable ones between and after them."""
    good = make_records(9)
    bad = [Record(f"bad{n}", folder / f"bad{n}.wav", ("x",), "s", group=good[n].group) for n in range(9)]
    return [record for pair in zip(good, bad, strict=True) for record in pair]


class Stop(BaseException):
    """Represents Ctrl-C and everything else that ends the run at once."""


def stop_at(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int, error: BaseException) -> None:
    """Let `owner.name` raise `error` instead of working, from its call-th call on."""
    real: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls >= call:
            raise error
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, counted)


STEPS = [
    ("openclap.storage.os.fsync", os, "fsync"),
    ("rename", Path, "replace"),
    ("a record", sys.modules["openclap.data.decode"], "facts_and_flac"),
    ("a sample", sys.modules["openclap.data.decode"].DecodedSounds, "flac"),
    ("a member", tarfile.TarFile, "addfile"),
    ("a table", sys.modules["openclap.data.write"], "write_table"),
]


@pytest.mark.parametrize(("owner", "name"), [step[1:] for step in STEPS], ids=[step[0] for step in STEPS])
@pytest.mark.parametrize("error", [Stop(), OSError(errno.ENOSPC, "No space left on device")], ids=["stop", "full"])
def test_stop_at_any_step_resumes_to_the_same_bytes(
    tmp_path: Path, make_records: MakeRecords, owner: Any, name: str, error: BaseException
) -> None:
    records = mixed(make_records, tmp_path)
    pack(records, tmp_path / "whole", shard_size=3, seed=1)
    for call in range(1, 200):
        out = tmp_path / f"out{call}"
        with pytest.MonkeyPatch.context() as patch:
            stop_at(patch, owner, name, call, error)
            try:
                pack(records, out, shard_size=3, seed=1)
            except (Stop, DataError) as caught:
                assert isinstance(caught, Stop) or "No space left" in str(caught)
            else:
                break
        assert not list(out.rglob("*.partial"))
        for tar in out.rglob("*.tar"):
            assert not index_shards(tar.parent).damaged
        pack(records, out, shard_size=3, seed=1)
        assert contents(out) == contents(tmp_path / "whole")
    assert call > 4


def test_second_run_changes_nothing(tmp_path: Path, make_records: MakeRecords, monkeypatch: pytest.MonkeyPatch) -> None:
    records = mixed(make_records, tmp_path)
    first = pack(records, tmp_path / "out", shard_size=3)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.is_file()}
    stop_at(monkeypatch, sys.modules["openclap.data.decode"], "facts_and_flac", 1, Stop())
    stop_at(monkeypatch, sys.modules["openclap.data.write"], "_write", 1, Stop())
    assert pack(records, tmp_path / "out", shard_size=3) == first
    assert times == {path: path.stat().st_mtime_ns for path in times}


def test_missing_or_truncated_tar_is_rewritten(tmp_path: Path, make_records: MakeRecords) -> None:
    records, out = make_records(8), tmp_path / "out"
    pack(records, out, shard_size=2)
    whole = contents(out)
    (out / "train/1.tar").unlink()
    pack(records, out, shard_size=2)
    assert contents(out) == whole
    (out / "train/2.tar").write_bytes(whole["train/2.tar"][:5000])
    pack(records, out, shard_size=2)
    assert contents(out) == whole


@pytest.mark.parametrize("lost", ["work/written/train/1.parquet", "work/selection.parquet", "work/examined/0.parquet"])
def test_missing_table_is_rewritten(tmp_path: Path, make_records: MakeRecords, lost: str) -> None:
    records, out = make_records(8), tmp_path / "out"
    pack(records, out, shard_size=2)
    whole = contents(out)
    (out / lost).unlink()
    pack(records, out, shard_size=2)
    assert contents(out) == whole


def _delete(sounds: Path) -> None:
    sounds.unlink()


def _truncate(sounds: Path) -> None:
    os.truncate(sounds, sounds.stat().st_size // 2)


def _flip_a_bit(sounds: Path) -> None:
    content = bytearray(sounds.read_bytes())
    content[2000] ^= 1
    sounds.write_bytes(content)


@pytest.mark.parametrize("damage", [_delete, _truncate, _flip_a_bit])
def test_damaged_decoded_sounds_are_decoded_again(
    tmp_path: Path, make_records: MakeRecords, damage: Callable[[Path], None]
) -> None:
    records, out = make_records(8), tmp_path / "out"
    pack(records, tmp_path / "whole", shard_size=2)
    plan(records, out, DataConfig(shard_size=2))
    fetch_and_decode(out)
    damage(sounds_of_chunk(out, 0))
    pack(records, out, shard_size=2)
    assert contents(out) == contents(tmp_path / "whole")


PACK_AND_BE_KILLED = """
import os, pickle, signal, sys
from openclap.data.build import pack
def progress(done, total):
    if done >= int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
pack(pickle.load(open(sys.argv[1], "rb")), sys.argv[2], shard_size=3, seed=1, progress=progress)
"""


def test_killed_run_resumes_to_the_same_bytes(tmp_path: Path, make_records: MakeRecords) -> None:
    records = mixed(make_records, tmp_path)
    pack(records, tmp_path / "whole", shard_size=3, seed=1)
    (tmp_path / "records.pickle").write_bytes(pickle.dumps(records))
    out = tmp_path / "out"
    for done in (0, 18, 19, 22):
        command = [sys.executable, "-c", PACK_AND_BE_KILLED, tmp_path / "records.pickle", out, str(done)]
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
        for tar in out.rglob("*.tar"):
            assert not index_shards(tar.parent).damaged
    assert list(out.rglob("*.tar"))
    pack(records, out, shard_size=3, seed=1)
    assert contents(out) == contents(tmp_path / "whole")


PACK_INTO_15_KB = """
import pickle, resource, sys
from pathlib import Path
from openclap.data.build import fetch_and_decode, pack
from openclap.data.config import DataConfig
from openclap.data.filters import plan
records, out = pickle.load(open(sys.argv[1], "rb")), Path(sys.argv[2])
plan(records, out, DataConfig(splits={"train": 1.0}, shard_size=2))
fetch_and_decode(out)
resource.setrlimit(resource.RLIMIT_FSIZE, (15_000, 15_000))
pack(records, out, splits={"train": 1.0}, shard_size=2)
"""


def test_file_size_limit_names_complete_tars(tmp_path: Path, make_records: MakeRecords) -> None:
    noise_N = np.random.default_rng(0).uniform(-0.5, 0.5, 48_000)
    soundfile.write(tmp_path / "noise.wav", noise_N, 48_000)
    records = [*make_records(4), Record("noise", tmp_path / "noise.wav", ("Noise.",), "s"), *make_records(2)]
    (tmp_path / "records.pickle").write_bytes(pickle.dumps(records))
    command = [sys.executable, "-c", PACK_INTO_15_KB, tmp_path / "records.pickle", tmp_path / "out"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "DataError" in run.stderr.splitlines()[-1]
    assert "2 tars with 4 samples are complete" in run.stderr.splitlines()[-1]
    assert not list((tmp_path / "out").rglob("*.partial"))
    assert len(index_shards(tmp_path / "out/train")) == 4
    assert pack(records, tmp_path / "out", splits={"train": 1.0}, shard_size=2).packed == {"train": 7}


def test_full_disk_names_complete_tars(
    tmp_path: Path, make_records: MakeRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Eight members are written while decoding; the tenth of packing is in the third tar.
    stop_at(monkeypatch, tarfile.TarFile, "addfile", 8 + 10, OSError(errno.ENOSPC, "No space left on device"))
    with raises_naming(DataError, "2 tars", "4 samples"):
        pack(make_records(8), tmp_path / "out", splits={"train": 1.0}, shard_size=2)


@pytest.mark.parametrize("change", ["records", "seed", "splits", "shard_size"])
def test_other_input_into_the_same_folder_is_refused(tmp_path: Path, make_records: MakeRecords, change: str) -> None:
    records, out = make_records(4), tmp_path / "out"
    pack(records, out)
    before = contents(out)
    choice: dict[str, Any] = {"seed": 1, "splits": {"train": 1.0}, "shard_size": 7}
    options = {change: choice[change]} if change in choice else {}
    with raises_naming(DataError, out, "rows" if change == "records" else change.replace("_", " ")):
        pack(records[::-1] if change == "records" else records, out, **options)
    assert contents(out) == before


def test_folder_with_other_content_is_refused(tmp_path: Path, make_records: MakeRecords) -> None:
    (tmp_path / "out" / "train").mkdir(parents=True)
    (tmp_path / "out" / "train" / "0.tar").write_text("mine")
    with raises_naming(DataError, tmp_path / "out"):
        pack(make_records(2), tmp_path / "out")
    assert contents(tmp_path / "out") == {"train/0.tar": b"mine"}
    (tmp_path / "file").write_text("mine")
    with raises_naming(DataError, tmp_path / "file"):
        pack(make_records(2), tmp_path / "file")


def test_second_writer_is_refused(tmp_path: Path, make_records: MakeRecords) -> None:
    (tmp_path / "out").mkdir()
    with (tmp_path / "out" / LOCK).open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(LockedError):
            pack(make_records(2), tmp_path / "out")
    assert pack(make_records(2), tmp_path / "out").packed == {"train": 1, "test": 1}
