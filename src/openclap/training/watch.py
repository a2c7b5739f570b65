"""What a run tells of itself beside its loss: how its vectors lie, how hard its device works, and what it holds.

B clips or captions, D embedding.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from openclap.audio.config import FrontEndConfig
from openclap.models.clap import CLAP
from openclap.types import AudioBatch, PairBatch, TextBatch

PROBED = 2
"""Clips that go through a model to count its work: batch norms of pooled maps ask for more than one."""
TOKENS = 24
"""Tokens of the captions among them."""


def alignment(audio_BD: Tensor, text_BD: Tensor) -> Tensor:
    """The mean squared distance between the unit vectors of a clip and of its caption: 0 where they coincide, 4 where
    they are opposed (Wang & Isola 2020, arXiv:2005.10242, with alpha = 2)."""
    return (audio_BD - text_BD).square().sum(dim=1).mean()


def uniformity(vector_BD: Tensor) -> Tensor:
    """How evenly unit vectors cover the sphere: the logarithm of the mean of exp(-2 · distance²) over all pairs. 0
    when all are one vector, near -4 when they are spread over many dimensions (Wang & Isola 2020, with t = 2)."""
    return torch.pdist(vector_BD).square().mul(-2).exp().mean().log()


@dataclass(frozen=True, slots=True)
class Work:
    """Floating-point operations of training, forward and backward, in matrix products and convolutions, two for each
    product that is added up.

    Attributes:
        clip: of one clip through the audio side.
        token: of one token through the text side, at captions of TOKENS.
    """

    clip: float
    token: float

    def of(self, batch: PairBatch) -> float:
        """What one step on `batch` takes; padding counts, since it is computed."""
        return self.clip * len(batch.audio.is_long_B) + self.token * batch.text.ids_BL.numel()


def count_work(clap: CLAP, frontend: FrontEndConfig) -> Work:
    """Send PROBED clips and captions forward, and backward to what learns, and count.

    Weights, gradients, statistics of batch norms and random states stay as they are.
    """
    audio, text = probe(clap, frontend)
    with _in_evaluation(clap):
        with torch.no_grad():
            clap.encode_audio(audio), clap.encode_text(text)  # what towers remember is no work
        clip = _flops(lambda: clap.encode_audio(audio), clap) / PROBED
        token = _flops(lambda: clap.encode_text(text), clap) / text.ids_BL.numel()
    return Work(clip, token)


def probe(clap: CLAP, frontend: FrontEndConfig) -> tuple[AudioBatch, TextBatch]:
    """Silence and captions of one repeated token, in the shapes of a training batch, on the model's device; clips
    are long where the model fuses."""
    views = 4 if frontend.long == "fusion" else 1
    mel_BVTF = torch.zeros(PROBED, views, frontend.frames, frontend.mel.n_mels)
    ids_BL = torch.full((PROBED, TOKENS), 2)  # no padding in any tokenizer
    audio = AudioBatch(mel_BVTF, torch.full((PROBED,), views > 1))
    device = clap.logit_scale.device
    return audio.to(device), TextBatch(ids_BL, torch.ones_like(ids_BL)).to(device)


def _flops(encode: Callable[[], Tensor], clap: CLAP) -> float:
    """With attention as plain matrix products, because torch does not count all of its kernels."""
    learning = [parameter for parameter in clap.parameters() if parameter.requires_grad]
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        total = encode().sum()
        if total.requires_grad:
            torch.autograd.grad(total, learning, allow_unused=True)
    return float(counter.get_total_flops())


@contextmanager
def _in_evaluation(network: nn.Module) -> Iterator[None]:
    """Every module in evaluation mode, and back in its own afterwards."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def matmul_peak(device: torch.device, dtype: torch.dtype = torch.float32, *, within_s: float = 0.1) -> float:
    """FLOP/s of the best of a few large matrix products: what this device was seen to do, not what its maker says."""
    side = 1024 if device.type == "cpu" else 8192
    left, right = (torch.full((side, side), 0.5, device=device, dtype=dtype) for _ in range(2))

    def multiply() -> float:
        return (left @ right)[0, 0].item()  # waits for the device

    return 2 * side**3 / quickest(multiply, within_s=within_s)


def quickest(run: Callable[[], object], *, within_s: float) -> float:
    """Seconds of the quickest of as many tries as fit, three at least: what others take of the machine now and then is
    not this one's speed."""
    began = time.perf_counter()
    took: list[float] = []
    while len(took) < 3 or time.perf_counter() - began < within_s:
        started = time.perf_counter()
        run()
        took.append(time.perf_counter() - started)
    return min(took)


def peak_memory(device: torch.device) -> int:
    """Bytes that this process has held at most: of the device's memory, or, on a CPU, of the machine's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def free_memory(device: torch.device) -> int:
    """Bytes that can still be had: of the device, or of the machine with what this process holds."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):  # no Linux
        available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return available + resident()


def resident() -> int:
    """Bytes that this process holds now; where the system does not say, at most so far."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return peak_memory(torch.device("cpu"))


class Gauge:
    """What a loop adds to each row of its log."""

    def __init__(self, clap: CLAP, frontend: FrontEndConfig, dtype: torch.dtype = torch.float32) -> None:
        """Takes a second or two: the model's work is counted and the device's peak is measured."""
        self.device = clap.logit_scale.device
        self.work = count_work(clap, frontend)
        self.peak = matmul_peak(self.device, dtype)

    def row(self, batches: Sequence[PairBatch], seconds: float) -> dict[str, float]:
        """`mfu`, the share of the device's largest matrix product that the step came to, waiting included (Chowdhery
        et al. 2022, appendix B, with a measured peak), and `memory_mb`, the most that was held so far."""
        return {
            "mfu": sum(map(self.work.of, batches)) / max(seconds, 1e-9) / self.peak,
            "memory_mb": peak_memory(self.device) / 1e6,
        }
