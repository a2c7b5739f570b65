"""Sounds and strings to unit vectors.

N items, D embedding, C labels, S samples of a waveform.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from openclap.audio.clips import window_starts
from openclap.audio.frontend import FrontEnd
from openclap.audio.io import Source, Wave, name_of, read_mono, resample, to_mono
from openclap.checkpoints import folder as model_folder
from openclap.checkpoints import starts
from openclap.errors import AudioError, CheckpointError, ConfigError
from openclap.text.prompts import SOUND, prompts
from openclap.text.tokenizer import Tokenizer
from openclap.types import TextBatch, Window

if TYPE_CHECKING:
    from openclap.models.clap import CLAP
    from openclap.presets import Preset

Vectors = NDArray[np.float32]
W = TypeVar("W", Wave, Tensor)
Sound = Source | tuple[NDArray[Any], int]
"""A file, its bytes, an open file, or (waveform (S,) or (S, channels), rate in Hz)."""


def load(
    source: str | os.PathLike[str],
    *,
    device: str | torch.device | None = None,
    precision: str = "fp32",
    tokenizer: str | os.PathLike[str] | None = None,
    preset: Preset | None = None,
) -> Embedder:
    """A model from a folder that openclap wrote, or from a start by name ("demo-start").

    Args:
        device: "cpu", "cuda", …; without it, a GPU when there is one.
        precision: "fp32".
        tokenizer: a `tokenizer.json` to use in place of the folder's.
        preset: takes the stored preset's place.

    Raises CheckpointError when there is no such model or it is damaged, ConfigError for a choice that cannot be.
    """
    if precision != "fp32":
        raise ConfigError(f"precision is {precision!r}, expected 'fp32'.")
    path = starts.start(str(source)) if source in starts.STARTS else Path(source).expanduser()
    if not path.is_dir():
        raise CheckpointError(
            f"{source}: no such model. Expected a folder written by openclap, or one of: {', '.join(starts.STARTS)}."
        )
    where = _device(device)
    clap, found, words = model_folder.read(path, preset)
    return Embedder(clap, found, Path(tokenizer) if tokenizer else words, device=where)


class Embedder:
    """Embeds deterministically: in fp32 a clip's vector does not depend on its batch (within 1e-5).

    A clip longer than the model's input is covered by windows end to end, the last one anchored at the clip's
    end; their unit vectors are averaged and normalised again.

    Attributes:
        clap, frontend, preset: the networks, the front end, and what both were built from.
    """

    def __init__(
        self,
        clap: CLAP,
        preset: Preset,
        tokenizer: Tokenizer | Path,
        *,
        device: torch.device | None = None,
    ) -> None:
        self.device = device or _device(None)
        self.clap = clap.eval().to(self.device)
        self.preset = preset
        self.frontend = FrontEnd(preset.frontend).to(self.device)
        self._tokenizer = tokenizer

    @property
    def tokenizer(self) -> Tokenizer:
        """Read when text is first embedded. Raises CheckpointError when its file is missing."""
        if isinstance(self._tokenizer, Path):
            self._tokenizer = Tokenizer.read(self._tokenizer, self.preset.text.context)
        return self._tokenizer

    @property
    def clip_policy(self) -> str:
        """What becomes of clips that are longer than the model's input, for a protocol to state."""
        return (
            f"Windows of {self.window_s:.2f} s end to end, the last one anchored at the clip's end; the mean of their "
            "unit vectors, normalised."
        )

    @property
    def window_s(self) -> float:
        """Seconds of sound that the model reads at once."""
        return self.frontend.samples / self.frontend.sample_rate

    def embed_audio(self, sounds: Sequence[Sound], batch_size: int = 16) -> Vectors:
        """(N, D) float32 unit vectors, in the order of `sounds`.

        Raises AudioError for a sound that cannot be decoded or is no waveform, naming it.
        """
        _check_batch(batch_size)
        sums_ND = np.zeros((len(sounds), self.preset.embedding_size), np.float32)
        queue: list[tuple[int, Wave]] = []
        for owner, sound in enumerate(sounds):
            queue += [(owner, piece) for piece in self._pieces(self.read(sound))]
            while len(queue) >= batch_size:
                self._add(queue[:batch_size], sums_ND)
                queue = queue[batch_size:]
        self._add(queue, sums_ND)
        for sound in (sounds[owner] for owner in np.flatnonzero(~np.isfinite(sums_ND).all(axis=1)).tolist()):
            name = "A waveform" if isinstance(sound, tuple) else name_of(sound)
            raise AudioError(f"{name}: gives no finite vector. Are its samples far beyond -1..1?")
        return _unit(sums_ND)

    def embed_text(self, texts: Sequence[str], batch_size: int = 64) -> Vectors:
        """(N, D) float32 unit vectors, in the order of `texts`."""
        _check_batch(batch_size)
        _check_strings(texts, "texts")
        batches = [texts[start : start + batch_size] for start in range(0, len(texts), batch_size)]
        with torch.inference_mode():
            vectors = [self._encode_text(self.tokenizer(batch)).cpu().numpy() for batch in batches]
        return np.concatenate(vectors) if vectors else np.zeros((0, self.preset.embedding_size), np.float32)

    def classify(self, sounds: Sequence[Sound], labels: Sequence[str], template: str = SOUND) -> Vectors:
        """(N, C) probabilities: softmax over labels of the scaled cosine between sound and `template` with label."""
        _check_strings(labels, "labels")
        text_CD = self.embed_text(prompts(labels, template))
        logits_NC = torch.from_numpy(self.embed_audio(sounds) @ text_CD.T) * self.clap.scale.detach().cpu()
        probabilities: Vectors = logits_NC.softmax(dim=-1).numpy()
        return probabilities

    def windows(self, sound: Sound, length_s: float | None = None, hop_s: float | None = None) -> list[Window]:
        """A recording as overlapping or touching stretches, each with its unit vector.

        Args:
            length_s: seconds of each window; the model's input length without it. A window longer than the
                model's input is averaged as `embed_audio` does.
            hop_s: seconds from start to start; `length_s` without it. The last window ends at the end.
        """
        rate = self.frontend.sample_rate
        wave = self.read(sound)
        if not all(value is None or 1 / rate <= value < np.inf for value in (length_s, hop_s)):
            raise ConfigError(f"length_s={length_s} and hop_s={hop_s} must both be longer than one sample.")
        length = self.frontend.samples if length_s is None else round(length_s * rate)
        hop = length if hop_s is None else round(hop_s * rate)
        starts_ = window_starts(len(wave), length, hop)
        ends = [min(start + length, len(wave)) for start in starts_]
        vectors = self.embed_audio([(wave[start:end], rate) for start, end in zip(starts_, ends, strict=True)])
        return [
            Window(start / rate, end / rate, vector) for start, end, vector in zip(starts_, ends, vectors, strict=True)
        ]

    def windows_of(self, sounds: Sequence[Sound]) -> list[list[Window] | AudioError]:
        """For each sound its windows, or the error that says why it has none; one bad sound stops no other."""
        results: list[list[Window] | AudioError] = []
        for sound in sounds:
            try:
                results.append(self.windows(sound))
            except AudioError as error:
                results.append(error)
        return results

    def audio_tensor(self, waves: Sequence[Tensor]) -> Tensor:
        """(N, D) unit vectors with gradients to the waveforms: mono float tensors (S,) at the model's rate, of any
        length. The vectors are those of `embed_audio`."""
        if any(wave.ndim != 1 or len(wave) == 0 for wave in waves):
            raise ConfigError(f"audio_tensor takes mono waveforms (samples,) at {self.frontend.sample_rate} Hz.")
        pieces = [(owner, piece) for owner, wave in enumerate(waves) for piece in self._pieces(wave)]
        vectors = self._encode_audio([piece.to(self.device) for _, piece in pieces])
        owners = torch.tensor([owner for owner, _ in pieces], device=self.device)
        sums_ND = torch.zeros(len(waves), vectors.shape[1], device=self.device).index_add(0, owners, vectors)
        return F.normalize(sums_ND, dim=-1)

    def text_tensor(self, ids_NL: Tensor, mask_NL: Tensor | None = None) -> Tensor:
        """(N, D) unit vectors with gradients to the weights; without a mask every token counts."""
        mask_NL = torch.ones_like(ids_NL) if mask_NL is None else mask_NL
        return self._encode_text(TextBatch(ids_NL, mask_NL))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write a folder that `load` reads back: config.json, model.safetensors, tokenizer.json."""
        model_folder.save(Path(folder), self.clap, self.preset, self.tokenizer)

    def digest(self) -> str:
        """A SHA-256 of weights and preset: what vectors of one model have in common."""
        sha = hashlib.sha256(repr(self.preset).encode())
        for name, tensor in sorted(self.clap.state_dict().items()):
            sha.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        return sha.hexdigest()

    def read(self, sound: Sound) -> Wave:
        """Any sound as (S,) mono float32 at the model's rate. Raises AudioError."""
        rate = self.frontend.sample_rate
        if isinstance(sound, np.ndarray):
            raise AudioError("A waveform without its rate was given, expected (waveform, rate in Hz).")
        if isinstance(sound, tuple):
            return resample(_checked(*sound), int(sound[1]), rate)
        return read_mono(sound, rate)

    def _pieces(self, wave: W) -> Iterator[W]:
        samples = self.frontend.samples
        for start in window_starts(len(wave), samples, samples):
            yield wave[start : start + samples]

    def _add(self, queue: list[tuple[int, Wave]], sums_ND: Vectors) -> None:
        if queue:
            with torch.inference_mode():
                vectors = self._encode_audio([torch.from_numpy(wave).to(self.device) for _, wave in queue])
            np.add.at(sums_ND, [owner for owner, _ in queue], vectors.cpu().numpy())

    def _encode_audio(self, waves: Sequence[Tensor]) -> Tensor:
        return self.clap.encode_audio(self.frontend(waves))

    def _encode_text(self, batch: TextBatch) -> Tensor:
        return self.clap.encode_text(batch.to(self.device))


def _device(name: str | torch.device | None) -> torch.device:
    """The device of that name, a GPU where there is one without it. Raises ConfigError when it cannot be used."""
    try:
        return torch.empty(0, device=name or ("cuda" if torch.cuda.is_available() else "cpu")).device
    except (RuntimeError, AssertionError):
        raise ConfigError(f"device is {str(name)!r}, which this machine's torch cannot use. Expected: cpu.") from None


def _check_batch(batch_size: int) -> None:
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}, expected 1 or more.")


def _check_strings(texts: Sequence[str], what: str) -> None:
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise ConfigError(f"{what} must be a list of strings; wrap one string in [ ].")


def _checked(wave: NDArray[Any], rate: int) -> Wave:
    """A waveform from a caller: mono float32; integers are scaled to -1..1 by their type."""
    array = np.asarray(wave)
    if rate < 1 or array.ndim not in (1, 2) or array.size == 0:
        raise AudioError(
            f"A waveform of shape {array.shape} at {rate} Hz was given, expected (samples,) or (samples, channels)."
        )
    if array.ndim == 2 and array.shape[1] > array.shape[0]:
        raise AudioError(f"A waveform of shape {array.shape} was given, expected (samples, channels): transpose it.")
    if np.issubdtype(array.dtype, np.integer):
        half = (int(np.iinfo(array.dtype).max) - int(np.iinfo(array.dtype).min) + 1) / 2
        array = (array.astype(np.float64) - (half if array.dtype.kind == "u" else 0.0)) / half
    elif not np.issubdtype(array.dtype, np.floating):
        raise AudioError(f"A waveform of {array.dtype} was given, expected floating-point or integer samples.")
    mono = to_mono(array.astype(np.float32, copy=False))
    if not np.isfinite(mono).all():
        raise AudioError("A waveform with NaN or infinite samples was given.")
    return mono


def _unit(sums_ND: Vectors) -> Vectors:
    norms_N1 = np.linalg.norm(sums_ND, axis=1, keepdims=True)
    unit: Vectors = sums_ND / np.maximum(norms_N1, 1e-12)
    return unit
