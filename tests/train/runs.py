"""What the tests of training share."""

from __future__ import annotations

from collections.abc import Callable

from openclap.train.config import TrainConfig

MakeConfig = Callable[..., TrainConfig]
