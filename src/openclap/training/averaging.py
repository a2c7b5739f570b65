"""Average the weights of a trained model with those that it started from (WiSE-FT: Wortsman et al. 2022,
arXiv:2109.01903): with few pairs, the mean of both keeps what the initial model knew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class StartAverage:
    """The initial weights of a model and of its objective, and their share in the mean.

    Running statistics of batch norms are averaged as well; so are SigLIP's bias, which belongs to the logit scale of
    the model, and the scale and bias of the frame loss.
    """

    def __init__(self, modules: Sequence[nn.Module], share: float) -> None:
        self.modules, self.share = modules, share
        # Copies on their device: a run without this option holds none.
        self.start = [tensor.detach().clone() for tensor in self._tensors()]

    @contextmanager
    @torch.no_grad()
    def applied(self) -> Iterator[None]:
        """Give the model the mean weights, and afterwards the trained ones again, bit for bit."""
        trained = [tensor.detach().clone() for tensor in self._tensors()]
        for tensor, start in zip(self._tensors(), self.start, strict=True):
            tensor.lerp_(start, self.share)
        try:
            yield
        finally:
            for tensor, value in zip(self._tensors(), trained, strict=True):
                tensor.copy_(value)

    def _tensors(self) -> Iterator[Tensor]:
        tensors = (tensor for module in self.modules for tensor in module.state_dict().values())
        return (tensor for tensor in tensors if tensor.is_floating_point())
