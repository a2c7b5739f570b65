"""Embed sounds and texts with any runtime. This module imports no torch: `openclap.runtimes` does.

N items, D embedding, C labels, S samples of a waveform.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from openclap.audio.inputs import Sound, blocks, named
from openclap.audio.mono import DEFAULT_MONO, MonoBlocks, MonoConfig, is_silent
from openclap.audio.windows import WeightedMean, complete_step, cut_windows, window_starts
from openclap.collapse import warn_of_collapsed_text
from openclap.decode_ahead import DecodeAhead, PendingSound, Piece, PooledWindow
from openclap.errors import AudioError, CheckpointError, ConfigError
from openclap.limits import check_count
from openclap.text.prompts import LABEL, SOUND, prompts
from openclap.types import Recording, SecondsProgress, Signature, Timeline, Window

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from openclap.audio.frontend import FrontEnd
    from openclap.models.clap import CLAP
    from openclap.presets import Preset
    from openclap.runtimes import Runtime
    from openclap.text.numpy_tokenizer import NumpyTokenizer

Vectors = NDArray[np.float32]
"""Embeddings, of length 1: (D,) or (N, D)."""
W = TypeVar("W", NDArray[np.float32], "Tensor")

INPUTS_AHEAD = 4
"""Length that is decoded ahead of each sound, in inputs of the network."""
CLIP_POLICY_VERSION = 2
"""Part of `Embedder.digest`. It is increased when the rule in `Embedder.clip_policy` changes, so that embeddings of two
rules never mix."""
DAMAGED = "Its weights are damaged, or its training diverged: choose another checkpoint."


class Embedder:
    """A model that embeds sounds and texts in one space. Create one with `openclap.load`.

    Embedding is deterministic: in fp32 a clip's embedding does not depend on its batch (within 1e-5).

    A clip longer than the model's input is covered by windows end to end, the last one anchored at the clip's end. The
    unit vectors of the audible windows (peak at or above -80 dBFS), or of all windows of a silent clip, are averaged
    and normalised. Fusion models read a long clip as a whole. Models that read any length read each clip at its own
    length, and a clip of more than a minute in windows of a minute: time is in proportion to the length.

    Attributes:
        runtime: computes the embeddings; its `name` states software and precision.
        mono: how recordings become the one channel that the model reads.
        longest_s: the longest recording that is embedded, in seconds; a longer one raises AudioError. No limit by
            default, since memory does not grow with the length: it is for sounds from strangers.

    Args:
        check_texts: before the first text, warn if the model embeds all texts alike (`openclap.collapse`). Not earlier:
            a program that embeds sounds alone should not wait for the text tower.

    Examples:
        >>> model = openclap.load("mini")
        >>> audio_ND = model.embed_audio(["dog.ogg", "applause.ogg"])
        >>> text_ND = model.embed_text(["a dog barks", "people clapping"])
        >>> (audio_ND @ text_ND.T).shape
        (2, 2)
    """

    def __init__(
        self,
        runtime: Runtime,
        *,
        mono: MonoConfig = DEFAULT_MONO,
        longest_s: float = math.inf,
        check_texts: bool = False,
    ) -> None:
        self.runtime, self.mono, self.longest_s = runtime, mono, longest_s
        self._check_texts = check_texts

    @property
    def preset(self) -> Preset:
        """Configuration of the front end and the towers. Models that transformers computes have none (ConfigError)."""
        preset: Preset = self._of_own_networks("preset")
        return preset

    @property
    def precision(self) -> str:
        """The arithmetic: "fp32", "bf16" or "int8"."""
        return self.runtime.precision

    @property
    def sample_rate(self) -> int:
        """Hz of the waveforms that the model reads."""
        return self._signature.rate

    @property
    def input_samples(self) -> int:
        """Length of the model's input in samples."""
        return self._signature.samples

    @property
    def embedding_size(self) -> int:
        """The number of dimensions D of an embedding."""
        return self._signature.embedding_size

    @property
    def window_s(self) -> float:
        """Length of the model's input in seconds."""
        return self.input_samples / self.sample_rate

    @property
    def has_tokenizer(self) -> bool:
        """Whether a tokenizer file is on this machine; otherwise it is downloaded when text is first embedded."""
        return self.runtime.has_tokenizer

    def check_tokenizer(self) -> None:
        """Read the tokenizer now. Raises CheckpointError if text could not be embedded later."""
        self.runtime.check_tokenizer()

    @property
    def clip_policy(self) -> str:
        """Sentences for a protocol that describe how a clip becomes one embedding: the treatment of long clips, and of
        channels and silent ends where it is not the default."""
        longest_s = self._whole_samples / self.sample_rate
        windows = (
            f"windows of {longest_s:.2f} s end to end, the last one anchored at the clip's end; the mean of the unit "
            "vectors of those that reach -80 dBFS, or of all where none does, normalised."
        )
        if self._fuses:
            policy = "The whole clip resized, and the middle stretch of each third, fused by the model."
        elif self._signature.is_any_length:
            policy = f"The whole clip at its own length up to {longest_s:.2f} s; a longer one in {windows}"
        else:
            policy = windows[0].upper() + windows[1:]
        return f"{policy} {self.mono}".strip()

    def embed_audio(self, sounds: Sequence[Sound], batch_size: int = 16) -> Vectors:
        """Embed sounds: (N, D) float32 unit vectors, in the order of `sounds`.

        Args:
            sounds: each a path, bytes, an open file, or (waveform, rate in Hz) with a waveform (S,) or (S, channels).
            batch_size: inputs of the network per forward pass.

        Raises AudioError, with the name of the sound, for one that cannot be decoded, and ConfigError for an invalid
        argument.
        """
        vectors = []
        for vector in self.embed_each(sounds, batch_size):
            if isinstance(vector, AudioError):
                raise vector
            vectors.append(vector)
        return np.stack(vectors) if vectors else np.zeros((0, self.embedding_size), np.float32)

    def embed_each(
        self, sounds: Iterable[Sound], batch_size: int = 16, *, progress: SecondsProgress | None = None
    ) -> Iterator[Vectors | AudioError]:
        """Yield the (D,) unit vector of each sound in order, or the error that explains why it has none.

        A damaged sound does not affect the others. Threads decode ahead of the network, and inputs of several sounds
        share batches. Memory is bounded by `batch_size` and not by the length of the sounds, except that fusion models
        need the whole of one recording.
        """
        for sound in self._stream(sounds, self._cover, batch_size, progress):
            yield sound.error or sound.windows[0].vector()

    def embed_text(self, texts: Sequence[str], batch_size: int = 32) -> Vectors:
        """Embed texts: (N, D) float32 unit vectors, in the order of `texts`.

        Texts of similar length share a batch, which keeps the padding small. Raises ConfigError unless `texts` is a
        list of strings, and CheckpointError when the tokenizer is missing or the model returns NaN.
        """
        batch_size = check_count("batch_size", batch_size)
        texts = _strings(texts, "texts")
        if not texts:
            return np.zeros((0, self.embedding_size), np.float32)
        if self._check_texts:
            self._check_texts = False
            warn_of_collapsed_text(self)
        vectors = self.runtime.embed_texts(texts, batch_size)
        if not np.isfinite(vectors).all():
            raise CheckpointError(f"The model returns no finite embedding of a text. {DAMAGED}")
        return vectors

    def classify(self, sounds: Sequence[Sound], labels: Sequence[str], template: str = SOUND) -> Vectors:
        """Classify sounds zero-shot: (N, C) probabilities.

        They are the softmax, over the labels, of the cosine between the sound and the prompt (`template` with the
        label), multiplied by the logit scale. Raises as `embed_audio` and `openclap.text.prompts.prompts`.
        """
        text_CD = self.embed_text(prompts(_strings(labels, "labels"), template))
        return softmax(self.embed_audio(sounds) @ text_CD.T * self.runtime.logit_scale)

    def windows(self, sound: Sound, length_s: float | None = None, hop_s: float | None = None) -> list[Window]:
        """Embed a recording in windows.

        A file is read in blocks: besides the embeddings, ten hours need no more memory than ten minutes.

        Args:
            length_s: seconds of each window; the default is the length of the model's input. A window longer than the
                input is embedded as by `embed_audio`.
            hop_s: seconds from one window's start to the next; the default is `length_s`. The last window ends at the
                end of the recording.

        Raises AudioError for a sound that cannot be decoded, ConfigError for an invalid duration.
        """
        result = next(self.windows_each([sound], length_s, hop_s))
        if isinstance(result, AudioError):
            raise result
        return result

    def windows_each(
        self,
        sounds: Iterable[Sound],
        length_s: float | None = None,
        hop_s: float | None = None,
        batch_size: int = 16,
        *,
        progress: SecondsProgress | None = None,
    ) -> Iterator[list[Window] | AudioError]:
        """Yield the windows of each sound in order, as `windows`, or the error that explains why it has none."""
        for recording in self.recordings_each(sounds, length_s, hop_s, batch_size, progress=progress):
            yield recording if isinstance(recording, AudioError) else recording.windows

    def recordings_each(
        self,
        sounds: Iterable[Sound],
        length_s: float | None = None,
        hop_s: float | None = None,
        batch_size: int = 16,
        *,
        keep_truncated: bool = False,
        progress: SecondsProgress | None = None,
    ) -> Iterator[Recording | AudioError]:
        """As `windows_each`, with the duration, rate and channels of each sound, measured while decoding it.

        Args:
            keep_truncated: yield what is there of a file that lacks its end, and say so, instead of an error.
        """
        rate = self.sample_rate
        length = self.input_samples if length_s is None else _samples(length_s, rate, "length_s")
        hop = length if hop_s is None else _samples(hop_s, rate, "hop_s")
        for sound in self._stream(
            sounds, partial(self._cut, length, hop), batch_size, progress, keep_truncated=keep_truncated
        ):
            if sound.error:
                yield sound.error
                continue
            blocks = sound.blocks
            assert isinstance(blocks, MonoBlocks)
            start = blocks.start  # samples of silence that were cut from the front
            windows: list[Window] = []
            # Free each sum as soon as its window is made, so that a long recording is not in memory twice.
            sound.windows.reverse()
            while sound.windows:
                window = sound.windows.pop()
                windows.append(Window((start + window.start) / rate, (start + window.end) / rate, window.vector()))
            facts = blocks.duration_s, blocks.source_rate, blocks.source_channels, blocks.ends_early
            yield Recording(windows, *facts)

    def timeline(
        self,
        sound: Sound,
        labels: Sequence[str],
        template: str = LABEL,
        batch_size: int = 16,
        *,
        progress: SecondsProgress | None = None,
    ) -> Timeline:
        """Compare each moment of a recording with labels: when does it sound like a dog, when like rain?

        A moment is the finest stretch of time that the audio tower keeps (see `CLAP.encode_moments`): 0.04 to 0.3 s.
        Models are trained to embed whole clips: unless yours was trained on phrases with on- and offsets too, cosines
        of moments rank moments and labels, and mean little by themselves (docs/concepts/moments.md). The recording is
        read in windows of the model's input, half of which overlap; where two windows see a moment, its score is their
        mean, weighted by its distance from each window's edge. Memory does not depend on the length, besides the
        scores.

        Args:
            labels: descriptions, each different and not empty.
            template: a prompt template in which {} stands for the label.

        Raises AudioError for a sound that cannot be decoded, ConfigError for an invalid argument, and without the torch
        runtime.

        Examples:
            >>> timeline = openclap.load("mini").timeline("dog.ogg", ["a dog barks", "applause"])
            >>> timeline.scores.shape == (len(timeline.times_s), 2), round(timeline.resolution_s, 2)
            (True, 0.19)
        """
        names = distinct_labels(labels)
        text_CD = self.embed_text(prompts(names, template))
        return self.compare_moments(sound, names, lambda vectors_MD: vectors_MD @ text_CD.T, batch_size, progress)

    def compare_moments(
        self,
        sound: Sound,
        columns: Sequence[str],
        score: Callable[[Vectors], Vectors],
        batch_size: int = 16,
        progress: SecondsProgress | None = None,
    ) -> Timeline:
        """A timeline by any function of the moments' unit vectors (M, D) to (M, C) scores; else as `timeline`."""
        batch_size = check_count("batch_size", batch_size)
        self.check_moments()
        embed_moments = self._of_torch("embed_moments")
        step, samples = self.preset.moment_samples, self.input_samples
        hop = max(1, round(samples / step / 2))  # moments from one window to the next
        [(name, given)] = named([sound])
        read = blocks(given, self.sample_rate, name=name, mono=self.mono, longest_s=self.longest_s)
        windows = cut_windows(complete_step(read, samples, step), samples, round(hop * step))
        total = WeightedMean()
        while batch := list(islice(windows, batch_size)):
            for (start, _, _), vectors_MD in zip(batch, embed_moments([wave for *_, wave in batch]), strict=True):
                if not np.isfinite(vectors_MD).all():
                    self._check_weights()
                    raise AudioError(f"{name}: has no finite embedding. Are its samples far beyond -1..1?")
                moments = np.arange(len(vectors_MD))
                from_edge_M = np.minimum(moments, len(moments) - 1 - moments) + 1.0
                total.add(round(start / step), score(vectors_MD), from_edge_M)
            if progress:
                progress(sum(len(wave) for *_, wave in batch) / self.sample_rate / 2)
        length = read.duration_s
        scores_TC = total.mean()
        resolution_s, start_s = step / self.sample_rate, read.start / self.sample_rate
        times_T: NDArray[np.float64] = start_s + (np.arange(len(scores_TC), dtype=np.float64) + 0.5) * resolution_s
        is_inside_T = times_T - resolution_s / 2 < max(length, resolution_s)
        return Timeline(times_T[is_inside_T], scores_TC[is_inside_T], tuple(columns), resolution_s, length)

    def check_moments(self) -> None:
        """Raise ConfigError for a model without moments: one whose runtime has clips' embeddings alone."""
        if not hasattr(self.runtime, "embed_moments"):
            raise ConfigError(
                f"This model has {self.runtime.name}, and moments need openclap's own networks in torch. "
                'Load it with runtime="torch", or choose another model.'
            )

    def read(self, sound: Sound) -> NDArray[np.float32]:
        """Decode a sound to (S,) mono float32 at the model's rate, by the rules of `mono`. Raises AudioError."""
        return _whole(blocks(sound, self.sample_rate, mono=self.mono, longest_s=self.longest_s))

    def pieces(self, wave: W) -> Iterator[W]:
        """Cut a mono waveform (S,) at the model's rate into inputs of the network, whose embeddings are averaged.

        These are windows without the silent ones, or all windows of a silent waveform; for a fusion model, the whole
        waveform.
        """
        samples = len(wave) if self._fuses else self._whole_samples
        starts = window_starts(len(wave), samples, samples)
        pieces = [wave[start : start + samples] for start in starts]
        return iter([piece for piece in pieces if len(pieces) == 1 or not is_silent(piece)] or pieces)

    def digest(self) -> str:
        """A SHA-256 of everything that determines an embedding except the precision: weights, preset, clip policy and
        channel. Embeddings of equal digests can be compared."""
        weights = self.runtime.weights_digest()
        return hashlib.sha256(f"{weights} {CLIP_POLICY_VERSION} {self.mono!r}".encode()).hexdigest()

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write a folder that `load` reads back: config.json, model.safetensors, tokenizer.json.

        Raises CheckpointError when the tokenizer is missing or the folder cannot be written.
        """
        self.runtime.save(Path(folder))

    # The following members need openclap's own networks in torch: other runtimes have none in Python.

    @property
    def clap(self) -> CLAP:
        """The networks. Setting it replaces them in this embedder only, even if others share the runtime."""
        networks: CLAP = self._of_torch("clap")
        return networks

    @clap.setter
    def clap(self, networks: CLAP) -> None:
        self.runtime = self._of_torch("replaced")(clap=networks)

    @property
    def network(self) -> nn.Module:
        """The weights in torch, whoever built the network: `clap`, or the model of transformers."""
        network: nn.Module = self._attribute("network", "torch")
        return network

    @property
    def objective(self) -> dict[str, Tensor]:
        """The parameters of the training objective, such as SigLIP's bias; `save` stores them. Set it as `clap`."""
        learned: dict[str, Tensor] = self._of_torch("objective")
        return learned

    @objective.setter
    def objective(self, learned: dict[str, Tensor]) -> None:
        self.runtime = self._of_torch("replaced")(objective=learned)

    @property
    def frontend(self) -> FrontEnd:
        """Waveforms to log-mels."""
        frontend: FrontEnd = self._of_torch("frontend")
        return frontend

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        device: torch.device = self._of_torch("device")
        return device

    @property
    def tokenizer(self) -> NumpyTokenizer:
        """The tokenizer, read or downloaded when first needed; in torch a `Tokenizer`, whose call returns tensors.

        Raises CheckpointError when it is missing.
        """
        return self.runtime.tokenizer

    def audio_tensor(self, waves: Sequence[Tensor]) -> Tensor:
        """Embed waveforms with gradients: (N, D) unit vectors, equal to those of `embed_audio`.

        Args:
            waves: mono float tensors (S,) at the model's rate, of any length.

        Raises ConfigError for anything else, and without the torch runtime.
        """
        vectors_ND: Tensor = self._of_torch("audio_tensor")(waves, self.pieces, trim_silence=self.mono.trim_silence)
        return vectors_ND

    def text_tensor(self, ids_NL: Tensor, mask_NL: Tensor | None = None) -> Tensor:
        """Embed token ids with gradients to the weights: (N, D) unit vectors. Without a mask every token counts."""
        vectors_ND: Tensor = self._of_torch("text_tensor")(ids_NL, mask_NL)
        return vectors_ND

    def _of_torch(self, name: str) -> Any:
        """An attribute of the torch runtime. Raises ConfigError for another runtime."""
        return self._attribute(name, "openclap's own networks in torch")

    def _of_own_networks(self, name: str) -> Any:
        """An attribute of runtimes of openclap's own networks. Raises ConfigError for another runtime."""
        return self._attribute(name, "openclap's own networks")

    def _attribute(self, name: str, needed: str) -> Any:
        if not hasattr(type(self.runtime), name) and name not in vars(self.runtime):
            raise ConfigError(f"The attribute {name} needs {needed}, and this model has {self.runtime.name}.")
        return getattr(self.runtime, name)

    @property
    def _signature(self) -> Signature:
        return self.runtime.signature

    @property
    def _fuses(self) -> bool:
        return self._signature.fuses

    @property
    def _whole_samples(self) -> int:
        """The longest clip that a model reads in one piece, fusion models apart."""
        return self._signature.whole_samples

    def _cover(self, sound: Iterator[NDArray[np.float32]]) -> Iterator[Piece]:
        """The pieces that `embed_audio` averages, all in one window over the whole sound."""
        window, samples, is_audible = PooledWindow(), self._whole_samples, False
        for wave in [_whole(sound)] if self._fuses else (wave for _, _, wave in cut_windows(sound, samples, samples)):
            silent = is_silent(wave)
            # A silent piece after an audible one would be ignored by PooledWindow, so do not embed it.
            if not (silent and is_audible):
                yield window, wave
            is_audible = is_audible or not silent

    def _cut(self, length: int, hop: int, sound: Iterator[NDArray[np.float32]]) -> Iterator[Piece]:
        """The pieces of each window; a window longer than the model's input has several."""
        for start, end, wave in cut_windows(sound, length, hop):
            window = PooledWindow(start, end)
            for piece in self.pieces(wave):
                yield window, piece

    def _stream(
        self,
        sounds: Iterable[Sound],
        cut: Callable[[Iterator[NDArray[np.float32]]], Iterator[Piece]],
        batch_size: int,
        progress: SecondsProgress | None,
        *,
        keep_truncated: bool = False,
    ) -> Iterator[PendingSound]:
        """Yield each sound with the embeddings of its windows, in order, decoded ahead and embedded in shared batches.

        A batch ends at `batch_size` pieces, or at the samples of `batch_size` inputs. The second limit is for fusion
        models, whose pieces are whole recordings; for models that read any length it is the only one, because the
        runtime sorts the pieces and batches them by their length.
        """
        batch_size = check_count("batch_size", batch_size)
        most_samples = batch_size * self.input_samples
        most_pieces = most_samples if self._signature.is_any_length else batch_size
        queued_samples = 0
        waiting: deque[PendingSound] = deque()
        queue: list[tuple[PendingSound, Piece]] = []
        read = partial(blocks, rate=self.sample_rate, mono=self.mono, longest_s=self.longest_s)
        opened = ((name, read(sound, name=name, keep_truncated=keep_truncated)) for name, sound in named(sounds))
        with DecodeAhead(opened, cut, batch_size, INPUTS_AHEAD * self.input_samples) as decoded:
            for item in decoded:
                if isinstance(item, PendingSound):
                    waiting.append(item)
                else:
                    queue.append(item)
                    item[0].unembedded += 1
                    queued_samples += len(item[1][1])
                if len(queue) >= most_pieces or queued_samples >= most_samples:
                    self._embed(queue, progress)
                    queue.clear()
                    queued_samples = 0
                while waiting and waiting[0].is_done:
                    yield waiting.popleft()
            self._embed(queue, progress)
            yield from waiting

    def _embed(self, queue: list[tuple[PendingSound, Piece]], progress: SecondsProgress | None) -> None:
        """Embed the pieces and add each embedding to its window."""
        if not queue:
            return
        vectors = self.runtime.embed_waves([wave for _, (_, wave) in queue])
        for (sound, (window, wave)), vector in zip(queue, vectors, strict=True):
            if not sound.windows or sound.windows[-1] is not window:
                sound.windows.append(window)
            window.add(vector, silent=is_silent(wave))
            sound.unembedded -= 1
            if not np.isfinite(vector).all():
                self._check_weights()
                sound.error = AudioError(f"{sound.name}: has no finite embedding. Are its samples far beyond -1..1?")
        if progress:
            progress(sum(len(wave) for _, (_, wave) in queue) / self.sample_rate)

    def _check_weights(self) -> None:
        """Raise CheckpointError if even the embedding of silence is not finite: then the weights are at fault."""
        if not np.isfinite(self.runtime.embed_waves([np.zeros(self.input_samples, np.float32)])).all():
            raise CheckpointError(f"The model returns no finite embedding, not even of silence. {DAMAGED}")


def softmax(logits_NC: Vectors) -> Vectors:
    """(N, C) probabilities over the last axis, computed in float64."""
    weight_NC = np.exp(logits_NC - logits_NC.max(axis=-1, keepdims=True), dtype=np.float64)
    probability_NC: Vectors = (weight_NC / weight_NC.sum(axis=-1, keepdims=True)).astype(np.float32)
    return probability_NC


def _samples(seconds: float, rate: int, name: str) -> int:
    """Convert seconds to samples. Raises ConfigError for less than one sample and for NaN or infinity."""
    # 2**53: above it floats cannot represent every number of samples.
    if not isinstance(seconds, (int, float, np.number)) or not 1 <= seconds * rate < 1 << 53:
        raise ConfigError(f"{name} is {seconds!r}, expected a finite duration of at least one sample.")
    return round(float(seconds) * rate)


def _strings(texts: Iterable[str], name: str) -> list[str]:
    """Check that `texts` is a list of strings. A single string is an error: it would be embedded letter by letter."""
    listed = list(texts) if isinstance(texts, Iterable) and not isinstance(texts, str) else [None]
    if not all(isinstance(text, str) for text in listed):
        raise ConfigError(f"{name} must be a list of strings. Wrap a single string in [ ].")
    return [str(text) for text in listed]


def distinct_labels(labels: Iterable[str]) -> list[str]:
    """Check labels: a list of one or more texts, none empty, none twice. Raises ConfigError."""
    names = _strings(labels, "labels")
    empty = [place for place, name in enumerate(names, start=1) if not name.strip()]
    twice = [name for place, name in enumerate(names) if name in names[:place]]
    if not names or empty or twice:
        fault = (
            f"{twice[0]!r} is there twice" if twice else f"number {empty[0]} is empty" if empty else "there are none"
        )
        raise ConfigError(f"Among the labels, {fault}. Expected one or more descriptions, each once.")
    return names


def _whole(sound: Iterator[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Join blocks; a sound that is empty after resampling or trimming becomes one sample of silence."""
    wave: NDArray[np.float32] = np.concatenate(list(sound))
    return wave if len(wave) else np.zeros(1, np.float32)
