"""Run the steps of a build on a real Ray cluster of two nodes on this machine."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from openclap.data.build import build, fetch_and_decode, write_tars
from openclap.data.config import DataConfig
from openclap.data.filters import plan
from openclap.data.layout import CHUNK
from openclap.data.manifest import finish
from openclap.data.parallel import run_on_ray
from openclap.errors import ConfigError, DataError
from support.errors import raises_naming
from support.fetching import environment
from support.packs import MakeRecords, contents

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.long  # beginning and ending a cluster takes most of a minute


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Two nodes with a core each and as little memory as Ray allows; ended afterwards, and nothing else."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="ray") as folder:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
        node = {"num_cpus": 1, "object_store_memory": 80 << 20}
        cluster = Cluster(True, head_node_args=node | {"include_dashboard": False, "temp_dir": folder})
        try:
            cluster.add_node(**node)
            patch.setenv("RAY_ADDRESS", cluster.address)
            yield
        finally:
            ray.shutdown()
            cluster.shutdown()


def where(seconds: float) -> tuple[int, str]:
    time.sleep(seconds)
    return os.getpid(), ray.get_runtime_context().get_node_id()


def refuse(thing: tuple[str, int]) -> None:
    raise DataError(f"{thing[0]}: {thing[1] + 1} is too much.")


def test_ray_distributes_work_and_returns_errors(cluster: None) -> None:
    found = list(run_on_ray(where, [0.5] * 6))
    assert len(found) == 6 and os.getpid() not in {pid for pid, _ in found}
    assert len({node for _, node in found}) == 2
    with pytest.raises(DataError, match=r"^a: 2 is too much"):
        list(run_on_ray(refuse, [("a", 1)]))
    assert list(run_on_ray(where, [])) == []


def test_ray_cluster_writes_the_same_bytes(cluster: None, tmp_path: Path, make_records: MakeRecords) -> None:
    records, config = make_records(CHUNK + 40), DataConfig(shard_size=50)
    records[5].audio.write_bytes(b"no sound")  # type: ignore[union-attr]
    build(records, tmp_path / "one", config)
    plan(records, tmp_path / "many", config)
    fetch_and_decode(tmp_path / "many", runner=run_on_ray)
    write_tars(tmp_path / "many", runner=run_on_ray)
    assert len(finish(tmp_path / "many").skipped) == 1
    assert contents(tmp_path / "many") == contents(tmp_path / "one")


def test_unreachable_ray_cluster_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    with raises_naming(ConfigError, "ray start --head"):
        list(run_on_ray(abs, [1]))
