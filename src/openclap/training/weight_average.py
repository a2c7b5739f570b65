"""An exponential moving average of the weights, which is validated and saved in their place.

After step t the average a becomes d·a + (1 − d)·w, with d = min(`decay`, (1 + t) / (10 + t)): the first steps forget
the initial weights fast (as TensorFlow's ExponentialMovingAverage with num_updates).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class WeightAverage:
    """The average of the tensors that an optimizer updates, and of the running statistics of the model's batch norms.

    `accelerate` saves and restores it with a checkpoint (`state_dict`, `load_state_dict`).
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, decay: float) -> None:
        self.decay, self.steps = decay, 0
        norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
        statistics = [each for norm in norms for each in (norm.running_mean, norm.running_var) if each is not None]
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self.tensors: list[Tensor] = [parameter.detach() for parameter in parameters] + statistics
        self.averages = [tensor.clone() for tensor in self.tensors]

    @torch.no_grad()
    def update(self) -> None:
        """Add the weights after a step."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self.averages, self.tensors, 1 - decay)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Put the averages into the model, and the trained weights back afterwards."""
        trained = [tensor.clone() for tensor in self.tensors]
        self._fill(self.averages)
        try:
            yield
        finally:
            self._fill(trained)

    @torch.no_grad()
    def _fill(self, values: list[Tensor]) -> None:
        # In place: the network, its optimizer and the processes' wrapper hold these very tensors.
        for tensor, value in zip(self.tensors, values, strict=True):
            tensor.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "averages": self.averages}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        for average, value in zip(self.averages, state["averages"], strict=True):
            average.copy_(value)
