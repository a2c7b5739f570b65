"""Features of all processes on each of them, with exact gradients.

Why it is exact. Process p computes its share S_p of the global loss L = Σ S_p, from own features and gathered ones.
Backward, the gather adds up over processes what each share asks of the gathered rows, and hands every process its own
rows. So what reaches a process's features is ∂L/∂(those features), and what reaches its parameters is that, carried on
through its own clips and captions: its part of ∂L/∂θ. What is not gathered (the scale) gets ∂S_p/∂(it), a part, too.
All parts sum to ∂L/∂θ. DistributedDataParallel takes the mean of the processes' gradients where this sum is wanted, so
each process runs backward from share × processes, and the mean of those is ∂L/∂θ, however unevenly clips and captions
lie on the processes.

N rows, P processes, B clips, T captions, D embedding.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from openclap.types import Features


def gather(own: Features) -> tuple[Features, Features]:
    """`own`, with its clips numbered among everyone's, and everyone's; processes may hold different numbers, or none.

    All processes are to call it together, and to run backward through it together. With one process both are `own`.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return own, own
    counts = own.owner_T.new_tensor([[len(own.clip_B), len(own.owner_T)]])
    clips, captions = (column.tolist() for column in _rows(counts, [1] * dist.get_world_size()).T)
    first = sum(clips[: dist.get_rank()])
    own = replace(own, clip_B=own.clip_B + first, owner_T=own.owner_T + first)
    owners = _rows(torch.stack([own.owner_T, own.caption_id_T], dim=1), captions)
    return own, replace(
        own,
        audio_BD=_everyones(own.audio_BD, clips),
        text_TD=_everyones(own.text_TD, captions),
        clip_B=torch.arange(sum(clips), device=own.clip_B.device),
        owner_T=owners[:, 0],
        caption_id_T=owners[:, 1],
        audio_mlp_BD=None if own.audio_mlp_BD is None else _everyones(own.audio_mlp_BD, clips),
        text_mlp_TD=None if own.text_mlp_TD is None else _everyones(own.text_mlp_TD, captions),
    )


def _everyones(own_ND: Tensor, counts: list[int]) -> Tensor:
    """Everyone's rows, with gradients; process p holds `counts[p]` of them."""
    rows_ND: Tensor = _AllGather.apply(own_ND, counts)  # type: ignore[no-untyped-call]
    return rows_ND


class _AllGather(torch.autograd.Function):
    """Everyone's rows; backward, the sum over processes of the gradients of this one's."""

    @staticmethod
    def forward(ctx: Any, own_ND: Tensor, counts: list[int]) -> Tensor:
        starts = [0, *accumulate(counts)]
        ctx.own = slice(starts[dist.get_rank()], starts[dist.get_rank() + 1])
        return _rows(own_ND, counts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_ND: Tensor) -> tuple[Tensor, None]:
        total_ND = gradient_ND.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total_ND)
        return total_ND[ctx.own], None


def _rows(own_ND: Tensor, counts: list[int]) -> Tensor:
    """Everyone's rows in the order of the processes; collectives want equal sizes, so all travel padded."""
    padded_ND = own_ND.new_zeros(max(1, *counts), *own_ND.shape[1:])
    padded_ND[: len(own_ND)] = own_ND
    parts = [torch.empty_like(padded_ND) for _ in counts]
    dist.all_gather(parts, padded_ND)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])
