"""Near duplicates, as the command line asks for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openclap.audio.mono import Channels
    from openclap.data.near import Near


def near_by(threshold: float | None, model: str | None, channels: Channels) -> Near | None:
    """The search for near duplicates, with its model loaded, which reads `channels`; None where no threshold is given.

    Raises ConfigError for a threshold that is none, and for a model without one; CheckpointError as `openclap.load`.
    """
    from openclap.cli.using import Using
    from openclap.data.near import Near, check_threshold
    from openclap.errors import ConfigError

    if threshold is None:
        if model is not None:
            raise ConfigError("--model is for --near: say from which cosine on clips are too alike, such as 0.98.")
        return None
    check_threshold(threshold)
    embedder = Using(model=model, channels=channels).load()
    return Near(threshold, embedder.digest(), embedder.embed_each)
