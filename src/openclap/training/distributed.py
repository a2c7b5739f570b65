"""Collective operations: the features of all processes with exact gradients, sums, and the first process's number.

Why the gradients are exact. Process p computes its share S_p of the global loss L = Σ S_p from its own features and the
gathered ones. In the backward pass, the gather sums over processes the gradients that each share has for the gathered
rows, and returns its own rows to every process. So each process's features get ∂L/∂features, and its parameters get
this gradient propagated through its own clips and captions: its part of ∂L/∂θ. Values that are not gathered (the scale)
get ∂S_p/∂value, a part, too. All parts sum to ∂L/∂θ. DistributedDataParallel averages gradients where this sum is
needed, so each process runs backward from share × processes: the mean of those is ∂L/∂θ, however unevenly clips and
captions are distributed over processes.

N rows, P processes, B clips, T captions, D embedding.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from openclap.types import Features

if TYPE_CHECKING:
    from accelerate import Accelerator


def gather(own: Features) -> tuple[Features, Features]:
    """Gather the features of all processes, with gradients.

    All processes must call this together and run backward through it together; they may have different numbers of
    clips, or none.

    Returns:
        `own` with its clips numbered within the global batch, and the global batch. With one process both are `own`.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return own, own
    # Processes may hold different numbers of rows, and collectives need to know them beforehand.
    counts = own.owner_T.new_tensor([[len(own.clip_B), len(own.owner_T)]])
    clips, captions = (column.tolist() for column in _gather_rows(counts, [1] * dist.get_world_size()).T)
    first = sum(clips[: dist.get_rank()])
    own = replace(own, clip_B=own.clip_B + first, owner_T=own.owner_T + first)
    # Two columns in one exchange.
    owners = _gather_rows(torch.stack([own.owner_T, own.caption_id_T], dim=1), captions)
    return own, replace(
        own,
        audio_BD=_gather_with_gradient(own.audio_BD, clips),
        text_TD=_gather_with_gradient(own.text_TD, captions),
        clip_B=torch.arange(sum(clips), device=own.clip_B.device),
        owner_T=owners[:, 0],
        caption_id_T=owners[:, 1],
        audio_mlp_BD=None if own.audio_mlp_BD is None else _gather_with_gradient(own.audio_mlp_BD, clips),
        text_mlp_TD=None if own.text_mlp_TD is None else _gather_with_gradient(own.text_mlp_TD, captions),
        # Constants of the batch: no gradient goes to a teacher.
        teacher_audio_BE=None if own.teacher_audio_BE is None else _gather_rows(own.teacher_audio_BE, clips),
        teacher_text_TE=None if own.teacher_text_TE is None else _gather_rows(own.teacher_text_TE, captions),
    )


def sum_over_processes(accelerator: Accelerator, numbers: list[int]) -> list[int]:
    """Sum each number over all processes, which must call this together."""
    if accelerator.num_processes == 1:
        return numbers
    total: list[int] = accelerator.reduce(torch.tensor(numbers, device=accelerator.device), "sum").tolist()
    return total


def broadcast_from_first(accelerator: Accelerator, number: float) -> float:
    """Return the first process's number on every process, which must call this together."""
    if accelerator.num_processes == 1:
        return number
    from accelerate.utils import broadcast

    # float64, so that the score is the same number on all processes and in the checkpoint.
    return float(broadcast(torch.tensor(number, dtype=torch.float64, device=accelerator.device)))


def _gather_with_gradient(own_ND: Tensor, counts: list[int]) -> Tensor:
    rows_ND: Tensor = _AllGather.apply(own_ND, counts)  # type: ignore[no-untyped-call]
    return rows_ND


class _AllGather(torch.autograd.Function):
    """Gather rows; backward, sum the gradients of this process's rows over all processes."""

    @staticmethod
    def forward(ctx: Any, own_ND: Tensor, counts: list[int]) -> Tensor:
        starts = [0, *accumulate(counts)]
        ctx.own = slice(starts[dist.get_rank()], starts[dist.get_rank() + 1])
        return _gather_rows(own_ND, counts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_ND: Tensor) -> tuple[Tensor, None]:
        # A copy, because all_reduce writes in place and autograd may still use this gradient elsewhere.
        total_ND = gradient_ND.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total_ND)
        # Own rows alone have a graph on this process.
        return total_ND[ctx.own], None


def _gather_rows(own_ND: Tensor, counts: list[int]) -> Tensor:
    """Gather the rows of all processes in rank order; process p has `counts[p]` of them."""
    padded_ND = own_ND.new_zeros(max(1, *counts), *own_ND.shape[1:])  # collectives need equal sizes
    padded_ND[: len(own_ND)] = own_ND
    parts = [torch.empty_like(padded_ND) for _ in counts]
    dist.all_gather(parts, padded_ND)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])
