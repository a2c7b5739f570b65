"""What a run would take, before it is begun: parameters, steps, memory and time.

Nothing is read of the data but where samples stand.
"""

from __future__ import annotations

import importlib
import io
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from openclap.audio.config import FrontEndConfig
from openclap.audio.frontend import FrontEnd
from openclap.audio.io import read_mono
from openclap.checkpoints import detect
from openclap.checkpoints.checkpoint import build_network, empty_network
from openclap.data.shards import index_shards
from openclap.errors import DataError, OpenClapError
from openclap.limits import COUNT, check_count
from openclap.loading import locate
from openclap.models.clap import CLAP
from openclap.models.objectives import build_objective
from openclap.presets import Preset
from openclap.training.config import TrainConfig
from openclap.training.feature_cache import remember
from openclap.training.lora import adapt
from openclap.training.model_setup import DTYPES
from openclap.training.optimizer import build_optimizer, freeze
from openclap.training.watch import PROBED, TOKENS, count_work, free_memory, matmul_peak, probe, quickest, resident

UTILISATION = {"cpu": 0.5, "cuda": 0.35}
"""The share of the largest matrix product that a step comes to: measured on a CPU (docs/benchmarks.md), assumed of a
GPU."""
FORWARD_AGAIN = 4 / 3
"""What gradient caching and checkpointing cost: a backward pass is two forward passes' work, and they add one more."""
MEASURED_S = 1.0
"""How long each measurement takes: in less, what else the machine does would be taken for its speed."""
LONG_S = 30 * 24 * 3600.0
ADAM_MOMENTS = 2


@dataclass(frozen=True, slots=True)
class Given:
    """What a recipe knows of a run whose start or data are not there yet."""

    preset: Preset
    pairs: int


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the model, and how many of its parameters learn."""

    name: str
    parameters: int
    learning: int


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one process.

    Attributes:
        activations: what the forward pass of a batch keeps for the backward pass.
        working: what the largest layer reads and gives, for a batch.
        process: Python and the libraries of a run, as this process holds them without a model; 0 on a GPU.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    working: int
    process: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations + self.working + self.process


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run comes to.

    Attributes:
        pairs: of one epoch; `counted` says whether they were found in the shards, or stated by the recipe.
        flops: of one step on all processes: matrix products and convolutions of clips with captions of TOKENS.
        peak: FLOP/s of a large matrix product, as measured here.
        compute_s, data_s: seconds of a step, in the networks, and in reading, decoding and log-mels; one after the
            other without workers, side by side with them.
    """

    parts: tuple[Part, ...]
    pairs: int
    counted: bool
    processes: int
    batch: int
    steps_per_epoch: int
    steps: int
    memory: Memory
    flops: float
    peak: float
    utilisation: float
    compute_s: float
    data_s: float
    seconds: float
    device: str
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def plan(config: TrainConfig, given: Given | None = None, *, processes: int = 1) -> Plan:
    """The plan of `config` on this machine, for so many processes of its kind.

    Args:
        given: stands in for a start or data that are not there; the plan then says so.

    Raises what `openclap.training.trainer.train` would raise for a start, data or frozen parts that cannot be.
    """
    check_count("processes", processes, most=COUNT)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    notes: list[str] = []
    process = 0 if device.type == "cuda" else _libraries()
    clap, preset = _model(config, given, notes)
    freeze(clap.to(device).train(), config.frozen)
    build_objective(config.objective, clap)
    if config.lora:
        adapt(clap, config.lora)
    build_optimizer(clap, config.optim)  # is there anything to learn?
    pairs, counted = _pairs(config, given, notes)
    own = config.batch_size * config.accumulate
    batch = own * processes
    steps_per_epoch = pairs // (config.batch_size * processes) // config.accumulate
    steps = steps_per_epoch * config.epochs
    memory = _memory(clap, preset.frontend, min(config.chunk or config.batch_size, config.batch_size), process)
    work = count_work(clap, preset.frontend)
    if "audio_tower" in remember(clap, config):
        notes.append(
            f"From the second epoch on, clips of up to {preset.frontend.samples / preset.frontend.mel.rate:.1f} s need "
            "no audio tower again: the time is the most that it takes."
        )
    again = FORWARD_AGAIN if config.chunk or config.checkpointing else 1.0
    flops = own * (work.clip + TOKENS * work.token) * again
    peak, share = matmul_peak(device, DTYPES[config.precision], within_s=MEASURED_S), UTILISATION[device.type]
    compute_s, data_s = flops / (peak * share), own * _seconds_a_clip(preset.frontend)
    data_s /= max(1, min(config.workers, os.cpu_count() or 1))
    step_s = max(compute_s, data_s) if config.workers else compute_s + data_s
    made = Plan(
        parts=_parts(clap),
        pairs=pairs,
        counted=counted,
        processes=processes,
        batch=batch,
        steps_per_epoch=steps_per_epoch,
        steps=steps,
        memory=memory,
        flops=flops * processes,
        peak=peak,
        utilisation=share,
        compute_s=compute_s,
        data_s=data_s,
        seconds=step_s * steps,
        device=torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads",
        notes=tuple(notes),
        warnings=(),
    )
    return replace(made, warnings=tuple(_warnings(made, config, device)))


def _model(config: TrainConfig, given: Given | None, notes: list[str]) -> tuple[CLAP, Preset]:
    """The start's networks; without the start, those of the recipe's preset."""
    try:
        path = locate(config.start, offline=True)
    except OpenClapError:
        if given is None:
            raise
        notes.append(f"{config.start} is not there: the plan is that of the preset {given.preset.name}.")
        return empty_network(given.preset, given.preset.name), given.preset
    checkpoint = detect.read(path)
    return build_network(checkpoint, path.name), checkpoint.preset


def _pairs(config: TrainConfig, given: Given | None, notes: list[str]) -> tuple[int, bool]:
    try:
        return len(index_shards(config.data)), True
    except DataError:
        if given is None:
            raise
        notes.append(f"{config.data} is not there: {given.pairs:,} pairs are the recipe's own number.")
        return given.pairs, False


def _parts(clap: CLAP) -> tuple[Part, ...]:
    return tuple(
        Part(
            name,
            sum(parameter.numel() for parameter in module.parameters()),
            sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad),
        )
        for name, module in clap.named_children()
    )


def _memory(clap: CLAP, frontend: FrontEndConfig, batch_size: int, process: int) -> Memory:
    weights = sum(tensor.nbytes for tensor in (*clap.parameters(), *clap.buffers()))
    kept, working = activations(clap, frontend)
    learning = sum(parameter.nbytes for parameter in clap.parameters() if parameter.requires_grad)
    return Memory(
        weights=weights,
        gradients=learning,
        optimizer=ADAM_MOMENTS * learning,
        activations=batch_size * kept,
        working=batch_size * working,
        process=process,
    )


def activations(clap: CLAP, frontend: FrontEndConfig) -> tuple[int, int]:
    """Bytes that one pair asks for, of PROBED that go forward in training mode: those of storages that autograd keeps,
    each counted once and weights left out; and the most that one layer reads and gives. Statistics of batch norms
    move."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*clap.parameters(), *clap.buffers())}
    saved: dict[int, Tensor] = {}  # held, or an address would be used twice
    working = 0

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            saved.setdefault(tensor.untyped_storage().data_ptr(), tensor.detach())
        return tensor

    def weigh(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal working
        working = max(working, sum(value.nbytes for value in (*inputs, output) if isinstance(value, Tensor)))

    layers = [module for module in clap.modules() if not any(module.children())]
    hooks = [layer.register_forward_hook(weigh) for layer in layers]
    with torch.random.fork_rng(), torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        audio, text = probe(clap, frontend)
        clap.encode_audio(audio), clap.encode_text(text)
    for hook in hooks:
        hook.remove()
    return sum(tensor.untyped_storage().nbytes() for tensor in saved.values()) // PROBED, working // PROBED


def _libraries() -> int:
    """Bytes of this process when what a run imports is there."""
    for name in ("accelerate", "torch.utils.tensorboard", "transformers.modeling_utils"):
        with suppress(ImportError):
            importlib.import_module(name)
    return resident()


def _seconds_a_clip(frontend: FrontEndConfig) -> float:
    """What one process takes to decode a clip of noise in FLAC, as long as the model's input, and to make its log-mel:
    the best of a few."""
    import soundfile

    made, encoded = FrontEnd(frontend), io.BytesIO()
    noise = np.random.default_rng(0).standard_normal(frontend.samples).astype(np.float32)
    soundfile.write(encoded, 0.1 * noise, made.sample_rate, format="FLAC")
    return quickest(lambda: made([read_mono(encoded.getvalue(), made.sample_rate)]), within_s=MEASURED_S)


def _warnings(made: Plan, config: TrainConfig, device: torch.device) -> Iterator[str]:
    """What cannot be, or will not be what was meant."""
    if not made.steps_per_epoch:
        yield (
            f"{made.pairs:,} pairs are fewer than one batch of {made.batch:,}: there is no step to take. Choose a "
            "smaller batch_size, or add data."
        )
    elif config.optim.warmup_steps >= made.steps:
        yield (
            f"{config.optim.warmup_steps:,} steps of warm-up are not over after {made.steps:,} steps: the full rate is "
            "never reached. Choose fewer optim.warmup_steps."
        )
    room = free_memory(device)
    if made.memory.total > room:
        yield (
            f"{made.memory.total / 1e9:.1f} GB are more than the {room / 1e9:.1f} GB that are free here. Choose a "
            "smaller batch_size, or freeze more."
        )
    if made.seconds > LONG_S:
        yield f"{made.seconds / 86400:,.0f} days are long: this run is made for more, or faster, devices."
    if config.workers > (os.cpu_count() or 1):
        yield f"{config.workers} workers are more than the {os.cpu_count()} cores here."
    if config.workers and made.data_s > made.compute_s:
        yield "Decoding takes longer than the networks: more workers would help, if there are cores for them."
