"""One optimisation step."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

from openclap.models.loss import contrastive_loss
from openclap.types import PairBatch

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor, nn
    from torch.optim import Optimizer


class TrainingStep:
    """Forward, backward, clip, update."""

    def __init__(self, accelerator: Accelerator, model: nn.Module, optimizer: Optimizer, *, clip_norm: float) -> None:
        self.accelerator, self.model, self.optimizer, self.clip_norm = accelerator, model, optimizer, clip_norm

    def __call__(self, batches: Sequence[PairBatch]) -> dict[str, float]:
        """Learn from the mean of the batches' losses; that, the scale it was taken at and the gradient's norm."""
        self.optimizer.zero_grad(set_to_none=True)
        losses: list[float] = []
        for number, batch in enumerate(batches, start=1):
            with nullcontext() if number == len(batches) else self.accelerator.no_sync(self.model):
                audio_BD, text_BD, scale = self.model(batch.audio, batch.text)
                loss: Tensor = contrastive_loss(audio_BD[batch.owner_T], text_BD, scale)
                self.accelerator.backward(loss / len(batches))
            losses.append(loss.item())
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        self.optimizer.step()
        return {"loss": sum(losses) / len(losses), "scale": scale.item(), "grad_norm": float(norm)}
