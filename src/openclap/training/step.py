"""One optimisation step over one or several batches, each computed whole or in chunks.

Gradient accumulation: the step's loss is the mean of the batches' losses. That is not the loss of one large batch,
because a contrastive objective compares each clip with its own batch alone: accumulation makes gradients less noisy and
adds no negatives. Chunks do add them: they fit a larger batch into the same memory and leave the loss as it is.

Chunks use gradient caching (Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited
Setup"): compute the embeddings of all clips without a graph, `chunk` clips at a time; take the objective over all of
them; then compute each chunk again with a graph and the same random states, and continue backward from the cached
gradients. It costs one more forward pass. Batch norm normalises over a chunk instead of the batch, and updates its
running statistics once for each chunk; where it is frozen or absent, the step equals that of the whole batch.

B clips, T captions, D embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from openclap.models.objectives import Objective
from openclap.training.distributed import gather
from openclap.training.optimizer import freeze_running_statistics
from openclap.types import AudioBatch, Features, PairBatch, TextBatch

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch.optim import Optimizer

EMBEDDINGS = ("audio_BD", "text_TD", "audio_mlp_BD", "text_mlp_TD")
SCALES = ("scale", "scale_text")


AttachTeacher = Callable[[Features, PairBatch], Features]
"""Adds a teacher's vectors to the features of a batch (`openclap.training.teacher.Teachers`)."""


class BatchLoss(NamedTuple):
    """The result of one batch's backward pass on this process.

    Attributes:
        share: this process's share of the loss; the shares of all processes sum to the global loss.
        chance: its share of the loss that a model with one embedding for every input would have.
        scale: the logit scale of both.
        geometry: `alignment_and_uniformity` of the global batch.
    """

    share: Tensor
    chance: Tensor
    scale: Tensor
    geometry: dict[str, float]


class TrainingStep:
    """Forward, backward, clip the gradient, update.

    Every process must call it equally often and with equally many batches. Batches may have different sizes; a process
    that could read none of its samples passes an empty batch and takes part with zero gradients.

    Args:
        model: a CLAP from `accelerator.prepare`. On several processes, towers with parts that not every batch uses
            (fusion, taggers) need `find_unused_parameters`.
        objective: from `build_objective`, not prepared: its few gradients are averaged here.
        optimizer: over the parameters of both.
        clip_norm: maximum norm of the whole gradient.
        chunk: clips whose activations are in memory at a time; 0 computes a batch at once.

    Attributes:
        attach_teacher: adds the vectors of a teacher, if the run has one, to the features of a batch.
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
        self.attach_teacher: AttachTeacher = lambda features, batch: features
        # Chosen once, so that a step has no branch on the configuration.
        self.backward: Callable[[PairBatch, float, bool], BatchLoss] = (
            self._backward_in_chunks if chunk else self._backward_whole
        )

    def __call__(self, batches: Sequence[PairBatch]) -> dict[str, float]:
        """Take one step and return its figures, which are equal on every process.

        Returns:
            `loss`, `chance` (the loss of a model with one embedding for every input), `scale` (the logit scale of
            both), `grad_norm` (before clipping) and `alignment_and_uniformity` of the last batch.
        """
        # Before the first backward pass and not after the update, so that gradients left by an interrupted step or by
        # a validation never enter this one. Set to None, because AdamW skips a parameter without a gradient, while a
        # gradient of zeros still decays its moments and its weight.
        self.optimizer.zero_grad(set_to_none=True)
        losses = [
            # Every batch adds its gradients; only the last backward pass exchanges them between processes, because
            # gradients sum up locally first and one exchange costs as much as any other.
            self.backward(batch, 1 / len(batches), number == len(batches))
            for number, batch in enumerate(batches, start=1)
        ]
        # The objective is not wrapped in DistributedDataParallel (a wrapper for SigLIP's one bias would cost a second
        # exchange), so its gradients are averaged here, before the norm is taken.
        objective_parameters = list(self.objective.parameters())
        for parameter in objective_parameters:
            parameter.grad = self.accelerator.reduce(parameter.grad, "mean")
        # In fp16 this first divides the gradients by the loss scale: clipping scaled gradients would clip all of them.
        # The objective's are included, so that they are unscaled, too.
        norm = self.accelerator.clip_grad_norm_([*self.model.parameters(), *objective_parameters], self.clip_norm)
        # In fp16 the scaler skips the update when a gradient overflowed, and halves the scale for the next step.
        self.optimizer.step()
        # One exchange and one wait for the device, for both figures of all batches.
        shares = torch.stack([torch.stack([batch.share, batch.chance]) for batch in losses]).sum(0)
        loss, chance = self.accelerator.reduce(shares, "sum").tolist()
        last = losses[-1]
        return {"loss": loss, "chance": chance, "scale": last.scale.item(), "grad_norm": float(norm), **last.geometry}

    def _backward_whole(self, batch: PairBatch, weight: float, exchange: bool) -> BatchLoss:
        """Add the gradients of a batch, computed at once; with `exchange`, average them over processes."""
        with _gradient_exchange(self.accelerator, self.model, exchange):
            return self._backward_objective(compute_features(self.model, batch), batch, weight)

    def _backward_in_chunks(self, batch: PairBatch, weight: float, exchange: bool) -> BatchLoss:
        """Add the gradients of a batch, computed in chunks (gradient caching)."""
        chunks = batch.split(self.chunk)
        generators = _RandomGenerators(self.accelerator.device)
        random_states, parts = [], []
        with torch.no_grad():
            for piece in chunks:
                random_states.append(generators.states())  # dropout must draw the same numbers in the second pass
                # Only embeddings stay in memory, a few kilobytes a pair; the activations of a chunk are freed with it.
                parts.append(compute_features(self.model, piece))
        # Over the whole batch: the chunks' negatives are those of the batch, as if it had been computed at once.
        cached = _concatenate(parts)
        # Backward stops at `cached`, whose rows are leaves: it ends with the gradients of all embeddings.
        batch_loss = self._backward_objective(cached, batch, weight)
        gradients = _split_gradients(cached, parts)
        # The first pass has already counted each chunk in the running statistics.
        with freeze_running_statistics(self.model):
            for number, (piece, state, gradient) in enumerate(zip(chunks, random_states, gradients, strict=True), 1):
                generators.restore(state)
                # One exchange for the whole batch, in the last chunk's backward pass.
                with _gradient_exchange(self.accelerator, self.model, exchange and number == len(chunks)):
                    _backward_from_features(compute_features(self.model, piece), gradient)
        return batch_loss

    def _backward_objective(self, features: Features, batch: PairBatch, weight: float) -> BatchLoss:
        """Gather the features of all processes, take this process's share of the loss, and run backward from it."""
        # The gather carries gradients. Without them each process would only move its own embeddings as anchors, and
        # never as other processes' candidates: half of the loss's gradient would be missing (see `distributed`).
        own, everyone = gather(self.attach_teacher(features, batch))
        # `own` clips and captions are the anchors, `everyone`'s the candidates: the negatives are global.
        share = self.objective(own, everyone) * weight
        with torch.no_grad():
            chance = self.objective(_collapse(own), _collapse(everyone)) * weight
        # Data-parallel training averages gradients over processes, and the shares have to be summed.
        self.accelerator.backward(share * self.accelerator.num_processes)
        return BatchLoss(share.detach(), chance, features.scale.detach(), alignment_and_uniformity(everyone))


def compute_features(model: nn.Module, batch: PairBatch) -> Features:
    """Compute `model(batch)`; for an empty batch, zero rows that still depend on the parameters.

    Data-parallel training waits for every process's gradients, so an empty batch needs a graph, too.
    """
    if len(batch.audio.is_long_B):
        features: Features = model(batch)
        return features
    with freeze_running_statistics(model):
        # The result has no rows, so the loss is the same without it, and every parameter gets a gradient of zeros. Its
        # batch norm must not count the silence.
        silence: Features = model(_silent_batch(batch))
    no_rows = {name: rows[:0] for name in EMBEDDINGS if (rows := getattr(silence, name)) is not None}
    ids = {name: getattr(silence, name)[:0] for name in ("clip_B", "owner_T", "caption_id_T")}
    return replace(silence, **no_rows, **ids)


def _silent_batch(empty: PairBatch) -> PairBatch:
    """Build one clip of zeros with a caption of one token, in the shapes of the empty batch."""
    mel_BVTF, owner_T = empty.audio.mel_BVTF, empty.owner_T
    frames_B = None if empty.audio.frames_B is None else empty.audio.frames_B.new_full((1,), mel_BVTF.shape[2])
    audio = AudioBatch(mel_BVTF.new_zeros(1, *mel_BVTF.shape[1:]), empty.audio.is_long_B.new_zeros(1), frames_B)
    text = TextBatch(empty.text.ids_BL.new_zeros(1, 1), empty.text.mask_BL.new_ones(1, 1))
    return PairBatch(audio, text, owner_T.new_zeros(1), owner_T.new_zeros(1), keys=("",))


@torch.no_grad()
def alignment_and_uniformity(features: Features) -> dict[str, float]:
    """Measure the geometry of a batch's embeddings; an empty dict for fewer than two clips or captions."""
    if len(features.clip_B) < 2 or len(features.owner_T) < 2:
        return {}
    return {
        "alignment": alignment(features.audio_BD[features.owner_T], features.text_TD).item(),
        "uniformity_audio": uniformity(features.audio_BD).item(),
        "uniformity_text": uniformity(features.text_TD).item(),
    }


def alignment(audio_BD: Tensor, text_BD: Tensor) -> Tensor:
    """Compute the mean squared distance of pairs of (B, D) unit vectors: 0 where all coincide, 4 where all are opposed.

    Wang & Isola 2020 (arXiv:2005.10242), with alpha = 2.
    """
    return (audio_BD - text_BD).square().sum(dim=1).mean()


def uniformity(embedding_BD: Tensor) -> Tensor:
    """Compute how evenly (B, D) unit vectors cover the sphere: the log of the mean of exp(-2 · distance²) over pairs.

    0 when all vectors are equal, near -4 when they are spread over many dimensions (Wang & Isola 2020, with t = 2).
    """
    # pdist has each pair once and no vector with itself.
    return torch.pdist(embedding_BD).square().mul(-2).exp().mean().log()


def _collapse(features: Features) -> Features:
    """Replace every embedding by the same unit vector, those of moments and phrases too."""
    equal: dict[str, Any] = {
        name: _first_axis(rows) for name in EMBEDDINGS if (rows := getattr(features, name)) is not None
    }
    if (moments := features.moments) is not None:
        audio_BMD, phrase_PD = _first_axis(moments.audio_BMD), _first_axis(moments.phrase_PD)
        equal["moments"] = replace(moments, audio_BMD=audio_BMD, phrase_PD=phrase_PD)
    return replace(features, **equal)


def _first_axis(embeddings: Tensor) -> Tensor:
    equal = torch.zeros_like(embeddings)
    # Any direction would do: the loss depends on the similarities alone, and here all of them are 1.
    equal[..., 0] = 1
    return equal


@contextmanager
def _gradient_exchange(accelerator: Accelerator, model: nn.Module, now: bool) -> Iterator[None]:
    """Exchange gradients between processes in this backward pass, or accumulate them for a later one."""
    if now:
        yield
    else:
        # DistributedDataParallel exchanges gradients in every backward pass, unless it runs in this context.
        with accelerator.no_sync(model):
            yield


class _RandomGenerators:
    """The generators that a forward pass draws from: the CPU's and the device's."""

    def __init__(self, device: torch.device) -> None:
        # Dropout and patch dropout draw from the device's generator, and the CPU's serves everything else.
        self.modules: list[Any] = [torch] if device.type == "cpu" else [torch, torch.get_device_module(device)]

    def states(self) -> list[Tensor]:
        return [module.get_rng_state() for module in self.modules]

    def restore(self, states: list[Tensor]) -> None:
        for module, state in zip(self.modules, states, strict=True):
            module.set_rng_state(state)


def _concatenate(parts: list[Features]) -> Features:
    """Join the chunks' features into leaf tensors that collect gradients."""
    starts_P = torch.tensor([0, *(len(part.clip_B) for part in parts)]).cumsum(0).tolist()
    leaves: dict[str, Any] = {
        name: torch.cat([getattr(part, name) for part in parts]).requires_grad_()
        for name in EMBEDDINGS
        if getattr(parts[0], name) is not None
    }
    scales: dict[str, Any] = {
        name: s.clone().requires_grad_() for name in SCALES if (s := getattr(parts[0], name)) is not None
    }
    return Features(
        **leaves,
        **scales,
        clip_B=torch.arange(starts_P[-1], device=parts[0].clip_B.device),
        # Each chunk numbers its clips from 0.
        owner_T=torch.cat([part.owner_T + start for part, start in zip(parts, starts_P, strict=False)]),
        caption_id_T=torch.cat([part.caption_id_T for part in parts]),
    )


def _split_gradients(cached: Features, parts: list[Features]) -> list[dict[str, Tensor]]:
    """Split the cached gradients by chunk, by the features' names."""
    gradients: list[dict[str, Tensor]] = [{} for _ in parts]
    for name in EMBEDDINGS:
        leaf = getattr(cached, name)
        if leaf is not None and leaf.grad is not None:
            sizes = [len(getattr(part, name)) for part in parts]
            for gradient, piece in zip(gradients, leaf.grad.split(sizes), strict=True):
                gradient[name] = piece
    for name in SCALES:
        leaf = getattr(cached, name)
        if leaf is not None and leaf.grad is not None:
            gradients[-1][name] = leaf.grad  # a scale is shared by all chunks, so its gradient is used once
    return gradients


def _backward_from_features(features: Features, gradient: dict[str, Tensor]) -> None:
    """Continue backward from a chunk's features with their cached gradients, except through frozen parts."""
    names = [name for name in gradient if getattr(features, name).requires_grad]
    if names:
        # All at once: embeddings and their transforms share a graph, which a second pass would find freed.
        torch.autograd.backward([getattr(features, name) for name in names], [gradient[name] for name in names])
