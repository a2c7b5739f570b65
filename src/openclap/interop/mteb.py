"""Models in mteb (Enevoldsen et al. 2025, arXiv:2502.13595), whose audio part is MAEB.

    model = encoder("laion/clap-htsat-unfused")
    mteb.evaluate(model, mteb.get_task("ESC50_Zeroshot"))

Sounds of its data sets are decoded as everywhere in openclap: neither torchaudio nor torchcodec is needed. (mteb asks
for torchaudio where it builds a model that hears from a `ModelMeta`; hand it the encoder.)
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from openclap.audio.inputs import Sound
from openclap.embedder import Embedder, Vectors
from openclap.errors import AudioError, ConfigError, require
from openclap.interop import audio_inputs
from openclap.loading import load

require("mteb", "interop")

from mteb.models import ModelMeta  # noqa: E402
from mteb.models.abs_encoder import AbsEncoder  # noqa: E402


class Encoder(AbsEncoder):  # type: ignore[misc]
    """What mteb calls with batches of texts, of sounds, or of both, whose vectors are then added up and normalised.

    Args:
        model_name, revision, device: as mteb's loaders have them.
        source: what `openclap.load` reads; `model_name` without it. `revision` then tells results apart, and no more.
    """

    def __init__(
        self,
        model_name: str,
        revision: str | None = None,
        *,
        device: str | None = None,
        source: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.model: Embedder = load(source or model_name, device=device, revision=None if source else revision)

    def encode(self, inputs: Any, *, batch_size: int = 16, **kwargs: Any) -> Vectors:
        """(N, D) float32 unit vectors of mteb's loader, in its order. Raises AudioError for a sound that is none."""
        inputs = list(inputs) if iter(inputs) is inputs else inputs  # looked at more than once
        columns = _columns(inputs)
        parts = []
        if "text" in columns:
            texts = [text for batch in inputs for text in batch["text"]]
            parts.append(self.model.embed_text(texts, batch_size))
        if "audio" in columns:
            parts.append(self._heard(_sounds(inputs), batch_size))
        if not parts:
            raise ConfigError(f"The task gives {', '.join(sorted(columns)) or 'nothing'}, expected text or audio.")
        if len(parts) == 1:
            return parts[0]
        total: Vectors = parts[0] + parts[1]
        normed: Vectors = total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)
        return normed

    def _heard(self, sounds: Iterator[Sound], batch_size: int) -> Vectors:
        """As `Embedder.embed_audio`, without holding all sounds at once."""
        vectors = np.zeros((0, self.model.preset.embedding_size), np.float32)
        found = []
        for vector in self.model.embed_each(sounds, batch_size):
            if isinstance(vector, AudioError):
                raise vector
            found.append(vector)
        return np.stack(found) if found else vectors


def encoder(source: str | os.PathLike[str], *, name: str | None = None, device: str | None = None) -> Encoder:
    """A model for `mteb.evaluate`, whatever `openclap.load` reads.

    Args:
        name: "organization/model" for mteb's tables; without it, `source` where it looks like that and is no path,
            otherwise "openclap/" and the folder's or file's name.

    Its results are kept by mteb under the name and the digest of the weights.
    """
    path = Path(source).expanduser()
    name = name or (
        str(source) if str(source).count("/") == 1 and not path.exists() else f"openclap/{path.absolute().name}"
    )
    if name.count("/") != 1 or not all(name.split("/")):
        raise ConfigError(f"name is {name!r}, expected organization/model.")
    made = Encoder(name, device=device, source=str(source))
    made.mteb_model_meta = meta(made.model, name, str(source))
    return made


def meta(embedder: Embedder, name: str, source: str) -> ModelMeta:
    """What mteb wants to know. What a model was trained on, and its licence, no checkpoint says: they are left open."""
    weights = list(embedder.clap.parameters())
    return ModelMeta(
        loader=Encoder,
        loader_kwargs={"source": source},
        name=name,
        revision=embedder.digest(),
        release_date=None,
        languages=["eng-Latn"],
        n_parameters=sum(weight.numel() for weight in weights),
        memory_usage_mb=sum(weight.numel() * weight.element_size() for weight in weights) / 2**20,
        max_tokens=embedder.preset.text.context,
        embed_dim=embedder.preset.embedding_size,
        license=None,
        open_weights=True,
        public_training_code=None,
        public_training_data=None,
        framework=["PyTorch"],
        similarity_fn_name="cosine",
        use_instructions=False,
        training_datasets=None,
        modalities=["audio", "text"],
    )


def _columns(inputs: Any) -> set[str]:
    """What the loader's batches hold."""
    dataset: Any = getattr(inputs, "dataset", None)
    if hasattr(dataset, "column_names"):
        return set(dataset.column_names)
    first: Any = next(iter(inputs), None)
    return set(first) if isinstance(first, Mapping) else set()


def _sounds(inputs: Any) -> Iterator[Sound]:
    """Each sound of a loader: from the data set's own bytes or files where it has them, otherwise from its batches."""
    from datasets import Audio

    dataset: Any = getattr(inputs, "dataset", None)
    if isinstance(getattr(dataset, "features", {}).get("audio"), Audio):
        rows = dataset.select_columns(["audio"]).cast_column("audio", Audio(decode=False))
        return (audio_inputs.sound(row["audio"]) for row in rows)
    return (audio_inputs.sound(sound) for batch in inputs for sound in batch["audio"])
