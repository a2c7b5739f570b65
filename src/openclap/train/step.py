"""One optimisation step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openclap.models.loss import contrastive_loss
from openclap.types import PairBatch

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor, nn
    from torch.optim import Optimizer


def training_step(
    accelerator: Accelerator, model: nn.Module, optimizer: Optimizer, batch: PairBatch, clip_norm: float
) -> dict[str, float]:
    """Forward, backward, clip, update; the loss, the scale it was taken at and the gradient's norm."""
    audio_BD, text_BD, scale = model(batch.audio, batch.text)
    loss: Tensor = contrastive_loss(audio_BD[batch.owner_T], text_BD, scale)
    optimizer.zero_grad(set_to_none=True)
    accelerator.backward(loss)
    norm = accelerator.clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()
    return {"loss": loss.item(), "scale": scale.item(), "grad_norm": float(norm)}
