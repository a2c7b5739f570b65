"""The torch runtime: front end, CLAP networks and tokenizer of any checkpoint, on a device in a precision.

N items, D embedding, S samples of a waveform.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from openclap.arrays import batches_by_length
from openclap.audio.frontend import FrontEnd
from openclap.audio.mono import SILENCE, is_silent
from openclap.checkpoints import detect, openclap_folder, transformers_model
from openclap.checkpoints.checkpoint import build_network, weights_digest
from openclap.errors import ConfigError
from openclap.models.config import NaFlexConfig
from openclap.runtimes import backends, fetch_tokenizer
from openclap.runtimes.transformers import TransformersRuntime
from openclap.text import merges
from openclap.text.tokenizer import Tokenizer
from openclap.types import Signature, TextBatch

if TYPE_CHECKING:
    from openclap.models.clap import CLAP
    from openclap.presets import Preset

CPU_TOKENS, GPU_TOKENS = 512, 65536
"""Patches of a batch of clips of their own lengths: as many as keep activations in a CPU's caches (see
docs/benchmarks.md), or a GPU busy."""

TokenizerSource = Path | Callable[[], Path]
"""A `tokenizer.json`, or a function that fetches one."""


class TorchLoader:
    """Options of the torch runtime. Raises ConfigError for a device or precision that this machine does not have."""

    def __init__(self, device: str | torch.device | None, precision: str, *, compile: bool) -> None:
        self.device = find_device(device)
        self.choice = backends.choose(precision, self.device)
        self.compile = compile

    def read(
        self, path: Path, *, preset: Preset | None, tokenizer: str | os.PathLike[str] | None, offline: bool
    ) -> TorchRuntime | TransformersRuntime:
        """Read a checkpoint in any format. Raises CheckpointError when it is damaged or none.

        Models that transformers computes have a runtime of their own.
        """
        if transformers_model.is_adaptable(path):
            if preset is not None:
                raise ConfigError(f"{path}: transformers computes it, by its own configuration. Leave out preset.")
            return TransformersRuntime(
                path,
                device=self.device,
                precision=self.choice.precision,
                compile=self.compile,
                tokenizer=tokenizer,
            )
        checkpoint = detect.read(path, preset)
        words: TokenizerSource = (
            Path(tokenizer)
            if tokenizer
            else checkpoint.tokenizer or partial(fetch_tokenizer, checkpoint.preset, offline)
        )
        return TorchRuntime(
            build_network(checkpoint, path.name),
            checkpoint.preset,
            words,
            device=self.device,
            choice=self.choice,
            compile=self.compile,
            unused=checkpoint.unused,
            objective=checkpoint.objective,
        )


class TorchRuntime:
    """A CLAP model in torch. See `openclap.runtimes.Runtime` for the methods that every runtime has.

    Attributes:
        clap: the networks.
        frontend: waveforms to log-mels.
        backend: runs the networks without gradients (torch, or OpenVINO).
        objective: tensors that training learned beside the networks, saved along (see `checkpoints.checkpoint`).
    """

    batches_waves = True

    def __init__(
        self,
        clap: CLAP,
        preset: Preset,
        tokenizer: Tokenizer | TokenizerSource,
        *,
        device: torch.device | None = None,
        choice: backends.BackendChoice = backends.FP32,
        compile: bool = False,
        unused: Mapping[str, Tensor] | None = None,
        objective: Mapping[str, Tensor] | None = None,
    ) -> None:
        device = device or find_device(None)
        self.clap = clap.eval().to(device)
        self.preset = preset
        self.frontend = FrontEnd(preset.frontend).to(device)
        self.backend = backends.build(choice, self.clap, device, compile=compile, digest=self.weights_digest)
        self.name, self.precision = self.backend.name, str(self.backend.precision)
        self.objective: Mapping[str, Tensor] = objective or {}
        self._unused = unused or {}
        self._tokenizer = tokenizer

    @property
    def network(self) -> CLAP:
        """The networks."""
        return self.clap

    @property
    def device(self) -> torch.device:
        """Where the networks are; they may be moved."""
        return next(self.clap.parameters()).device

    @property
    def signature(self) -> Signature:
        """What the model reads and returns."""
        return self.preset.signature

    @property
    def logit_scale(self) -> float:
        """The factor of cosines before a softmax."""
        return self.clap.scale.item()

    @property
    def tokenizer(self) -> Tokenizer:
        """Read, or fetched, when text is first embedded. Raises CheckpointError when it is missing."""
        if not isinstance(self._tokenizer, Tokenizer):
            file = self._tokenizer if isinstance(self._tokenizer, Path) else self._tokenizer()
            text = self.preset.text
            self._tokenizer = Tokenizer.read(file, text.context, padded=text.padded)
        return self._tokenizer

    @property
    def has_tokenizer(self) -> bool:
        """Whether a tokenizer file is at hand; otherwise it would be fetched."""
        return isinstance(self._tokenizer, Tokenizer | Path) or self.preset.text.tokenizer in merges.DEFINITIONS

    def check_tokenizer(self) -> None:
        """Read the tokenizer. Raises CheckpointError where text could not be embedded later."""
        _ = self.tokenizer

    def embed_waves(self, waves: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """(N, D) unit vectors of mono waveforms at the model's rate."""
        vectors_ND = np.zeros((len(waves), self.preset.embedding_size), np.float32)
        with torch.inference_mode():
            for rows in self._batches(waves):
                batch = self.frontend([torch.from_numpy(waves[row]) for row in rows])
                vectors_ND[rows] = self.backend.encode_audio(batch).cpu().numpy()
        return vectors_ND

    def embed_moments(self, waves: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """The unit vectors (M, D) of the moments of each mono waveform at the model's rate, no longer than its input.

        A moment that begins after the end of its waveform is left out. Computed in fp32 in any precision of the model.
        """
        vectors: list[NDArray[np.float32]] = [np.zeros((0, 0), np.float32)] * len(waves)
        with torch.inference_mode():
            for rows in self._batches(waves):
                # As in `TorchBackend`: few clips at a time on a CPU, and batches by tokens as they are.
                clips = len(rows) if self.device.type != "cpu" else backends.CPU_CLIPS
                for some in (rows[start : start + clips] for start in range(0, len(rows), clips)):
                    batch = self.frontend([torch.from_numpy(waves[row]) for row in some])
                    for row, vectors_MD in zip(
                        some, self.clap.encode_moments(batch).float().cpu().numpy(), strict=True
                    ):
                        inside = max(1, math.ceil(len(waves[row]) / self.preset.moment_samples))
                        vectors[row] = vectors_MD[:inside]
        return vectors

    def _batches(self, waves: Sequence[NDArray[np.float32]]) -> Iterator[NDArray[np.int64]]:
        """The rows of each batch: all of them, or, where clips keep their length, rows of similar numbers of tokens."""
        audio, mel = self.preset.audio, self.preset.frontend.mel
        if not isinstance(audio, NaFlexConfig):
            return iter([np.arange(len(waves))])
        tokens = [audio.tokens(mel.frames(max(len(wave), mel.n_fft))) for wave in waves]
        return batches_by_length(tokens, CPU_TOKENS if self.device.type == "cpu" else GPU_TOKENS)

    def embed_texts(self, texts: Sequence[str], batch_size: int) -> NDArray[np.float32]:
        """(N, D) unit vectors, in the order of `texts`."""
        vectors_ND = np.zeros((len(texts), self.preset.embedding_size), np.float32)
        for rows, tokens in self.tokenizer.batches(texts, batch_size):
            batch = TextBatch(torch.from_numpy(tokens.ids_BL), torch.from_numpy(tokens.mask_BL))
            vectors_ND[rows] = self.backend.encode_text(batch.to(self.device)).cpu().numpy()
        return vectors_ND

    def audio_tensor(
        self, waves: Sequence[Tensor], pieces: Callable[[Tensor], Iterator[Tensor]], *, trim_silence: bool
    ) -> Tensor:
        """(N, D) unit vectors with gradients to the waveforms. `pieces` cuts each into inputs of the networks, and
        their unit vectors are averaged. See `openclap.Embedder.audio_tensor`."""
        if not all(
            torch.is_tensor(wave) and wave.ndim == 1 and len(wave) and wave.is_floating_point() for wave in waves
        ):
            rate = self.frontend.sample_rate
            raise ConfigError(f"audio_tensor takes a list of mono float tensors (samples,) at {rate} Hz.")
        if not len(waves):
            return torch.zeros(0, self.preset.embedding_size, device=self.device)
        whole = [_trimmed(wave.float()) if trim_silence else wave.float() for wave in waves]
        inputs = [(owner, piece) for owner, wave in enumerate(whole) for piece in pieces(wave)]
        vectors = self.clap.encode_audio(self.frontend([piece for _, piece in inputs]))
        owners = torch.tensor([owner for owner, _ in inputs], device=self.device)
        sums_ND = torch.zeros(len(waves), vectors.shape[1], device=self.device).index_add(0, owners, vectors)
        return F.normalize(sums_ND, dim=-1)

    def text_tensor(self, ids_NL: Tensor, mask_NL: Tensor | None = None) -> Tensor:
        """(N, D) unit vectors with gradients to the weights. See `openclap.Embedder.text_tensor`."""
        mask_NL = torch.ones_like(ids_NL) if mask_NL is None else mask_NL
        return self.clap.encode_text(TextBatch(ids_NL, mask_NL).to(self.device))

    def replaced(self, **attributes: object) -> TorchRuntime:
        """A copy with other attributes (`clap`, `objective`); this runtime is unchanged."""
        other = copy.copy(self)
        for name, value in attributes.items():
            setattr(other, name, value)
        return other

    def weights_digest(self) -> str:
        """A SHA-256 of weights and preset."""
        return weights_digest(self.clap, self.preset)

    def save(self, folder: Path) -> None:
        """Write a model folder: config.json, model.safetensors, tokenizer.json."""
        tokenizer = self.tokenizer
        openclap_folder.save(folder, self.clap, self.preset, tokenizer, self._unused, objective=self.objective)


def _trimmed(wave_S: Tensor) -> Tensor:
    """A mono waveform without its silent ends; one that is silent throughout is unchanged."""
    if is_silent(wave_S):
        return wave_S
    sounding = torch.nonzero(wave_S.abs() >= SILENCE)
    return wave_S[int(sounding[0]) : int(sounding[-1]) + 1]


def find_device(name: str | torch.device | None) -> torch.device:
    """The device of that name; without a name, a GPU where there is one. Raises ConfigError when it cannot be used."""
    try:
        device = torch.empty(0, device=name or ("cuda" if torch.cuda.is_available() else "cpu")).device
        if device.type != "meta":
            return device
    except (RuntimeError, AssertionError, TypeError):
        pass
    kinds = {"cuda": torch.cuda.is_available(), "xpu": torch.xpu.is_available(), "mps": torch.mps.is_available()}
    here = " or ".join(["cpu", *(kind for kind, is_there in kinds.items() if is_there)])
    raise ConfigError(f"device is {str(name)!r}, which this machine's torch cannot use. Expected: {here}.") from None


def describe_machine() -> dict[str, Any]:
    """The device that torch chooses, the backend of the precision "auto" on it, and the number of threads."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    device = torch.device("cuda" if gpu else "cpu")
    return {
        "device": f"cuda ({gpu})" if gpu else "cpu",
        "fastest": " ".join(astuple(backends.choose("auto", device))),
        "threads": torch.get_num_threads(),
    }
