"""Evaluate models with mteb (Enevoldsen et al. 2025, arXiv:2502.13595), whose audio tasks are MAEB.

    model = encoder("laion/clap-htsat-unfused")
    mteb.evaluate(model, mteb.get_task("ESC50_Zeroshot"))

Audio is decoded by openclap, so torchaudio is not needed. (mteb requires it where it builds an audio model from a
`ModelMeta`; pass it the encoder instead.) torchcodec is needed for retrieval and reranking, of which mteb decodes rows
while it loads them.
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
    """The encoder that mteb calls with texts, audio, or both, whose embeddings are then added and normalised.

    Args:
        model_name, revision, device: as in mteb's loaders.
        source: the argument of `openclap.load`; the default is `model_name`. With it, `revision` only labels results.
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
        """Embed the inputs of mteb's loader as (N, D) float32 unit vectors, in order.

        Raises AudioError for audio that cannot be decoded.
        """
        inputs = list(inputs) if iter(inputs) is inputs else inputs  # an iterator could be read only once
        columns = _columns(inputs)
        parts = []
        if "text" in columns:
            texts = [text for batch in inputs for text in batch["text"]]
            parts.append(self.model.embed_text(texts, batch_size))
        if "audio" in columns:
            parts.append(self._embed_audio(_sounds(inputs), batch_size))
        if not parts:
            raise ConfigError(f"The task has {', '.join(sorted(columns)) or 'no inputs'}, expected text or audio.")
        if len(parts) == 1:
            return parts[0]
        total: Vectors = parts[0] + parts[1]
        normed: Vectors = total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)
        return normed

    def _embed_audio(self, sounds: Iterator[Sound], batch_size: int) -> Vectors:
        """Embed audio as `Embedder.embed_audio` does, without holding a data set of waveforms in memory."""
        embeddings = []
        for embedding in self.model.embed_each(sounds, batch_size):
            if isinstance(embedding, AudioError):
                raise embedding
            embeddings.append(embedding)
        return np.stack(embeddings) if embeddings else np.zeros((0, self.model.embedding_size), np.float32)


def encoder(source: str | os.PathLike[str], *, name: str | None = None, device: str | None = None) -> Encoder:
    """Load a model that `openclap.load` reads, for `mteb.evaluate`.

    mteb stores results under the name and the digest of the weights.

    Args:
        name: "organization/model" for mteb's tables; the default is `source` if it has this form and is no path,
            otherwise "openclap/" and the name of the folder or file.
    """
    path = Path(source).expanduser()
    name = name or (
        str(source) if str(source).count("/") == 1 and not path.exists() else f"openclap/{path.absolute().name}"
    )
    if name.count("/") != 1 or not all(name.split("/")):
        raise ConfigError(f"name is {name!r}, expected organization/model.")
    loaded = Encoder(name, device=device, source=str(source))
    loaded.mteb_model_meta = model_meta(loaded.model, name, str(source))
    return loaded


def model_meta(embedder: Embedder, name: str, source: str) -> ModelMeta:
    """Return mteb's description of the model. Licence and training data are left open: no checkpoint states them."""
    weights = list(embedder.network.parameters())
    return ModelMeta(
        loader=Encoder,
        loader_kwargs={"source": source},
        name=name,
        revision=embedder.digest(),
        release_date=None,
        languages=["eng-Latn"],
        n_parameters=sum(weight.numel() for weight in weights),
        memory_usage_mb=sum(weight.numel() * weight.element_size() for weight in weights) / 2**20,
        max_tokens=embedder.runtime.signature.context,
        embed_dim=embedder.embedding_size,
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
    """Return the names of the columns in the loader's batches."""
    dataset: Any = getattr(inputs, "dataset", None)
    if hasattr(dataset, "column_names"):
        return set(dataset.column_names)
    first: Any = next(iter(inputs), None)
    return set(first) if isinstance(first, Mapping) else set()


def _sounds(inputs: Any) -> Iterator[Sound]:
    """Yield the audio of a loader: undecoded from the data set where it has files or bytes, otherwise from the
    batches."""
    from datasets import Audio

    dataset: Any = getattr(inputs, "dataset", None)
    # decode=False: datasets would decode with torchcodec.
    if isinstance(getattr(dataset, "features", {}).get("audio"), Audio):
        rows = dataset.select_columns(["audio"]).cast_column("audio", Audio(decode=False))
        return (audio_inputs.to_sound(row["audio"]) for row in rows)
    return (audio_inputs.to_sound(sound) for batch in inputs for sound in batch["audio"])
