"""Training steps of small models, shared by the tests of the step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from openclap import presets
from openclap.models.build import build_clap
from openclap.models.config import NaFlexConfig, ObjectiveConfig, PANNConfig
from openclap.models.objectives import build_objective
from openclap.training.optimizer import freeze
from openclap.training.step import TrainingStep
from openclap.types import AudioBatch, PairBatch, TextBatch
from support.features import CAPTIONS
from support.tiny_models import TINY_PRESET


@dataclass(frozen=True, slots=True)
class Case:
    """A training step: its objective, how it is computed, and the numbers of processes to test it on."""

    objective: ObjectiveConfig
    chunk: int = 0
    batches: int = 1
    frozen: tuple[str, ...] = ()
    fusion: bool = False
    naflex: bool = False
    worlds: tuple[int, ...] = (2, 3)

    def preset(self) -> presets.Preset:
        if self.naflex:
            return replace(TINY_PRESET, audio=TINY_NAFLEX)
        audio = PANNConfig(widths=(4, 8), pool="max", classes=3, fusion="aff_2d" if self.fusion else None)
        mlp = self.objective.kind == "mlp"
        return replace(TINY_PRESET, audio=audio, temperatures=1 + mlp, transforms=mlp)


TOWERS = ("audio_tower", "text_tower")
TINY_NAFLEX = NaFlexConfig(width=16, depth=2, heads=2, patch_freq=8, patch_time=4, n_mels=24, registers=1, gated=True)
PATCHES_AT_A_TIME = 40
"""Two or three groups of the clips of `make_batch`."""
CASES = {
    "whole": Case(ObjectiveConfig(spare_equal_captions=True), worlds=(2, 3, 4)),
    "chunks": Case(ObjectiveConfig(), chunk=1, worlds=(2, 3, 4)),
    "mlp": Case(ObjectiveConfig("mlp", kappa=1.0)),
    "mlp in chunks": Case(ObjectiveConfig("mlp"), chunk=2),
    "siglip": Case(ObjectiveConfig("siglip", initial_scale=10.0)),
    "siglip in chunks": Case(ObjectiveConfig("siglip"), chunk=2),
    "two batches": Case(ObjectiveConfig(), batches=2),
    "two batches in chunks": Case(ObjectiveConfig("siglip"), batches=2, chunk=2),
    "frozen towers in chunks": Case(ObjectiveConfig(), chunk=2, frozen=TOWERS),
    "scale alone in chunks": Case(ObjectiveConfig(), chunk=1, frozen=(*TOWERS, "audio_head", "text_head")),
    "fusion": Case(ObjectiveConfig(), fusion=True),
    "fusion in chunks": Case(ObjectiveConfig(), chunk=1, fusion=True),
    "naflex": Case(ObjectiveConfig(), naflex=True, worlds=(2, 4)),
    "naflex, siglip in chunks": Case(ObjectiveConfig("siglip"), chunk=2, naflex=True, worlds=(2, 4)),
}
"""With fusion, only some processes and chunks have long clips, so parts of the tower are not always used. NaFlex cases
have clips of different lengths, in groups by length."""


def make_batch(
    seed: int = 0, captions: tuple[int, ...] = CAPTIONS, *, long: bool = False, own_length: bool = False
) -> PairBatch:
    """Build random clips with these numbers of captions; with `long`, two of them are long; with `own_length`, each
    clip has another number of frames."""
    generator = torch.Generator().manual_seed(seed)
    total, clips = sum(captions), len(captions)
    is_long_B = torch.zeros(clips, dtype=torch.bool)
    if long:
        is_long_B[1:3] = True
    frames_B = 3 + 29 * torch.arange(clips) // max(1, clips - 1) if own_length else None
    ids_BL = torch.randint(4, 30, (total, 6), generator=generator)
    mask_BL = (torch.arange(6) < torch.randint(3, 7, (total, 1), generator=generator)).long()
    return PairBatch(
        AudioBatch(
            torch.rand(clips, 4 if long else 1, 32, 24, generator=generator, dtype=torch.float64), is_long_B, frames_B
        ),
        TextBatch(ids_BL * mask_BL, mask_BL),
        torch.repeat_interleave(torch.arange(clips), torch.tensor(captions, dtype=torch.long)),
        torch.randint(4, (total,), generator=generator),
        tuple(str(clip) for clip in range(clips)),
    )


def part_of(batch: PairBatch, clips: list[int], rank: int) -> PairBatch:
    """Select the part of process `rank` in a batch with these numbers of clips on the processes."""
    first, last = sum(clips[:rank]), sum(clips[: rank + 1])
    mine_T = (batch.owner_T >= first) & (batch.owner_T < last)
    frames_B = None if batch.audio.frames_B is None else batch.audio.frames_B[first:last]
    audio = AudioBatch(batch.audio.mel_BVTF[first:last], batch.audio.is_long_B[first:last], frames_B)
    text = TextBatch(batch.text.ids_BL[mine_T], batch.text.mask_BL[mine_T])
    return PairBatch(audio, text, batch.owner_T[mine_T] - first, batch.caption_id_T[mine_T], batch.keys[first:last])


def step_results(
    case: Case, batches: list[PairBatch], *, training: bool = False, scaler: torch.amp.GradScaler | None = None
) -> dict[str, Any]:
    """Take one step in float64 with a learning rate of 0; return its report, the gradients and the model's buffers.

    Batch norm is frozen and dropout off unless `training`.
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs

    torch.manual_seed(0)
    model = build_clap(case.preset()).double().train(training)
    freeze(model, case.frozen)
    if case.naflex:
        model.audio_tower.group_by_length(PATCHES_AT_A_TIME)  # type: ignore[operator]
    objective = build_objective(case.objective, model).double()
    parameters = [p for module in (model, objective) for p in module.parameters() if p.requires_grad]
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    accelerator = Accelerator(cpu=True, kwargs_handlers=[unused])
    accelerator.scaler = scaler
    wrapped, optimizer = accelerator.prepare(model, torch.optim.SGD(parameters, lr=0.0))
    torch.manual_seed(1)
    step = TrainingStep(accelerator, wrapped, objective, optimizer, clip_norm=1e9, chunk=case.chunk)
    for _ in range(2):  # twice: data-parallel training reports missing gradients of the first step in the second
        report = step(batches)
    return {
        "report": report,
        "gradients": gradients_of(model) | gradients_of(objective),
        "buffers": {name: buffer.clone() for name, buffer in model.named_buffers()},
    }


def gradients_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
