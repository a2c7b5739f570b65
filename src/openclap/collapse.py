"""Detect towers that embed everything alike, as untrained weights and damaged conversions do.

N items, D embedding.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from openclap.errors import CheckpointWarning

if TYPE_CHECKING:
    from openclap.embedder import Embedder

TEXTS = ("dog", "piano", "rain", "engine")
"""Words, because the text tower reads them before the first text of a user: they take a few milliseconds."""
LIMIT = 0.99
"""Mean cosine between unlike inputs from which a tower counts as collapsed. Trained models are far below (the bundled
one has 0.03 for these texts and 0.32 for these sounds); fresh weights often have 0.999 and more."""


def warn_of_collapsed_text(embedder: Embedder) -> None:
    """Warn with CheckpointWarning if `TEXTS` have a mean cosine above `LIMIT`."""
    _warn(embedder, embedder.runtime.embed_texts(TEXTS, len(TEXTS)), "texts", "searches by text are meaningless")


def warn_of_collapsed_audio(embedder: Embedder) -> None:
    """Warn with CheckpointWarning if four synthetic sounds have a mean cosine above `LIMIT`."""
    sounds = synthetic_sounds(embedder.sample_rate, min(embedder.sample_rate, embedder.input_samples))
    _warn(embedder, embedder.runtime.embed_waves(sounds), "sounds", "all searches are meaningless")


def synthetic_sounds(rate: int, samples: int) -> list[NDArray[np.float32]]:
    """Noise, a tone, clicks, and a beating low tone, at `rate` Hz."""
    time_S = np.arange(samples) / rate
    noise_S = 0.1 * np.random.default_rng(0).standard_normal(samples)
    tone_S = 0.3 * np.sin(2 * np.pi * 440 * time_S)
    clicks_S = np.where(np.arange(samples) % (rate // 8) == 0, 0.9, 0.0)
    beating_S = 0.3 * np.sin(2 * np.pi * 80 * time_S) * np.sin(2 * np.pi * 3 * time_S) ** 2
    return [wave_S.astype(np.float32) for wave_S in (noise_S, tone_S, clicks_S, beating_S)]


def mean_cosine(vectors_ND: NDArray[np.float32]) -> float:
    """The mean cosine between different rows, which are unit vectors."""
    count = len(vectors_ND)
    whole = vectors_ND.astype(np.float64).sum(axis=0)
    return float((whole @ whole - count) / (count * (count - 1)))


def _warn(embedder: Embedder, vectors_ND: NDArray[np.float32], what: str, consequence: str) -> None:
    cosine = mean_cosine(vectors_ND)
    if cosine > LIMIT:  # NaN is reported by the embedder itself
        warnings.warn(
            f"{embedder.runtime.signature.name}: unlike {what} are embedded almost alike (mean cosine {cosine:.4f} "
            f"between {len(vectors_ND)} of them, expected below {LIMIT}), so {consequence}: is the model untrained, or "
            "damaged by a conversion?",
            CheckpointWarning,
            stacklevel=4,
        )
