"""The output of `openclap train --dry-run`."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING

from openclap.cli.console import note, print_json, print_table

if TYPE_CHECKING:
    from openclap.training.profiling import TrainingPlan


def print_plan(plan: TrainingPlan, *, json: bool) -> None:
    """Print a plan as tables or JSON to stdout, and its notes and warnings to stderr."""
    if json:
        memory = asdict(plan.memory) | {"total": plan.memory.total}
        print_json(asdict(plan) | {"memory": memory, "seconds": plan.seconds if plan.steps else None})
        return
    print_table(["part", "parameters", "trainable"], _part_rows(plan), right=(1, 2))
    note("")
    print_table(["", ""], _fact_rows(plan))
    for line in plan.notes:
        note(f"Note: {line}")
    for line in plan.warnings:
        note(f"Warning: {line}")


def _part_rows(plan: TrainingPlan) -> list[list[str]]:
    total = [sum(part.parameters for part in plan.parts), sum(part.trainable for part in plan.parts)]
    rows = [[part.name, f"{part.parameters:,}", f"{part.trainable:,}"] for part in plan.parts]
    return [*rows, ["all", *(f"{number:,}" for number in total)]]


def _fact_rows(plan: TrainingPlan) -> list[list[str]]:
    memory = {name: size for name, size in asdict(plan.memory).items() if size}
    shares = f"{plan.batch // plan.processes:,} on each of {plan.processes} processes" if plan.processes > 1 else ""
    origin = "in the shards" if plan.counted else "as the recipe states"
    return [
        ["pairs", f"{plan.pairs:,} {origin}"],
        ["batch", " = ".join(filter(None, [f"{plan.batch:,}", shares]))],
        ["steps", f"{plan.steps:,} = {plan.steps_per_epoch:,} an epoch"],
        ["memory", f"{plan.memory.total / 1e9:.2f} GB = " + " + ".join(f"{_bytes(s)} {n}" for n, s in memory.items())],
        ["a step", f"{plan.flops / 1e12:,.2f} TFLOP"],
        ["device", f"{plan.device}, {plan.peak / 1e9:,.0f} GFLOP/s in a large matrix product"],
        ["time", _time(plan)],
    ]


def _time(plan: TrainingPlan) -> str:
    """Format the time as steps × seconds per step."""
    if not plan.steps:
        return "–, the run has no steps"
    return f"{timedelta(seconds=round(plan.seconds))} = {plan.steps:,} × {_step_time(plan)}"


def _bytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB" if size < 1e9 else f"{size / 1e9:.2f} GB"


def _step_time(plan: TrainingPlan) -> str:
    return (
        f"{plan.seconds / max(plan.steps, 1):.2f} s: {plan.compute_s:.2f} s of networks at {plan.utilisation:.0%} of "
        f"that peak, {plan.data_s:.2f} s of data"
    )
