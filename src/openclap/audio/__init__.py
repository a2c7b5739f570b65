"""Audio: decode files and arrays to waveforms, and compute log-mel batches from waveforms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openclap.audio.io import decode

__all__ = ["decode"]


def __getattr__(name: str) -> Any:
    """Import `decode` when it is first used, so that importing this package does no work."""
    if name == "decode":
        from openclap.audio.io import decode

        return decode
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
