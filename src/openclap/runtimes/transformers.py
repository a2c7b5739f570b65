"""The runtime of models that transformers computes (`openclap.checkpoints.transformers_model`).

N items, D embedding, B clips or captions, L tokens.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from openclap.checkpoints import transformers_model
from openclap.errors import CheckpointError, ConfigError, MissingTokenizerError
from openclap.text.tokenizer import Tokenizer
from openclap.types import Precision, Signature

CPU_S, GPU_S = 20.0, 640.0
"""Seconds of sound in a batch."""


class TransformersRuntime:
    """A model of transformers. See `openclap.runtimes.Runtime` for the methods that every runtime has.

    transformers extracts the features of a clip, so that nothing differs from its own use but this: waveforms are cut
    to windows that the model reads, and embeddings are normalised.

    Attributes:
        network: transformers' model.
    """

    batches_waves = True

    def __init__(
        self,
        folder: Path,
        *,
        device: torch.device,
        precision: Precision,
        compile: bool,
        tokenizer: str | os.PathLike[str] | None = None,
    ) -> None:
        if precision == "int8" or compile:
            option = "compile" if compile else "precision 'int8'"
            raise ConfigError(f"{option} is for openclap's own networks, and transformers computes {folder.name}.")
        self._folder, self._model = folder, transformers_model.read(folder)
        self.network: nn.Module = self._model.network.to(device)
        self.precision: Precision = precision
        self.name = f"transformers {precision}"
        self._file = Path(tokenizer) if tokenizer else self._model.tokenizer
        self._tokenizer: Tokenizer | None = None

    @property
    def signature(self) -> Signature:
        """What the model reads and returns."""
        return self._model.signature

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    @property
    def logit_scale(self) -> float:
        """The factor of cosines before a softmax."""
        return self._model.family.scale(self.network)

    @property
    def has_tokenizer(self) -> bool:
        """Whether the folder has a tokenizer; none is fetched."""
        return self._file is not None

    @property
    def tokenizer(self) -> Tokenizer:
        """Read when text is first embedded. Raises CheckpointError when it is missing."""
        if self._tokenizer is None:
            if self._file is None:
                raise MissingTokenizerError(
                    f"{self._folder}: has no tokenizer.json, and text cannot be embedded without one."
                )
            self._tokenizer = Tokenizer.read(self._file, self.signature.context)
        return self._tokenizer

    def check_tokenizer(self) -> None:
        """Read the tokenizer. Raises CheckpointError where text could not be embedded later."""
        _ = self.tokenizer

    def embed_waves(self, waves: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """(N, D) unit vectors of mono waveforms at the model's rate."""
        vectors_ND = np.zeros((len(waves), self.signature.embedding_size), np.float32)
        for rows in self._batches([len(wave) for wave in waves]):
            vectors_ND[rows] = self._embed([waves[row] for row in rows])
        return vectors_ND

    def _batches(self, lengths: list[int]) -> Iterator[NDArray[np.int64]]:
        """The rows of each batch: clips of equal length, since padding changes embeddings.

        PE-AV's masks begin after its codec, whose convolutions read the padding next to the end of a clip
        (test_perception_encoders_read_their_padding).
        """
        seconds = CPU_S if self.device.type == "cpu" else GPU_S
        for length in dict.fromkeys(lengths):
            equal = np.flatnonzero(np.array(lengths) == length)
            most = max(1, int(seconds * self.signature.rate / length))
            yield from (equal[start : start + most] for start in range(0, len(equal), most))

    def _embed(self, waves: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        inputs = self._model.extractor(waves, sampling_rate=self.signature.rate, return_tensors="pt")
        with torch.inference_mode(), self._arithmetic():
            on_device = {name: tensor.to(self.device) for name, tensor in inputs.items()}
            return _unit(self._model.family.embed_audio(self.network, on_device))

    def embed_texts(self, texts: Sequence[str], batch_size: int) -> NDArray[np.float32]:
        """(N, D) unit vectors, in the order of `texts`."""
        vectors_ND = np.zeros((len(texts), self.signature.embedding_size), np.float32)
        for rows, tokens in self.tokenizer.batches(texts, batch_size):
            ids_BL, mask_BL = (torch.from_numpy(array).to(self.device) for array in tokens)
            with torch.inference_mode(), self._arithmetic():
                vectors_ND[rows] = _unit(self._model.family.embed_text(self.network, ids_BL, mask_BL))
        return vectors_ND

    def _arithmetic(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def weights_digest(self) -> str:
        """A SHA-256 of weights, configuration and feature extraction."""
        sha = hashlib.sha256(transformers_model.settings_of(self._model).encode())
        for name, tensor in sorted(self.network.state_dict().items()):
            sha.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
        return sha.hexdigest()

    def save(self, folder: Path) -> None:
        """Refuse: openclap has no format for it."""
        raise CheckpointError(f"{self._folder}: is a model of transformers, which openclap does not write. Copy it.")


def _unit(embeddings_BD: Tensor) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = F.normalize(embeddings_BD.float(), dim=-1).cpu().numpy()
    return unit
