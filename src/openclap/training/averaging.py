"""Average the weights of a trained model with those that it started from (WiSE-FT: Wortsman et al. 2022,
arXiv:2109.01903): with few pairs, the mean of both keeps what the initial model knew."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class StartAverage:
    """The initial weights of a model, and their share in the mean.

    Running statistics of batch norms are averaged as well.
    """

    def __init__(self, model: nn.Module, share: float) -> None:
        self.model, self.share = model, share
        # Copies on their device: a run without this option holds none.
        self.start = {name: tensor.detach().clone() for name, tensor in self._tensors()}

    @contextmanager
    @torch.no_grad()
    def applied(self) -> Iterator[None]:
        """Give the model the mean weights, and afterwards the trained ones again, bit for bit."""
        trained = {name: tensor.detach().clone() for name, tensor in self._tensors()}
        for name, tensor in self._tensors():
            tensor.lerp_(self.start[name], self.share)
        try:
            yield
        finally:
            for name, tensor in self._tensors():
                tensor.copy_(trained[name])

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        return ((name, tensor) for name, tensor in self.model.state_dict().items() if tensor.is_floating_point())
