"""Model folders for sentence-transformers, whose `encode` then embeds text and audio.

    model = SentenceTransformer(folder, trust_remote_code=True)
    model.encode(["rain on a roof"]), model.encode(["rain.wav", {"array": wave, "sampling_rate": 44100}])

The folder is openclap's own with two more files that name the class below, so that openclap must be installed to load
it. The library requires `trust_remote_code` for every class of another package; no code is fetched.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from openclap.checkpoints import openclap_config
from openclap.checkpoints.checkpoint import build_network
from openclap.checkpoints.conversion_report import ConversionLosses
from openclap.checkpoints.destination import CheckpointKind, drafted
from openclap.checkpoints.hub import SENTENCE_TRANSFORMERS
from openclap.embedder import Embedder
from openclap.errors import CheckpointError, ConfigError, MissingTokenizerError, require
from openclap.interop import audio_inputs
from openclap.loading import load
from openclap.runtimes.torch import TorchRuntime
from openclap.text.tokenizer import Tokenizer
from openclap.types import TextBatch

if TYPE_CHECKING:
    from openclap.checkpoints.checkpoint import Checkpoint

require("sentence_transformers", "interop")

from sentence_transformers import SentenceTransformer  # noqa: E402
from sentence_transformers.base.modules import InputModule  # noqa: E402

TOLERANCE = 1e-5
"""Largest difference from an element of the Embedder's embeddings."""


class Clap(InputModule):  # type: ignore[misc]
    """The only module of such a model, from inputs to unit vectors. Models of several modules may begin with it."""

    def __init__(self, embedder: Embedder) -> None:
        super().__init__()
        self.embedder = embedder
        self.clap, self.logmel = embedder.clap, embedder.frontend.logmel
        self.max_seq_length = embedder.runtime.signature.context

    @property
    def modalities(self) -> list[str]:
        """The kinds of input of `encode`."""
        return ["text", "audio"]

    def get_embedding_dimension(self) -> int:
        """Return D."""
        return self.embedder.embedding_size

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any) -> dict[str, Any]:
        """Convert texts to ids and mask, audio to waveforms; a prompt is put before each text.

        Raises AudioError for audio that cannot be decoded or lacks its rate, and for a string that looks like the path
        of an audio file and names none; ConfigError for audio and text in one batch.
        """
        kinds = {_is_audio(entry) for entry in inputs}
        if len(kinds) > 1:
            raise ConfigError("Audio and text are mixed in one batch. Encode them in two calls.")
        if kinds == {True}:
            return {
                "waves": [
                    torch.from_numpy(self.embedder.read(audio_inputs.to_sound(_unwrap(sound)))) for sound in inputs
                ]
            }
        tokenizer = self.embedder.tokenizer
        assert isinstance(tokenizer, Tokenizer)  # in torch, as `embedder.clap` is
        tokens = tokenizer([(prompt or "") + _unwrap(text) for text in inputs])
        return {"input_ids": tokens.ids_BL, "attention_mask": tokens.mask_BL}

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Add `sentence_embedding`, (B, D) unit vectors, to the features. Gradients reach the weights."""
        return features | {"sentence_embedding": self._embed(features)}

    def _embed(self, features: dict[str, Any]) -> Tensor:
        if "waves" in features:
            return self.embedder.audio_tensor(features["waves"])
        return self.clap.encode_text(TextBatch(features["input_ids"], features["attention_mask"]))

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any) -> Clap:
        """Load from a folder, or a repository on the hub. Raises CheckpointError for anything but a model."""
        hub = {
            name: kwargs[name] for name in ("token", "cache_folder", "revision", "local_files_only") if name in kwargs
        }
        place = cls.load_dir_path(model_name_or_path, subfolder=subfolder, **hub)
        return cls(load(Path(place or model_name_or_path) / ("" if place else subfolder), device="cpu"))

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Write openclap's files into a folder in which the library has put its own."""
        # Saving refuses a folder with foreign files, which the library has written there already.
        with tempfile.TemporaryDirectory(dir=output_path) as scratch:
            self.embedder.save(Path(scratch) / "model")
            for file in (Path(scratch) / "model").iterdir():
                file.replace(Path(output_path) / file.name)


def _is_audio(entry: Any) -> bool:
    """Return whether an input is audio: no string, {"audio": …}, or a string that is a path.

    The library itself treats a string as audio only if it ends in one of five suffixes and names a file. A missing
    file, and a file of any other format, would be embedded as the words of its path.
    """
    if isinstance(entry, Mapping) and len(entry) == 1:
        return "text" not in entry
    return audio_inputs.is_path(entry) if isinstance(entry, str) else True


def _unwrap(entry: Any) -> Any:
    """Return the value of {"text": …} and {"audio": …}."""
    return next(iter(entry.values())) if isinstance(entry, Mapping) and len(entry) == 1 else entry


def write(checkpoint: Checkpoint, place: Path, tokenizer: Tokenizer | None) -> ConversionLosses:
    """Write the folder, but only if the library reads it back with equal embeddings.

    Raises CheckpointError where it does not, where `place` is anything else, and MissingTokenizerError without a
    tokenizer.
    """
    name = checkpoint.preset.name
    if tokenizer is None:
        raise MissingTokenizerError(f"{name}: sentence-transformers needs the tokenizer in the folder.")
    device = torch.device("cpu")
    runtime = TorchRuntime(
        build_network(checkpoint, name),
        checkpoint.preset,
        tokenizer,
        device=device,
        unused=checkpoint.unused,
        objective=checkpoint.objective,
    )
    embedder = Embedder(runtime)
    with drafted(place, KIND, lambda draft: _check(draft, embedder), [checkpoint.source]) as draft:
        model = SentenceTransformer(modules=[Clap(embedder)], device="cpu", similarity_fn_name="cosine")
        model.save(str(draft), create_model_card=False)
    return ConversionLosses()


def _check(draft: Path, embedder: Embedder) -> None:
    rate = embedder.frontend.sample_rate
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, int(1.5 * embedder.frontend.samples)).astype(np.float32)
    texts = ["rain on a tin roof", "dog"]
    model = SentenceTransformer(str(draft), device="cpu", trust_remote_code=True, local_files_only=True)
    audio = model.encode([{"array": wave, "sampling_rate": rate}]) - embedder.embed_audio([(wave, rate)])
    text = model.encode(texts) - embedder.embed_text(texts)
    largest = max(float(np.abs(difference).max()) for difference in (audio, text))
    if not largest <= TOLERANCE:  # written so that NaN fails too
        raise CheckpointError(
            f"{embedder.preset.name}: embeddings of the folder differ by {largest:.1e}, expected at most "
            f"{TOLERANCE:.0e}."
        )


def _is_folder(path: Path) -> bool:
    is_model = openclap_config.is_openclap_folder(path)
    return is_model and all((path / name).is_file() for name in SENTENCE_TRANSFORMERS)


KIND = CheckpointKind(
    "sentence-transformers folder of openclap",
    (*openclap_config.KIND.files, *SENTENCE_TRANSFORMERS),
    _is_folder,
)
