"""Sounds and strings to unit vectors.

N items, D embedding, C labels, S samples of a waveform.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from openclap import inference as engines
from openclap.audio.clips import cut, window_starts
from openclap.audio.frontend import FrontEnd
from openclap.audio.inputs import Sound, blocks, named
from openclap.audio.io import Wave
from openclap.audio.mono import AS_USUAL, SILENCE, Channels, MonoBlocks, MonoConfig, is_silent
from openclap.checkpoints import detect, hub, openclap_folder, published, starts
from openclap.checkpoints.checkpoint import build_network
from openclap.decode_ahead import Ahead, Job, Piece, Span
from openclap.errors import AudioError, CheckpointError, ConfigError, MissingTokenizerError
from openclap.limits import check_count
from openclap.text.prompts import SOUND, prompts
from openclap.text.tokenizer import Tokenizer
from openclap.types import TextBatch, Window

if TYPE_CHECKING:
    from openclap.models.clap import CLAP
    from openclap.presets import Preset

Vectors = NDArray[np.float32]
W = TypeVar("W", Wave, Tensor)
Heard = Callable[[float], None]
"""Told how many seconds of sound were embedded, batch by batch."""
FIRST = 4
"""Inputs of the network that are decoded ahead of each sound."""
CLIP_POLICY_VERSION = 2
"""Raised whenever the rule that `Embedder.clip_policy` states changes, so that vectors made by two rules never mix."""
LOST = "Its weights are damaged, or its training diverged: choose another checkpoint."
Words = Path | Callable[[], Path]
"""A `tokenizer.json`, or what fetches one."""


def load(
    source: str | os.PathLike[str],
    *,
    device: str | torch.device | None = None,
    precision: str = "fp32",
    tokenizer: str | os.PathLike[str] | None = None,
    preset: Preset | None = None,
    revision: str | None = None,
    offline: bool = False,
    compile: bool = False,
    channels: Channels = "mean",
    trim_silence: bool = False,
) -> Embedder:
    """Load a model from a path, a name, or the hub.

    Args:
        source: a folder that openclap or transformers wrote; a LAION-CLAP `.pt` file; the name of a published model
            (`openclap models`); any repository of the Hugging Face hub ("user/name"); or a start ("demo-start").
        device: "cpu", "cuda", …; without it, a GPU when there is one.
        precision: "fp32", "bf16", "int8", or "auto", the fastest that keeps a cosine of 0.9995 to fp32 (see
            `openclap.inference`).
        tokenizer: a `tokenizer.json` to use in place of the model's own.
        preset: takes the place of what is stored or found out.
        revision: of a repository on the hub: a branch, tag or commit.
        offline: use what is in the hub's cache and ask for nothing.
        compile: translate the networks with `torch.compile`: a minute at first use, faster from then on.
        channels: of recordings with several: "mean", "left", "right" or "loudest" (see `openclap.audio.mono`).
        trim_silence: cut ends below -80 dBFS before a recording is embedded.

    Raises CheckpointError when there is no such model or it is damaged, ConfigError for a choice that cannot be.
    """
    where = _device(device)
    mono = MonoConfig(channels, trim_silence)
    choice = engines.choose(precision, where)
    path = located(str(source), revision=revision, offline=offline)
    checkpoint = detect.read(path, preset)
    words: Words = (
        Path(tokenizer) if tokenizer else checkpoint.tokenizer or partial(_fetched, checkpoint.preset, offline)
    )
    return Embedder(
        build_network(checkpoint, path.name),
        checkpoint.preset,
        words,
        device=where,
        choice=choice,
        compile=compile,
        unused=checkpoint.unused,
        objective=checkpoint.objective,
        mono=mono,
    )


def located(
    source: str,
    *,
    revision: str | None = None,
    offline: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> Path:
    """Where a model lies, fetched if need be; `report` is told what takes long. Raises CheckpointError when there is
    none."""
    path = Path(source).expanduser()
    if source in starts.STARTS:
        return starts.start(source, report, offline=offline or hub.is_offline())
    if path.exists():
        return path
    known = published.find(source)
    if known is not None:
        return published.fetch(known, revision=revision, offline=offline)
    if REPOSITORY.fullmatch(source) and path.suffix not in FILES:
        return hub.download(source, revision=revision, offline=offline)
    near = published.closest(source)
    hint = f" Did you mean {' or '.join(near)}?" if near else " `openclap models` lists those that have names."
    raise CheckpointError(f"{source}: no such model. Expected a file, a folder or a name.{hint}")


REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w.-]+")
FILES = (".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".json")
"""How paths of checkpoints end, and names on the hub do not."""


def _fetched(preset: Preset, offline: bool) -> Path:
    """The tokenizer that a preset names, from the hub."""
    if preset.text.tokenizer is None:
        raise MissingTokenizerError(
            "No tokenizer.json lies beside this model, and text cannot be embedded without one."
        )
    return hub.tokenizer_file(preset.text.tokenizer, offline=offline)


class Embedder:
    """Embeds deterministically: in fp32 a clip's vector does not depend on its batch (within 1e-5).

    A clip longer than the model's input is covered by windows end to end, the last one anchored at the clip's
    end; the unit vectors of those that are not silent (peak below -80 dBFS) are averaged and normalised again, or those
    of all windows where all are silent. Models that fuse read a long clip as a whole.

    Attributes:
        clap, frontend, preset: the networks, the front end, and what both were built from.
        engine: what runs the networks; its `name` says how.
        mono: how recordings become the one channel that the model reads.
        objective: what training learned beside the networks, saved along (see `checkpoints.checkpoint`).
    """

    def __init__(
        self,
        clap: CLAP,
        preset: Preset,
        tokenizer: Tokenizer | Words,
        *,
        device: torch.device | None = None,
        choice: engines.Choice = engines.FP32,
        compile: bool = False,
        unused: Mapping[str, Tensor] | None = None,
        objective: Mapping[str, Tensor] | None = None,
        mono: MonoConfig = AS_USUAL,
    ) -> None:
        self.device = device or _device(None)
        self.clap = clap.eval().to(self.device)
        self.preset, self.mono = preset, mono
        self.frontend = FrontEnd(preset.frontend).to(self.device)
        self.engine = engines.build(choice, self.clap, self.device, compile=compile, digest=self._weights_digest)
        self._unused, self.objective = unused or {}, objective or {}
        self._tokenizer = tokenizer

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
        """Is one here already, or would it have to be fetched?"""
        return isinstance(self._tokenizer, Tokenizer | Path)

    def check_tokenizer(self) -> None:
        """Read the tokenizer now. Raises CheckpointError where text could not be embedded later."""
        _ = self.tokenizer

    @property
    def clip_policy(self) -> str:
        """How a clip becomes one vector, for a protocol to state: clips longer than the model's input, and channels
        and silent ends where they are not read as usual."""
        policy = (
            "The whole clip resized, and the middle stretch of each third, fused by the model."
            if self._fuses
            else f"Windows of {self.window_s:.2f} s end to end, the last one anchored at the clip's end; the mean of "
            "the unit vectors of those that reach -80 dBFS, or of all where none does, normalised."
        )
        return f"{policy} {self.mono}".strip()

    @property
    def window_s(self) -> float:
        """Seconds of sound that the model reads at once."""
        return self.frontend.samples / self.frontend.sample_rate

    def embed_audio(self, sounds: Sequence[Sound], batch_size: int = 16) -> Vectors:
        """(N, D) float32 unit vectors, in the order of `sounds`.

        Raises AudioError for a sound that cannot be decoded or is no waveform, naming it.
        """
        vectors = []
        for vector in self.embed_each(sounds, batch_size):
            if isinstance(vector, AudioError):
                raise vector
            vectors.append(vector)
        return np.stack(vectors) if vectors else np.zeros((0, self.preset.embedding_size), np.float32)

    def embed_each(
        self, sounds: Iterable[Sound], batch_size: int = 16, *, heard: Heard | None = None
    ) -> Iterator[Vectors | AudioError]:
        """For each sound, in order, its (D,) unit vector, or the error that says why it has none.

        One bad sound stops no other. Threads decode ahead of the network; pieces of several sounds share batches. What
        is held of all sounds together is bounded by `batch_size`, not by how long they are; models that fuse need one
        recording whole.
        """
        for job in self._streamed(sounds, self._cover, batch_size, heard):
            yield job.error or job.spans[0].vector()

    def embed_text(self, texts: Sequence[str], batch_size: int = 32) -> Vectors:
        """(N, D) float32 unit vectors, in the order of `texts`. Texts of like length go through the network together,
        so that little of it is spent on padding."""
        batch_size = check_count("batch_size", batch_size)
        texts = _strings(texts, "texts")
        vectors = np.zeros((len(texts), self.preset.embedding_size), np.float32)
        if not texts:
            return vectors
        tokens = self.tokenizer(texts)
        lengths = tokens.mask_BL.sum(dim=1)
        for rows in lengths.argsort(stable=True).split(batch_size):
            longest = tokens.ids_BL.shape[1] if self.preset.text.padded else int(lengths[rows].max())
            batch = TextBatch(tokens.ids_BL[rows, :longest], tokens.mask_BL[rows, :longest])
            vectors[rows.numpy()] = self.engine.encode_text(batch.to(self.device)).cpu().numpy()
        if not np.isfinite(vectors).all():
            raise CheckpointError(f"The model gives no finite vector of a text. {LOST}")
        return vectors

    def classify(self, sounds: Sequence[Sound], labels: Sequence[str], template: str = SOUND) -> Vectors:
        """(N, C) probabilities: softmax over labels of the scaled cosine between sound and `template` with label."""
        text_CD = self.embed_text(prompts(_strings(labels, "labels"), template))
        logits_NC = torch.from_numpy(self.embed_audio(sounds) @ text_CD.T) * self.clap.scale.detach().cpu()
        probabilities: Vectors = logits_NC.softmax(dim=-1).numpy()
        return probabilities

    def windows(self, sound: Sound, length_s: float | None = None, hop_s: float | None = None) -> list[Window]:
        """A recording as overlapping or touching stretches, each with its unit vector.

        A file is read in pieces: ten hours need no more memory than ten minutes, beside one window's waveform.

        Args:
            length_s: seconds of each window; the model's input length without it. A window longer than the
                model's input is embedded as `embed_audio` does.
            hop_s: seconds from start to start; `length_s` without it. The last window ends at the end.
        """
        found = next(self.windows_each([sound], length_s, hop_s))
        if isinstance(found, AudioError):
            raise found
        return found

    def windows_each(
        self,
        sounds: Iterable[Sound],
        length_s: float | None = None,
        hop_s: float | None = None,
        batch_size: int = 16,
        *,
        heard: Heard | None = None,
    ) -> Iterator[list[Window] | AudioError]:
        """For each sound, in order, what `windows` gives, or the error that says why it has none."""
        rate = self.frontend.sample_rate
        length = self.frontend.samples if length_s is None else _samples(length_s, rate, "length_s")
        hop = length if hop_s is None else _samples(hop_s, rate, "hop_s")
        for job in self._streamed(sounds, partial(self._windows, length, hop), batch_size, heard):
            start = job.blocks.start if isinstance(job.blocks, MonoBlocks) else 0  # silence cut from the front
            yield job.error or [
                Window((start + span.start) / rate, (start + span.end) / rate, span.vector()) for span in job.spans
            ]

    def windows_of(self, sounds: Sequence[Sound]) -> list[list[Window] | AudioError]:
        """For each sound its windows, or the error that says why it has none; one bad sound stops no other."""
        return list(self.windows_each(sounds))

    def audio_tensor(self, waves: Sequence[Tensor]) -> Tensor:
        """(N, D) unit vectors with gradients to the waveforms: mono float tensors (S,) at the model's rate, of any
        length. The vectors are those of `embed_audio`."""
        if not all(
            torch.is_tensor(wave) and wave.ndim == 1 and len(wave) and wave.is_floating_point() for wave in waves
        ):
            rate = self.frontend.sample_rate
            raise ConfigError(f"audio_tensor takes a list of mono float tensors (samples,) at {rate} Hz.")
        if not len(waves):
            return torch.zeros(0, self.preset.embedding_size, device=self.device)
        whole = [self._trimmed(wave.float()) for wave in waves]
        pieces = [(owner, piece) for owner, wave in enumerate(whole) for piece in self.pieces(wave)]
        vectors = self.clap.encode_audio(self.frontend([piece for _, piece in pieces]))
        owners = torch.tensor([owner for owner, _ in pieces], device=self.device)
        sums_ND = torch.zeros(len(waves), vectors.shape[1], device=self.device).index_add(0, owners, vectors)
        return F.normalize(sums_ND, dim=-1)

    def text_tensor(self, ids_NL: Tensor, mask_NL: Tensor | None = None) -> Tensor:
        """(N, D) unit vectors with gradients to the weights; without a mask every token counts."""
        mask_NL = torch.ones_like(ids_NL) if mask_NL is None else mask_NL
        return self.clap.encode_text(TextBatch(ids_NL, mask_NL).to(self.device))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write a folder that `load` reads back: config.json, model.safetensors, tokenizer.json."""
        place, words = Path(folder), self.tokenizer
        openclap_folder.save(place, self.clap, self.preset, words, self._unused, objective=self.objective)

    def digest(self) -> str:
        """A SHA-256 of everything that a vector depends on but the precision: weights, preset, and how clips are read.
        Vectors of one digest can be compared."""
        return hashlib.sha256(f"{self._weights_digest()} {CLIP_POLICY_VERSION} {self.mono!r}".encode()).hexdigest()

    def _weights_digest(self) -> str:
        sha = hashlib.sha256(repr(self.preset).encode())
        for name, tensor in sorted(self.clap.state_dict().items()):
            sha.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        return sha.hexdigest()

    def read(self, sound: Sound) -> Wave:
        """Any sound as (S,) mono float32 at the model's rate, read as `mono` says. Raises AudioError."""
        return _whole(blocks(sound, self.frontend.sample_rate, mono=self.mono))

    def pieces(self, wave: W) -> Iterator[W]:
        """The inputs of the network that cover a mono waveform at the model's rate, for their vectors to be averaged:
        all of it where the model fuses; otherwise windows, without those that are silent unless all are."""
        samples = len(wave) if self._fuses else self.frontend.samples
        starts = window_starts(len(wave), samples, samples)
        pieces = [wave[start : start + samples] for start in starts]
        return iter([piece for piece in pieces if len(pieces) == 1 or not is_silent(piece)] or pieces)

    def _trimmed(self, wave_S: Tensor) -> Tensor:
        """A mono waveform without its silent ends, where these are to be cut."""
        if not self.mono.trim_silence or is_silent(wave_S):
            return wave_S
        sounding = torch.nonzero(wave_S.abs() >= SILENCE)
        return wave_S[int(sounding[0]) : int(sounding[-1]) + 1]

    @property
    def _fuses(self) -> bool:
        return self.preset.frontend.long == "fusion"

    def _cover(self, sound: Iterator[Wave]) -> Iterator[Piece]:
        """The pieces that `embed_audio` averages."""
        span, samples, sounds = Span(), self.frontend.samples, False
        for wave in [_whole(sound)] if self._fuses else (wave for _, _, wave in cut(sound, samples, samples)):
            silent = is_silent(wave)
            if not (silent and sounds):  # a silent piece counts only where all are: see Span
                yield span, wave
            sounds = sounds or not silent

    def _windows(self, length: int, hop: int, sound: Iterator[Wave]) -> Iterator[Piece]:
        """The pieces of each window. One that is longer than the input is itself covered by pieces."""
        for start, end, wave in cut(sound, length, hop):
            span = Span(start, end)
            for piece in self.pieces(wave):
                yield span, piece

    def _streamed(
        self,
        sounds: Iterable[Sound],
        pieces: Callable[[Iterator[Wave]], Iterator[Piece]],
        batch_size: int,
        heard: Heard | None,
    ) -> Iterator[Job]:
        """Each sound with the vectors of its spans, in order, decoded ahead and embedded in shared batches.

        A batch has `batch_size` pieces at most, and no more samples than as many inputs of the network have: a long
        recording that is fused goes through almost alone.
        """
        batch_size = check_count("batch_size", batch_size)
        most, rate = batch_size * self.frontend.samples, self.frontend.sample_rate
        waiting: deque[Job] = deque()
        queue: list[tuple[Job, Piece]] = []
        coming = ((name, blocks(sound, rate, name, self.mono)) for name, sound in named(sounds))
        with Ahead(coming, pieces, batch_size, FIRST * self.frontend.samples) as ahead:
            for item in ahead:
                if isinstance(item, Job):
                    waiting.append(item)
                else:
                    queue.append(item)
                    item[0].open += 1
                if len(queue) >= batch_size or sum(len(wave) for _, (_, wave) in queue) >= most:
                    self._embed(queue, heard)
                    queue.clear()
                while waiting and waiting[0].done:
                    yield waiting.popleft()
            self._embed(queue, heard)
            yield from waiting

    def _embed(self, queue: list[tuple[Job, Piece]], heard: Heard | None) -> None:
        """Give each span its pieces' vectors."""
        if not queue:
            return
        with torch.inference_mode():
            batch = self.frontend([torch.from_numpy(wave) for _, (_, wave) in queue])
            vectors = self.engine.encode_audio(batch).cpu().numpy()
        for (job, (span, wave)), vector in zip(queue, vectors, strict=True):
            if not job.spans or job.spans[-1] is not span:
                job.spans.append(span)
            span.add(vector, silent=is_silent(wave))
            job.open -= 1
            if not np.isfinite(vector).all():
                self._check_weights()
                job.error = AudioError(f"{job.name}: gives no finite vector. Are its samples far beyond -1..1?")
        if heard:
            heard(sum(len(wave) for _, (_, wave) in queue) / self.frontend.sample_rate)

    def _check_weights(self) -> None:
        """Raise CheckpointError where the model is at fault, and not a sound: silence has no finite vector either."""
        with torch.inference_mode():
            silence = self.frontend([torch.zeros(self.frontend.samples)])
            if not self.engine.encode_audio(silence).isfinite().all():
                raise CheckpointError(f"The model gives no finite vector, not even of silence. {LOST}")


def _device(name: str | torch.device | None) -> torch.device:
    """The device of that name, a GPU where there is one without it. Raises ConfigError when it cannot be used."""
    try:
        device = torch.empty(0, device=name or ("cuda" if torch.cuda.is_available() else "cpu")).device
        if device.type != "meta":
            return device
    except (RuntimeError, AssertionError, TypeError):
        pass
    kinds = {"cuda": torch.cuda.is_available(), "xpu": torch.xpu.is_available(), "mps": torch.mps.is_available()}
    here = " or ".join(["cpu", *(kind for kind, is_there in kinds.items() if is_there)])
    raise ConfigError(f"device is {str(name)!r}, which this machine's torch cannot use. Expected: {here}.") from None


def _samples(seconds: float, rate: int, what: str) -> int:
    """Seconds as samples. Raises ConfigError for less than one, and for ages."""
    if not isinstance(seconds, (int, float, np.number)) or not 1 <= seconds * rate < 1 << 53:
        raise ConfigError(f"{what} is {seconds!r}, expected a finite duration of at least one sample.")
    return round(float(seconds) * rate)


def _strings(texts: Iterable[str], what: str) -> list[str]:
    found = list(texts) if isinstance(texts, Iterable) and not isinstance(texts, str) else [None]
    if not all(isinstance(text, str) for text in found):
        raise ConfigError(f"{what} must be a list of strings; wrap one string in [ ].")
    return [str(text) for text in found]


def _whole(sound: Iterator[Wave]) -> Wave:
    wave: Wave = np.concatenate(list(sound))
    return wave if len(wave) else np.zeros(1, np.float32)
