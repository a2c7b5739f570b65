"""Remote checkpoints: a run resumes from them when its own folder is gone."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from openclap.cli import run as command
from openclap.embedder import Embedder
from openclap.errors import CheckpointError, ConfigError, MissingExtraError, OpenClapError
from openclap.storage import Place, place_of
from openclap.training import remote_checkpoints
from openclap.training.config import TrainConfig
from openclap.training.logging import TrainingRow
from openclap.training.trainer import train
from support.errors import check_refusal, raises_naming
from support.runs import MakeConfig, assert_equal_runs, signal_at, start_run

pytest.importorskip("upath")


class MachineLostError(Exception):
    """Raised by a test in place of a lost machine."""


@pytest.fixture(params=["memory", "file", "folder"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    places = {"memory": f"memory://{tmp_path.name}", "file": f"file://{tmp_path}/store", "folder": f"{tmp_path}/store"}
    return places[request.param]


@pytest.fixture(autouse=True)
def fast_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the heartbeat and the time for which a lease is watched."""
    for name, seconds in {"HEARTBEAT_S": 0.05, "WATCH_S": 1.0, "SETTLE_S": 0.0}.items():
        monkeypatch.setattr(remote_checkpoints, name, seconds)


class Bucket(MemoryFileSystem):
    """A store without folders: one exists while a key begins with its name."""

    protocol, store, pseudo_dirs = "bucket", {}, []

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(MemoryFileSystem._strip_protocol(path.removeprefix("bucket://")))

    def mkdir(self, path: str, create_parents: bool = True, **more: object) -> None:
        pass

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        pass


def score(embedder: Embedder) -> float:
    """A score that depends on the weights, and rises and falls."""
    return float(embedder.embed_text(["a low tone"])[0, 0])


def lose_machine_at(config: TrainConfig, out: Path, step: int) -> None:
    """Train until a step, and lose the run folder."""

    def watch(row: TrainingRow) -> None:
        if row["step"] == step:
            raise MachineLostError

    with pytest.raises(MachineLostError):
        train(config, out, validate=score, progress=watch)
    shutil.rmtree(out)


def names(place: Place) -> list[str]:
    return sorted(path.name for path in place.iterdir())


def test_run_resumes_from_remote_checkpoints(make_config: MakeConfig, tmp_path: Path, store: str) -> None:
    config = make_config(save_every=4, trackers=())
    train(config, tmp_path / "whole", validate=score)
    copied = replace(config, remote_checkpoints=store)
    for step in (10, 20):  # saved at every fourth step, and after each epoch of three
        lose_machine_at(copied, tmp_path / "run", step)
    assert names(place_of(store)) == ["config.json", "step-00000016", "step-00000018"]
    newest = place_of(store) / "step-00000018"
    assert {"state", "best", "log.jsonl", "progress.json"} == set(names(newest))
    (newest / "progress.json").unlink()  # as after a kill during the copy
    outcome = train(copied, tmp_path / "run", validate=score)
    assert outcome == replace(train(config, tmp_path / "whole", validate=score), model=outcome.model)
    assert_equal_runs(tmp_path / "whole", tmp_path / "run")
    assert names(place_of(store)) == ["config.json", "step-00000028", "step-00000030"]
    shutil.rmtree(tmp_path / "run")  # a finished run is restored, too
    assert train(copied, tmp_path / "run", validate=score) == outcome
    assert_equal_runs(tmp_path / "whole", tmp_path / "run")


@pytest.mark.long
def test_killed_run_without_its_folder_ends_bit_equal(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(epochs=40, remote_checkpoints=f"file://{tmp_path}/store")
    train(replace(config, remote_checkpoints=""), tmp_path / "whole")
    assert signal_at(start_run(config, tmp_path / "run", 60), 30, signal.SIGKILL) == -signal.SIGKILL
    shutil.rmtree(tmp_path / "run")
    steps: list[int] = []
    assert train(config, tmp_path / "run", progress=lambda row: steps.append(row["step"])).step == 120
    assert steps[0] > 20
    assert_equal_runs(tmp_path / "whole", tmp_path / "run")


def test_newer_remote_checkpoint_replaces_older_local_ones(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(remote_checkpoints=str(tmp_path / "store"), keep_checkpoints=9, trackers=())
    train(config, tmp_path / "run")
    for state in (tmp_path / "run" / "checkpoints").iterdir():
        if state.name > "step-00000008":
            shutil.rmtree(state)
    seen: list[TrainingRow] = []
    assert train(config, tmp_path / "run", progress=seen.append).step == 30 and not seen


def test_unwritable_place_is_refused_before_the_first_step(
    make_config: MakeConfig, tmp_path: Path, shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, seen = make_config(trackers=()), []
    cases: dict[str, type[OpenClapError]] = {
        "file:///dev/null/states": ConfigError,
        "nonsense://states": ConfigError,
        str(tmp_path / "run" / "copies"): ConfigError,
        str(tmp_path / "run"): ConfigError,
        str(tmp_path / "file"): ConfigError,
        "s3://bucket/run": MissingExtraError,
    }
    (tmp_path / "file").touch()
    if find_spec("s3fs"):
        del cases["s3://bucket/run"]
    for address, kind in cases.items():
        with raises_naming(kind, address):
            train(replace(config, remote_checkpoints=address), tmp_path / "run", progress=seen.append)
    assert not seen
    own = [
        "--start",
        config.start,
        "--data",
        config.data,
        "--batch-size",
        "2",
        "--remote-checkpoints",
        "file:///dev/null/states",
    ]
    assert command(["train", "small", *own, "--out", str(tmp_path / "run")]) == 2
    check_refusal(capsys.readouterr().err, "file:///dev/null/states")
    train(replace(config, epochs=1), tmp_path / "run")  # the folder is as good as new


def test_place_of_another_run_is_refused(make_config: MakeConfig, tmp_path: Path, store: str) -> None:
    train(make_config(epochs=1, remote_checkpoints=store), tmp_path / "one")
    with raises_naming(ConfigError, "seed"):
        train(make_config(epochs=1, remote_checkpoints=store, seed=1), tmp_path / "two")
    with pytest.raises(ConfigError, match="another kind"):
        train(make_config(epochs=1, remote_checkpoints=str(tmp_path / "one" / "checkpoints")), tmp_path / "three")
    assert names(tmp_path / "one" / "checkpoints") == ["step-00000003"]


def test_failing_store_leaves_the_local_checkpoint(make_config: MakeConfig, tmp_path: Path) -> None:
    store = tmp_path / "store"
    config = make_config(remote_checkpoints=f"file://{store}", trackers=())

    def watch(row: TrainingRow) -> None:
        if row["step"] == 7:
            store.rename(tmp_path / "away")
            store.write_text("in the way", encoding="utf-8")

    with raises_naming(CheckpointError, tmp_path / "run" / "checkpoints" / "step-00000008"):
        train(config, tmp_path / "run", progress=watch)
    assert names(tmp_path / "run" / "checkpoints") == ["step-00000004", "step-00000008"]
    store.unlink()
    (tmp_path / "away").rename(store)
    train(config, tmp_path / "run")
    train(replace(config, remote_checkpoints=""), tmp_path / "whole")
    assert_equal_runs(tmp_path / "whole", tmp_path / "run")


def test_damaged_remote_checkpoint_is_refused(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(epochs=2, remote_checkpoints=str(tmp_path / "store"), trackers=())
    train(config, tmp_path / "run")
    (tmp_path / "store" / "step-00000006" / "log.jsonl").unlink()
    shutil.rmtree(tmp_path / "run")
    with raises_naming(CheckpointError, tmp_path / "store" / "step-00000006"):
        train(config, tmp_path / "run")
    shutil.rmtree(tmp_path / "store" / "step-00000006")
    assert train(config, tmp_path / "run").step == 6


@pytest.mark.filterwarnings("ignore:UPath 'bucket'")
def test_store_without_folders(make_config: MakeConfig, tmp_path: Path) -> None:
    fsspec.register_implementation("bucket", Bucket, clobber=True)
    config = make_config(save_every=4, trackers=())
    train(config, tmp_path / "whole", validate=score)
    copied = replace(config, remote_checkpoints="bucket://here/run")
    for step in (3, 10):  # the first leaves no state
        lose_machine_at(copied, tmp_path / "run", step)
    train(copied, tmp_path / "run", validate=score)
    assert_equal_runs(tmp_path / "whole", tmp_path / "run")
    assert {name.split("/")[3] for name in Bucket.store} == {"config.json", "step-00000028", "step-00000030"}


def test_lease_admits_one_run_at_a_time(make_config: MakeConfig, tmp_path: Path, store: str) -> None:
    config, other = (
        make_config(remote_checkpoints=store, epochs=2, trackers=()),
        remote_checkpoints.Lease(place_of(store)),
    )
    place_of(store).mkdir()
    other.acquire()
    with raises_naming(ConfigError, f"process {os.getpid()}"):
        train(config, tmp_path / "run")
    assert names(place_of(store)) == ["running.json"]
    other.stop.set()  # as after a kill
    assert train(config, tmp_path / "run").step == 6
    assert "running.json" not in names(place_of(store))


def test_lease_of_a_suspended_run_is_taken_over(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_checkpoints, "HEARTBEAT_S", 1000.0)
    config, other = (
        make_config(remote_checkpoints=str(tmp_path / "store"), trackers=()),
        remote_checkpoints.Lease(tmp_path / "store"),
    )
    train(replace(config, remote_checkpoints=""), tmp_path / "whole")

    def watch(row: TrainingRow) -> None:
        if row["step"] == 9:
            other.acquire()

    with pytest.raises(CheckpointError, match="another run"):
        train(config, tmp_path / "run", progress=watch)
    other.release()
    train(config, tmp_path / "run")
    assert_equal_runs(tmp_path / "whole", tmp_path / "run")
