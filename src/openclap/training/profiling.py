"""Estimate a run before it begins (`openclap train --dry-run`), and measure the device's use while it runs.

A plan counts parameters, steps, memory and floating-point operations, and multiplies them with the largest matrix
product of this machine. Of the data only the index is read.
"""

from __future__ import annotations

import importlib
import io
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from openclap.audio.config import FrontEndConfig
from openclap.audio.frontend import FrontEnd
from openclap.audio.io import read_mono
from openclap.checkpoints import detect
from openclap.checkpoints.checkpoint import build_network, empty_network
from openclap.data.lengths import clip_lengths
from openclap.data.order import epoch_order, rank_batches
from openclap.data.shards import index_shards
from openclap.errors import DataError, OpenClapError
from openclap.limits import COUNT, check_count
from openclap.loading import locate
from openclap.models.clap import CLAP
from openclap.models.objectives import build_objective
from openclap.presets import Preset
from openclap.training.config import ExpectedInputs, TrainConfig
from openclap.training.feature_cache import cache_frozen_towers
from openclap.training.lora import add_lora
from openclap.training.model_setup import DTYPES
from openclap.training.optimizer import build_optimizer, freeze
from openclap.types import AudioBatch, PairBatch, TextBatch

PROBE_PAIRS = 2
"""Pairs that pass through a model to be measured; batch norms of pooled maps need more than one."""
PROBE_TOKENS = 24
"""Tokens of their captions."""
UTILISATION = {"cpu": 0.5, "cuda": 0.35}
"""Expected FLOP/s of a step as a share of the largest matrix product: measured on a CPU (docs/benchmarks.md), assumed
for a GPU."""
RECOMPUTATION = 4 / 3
"""Relative cost of gradient caching and activation checkpointing: forward 1, backward 2, and forward once more."""
MEASURE_S = 1.0
"""Seconds of each measurement; other load on the machine distorts shorter ones."""
LONG_RUN_S = 30 * 24 * 3600.0
ADAM_MOMENTS = 2


@dataclass(frozen=True, slots=True)
class ModelPart:
    """A part of the model, its parameters, and how many of them are trained."""

    name: str
    parameters: int
    trainable: int


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes of one process.

    Attributes:
        weights: those of the model, their moving average (`optim.ema`) and those of the start (`start_share`).
        activations: tensors that the forward pass of a batch stores for the backward pass.
        working: input and output of the largest layer, for a batch.
        process: Python and the libraries of a run, measured in this process; 0 on a GPU.
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
class TrainingPlan:
    """The estimate of a run.

    Attributes:
        pairs: of one epoch; `counted` says whether they are counted in the shards or stated by the recipe.
        flops: of one step on all processes: matrix products and convolutions, with captions of PROBE_TOKENS.
        peak: FLOP/s of a large matrix product, measured here.
        compute_s, data_s: seconds of a step in the networks, and in reading, decoding and log-mels: one after the other
            without workers, side by side with them.
    """

    parts: tuple[ModelPart, ...]
    pairs: int
    counted: bool
    processes: int
    batch: int
    steps_per_epoch: int
    steps: int
    memory: MemoryEstimate
    flops: float
    peak: float
    utilisation: float
    compute_s: float
    data_s: float
    seconds: float
    device: str
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def plan_training(config: TrainConfig, expected: ExpectedInputs | None = None, *, processes: int = 1) -> TrainingPlan:
    """Estimate the run of `config` on this machine, on so many processes of its kind.

    Args:
        expected: replaces a start or data that do not exist yet; the plan's notes then say so.

    Raises the errors that `openclap.training.trainer.train` raises for an invalid start, data or frozen parts.
    """
    check_count("processes", processes, most=COUNT)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    notes: list[str] = []
    process_bytes = 0 if device.type == "cuda" else _library_bytes()  # before the model is loaded
    clap, preset = _load_model(config, expected, notes)
    _apply_options(clap.to(device).train(), config)
    pairs, counted = _count_pairs(config, expected, notes)
    lengths = _relative_lengths(config, expected, preset, notes)
    process_batch = config.batch_size * config.accumulate
    steps_per_epoch = pairs // (config.batch_size * processes) // config.accumulate
    steps = steps_per_epoch * config.epochs
    memory = _estimate_memory(clap, preset.frontend, config, process_bytes, lengths.largest)
    per_item = count_flops(clap, preset.frontend)
    if "audio_tower" in cache_frozen_towers(clap, config):
        notes.append(
            f"From the second epoch on, clips of up to {preset.frontend.samples / preset.frontend.mel.rate:.1f} s need "
            "no audio tower again, so the time is an upper bound."
        )
    recomputation = RECOMPUTATION if config.chunk or config.activation_checkpointing else 1.0
    # Backward costs twice the forward pass and is already in the count.
    flops = process_batch * (lengths.mean * per_item.clip + PROBE_TOKENS * per_item.token) * recomputation
    peak = matmul_peak(device, DTYPES[config.precision], within_s=MEASURE_S)
    compute_s = flops / (peak * UTILISATION[device.type])
    data_s = process_batch * lengths.mean * _seconds_per_clip(preset.frontend)
    # Workers beyond the number of cores add no speed.
    data_s /= max(1, min(config.workers, os.cpu_count() or 1))
    # Workers decode the next batch while the networks compute this one.
    step_s = max(compute_s, data_s) if config.workers else compute_s + data_s
    plan = TrainingPlan(
        parts=_list_parts(clap),
        pairs=pairs,
        counted=counted,
        processes=processes,
        batch=process_batch * processes,
        steps_per_epoch=steps_per_epoch,
        steps=steps,
        memory=memory,
        flops=flops * processes,
        peak=peak,
        utilisation=UTILISATION[device.type],
        compute_s=compute_s,
        data_s=data_s,
        seconds=step_s * steps,
        device=torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads",
        notes=tuple(notes),
        warnings=(),
    )
    return replace(plan, warnings=tuple(_find_problems(plan, config, device)))


def _load_model(config: TrainConfig, expected: ExpectedInputs | None, notes: list[str]) -> tuple[CLAP, Preset]:
    """Load the start's networks, or build those of the recipe's preset where the start does not exist."""
    try:
        path = locate(config.start, offline=True)
    except OpenClapError:
        if expected is None:
            raise
        preset = expected.preset
        notes.append(f"{config.start} does not exist: this is the plan of the preset {preset.name}.")
        return empty_network(preset, preset.name), preset
    checkpoint = detect.read(path)
    return build_network(checkpoint, path.name), checkpoint.preset


def _apply_options(clap: CLAP, config: TrainConfig) -> None:
    """Choose the trained parameters as a run does, and raise its errors for options that do not apply."""
    freeze(clap, config.frozen)
    build_objective(config.objective, clap)  # may stop parts of the model training
    if config.lora:
        add_lora(clap, config.lora)
    build_optimizer(clap, config.optim)  # raises if everything is frozen


def _count_pairs(config: TrainConfig, expected: ExpectedInputs | None, notes: list[str]) -> tuple[int, bool]:
    try:
        return len(index_shards(config.data)), True
    except DataError:
        if expected is None:
            raise
        notes.append(f"{config.data} does not exist: the recipe states {expected.pairs:,} pairs.")
        return expected.pairs, False


class RelativeLengths(NamedTuple):
    """Lengths of clips as they are read, in training lengths: the mean of all, and that of the longest step."""

    mean: float
    largest: float


def _relative_lengths(
    config: TrainConfig, expected: ExpectedInputs | None, preset: Preset, notes: list[str]
) -> RelativeLengths:
    """Clips at their own length cost and need in proportion to it; others are all of one length."""
    frontend = preset.frontend
    if not frontend.is_any_length:
        return RelativeLengths(1.0, 1.0)
    training_s = frontend.samples / frontend.mel.rate
    try:
        shards = index_shards(config.data)
    except DataError:
        if expected is None or not expected.mean_s:
            raise
        notes.append(f"Clips are read at their own length, {expected.mean_s:.1f} s in the mean, as the recipe states.")
        mean = expected.mean_s / training_s
        return RelativeLengths(mean, mean)
    read_S = clip_lengths(shards, config.lengths, frontend.mel.rate, frontend.samples).read_s()
    # The longest clips might come together, but hardly do: the first epoch's own steps say how much they differ.
    batches = rank_batches(epoch_order(shards.tar_S, config.seed, 0), config.batch_size, 0, 1)
    largest_s = read_S[batches].mean(axis=1).max() if len(batches) else read_S.mean()
    notes.append(
        f"Clips are read at their own length: {read_S.mean():.2f} s in the mean, {largest_s:.2f} s in the longest step "
        f"of the first epoch, where others would fill {training_s:g} s."
    )
    return RelativeLengths(float(read_S.mean()) / training_s, float(largest_s) / training_s)


def _list_parts(clap: CLAP) -> tuple[ModelPart, ...]:
    return tuple(
        ModelPart(
            name,
            sum(parameter.numel() for parameter in module.parameters()),
            sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad),
        )
        for name, module in clap.named_children()
    )


def _estimate_memory(
    clap: CLAP, frontend: FrontEndConfig, config: TrainConfig, process_bytes: int, length: float
) -> MemoryEstimate:
    pairs = min(config.chunk or config.batch_size, config.batch_size)
    activations, working = measure_activations(clap, frontend)
    trainable = sum(parameter.nbytes for parameter in clap.parameters() if parameter.requires_grad)
    weights = sum(tensor.nbytes for tensor in (*clap.parameters(), *clap.buffers()))
    copies = (trainable if config.optim.ema else 0) + (weights if config.start_share else 0)
    return MemoryEstimate(
        weights=weights + copies,
        gradients=trainable,
        # AdamW keeps two moments of each parameter, in the same precision.
        optimizer=ADAM_MOMENTS * trainable,
        # Captions do not get shorter with the clips, but their activations are the smaller part.
        activations=round(pairs * activations * length),
        working=pairs * working,
        process=process_bytes,
    )


def measure_activations(clap: CLAP, frontend: FrontEndConfig) -> tuple[int, int]:
    """Measure the bytes of one pair by a forward pass in training mode, which moves statistics of batch norms.

    Returns:
        Bytes of the storages that autograd saves, each counted once and weights left out; and bytes of the input and
        output of the largest layer.
    """
    own = {tensor.untyped_storage().data_ptr() for tensor in (*clap.parameters(), *clap.buffers())}
    saved: dict[int, Tensor] = {}  # keeps the tensors alive, so that no address is used twice
    working = 0

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            saved.setdefault(tensor.untyped_storage().data_ptr(), tensor.detach())
        return tensor

    def measure_layer(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal working
        working = max(working, sum(value.nbytes for value in (*inputs, output) if isinstance(value, Tensor)))

    layers = [module for module in clap.modules() if not any(module.children())]
    # Without children: containers would count their layers' tensors again.
    hooks = [layer.register_forward_hook(measure_layer) for layer in layers]
    # autograd hands over every tensor that it keeps for the backward pass; dropout must not move the run's random
    # numbers.
    with torch.random.fork_rng(), torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        audio, text = probe_batch(clap, frontend)
        clap.encode_audio(audio), clap.encode_text(text)
    for hook in hooks:
        hook.remove()
    total = sum(tensor.untyped_storage().nbytes() for tensor in saved.values())
    # Both grow with the number of pairs.
    return total // PROBE_PAIRS, working // PROBE_PAIRS


def _library_bytes() -> int:
    """Measure this process after importing the libraries of a run."""
    for name in ("accelerate", "torch.utils.tensorboard", "transformers.modeling_utils"):
        with suppress(ImportError):
            importlib.import_module(name)
    return resident_memory()


def _seconds_per_clip(frontend: FrontEndConfig) -> float:
    """Measure decoding and log-mel of a clip of noise in FLAC, as long as the model's input, in one process."""
    import soundfile

    front_end, encoded = FrontEnd(frontend), io.BytesIO()
    noise = np.random.default_rng(0).standard_normal(frontend.samples).astype(np.float32)
    soundfile.write(encoded, 0.1 * noise, front_end.sample_rate, format="FLAC")
    return fastest_s(lambda: front_end([read_mono(encoded.getvalue(), front_end.sample_rate)]), within_s=MEASURE_S)


def _find_problems(plan: TrainingPlan, config: TrainConfig, device: torch.device) -> Iterator[str]:
    """Warn of choices that cannot work, or will not work as meant."""
    if not plan.steps_per_epoch:
        yield (
            f"{plan.pairs:,} pairs are fewer than one batch of {plan.batch:,}, so there is no step to take. Choose a "
            "smaller batch_size, or add data."
        )
    elif config.optim.warmup_steps >= plan.steps:
        yield (
            f"{config.optim.warmup_steps:,} steps of warm-up do not end within {plan.steps:,} steps, so the full rate "
            "is never reached. Choose fewer optim.warmup_steps."
        )
    free = free_memory(device)
    if plan.memory.total > free:
        yield (
            f"{plan.memory.total / 1e9:.1f} GB are more than the {free / 1e9:.1f} GB that are free here. Choose a "
            "smaller batch_size, or freeze more."
        )
    if plan.seconds > LONG_RUN_S:
        yield f"{plan.seconds / 86400:,.0f} days are long: this run needs more, or faster, devices."
    if config.workers > (os.cpu_count() or 1):
        yield f"{config.workers} workers are more than the {os.cpu_count()} cores here."
    if config.workers and plan.data_s > plan.compute_s:
        yield "Decoding takes longer than the networks. Choose more workers, if there are cores for them."


@dataclass(frozen=True, slots=True)
class FlopCount:
    """Floating-point operations of training, forward and backward, in matrix products and convolutions.

    A multiplication and its addition count as two.

    Attributes:
        clip: of one clip of `frames` frames through the audio tower and head.
        token: of one token through the text tower and head, in captions of PROBE_TOKENS.
    """

    clip: float
    token: float
    frames: int

    def of_batch(self, batch: PairBatch) -> float:
        """Count one step on `batch`: padding of captions included, since it is computed, and clips at their own length
        in proportion to it."""
        frames_B = batch.audio.frames_B
        clips = len(batch.audio.is_long_B) if frames_B is None else float(frames_B.sum()) / self.frames
        return self.clip * clips + self.token * batch.text.ids_BL.numel()


def count_flops(clap: CLAP, frontend: FrontEndConfig) -> FlopCount:
    """Count a forward pass of PROBE_PAIRS pairs and the backward pass to the trainable parameters.

    Weights, gradients, statistics of batch norms and random states stay as they are.
    """
    audio, text = probe_batch(clap, frontend)
    with _eval_mode(clap):
        with torch.no_grad():
            # Fill the caches of frozen towers first: from the second epoch on, cached outputs cost nothing.
            clap.encode_audio(audio), clap.encode_text(text)
        # Counted apart, since the number of captions of a clip and their lengths vary.
        clip = _count(lambda: clap.encode_audio(audio), clap) / PROBE_PAIRS
        token = _count(lambda: clap.encode_text(text), clap) / text.ids_BL.numel()
    return FlopCount(clip, token, frontend.frames)


def _count(encode: Callable[[], Tensor], clap: CLAP) -> float:
    trainable = [parameter for parameter in clap.parameters() if parameter.requires_grad]
    gradients = [parameter.grad for parameter in trainable]
    # Attention as plain matrix products, since the counter does not support all attention kernels.
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        total = encode().sum()
        if total.requires_grad:
            # Not autograd.grad: the counter does not allow it where a module reads a parameter of another one.
            total.backward()
    for parameter, gradient in zip(trainable, gradients, strict=True):
        parameter.grad = gradient
    return float(counter.get_total_flops())


def probe_batch(clap: CLAP, frontend: FrontEndConfig) -> tuple[AudioBatch, TextBatch]:
    """Build silence and captions of one repeated token in the shapes of a training batch, on the model's device; clips
    are long if the model fuses views."""
    views = 4 if frontend.long == "fusion" else 1
    mel_BVTF = torch.zeros(PROBE_PAIRS, views, frontend.frames, frontend.mel.n_mels)
    ids_BL = torch.full((PROBE_PAIRS, PROBE_TOKENS), 2)  # not the padding token of any tokenizer
    audio = AudioBatch(mel_BVTF, torch.full((PROBE_PAIRS,), views > 1))
    device = clap.logit_scale.device
    return audio.to(device), TextBatch(ids_BL, torch.ones_like(ids_BL)).to(device)


@contextmanager
def _eval_mode(network: nn.Module) -> Iterator[None]:
    """Put every module into evaluation mode, and restore each module's own mode afterwards."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@cache
def matmul_peak(device: torch.device, dtype: torch.dtype = torch.float32, *, within_s: float = 0.1) -> float:
    """Measure the FLOP/s of the fastest of a few large matrix products: the device's real peak, not its maker's.

    A process measures it once, since it does not change from run to run.
    """
    # Large enough to reach the peak, small enough for a few repetitions within the time.
    side = 1024 if device.type == "cpu" else 8192
    left, right = (torch.full((side, side), 0.5, device=device, dtype=dtype) for _ in range(2))

    def multiply() -> float:
        return (left @ right)[0, 0].item()  # waits for the device

    return 2 * side**3 / fastest_s(multiply, within_s=within_s)


def fastest_s(run: Callable[[], object], *, within_s: float) -> float:
    """Measure the seconds of the fastest of at least three runs; slower ones had to share the machine."""
    began = time.perf_counter()
    times: list[float] = []
    while len(times) < 3 or time.perf_counter() - began < within_s:
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return min(times)


def peak_memory(device: torch.device) -> int:
    """Return the peak bytes of this process: of the device's memory, or, on a CPU, of the machine's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # getrusage counts kilobytes on Linux and bytes on macOS.
    return peak if sys.platform == "darwin" else peak * 1024


def free_memory(device: torch.device) -> int:
    """Return the bytes that a run can use: free on the device, or on the machine including this process's own."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):  # not Linux
        available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    # This process's own memory is in the plan, too, so it counts as free.
    return available + resident_memory()


def resident_memory() -> int:
    """Return the bytes of this process now; where the system does not report them, its peak."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return peak_memory(torch.device("cpu"))
