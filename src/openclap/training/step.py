"""One optimisation step, over one or several batches, whole or in chunks.

Several batches accumulate: the step's loss is the mean of their losses. That would be the loss of one large batch if
clips did not see each other, but these objectives compare each clip with its own batch: accumulating makes gradients
less noisy and brings no new negatives. For more negatives in the same memory there are chunks, which change nothing of
the loss.

Chunks cache gradients (Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup"):
the features of all clips are computed `chunk` clips at a time without a graph, the objective is taken over all of them,
and its gradients with respect to the features are carried on through each chunk, computed again with a graph and with
the same random states. It costs one more forward pass. Batch norm sees a chunk at a time, once for its running
statistics; where it is frozen, or there is none, the step is that of the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from openclap.models.objectives import Objective
from openclap.training.distributed import gather
from openclap.training.watch import alignment, uniformity
from openclap.types import AudioBatch, Features, PairBatch, TextBatch

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch.optim import Optimizer

VECTORS = ("audio_BD", "text_TD", "audio_mlp_BD", "text_mlp_TD")
SCALES = ("scale", "scale_text")


class Taken(NamedTuple):
    """This process's share of a batch's loss, of the loss that equal embeddings would have, the scale that both were
    taken at, and how everyone's vectors lie."""

    share: Tensor
    chance: Tensor
    scale: Tensor
    lie: dict[str, float]


class TrainingStep:
    """Forward, backward, clip, update.

    Every process calls it equally often and with equally many batches. The batches may be of different sizes, and
    those of a process whose samples were all unreadable may be empty: it then takes part with nothing.

    Args:
        model: a CLAP as `accelerator.prepare` gave it. On several processes, towers with parts that not every batch
            uses (fusion, taggers) want `find_unused_parameters`.
        objective: as `build_objective` gave it, not prepared: its few gradients are averaged here.
        optimizer: over the parameters of both.
        clip_norm: the largest norm of the whole gradient.
        chunk: clips at a time, to hold the activations of so many only; 0 takes the batch whole.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        objective: Objective,
        optimizer: Optimizer,
        *,
        clip_norm: float,
        chunk: int = 0,
    ) -> None:
        self.accelerator, self.model, self.objective, self.optimizer = accelerator, model, objective, optimizer
        self.clip_norm, self.chunk = clip_norm, chunk
        self.backward: Callable[[PairBatch, float, bool], Taken] = self._in_chunks if chunk else self._whole

    def __call__(self, batches: Sequence[PairBatch]) -> dict[str, float]:
        """Take the step; the global loss, `chance` (the loss if all embeddings were equal), the scale that both were
        taken at and the gradient's norm, equal everywhere, and the `alignment_and_uniformity` of the last batch."""
        self.optimizer.zero_grad(set_to_none=True)
        taken = [
            self.backward(batch, 1 / len(batches), number == len(batches))
            for number, batch in enumerate(batches, start=1)
        ]
        own = list(self.objective.parameters())
        for parameter in own:
            parameter.grad = self.accelerator.reduce(parameter.grad, "mean")
        norm = self.accelerator.clip_grad_norm_([*self.model.parameters(), *own], self.clip_norm)
        self.optimizer.step()
        shares = torch.stack([torch.stack([each.share, each.chance]) for each in taken]).sum(0)
        loss, chance = self.accelerator.reduce(shares, "sum").tolist()
        last = taken[-1]
        return {"loss": loss, "chance": chance, "scale": last.scale.item(), "grad_norm": float(norm), **last.lie}

    def _whole(self, batch: PairBatch, weight: float, last: bool) -> Taken:
        """Add this batch's gradients; `last` lets the processes exchange them."""
        with _exchanging(self.accelerator, self.model, last):
            return self._through_objective(features_of(self.model, batch), weight)

    def _in_chunks(self, batch: PairBatch, weight: float, last: bool) -> Taken:
        """The same for the batch in chunks."""
        chunks = batch.split(self.chunk)
        generators = _Generators(self.accelerator.device)
        states, parts = [], []
        with torch.no_grad():
            for piece in chunks:
                states.append(generators.states())
                parts.append(features_of(self.model, piece))
        cached = _join(parts)
        taken = self._through_objective(cached, weight)
        gradients = _per_chunk(cached, parts)
        with statistics_kept(self.model):
            for number, (piece, state, gradient) in enumerate(zip(chunks, states, gradients, strict=True), start=1):
                generators.set(state)
                with _exchanging(self.accelerator, self.model, last and number == len(chunks)):
                    _carry_on(features_of(self.model, piece), gradient)
        return taken

    def _through_objective(self, features: Features, weight: float) -> Taken:
        """Backward from this process's share, times the processes, of whose gradients a mean will be taken."""
        own, everyone = gather(features)
        share = self.objective(own, everyone) * weight
        with torch.no_grad():
            chance = self.objective(_equal(own), _equal(everyone)) * weight
        self.accelerator.backward(share * self.accelerator.num_processes)
        return Taken(share.detach(), chance, features.scale.detach(), alignment_and_uniformity(everyone))


@torch.no_grad()
def alignment_and_uniformity(everyone: Features) -> dict[str, float]:
    """Alignment and uniformity of the global batch's vectors; nothing of fewer than two pairs."""
    if len(everyone.clip_B) < 2 or len(everyone.owner_T) < 2:
        return {}
    return {
        "alignment": alignment(everyone.audio_BD[everyone.owner_T], everyone.text_TD).item(),
        "uniformity_audio": uniformity(everyone.audio_BD).item(),
        "uniformity_text": uniformity(everyone.text_TD).item(),
    }


def _equal(features: Features) -> Features:
    """The same clips and captions with one embedding for all."""
    return replace(
        features, **{name: _first_axis(vectors) for name in VECTORS if (vectors := getattr(features, name)) is not None}
    )


def _first_axis(vectors: Tensor) -> Tensor:
    equal = torch.zeros_like(vectors)
    equal[:, 0] = 1
    return equal


def features_of(model: nn.Module, batch: PairBatch) -> Features:
    """`model(batch)`; for an empty batch, features of nothing that hang on the parameters all the same, since
    data-parallel training waits for every process's gradients, be they zeros."""
    if len(batch.audio.is_long_B):
        features: Features = model(batch)
        return features
    with statistics_kept(model):
        silence: Features = model(_silence(batch))
    nothing = {name: vectors[:0] for name in VECTORS if (vectors := getattr(silence, name)) is not None}
    ids = {name: getattr(silence, name)[:0] for name in ("clip_B", "owner_T", "caption_id_T")}
    return replace(silence, **nothing, **ids)


def _silence(empty: PairBatch) -> PairBatch:
    """One clip of zeros with a caption of one token, shaped like the batch's."""
    mel_BVTF, owner_T = empty.audio.mel_BVTF, empty.owner_T
    frames_B = None if empty.audio.frames_B is None else empty.audio.frames_B.new_full((1,), mel_BVTF.shape[2])
    audio = AudioBatch(mel_BVTF.new_zeros(1, *mel_BVTF.shape[1:]), empty.audio.is_long_B.new_zeros(1), frames_B)
    text = TextBatch(empty.text.ids_BL.new_zeros(1, 1), empty.text.mask_BL.new_ones(1, 1))
    return PairBatch(audio, text, owner_T.new_zeros(1), owner_T.new_zeros(1), keys=("",))


@contextmanager
def statistics_kept(model: nn.Module) -> Iterator[None]:
    """Leave batch norms' running statistics as they are; in training they go on using the batch's own."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.training]
    tracked = [norm for norm in norms if norm.track_running_stats]
    for norm in tracked:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in tracked:
            norm.track_running_stats = True


@contextmanager
def _exchanging(accelerator: Accelerator, model: nn.Module, now: bool) -> Iterator[None]:
    """Let the processes exchange gradients in this backward pass, or keep them until a later one."""
    if now:
        yield
    else:
        with accelerator.no_sync(model):
            yield


class _Generators:
    """The random states that forward passes draw from: the processor's and the device's."""

    def __init__(self, device: torch.device) -> None:
        self.modules: list[Any] = [torch] if device.type == "cpu" else [torch, torch.get_device_module(device)]

    def states(self) -> list[Tensor]:
        return [module.get_rng_state() for module in self.modules]

    def set(self, states: list[Tensor]) -> None:
        for module, state in zip(self.modules, states, strict=True):
            module.set_rng_state(state)


def _join(parts: list[Features]) -> Features:
    """Chunks' features end to end, as leaves that gather gradients."""
    starts_P = torch.tensor([0, *(len(part.clip_B) for part in parts)]).cumsum(0).tolist()
    leaves = {
        name: torch.cat([getattr(part, name) for part in parts]).requires_grad_()
        for name in VECTORS
        if getattr(parts[0], name) is not None
    }
    scales = {name: s.clone().requires_grad_() for name in SCALES if (s := getattr(parts[0], name)) is not None}
    return Features(
        **leaves,
        **scales,
        clip_B=torch.arange(starts_P[-1], device=parts[0].clip_B.device),
        owner_T=torch.cat([part.owner_T + start for part, start in zip(parts, starts_P, strict=False)]),
        caption_id_T=torch.cat([part.caption_id_T for part in parts]),
    )


def _per_chunk(cached: Features, parts: list[Features]) -> list[dict[str, Tensor]]:
    """The gradients that each chunk has to carry on, by the features' names; the scales' go with the last chunk."""
    gradients: list[dict[str, Tensor]] = [{} for _ in parts]
    for name in VECTORS:
        leaf = getattr(cached, name)
        if leaf is not None and leaf.grad is not None:
            sizes = [len(getattr(part, name)) for part in parts]
            for gradient, piece in zip(gradients, leaf.grad.split(sizes), strict=True):
                gradient[name] = piece
    for name in SCALES:
        leaf = getattr(cached, name)
        if leaf is not None and leaf.grad is not None:
            gradients[-1][name] = leaf.grad
    return gradients


def _carry_on(features: Features, gradient: dict[str, Tensor]) -> None:
    """Backward from a chunk's features with their gradients; what learns nothing is passed over."""
    names = [name for name in gradient if getattr(features, name).requires_grad]
    if names:
        torch.autograd.backward([getattr(features, name) for name in names], [gradient[name] for name in names])
