"""Saved states in another place: from there a run goes on when its own folder is gone."""

from __future__ import annotations

import shutil
import signal
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from runs import MakeConfig, assert_equal_runs
from test_trainer import signal_at, start_run

from openclap.cli import run as command
from openclap.embedder import Embedder
from openclap.errors import CheckpointError, ConfigError, OpenClapError
from openclap.storage import Place, place_of
from openclap.training import lease
from openclap.training.config import TrainConfig
from openclap.training.trainer import Row, train

pytest.importorskip("upath")


class TakenAwayError(Exception):
    """The machine is gone."""


@pytest.fixture(params=["memory", "file", "folder"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    places = {"memory": f"memory://{tmp_path.name}", "file": f"file://{tmp_path}/store", "folder": f"{tmp_path}/store"}
    return places[request.param]


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether somebody else writes there is seen sooner than in earnest."""
    for name, seconds in {"BEAT_S": 0.05, "WATCH_S": 1.0, "SETTLE_S": 0.0}.items():
        monkeypatch.setattr(lease, name, seconds)


class Bucket(MemoryFileSystem):
    """A store without folders: one is there while a name begins with it."""

    protocol, store, pseudo_dirs = "bucket", {}, []

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(MemoryFileSystem._strip_protocol(path.removeprefix("bucket://")))

    def mkdir(self, path: str, create_parents: bool = True, **more: object) -> None:
        pass

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        pass


def score(embedder: Embedder) -> float:
    """Some number that hangs on the weights and rises and falls."""
    return float(embedder.embed_text(["a low tone"])[0, 0])


def taken_away(config: TrainConfig, out: Path, step: int) -> None:
    """Train until a step, and lose the run's folder."""

    def watch(row: Row) -> None:
        if row["step"] == step:
            raise TakenAwayError

    with pytest.raises(TakenAwayError):
        train(config, out, validate=score, watch=watch)
    shutil.rmtree(out)


def names(place: Place) -> list[str]:
    return sorted(path.name for path in place.iterdir())


def test_a_run_goes_on_elsewhere(make_config: MakeConfig, tmp_path: Path, store: str) -> None:
    config = make_config(save_every=4, trackers=())
    train(config, tmp_path / "whole", validate=score)
    copied = replace(config, states=store)
    for step in (10, 20):  # saved at every fourth step, and after each epoch of three
        taken_away(copied, tmp_path / "run", step)
    assert names(place_of(store)) == ["config.json", "step-00000016", "step-00000018"]
    newest = place_of(store) / "step-00000018"
    assert {"state", "best", "log.jsonl", "progress.json"} == set(names(newest))
    (newest / "progress.json").unlink()  # as a kill leaves it while it is copied
    outcome = train(copied, tmp_path / "run", validate=score)
    assert outcome == replace(train(config, tmp_path / "whole", validate=score), model=outcome.model)
    assert_equal_runs(tmp_path / "whole", tmp_path / "run")
    assert names(place_of(store)) == ["config.json", "step-00000028", "step-00000030"]
    shutil.rmtree(tmp_path / "run")  # and a finished one can be had once more
    assert train(copied, tmp_path / "run", validate=score) == outcome
    assert_equal_runs(tmp_path / "whole", tmp_path / "run")


def test_killed_and_its_folder_gone_it_ends_bit_equal(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(epochs=40, states=f"file://{tmp_path}/store")
    train(replace(config, states=""), tmp_path / "whole")
    assert signal_at(start_run(config, tmp_path / "run"), 30, signal.SIGKILL) == -signal.SIGKILL
    shutil.rmtree(tmp_path / "run")
    steps: list[int] = []
    assert train(config, tmp_path / "run", watch=lambda row: steps.append(row["step"])).step == 120
    assert steps[0] > 20
    assert_equal_runs(tmp_path / "whole", tmp_path / "run")


def test_older_states_of_the_run_itself_give_way(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(states=str(tmp_path / "store"), keep=9, trackers=())
    train(config, tmp_path / "run")
    for state in (tmp_path / "run" / "states").iterdir():
        if state.name > "step-00000008":
            shutil.rmtree(state)
    seen: list[Row] = []
    assert train(config, tmp_path / "run", watch=seen.append).step == 30 and not seen


def test_what_cannot_be_written_is_told_before_the_first_step(
    make_config: MakeConfig, tmp_path: Path, shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, seen = make_config(trackers=()), []
    cases = {
        "file:///dev/null/states": "cannot be written",
        "nonsense://states": "address of a store",
        str(tmp_path / "run" / "copies"): "is in the run's own folder",
        str(tmp_path / "run"): "is in the run's own folder",
        str(tmp_path / "file"): "is a file, expected a folder",
        "s3://bucket/run": "cannot be opened .* Run: pip install s3fs",
    }
    (tmp_path / "file").touch()
    if find_spec("s3fs"):
        del cases["s3://bucket/run"]
    for states, said in cases.items():
        with pytest.raises(OpenClapError, match=said):
            train(replace(config, states=states), tmp_path / "run", watch=seen.append)
    assert not seen
    own = ["--start", config.start, "--data", config.data, "--batch-size", "2", "--states", "file:///dev/null/states"]
    assert command(["train", "small", *own, "--out", str(tmp_path / "run")]) == 2
    assert "states file:///dev/null/states: cannot be written" in " ".join(capsys.readouterr().err.split())
    train(replace(config, epochs=1), tmp_path / "run")  # the folder is as good as new


def test_another_runs_place_is_refused(make_config: MakeConfig, tmp_path: Path, store: str) -> None:
    train(make_config(epochs=1, states=store), tmp_path / "one")
    with pytest.raises(ConfigError, match=r"another configuration \(seed\)"):
        train(make_config(epochs=1, states=store, seed=1), tmp_path / "two")
    with pytest.raises(ConfigError, match="holds states of another kind"):
        train(make_config(epochs=1, states=str(tmp_path / "one" / "states")), tmp_path / "three")
    assert names(tmp_path / "one" / "states") == ["step-00000003"]


def test_a_store_that_breaks_leaves_the_state(make_config: MakeConfig, tmp_path: Path) -> None:
    store = tmp_path / "store"
    config = make_config(states=f"file://{store}", trackers=())

    def watch(row: Row) -> None:
        if row["step"] == 7:
            store.rename(tmp_path / "away")
            store.write_text("in the way", encoding="utf-8")

    with pytest.raises(CheckpointError, match=r"step-00000008: the state could not be copied there .* It is whole in"):
        train(config, tmp_path / "run", watch=watch)
    assert names(tmp_path / "run" / "states") == ["step-00000004", "step-00000008"]
    store.unlink()
    (tmp_path / "away").rename(store)
    train(config, tmp_path / "run")
    train(replace(config, states=""), tmp_path / "whole")
    assert_equal_runs(tmp_path / "whole", tmp_path / "run")


def test_a_damaged_copy_is_told(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(epochs=2, states=str(tmp_path / "store"), trackers=())
    train(config, tmp_path / "run")
    (tmp_path / "store" / "step-00000006" / "log.jsonl").unlink()
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"step-00000006: cannot be read .* delete it there"):
        train(config, tmp_path / "run")
    shutil.rmtree(tmp_path / "store" / "step-00000006")
    assert train(config, tmp_path / "run").step == 6


@pytest.mark.filterwarnings("ignore:UPath 'bucket'")
def test_a_store_without_folders(make_config: MakeConfig, tmp_path: Path) -> None:
    fsspec.register_implementation("bucket", Bucket, clobber=True)
    config = make_config(save_every=4, trackers=())
    train(config, tmp_path / "whole", validate=score)
    copied = replace(config, states="bucket://here/run")
    for step in (3, 10):  # the first leaves no state
        taken_away(copied, tmp_path / "run", step)
    train(copied, tmp_path / "run", validate=score)
    assert_equal_runs(tmp_path / "whole", tmp_path / "run")
    assert {name.split("/")[3] for name in Bucket.store} == {"config.json", "step-00000028", "step-00000030"}


def test_one_run_at_a_time(make_config: MakeConfig, tmp_path: Path, store: str) -> None:
    config, other = make_config(states=store, epochs=2, trackers=()), lease.Lease(place_of(store))
    place_of(store).mkdir()
    other.take()
    with pytest.raises(ConfigError, match=r"another run \(process \d+ on .*\) is writing there\. Wait until it ends"):
        train(config, tmp_path / "run")
    assert names(place_of(store)) == ["running.json"]
    other.stop.set()  # as a kill leaves it
    assert train(config, tmp_path / "run").step == 6
    assert "running.json" not in names(place_of(store))


def test_what_sleeps_is_taken_over(make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_S", 1000.0)
    config, other = make_config(states=str(tmp_path / "store"), trackers=()), lease.Lease(tmp_path / "store")
    train(replace(config, states=""), tmp_path / "whole")

    def watch(row: Row) -> None:
        if row["step"] == 9:
            other.take()

    with pytest.raises(CheckpointError, match="another run has taken this place, so this one stops"):
        train(config, tmp_path / "run", watch=watch)
    other.release()
    train(config, tmp_path / "run")
    assert_equal_runs(tmp_path / "whole", tmp_path / "run")
