"""A build that is killed at any moment and resumed writes the same bytes as an undisturbed one.

Builders are forked from a process that has imported what they need, and really killed (SIGKILL), each so many
milliseconds into a step; when one has finished, the whole folder is compared, and another one begun.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import signal
import tarfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from openclap.data.decode import facts_of
from openclap.data.layout import read_table
from support import building
from support.building import LEFT_OUT, RECORDS, STEPS
from support.fetching import environment
from support.misbehaving import Misbehaving
from support.packs import contents

KILLS_A_BUILD = {"plan": 2, "fetch": 3, "decode": 2, "caption": 2, "pack": 3, "finish": 2}
"""Number of kills in each step of one build."""
TRANSIENT = ("work/planning/", "work/sounds/")
"""Files that are removed before the end."""
GROWS = ("work/captions.jsonl", "work/fetched/")
"""Files in which a kill leaves duplicate lines."""


@dataclass
class Builder:
    """Starts builders of the same data set."""

    server: Misbehaving
    local: Path
    pcm_sha256: str

    def run(
        self, out: Path, kill: tuple[str, float] | None = None, processes: int = 1
    ) -> tuple[list[tuple[str, float]], bool]:
        """The reported steps, and whether it finished; `kill` names a step, and the seconds after its begin."""
        context = multiprocessing.get_context("forkserver")
        ours, theirs = context.Pipe(duplex=False)
        arguments = (out, self.server.root, self.local, self.pcm_sha256)
        process = context.Process(
            target=building.run, args=arguments, kwargs={"processes": processes, "reports": theirs}
        )
        process.start()
        theirs.close()
        steps: list[tuple[str, float]] = []
        for step, at in _until_it_ends(ours):
            steps.append((step, at))
            if kill and step == kill[0]:
                time.sleep(kill[1])
                process.kill()
                kill = None
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        return steps, process.exitcode == 0


def _until_it_ends(reports: Connection) -> Iterator[tuple[str, float]]:
    with reports:
        while True:
            try:
                yield reports.recv()
            except EOFError:
                return


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    multiprocessing.get_context("forkserver").set_forkserver_preload(["pytest", "support.building"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", environment()["PYTHONPATH"])  # up to Python 3.12, it looks nowhere else
        forkserver.ensure_running()
    local = tmp_path_factory.mktemp("local")
    with Misbehaving() as server:
        building.serve(server)
        for n in range(RECORDS):
            (local / f"{n}.flac").write_bytes(server.files[f"{n}.flac"])
        server.pause_s = 0.01
        yield Builder(server, local, facts_of(local / "21.flac").pcm_sha256)


@dataclass(frozen=True)
class Undisturbed:
    """The files of an undisturbed run, and the seconds of each step."""

    files: Mapping[str, bytes]
    seconds: Mapping[str, float]


def build_undisturbed(builder: Builder, out: Path, processes: int = 1) -> Undisturbed:
    steps, finished = builder.run(out, processes=processes)
    assert finished
    begins = dict(reversed(steps))  # the first report of each
    assert tuple(begins)[::-1] == (*STEPS, "done")
    ordered = [begins[step] for step in (*STEPS, "done")]
    seconds = {step: end - begin for step, (begin, end) in zip(STEPS, pairwise(ordered), strict=True)}
    return Undisturbed(contents(out), seconds)


@pytest.fixture(scope="module")
def undisturbed(builder: Builder, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    return build_undisturbed(builder, tmp_path_factory.mktemp("undisturbed") / "out")


def test_undisturbed_build_leaves_out_the_expected_records(undisturbed: Undisturbed) -> None:
    lines = [json.loads(line) for line in undisturbed.files["skipped.jsonl"].splitlines()]
    assert {line["id"]: line["kind"] for line in lines} == LEFT_OUT


def kill_and_go_on(
    builder: Builder, undisturbed: Undisturbed, folder: Path, *, kills: int, processes: int = 1, seed: int = 0
) -> Counter[str]:
    """Build repeatedly until so many builders were killed; count the kills by step."""
    rng, killed = random.Random(seed), Counter[str]()
    plan = [step for step in STEPS for _ in range(KILLS_A_BUILD[step])]
    for number in range(3 * kills):
        out, finished = folder / str(number), False
        for step in _some(plan, kills, rng):
            if killed.total() == kills or finished:
                break
            wait_s = rng.uniform(0, undisturbed.seconds[step])
            steps, finished = builder.run(out, (step, wait_s), processes)
            if not finished:
                killed[steps[-1][0]] += 1
            check_visible_files(out, undisturbed)
        assert finished or builder.run(out, None, processes)[1]
        check_visible_files(out, undisturbed)
        check_all(out, undisturbed)
        if killed.total() == kills:
            return killed
    raise AssertionError(f"only {killed} were killed")


def _some(plan: Sequence[str], kills: int, rng: random.Random) -> list[str]:
    """All of a plan, or as many of its steps as there are kills; in order."""
    chosen = sorted(rng.sample(range(len(plan)), min(len(plan), kills)))
    return [plan[place] for place in chosen]


def check_visible_files(out: Path, undisturbed: Undisturbed) -> None:
    """Every file with its final name is complete: the same as in the undisturbed run."""
    for name, content in contents(out).items():
        if not Path(name).name.startswith(".") and not name.startswith((*GROWS, *TRANSIENT)):
            assert undisturbed.files.get(name) == content, f"{name} is not what it should be"


def check_all(out: Path, undisturbed: Undisturbed) -> None:
    """Nothing is missing or duplicated, and only unfinished files of a kill are left over."""
    found = contents(out)
    seen = {name for name in found if not name.endswith((".partial", ".partial.json"))}
    assert seen == set(undisturbed.files)
    packed = read_table(out / "manifest.parquet")["id"].to_list()
    skipped = [json.loads(line)["id"] for line in found["skipped.jsonl"].splitlines()]
    assert sorted(map(int, packed + skipped)) == list(range(RECORDS))
    inside = []
    for path in out.glob("*/*.tar"):
        with tarfile.open(path) as tar:
            texts = [tar.extractfile(name) for name in tar.getnames() if name.endswith(".json")]
            inside += [json.load(text)["original_data"]["id"] for text in texts if text]
    assert sorted(inside) == sorted(packed)


def test_killed_builds_resume_to_the_same_bytes(builder: Builder, undisturbed: Undisturbed, tmp_path: Path) -> None:
    assert kill_and_go_on(builder, undisturbed, tmp_path, kills=8).total() == 8


@pytest.mark.long
def test_two_hundred_kills_resume_to_the_same_bytes(builder: Builder, undisturbed: Undisturbed, tmp_path: Path) -> None:
    killed = kill_and_go_on(builder, undisturbed, tmp_path, kills=200, seed=1)
    assert killed.total() == 200
    assert all(killed[step] >= 10 for step in STEPS), killed


@pytest.mark.long
def test_kill_ends_worker_processes(builder: Builder, tmp_path: Path) -> None:
    """Workers must end too, or they would write beside the next run."""
    undisturbed = build_undisturbed(builder, tmp_path / "undisturbed", processes=2)
    assert kill_and_go_on(builder, undisturbed, tmp_path, kills=12, processes=2, seed=2).total() == 12
