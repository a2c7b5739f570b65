"""How a plan is shown: what `openclap train --dry-run` prints."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING

from openclap.cli.console import note, print_json, print_table

if TYPE_CHECKING:
    from openclap.training.plan import Plan


def show(plan: Plan, *, json: bool) -> None:
    """A plan as a table on stdout, or as JSON; notes and warnings on stderr."""
    if json:
        memory = asdict(plan.memory) | {"total": plan.memory.total}
        print_json(asdict(plan) | {"memory": memory, "seconds": plan.seconds if plan.steps else None})
        return
    print_table(["part", "parameters", "learning"], _parts(plan), right=(1, 2))
    note("")
    print_table(["", ""], _facts(plan))
    for line in plan.notes:
        note(f"Note: {line}")
    for line in plan.warnings:
        note(f"Warning: {line}")


def _parts(plan: Plan) -> list[list[str]]:
    total = [sum(part.parameters for part in plan.parts), sum(part.learning for part in plan.parts)]
    rows = [[part.name, f"{part.parameters:,}", f"{part.learning:,}"] for part in plan.parts]
    return [*rows, ["all", *(f"{number:,}" for number in total)]]


def _facts(plan: Plan) -> list[list[str]]:
    memory = {name: size for name, size in asdict(plan.memory).items() if size}
    each = f"{plan.batch // plan.processes:,} on each of {plan.processes} processes" if plan.processes > 1 else ""
    found = "in the shards" if plan.counted else "as the recipe says"
    return [
        ["pairs", f"{plan.pairs:,} {found}"],
        ["batch", " = ".join(filter(None, [f"{plan.batch:,}", each]))],
        ["steps", f"{plan.steps:,} = {plan.steps_per_epoch:,} an epoch"],
        ["memory", f"{plan.memory.total / 1e9:.2f} GB = " + " + ".join(f"{_size(s)} {n}" for n, s in memory.items())],
        ["a step", f"{plan.flops / 1e12:,.2f} TFLOP"],
        ["device", f"{plan.device}, {plan.peak / 1e9:,.0f} GFLOP/s in a large matrix product"],
        ["time", _time(plan)],
    ]


def _time(plan: Plan) -> str:
    """How long the run takes, made up of its steps; without a step there is no time to state."""
    if not plan.steps:
        return "–, there is no step to take"
    return f"{timedelta(seconds=round(plan.seconds))} = {plan.steps:,} × {_step(plan)}"


def _size(size: int) -> str:
    return f"{size / 1e6:,.0f} MB" if size < 1e9 else f"{size / 1e9:.2f} GB"


def _step(plan: Plan) -> str:
    return (
        f"{plan.seconds / max(plan.steps, 1):.2f} s: {plan.compute_s:.2f} s of networks at {plan.utilisation:.0%} of "
        f"that, {plan.data_s:.2f} s of data"
    )
