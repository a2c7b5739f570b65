"""Near duplicates, as the command line asks for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openclap.audio.mono import Channels
    from openclap.data.near_duplicates import Near


def near_by(threshold: float | None, model: str | None) -> Callable[[Channels], Near] | None:
    """A function from the channel that the set reads to the search for near duplicates, whose model is loaded now; None
    where no threshold is given.

    Raises ConfigError for a threshold that is none, and for a model without one; CheckpointError as `openclap.load`.
    """
    from openclap.audio.mono import MonoConfig
    from openclap.cli.model_options import ModelOptions
    from openclap.data.near_duplicates import Near, check_threshold
    from openclap.errors import ConfigError

    if threshold is None:
        if model is not None:
            raise ConfigError("--model is for --near: say from which cosine on clips are too alike, such as 0.98.")
        return None
    check_threshold(threshold)
    embedder = ModelOptions(model=model).load()

    def near(channels: Channels) -> Near:
        embedder.mono = MonoConfig(channels)
        return Near(threshold, embedder.digest(), embedder.embed_each)

    return near
