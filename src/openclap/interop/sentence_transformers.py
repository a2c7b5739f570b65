"""Model folders for sentence-transformers: texts and sounds by one `encode`.

    model = SentenceTransformer(folder, trust_remote_code=True)
    model.encode(["rain on a roof"]), model.encode(["rain.wav", {"array": wave, "sampling_rate": 44100}])

The folder is openclap's own with two more files, which name the class below, and openclap must be installed where it is
loaded. The library wants `trust_remote_code` for every class that is not its own; nothing is fetched by it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from openclap.checkpoints import openclap_folder
from openclap.checkpoints.checkpoint import build_network
from openclap.checkpoints.conversion_report import ConversionLosses
from openclap.checkpoints.destination import CheckpointKind, drafted
from openclap.checkpoints.hub import SENTENCE_TRANSFORMERS
from openclap.embedder import Embedder, load
from openclap.errors import CheckpointError, ConfigError, MissingTokenizerError, require
from openclap.interop import audio_inputs
from openclap.types import TextBatch

if TYPE_CHECKING:
    from openclap.checkpoints.checkpoint import Checkpoint
    from openclap.text.tokenizer import Tokenizer

require("sentence_transformers", "interop")

from sentence_transformers import SentenceTransformer  # noqa: E402
from sentence_transformers.base.modules import InputModule  # noqa: E402

TOLERANCE = 1e-5
"""How far a number of a vector may be from the Embedder's."""


class Clap(InputModule):  # type: ignore[misc]
    """The one module of such a model: it reads, and gives unit vectors. Models of several modules may begin with it."""

    def __init__(self, embedder: Embedder) -> None:
        super().__init__()
        self.embedder = embedder
        self.clap, self.logmel = embedder.clap, embedder.frontend.logmel
        self.max_seq_length = embedder.preset.text.context

    @property
    def modalities(self) -> list[str]:
        """What goes into `encode`."""
        return ["text", "audio"]

    def get_embedding_dimension(self) -> int:
        """D."""
        return self.embedder.preset.embedding_size

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any) -> dict[str, Any]:
        """Texts to ids and mask, sounds to waveforms; a prompt goes before each text.

        Raises AudioError for a sound that cannot be decoded or comes without its rate, and for a string that looks
        like the path of a sound and names no file; ConfigError for sounds and texts in one batch.
        """
        kinds = {_is_sound(entry) for entry in inputs}
        if len(kinds) > 1:
            raise ConfigError("Sounds and texts are mixed in one batch. Encode them in two calls.")
        if kinds == {True}:
            return {
                "waves": [torch.from_numpy(self.embedder.read(audio_inputs.sound(_alone(sound)))) for sound in inputs]
            }
        tokens = self.embedder.tokenizer([(prompt or "") + _alone(text) for text in inputs])
        return {"input_ids": tokens.ids_BL, "attention_mask": tokens.mask_BL}

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """The features with `sentence_embedding`, (B, D) unit vectors. Gradients reach the weights."""
        return features | {"sentence_embedding": self._vectors(features)}

    def _vectors(self, features: dict[str, Any]) -> Tensor:
        if "waves" in features:
            return self.embedder.audio_tensor(features["waves"])
        return self.clap.encode_text(TextBatch(features["input_ids"], features["attention_mask"]))

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Clap:
        """Where the weights are moved, by `to` and the like, sounds go too."""
        super()._apply(fn, recurse)
        self.embedder.device = self.logmel.window.device
        return self

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any) -> Clap:
        """From a folder, or a repository on the hub. Raises CheckpointError for what is no model."""
        hub = {
            name: kwargs[name] for name in ("token", "cache_folder", "revision", "local_files_only") if name in kwargs
        }
        place = cls.load_dir_path(model_name_or_path, subfolder=subfolder, **hub)
        return cls(load(Path(place or model_name_or_path) / ("" if place else subfolder), device="cpu"))

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """openclap's own files, into a folder where the library has put its own."""
        with tempfile.TemporaryDirectory(dir=output_path) as scratch:
            self.embedder.save(Path(scratch) / "model")
            for file in (Path(scratch) / "model").iterdir():
                file.replace(Path(output_path) / file.name)


def _is_sound(entry: Any) -> bool:
    """Sounds are entries that are no string, {"audio": …}, and strings that are paths.

    The library itself takes a string for a sound only where it ends in one of five suffixes and names a file: a missing
    file, and a file in any other format, would be embedded as the words of its path.
    """
    if isinstance(entry, Mapping) and len(entry) == 1:
        return "text" not in entry
    return audio_inputs.is_path(entry) if isinstance(entry, str) else True


def _alone(entry: Any) -> Any:
    """{"text": …} and {"audio": …} are what they hold."""
    return next(iter(entry.values())) if isinstance(entry, Mapping) and len(entry) == 1 else entry


def write(checkpoint: Checkpoint, place: Path, tokenizer: Tokenizer | None) -> ConversionLosses:
    """The folder, whole, and only when the library reads it back to the same vectors.

    Raises CheckpointError where it does not, where there is no tokenizer, or where `place` is something else.
    """
    name = checkpoint.preset.name
    if tokenizer is None:
        raise MissingTokenizerError(f"{name}: sentence-transformers needs the tokenizer in the folder.")
    device = torch.device("cpu")
    embedder = Embedder(
        build_network(checkpoint, name),
        checkpoint.preset,
        tokenizer,
        device=device,
        unused=checkpoint.unused,
        objective=checkpoint.objective,
    )
    with drafted(place, KIND, lambda draft: _check(draft, embedder), [checkpoint.source]) as draft:
        model = SentenceTransformer(modules=[Clap(embedder)], device="cpu", similarity_fn_name="cosine")
        model.save(str(draft), create_model_card=False)
    return ConversionLosses()


def _check(draft: Path, embedder: Embedder) -> None:
    rate = embedder.frontend.sample_rate
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, int(1.5 * embedder.frontend.samples)).astype(np.float32)
    texts = ["rain on a tin roof", "dog"]
    model = SentenceTransformer(str(draft), device="cpu", trust_remote_code=True, local_files_only=True)
    heard = model.encode([{"array": wave, "sampling_rate": rate}]) - embedder.embed_audio([(wave, rate)])
    furthest = max(float(np.abs(part).max()) for part in (heard, model.encode(texts) - embedder.embed_text(texts)))
    if not furthest <= TOLERANCE:
        raise CheckpointError(
            f"{embedder.preset.name}: vectors of the folder differ by {furthest:.1e}, expected at most {TOLERANCE:.0e}."
        )


def _is_folder(path: Path) -> bool:
    is_model = openclap_folder.is_openclap_folder(path)
    return is_model and all((path / name).is_file() for name in SENTENCE_TRANSFORMERS)


KIND = CheckpointKind(
    "sentence-transformers folder of openclap",
    (*openclap_folder.KIND.files, *SENTENCE_TRANSFORMERS),
    _is_folder,
)
