"""Real groups of processes over gloo, for the tests of distributed training.

Four processes are started once and form groups of two, three and four, one after the other. Each process writes its
results to a file.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from openclap.models.build import build_clap
from openclap.models.clap import CLAP
from openclap.models.objectives import build_objective
from openclap.training.distributed import gather
from support.features import CONFIGS, TAUGHT_CONFIGS, deal, make_features, make_taught_features
from support.step_cases import CASES, Case, make_batch, part_of, step_results
from support.tiny_models import TINY_PRESET

DEALS = {2: [4, 2], 3: [2, 0, 4], 4: [1, 0, 3, 2]}
"""The distribution of six clips over processes, by the number of processes."""

DTYPES = {"float64": torch.float64, "float32": torch.float32}
LAION = replace(TINY_PRESET, embedding_size=8, temperatures=2, transforms=True)

PRELOADED = ["accelerate", "openclap.presets", "openclap.training.step", "transformers.models.bert.modeling_bert"]
"""Modules that take long to import; the processes are forked from one that has imported them."""

Results = dict[str, Any]


def run_groups(folder: Path) -> None:
    """Run all computations on several processes and write the results to `folder`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    workers = [context.Process(target=_work, args=(rank, folder)) for rank in range(max(DEALS))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=120)
    hanging = [worker for worker in workers if worker.exitcode is None]
    for worker in hanging:
        worker.kill()
    assert not hanging and all(worker.exitcode == 0 for worker in workers), [w.exitcode for w in workers]


def results(folder: Path, kind: str, world: int) -> list[Results]:
    """Read the results of each process in a group of `world`."""
    return [torch.load(folder / f"{kind}-{world}-{rank}.pt") for rank in range(world)]


def _work(rank: int, folder: Path) -> None:
    from accelerate.state import AcceleratorState

    torch.set_num_threads(1)
    for world in DEALS:
        if rank < world:
            _group(rank, world, folder / f"meet-{world}")
            torch.save(_objectives(rank, world), folder / f"objectives-{world}-{rank}.pt")
            torch.save(_steps(rank, world), folder / f"steps-{world}-{rank}.pt")
            AcceleratorState._reset_state(reset_partial_state=True)  # it caches the number of processes
            dist.destroy_process_group()


def _group(rank: int, world: int, meeting: Path) -> None:
    """Join a group as torchrun's processes do, but with a file for the rendezvous."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "ACCELERATE_USE_CPU": "1"}
    dist.init_process_group("gloo", init_method=meeting.as_uri(), rank=rank, world_size=world)


def _objectives(rank: int, world: int) -> Results:
    """Compute each objective's share and the gradients of this process's features."""
    return {
        f"{name}, {precision}": objective_results(name, dtype, lambda whole: deal(whole, DEALS[world], rank))
        for name in CONFIGS | TAUGHT_CONFIGS
        for precision, dtype in DTYPES.items()
    }


def objective_results(name: str, dtype: torch.dtype, part: Callable[[Any], Any] = lambda whole: whole) -> Results:
    """Compute the share and the gradients of a part of synthetic features; for all of them, the whole loss."""
    own = part(make_taught_features(dtype=dtype) if name in TAUGHT_CONFIGS else make_features(dtype=dtype))
    objective = build_objective((CONFIGS | TAUGHT_CONFIGS)[name], _clap()).to(dtype)
    share = objective(*gather(own))
    share.backward()
    vectors = {"audio": own.audio_BD, "text": own.text_TD, "audio_mlp": own.audio_mlp_BD, "text_mlp": own.text_mlp_TD}
    sums = {"scale": own.scale.grad, "scale_text": own.scale_text.grad}
    sums |= {key: parameter.grad for key, parameter in objective.named_parameters()}
    return {"share": share.detach(), "rows": {key: x.grad for key, x in vectors.items()}, "sums": sums}


@cache
def _clap() -> CLAP:
    return build_clap(LAION)


def _steps(rank: int, world: int) -> Results:
    """Take each case's step of a whole model in data-parallel training."""
    return {
        name: step_results(case, [part_of(batch, DEALS[world], rank) for batch in _batches(case)])
        for name, case in CASES.items()
        if world in case.worlds
    }


def _batches(case: Case) -> list[Any]:
    return [make_batch(seed, long=case.fusion) for seed in range(case.batches)]
