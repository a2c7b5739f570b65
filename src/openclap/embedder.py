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
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from openclap import engine as engines
from openclap.ahead import Ahead, Job
from openclap.audio.clips import Cut, cut, window_starts
from openclap.audio.frontend import FrontEnd
from openclap.audio.io import Source, Wave, name_of, read_blocks, resample, to_mono
from openclap.checkpoints import folder as model_folder
from openclap.checkpoints import hub, published, recognise, starts
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
) -> Embedder:
    """A model, whatever it is in.

    Args:
        source: a folder that openclap or transformers wrote; a LAION-CLAP `.pt` file; the name of a published model
            (`openclap models`); any repository of the Hugging Face hub ("user/name"); or a start ("demo-start").
        device: "cpu", "cuda", …; without it, a GPU when there is one.
        precision: "fp32", "bf16", "int8", or "auto", the fastest that keeps a cosine of 0.9995 to fp32 (see
            `openclap.engine`).
        tokenizer: a `tokenizer.json` to use in place of the model's own.
        preset: takes the place of what is stored or found out.
        revision: of a repository on the hub: a branch, tag or commit.
        offline: use what is in the hub's cache and ask for nothing.
        compile: translate the networks with `torch.compile`: a minute at first use, faster from then on.

    Raises CheckpointError when there is no such model or it is damaged, ConfigError for a choice that cannot be.
    """
    where = _device(device)
    choice = engines.choose(precision, where)
    path = located(str(source), revision=revision, offline=offline)
    checkpoint = recognise.read(path, preset)
    words: Words = (
        Path(tokenizer) if tokenizer else checkpoint.tokenizer or partial(_fetched, checkpoint.preset, offline)
    )
    return Embedder(
        model_folder.network(checkpoint, path.name),
        checkpoint.preset,
        words,
        device=where,
        choice=choice,
        compile=compile,
        unused=checkpoint.unused,
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
        raise CheckpointError(
            "No tokenizer.json lies beside this model, and text cannot be embedded without one. Pass one as tokenizer= "
            "or --tokenizer."
        )
    return hub.tokenizer_file(preset.text.tokenizer, offline=offline)


class Embedder:
    """Embeds deterministically: in fp32 a clip's vector does not depend on its batch (within 1e-5).

    A clip longer than the model's input is covered by windows end to end, the last one anchored at the clip's
    end; their unit vectors are averaged and normalised again. Models that fuse read a long clip as a whole.

    Attributes:
        clap, frontend, preset: the networks, the front end, and what both were built from.
        engine: what runs the networks; its `name` says how.
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
    ) -> None:
        self.device = device or _device(None)
        self.clap = clap.eval().to(self.device)
        self.preset = preset
        self.frontend = FrontEnd(preset.frontend).to(self.device)
        self.engine = engines.build(choice, self.clap, self.device, compile=compile, digest=self.digest)
        self._unused = unused or {}
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
    def clip_policy(self) -> str:
        """What becomes of clips that are longer than the model's input, for a protocol to state."""
        if self._fuses:
            return "The whole clip resized, and the middle stretch of each third, fused by the model."
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
        vectors = []
        for vector in self.embed_each(sounds, batch_size):
            if isinstance(vector, AudioError):
                raise vector
            vectors.append(vector)
        return np.stack(vectors) if vectors else np.zeros((0, self.preset.embedding_size), np.float32)

    def embed_each(self, sounds: Iterable[Sound], batch_size: int = 16) -> Iterator[Vectors | AudioError]:
        """For each sound, in order, its (D,) unit vector, or the error that says why it has none.

        One bad sound stops no other. Threads decode ahead of the network; windows of several sounds share batches.
        """
        _check_batch(batch_size)
        covers = ((name, self._cover(sound)) for name, sound in _named(sounds))
        for windows in self._streamed(covers, batch_size):
            if isinstance(windows, AudioError):
                yield windows
                continue
            total_D = np.asarray([window.vector for window in windows], np.float32).sum(axis=0)
            vector: Vectors = _unit(total_D[None])[0]
            yield vector

    def embed_text(self, texts: Sequence[str], batch_size: int = 32) -> Vectors:
        """(N, D) float32 unit vectors, in the order of `texts`. Texts of like length go through the network together,
        so that little of it is spent on padding."""
        _check_batch(batch_size)
        _check_strings(texts, "texts")
        vectors = np.zeros((len(texts), self.preset.embedding_size), np.float32)
        if not len(texts):
            return vectors
        tokens = self.tokenizer(texts)
        lengths = tokens.mask_BL.sum(dim=1)
        for rows in lengths.argsort(stable=True).split(batch_size):
            longest = tokens.ids_BL.shape[1] if self.preset.text.padded else int(lengths[rows].max())
            batch = TextBatch(tokens.ids_BL[rows, :longest], tokens.mask_BL[rows, :longest])
            vectors[rows.numpy()] = self.engine.encode_text(batch.to(self.device)).cpu().numpy()
        return vectors

    def classify(self, sounds: Sequence[Sound], labels: Sequence[str], template: str = SOUND) -> Vectors:
        """(N, C) probabilities: softmax over labels of the scaled cosine between sound and `template` with label."""
        _check_strings(labels, "labels")
        text_CD = self.embed_text(prompts(labels, template))
        logits_NC = torch.from_numpy(self.embed_audio(sounds) @ text_CD.T) * self.clap.scale.detach().cpu()
        probabilities: Vectors = logits_NC.softmax(dim=-1).numpy()
        return probabilities

    def windows(self, sound: Sound, length_s: float | None = None, hop_s: float | None = None) -> list[Window]:
        """A recording as overlapping or touching stretches, each with its unit vector.

        A file is read in pieces: ten hours need no more memory than ten minutes.

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
    ) -> Iterator[list[Window] | AudioError]:
        """For each sound, in order, what `windows` gives, or the error that says why it has none."""
        _check_batch(batch_size)
        rate = self.frontend.sample_rate
        if not all(value is None or 1 / rate <= value < np.inf for value in (length_s, hop_s)):
            raise ConfigError(f"length_s={length_s} and hop_s={hop_s} must both be longer than one sample.")
        length = self.frontend.samples if length_s is None else round(length_s * rate)
        hop = length if hop_s is None else round(hop_s * rate)
        cuts = ((name, cut(self._blocks(sound), length, hop)) for name, sound in _named(sounds))
        yield from self._streamed(cuts, batch_size)

    def windows_of(self, sounds: Sequence[Sound]) -> list[list[Window] | AudioError]:
        """For each sound its windows, or the error that says why it has none; one bad sound stops no other."""
        return list(self.windows_each(sounds))

    def audio_tensor(self, waves: Sequence[Tensor]) -> Tensor:
        """(N, D) unit vectors with gradients to the waveforms: mono float tensors (S,) at the model's rate, of any
        length. The vectors are those of `embed_audio`."""
        if any(wave.ndim != 1 or len(wave) == 0 for wave in waves):
            raise ConfigError(f"audio_tensor takes mono waveforms (samples,) at {self.frontend.sample_rate} Hz.")
        pieces = [(owner, piece) for owner, wave in enumerate(waves) for piece in self._pieces(wave)]
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
        model_folder.save(Path(folder), self.clap, self.preset, self.tokenizer, self._unused)

    def digest(self) -> str:
        """A SHA-256 of weights and preset: what vectors of one model have in common."""
        sha = hashlib.sha256(repr(self.preset).encode())
        for name, tensor in sorted(self.clap.state_dict().items()):
            sha.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        return sha.hexdigest()

    def read(self, sound: Sound) -> Wave:
        """Any sound as (S,) mono float32 at the model's rate. Raises AudioError."""
        wave: Wave = np.concatenate(list(self._blocks(sound)))
        return wave if len(wave) else np.zeros(1, np.float32)

    @property
    def _fuses(self) -> bool:
        return self.preset.frontend.long == "fusion"

    def _blocks(self, sound: Sound) -> Iterator[Wave]:
        """`read` piece by piece."""
        rate = self.frontend.sample_rate
        if isinstance(sound, np.ndarray):
            raise AudioError("A waveform without its rate was given, expected (waveform, rate in Hz).")
        if isinstance(sound, tuple):
            yield resample(_checked(*sound), int(sound[1]), rate)
        else:
            yield from read_blocks(sound, rate)

    def _cover(self, sound: Sound) -> Iterator[Cut]:
        """The windows that `embed_audio` averages."""
        if self._fuses:
            wave = self.read(sound)
            yield 0, len(wave), wave
        else:
            yield from cut(self._blocks(sound), self.frontend.samples, self.frontend.samples)

    def _pieces(self, wave: W) -> Iterator[W]:
        samples = len(wave) if self._fuses else self.frontend.samples
        for start in window_starts(len(wave), samples, samples):
            yield wave[start : start + samples]

    def _streamed(
        self, sounds: Iterable[tuple[str, Iterator[Cut]]], batch_size: int
    ) -> Iterator[list[Window] | AudioError]:
        """Each sound's windows with their vectors, in order, decoded ahead and embedded in shared batches."""
        waiting: deque[Job] = deque()
        queue: list[tuple[Job, Cut]] = []
        with Ahead(sounds, batch_size) as ahead:
            for item in ahead:
                if isinstance(item, Job):
                    waiting.append(item)
                else:
                    queue.append(item)
                    item[0].open += 1
                if len(queue) >= batch_size:
                    self._embed(queue)
                    queue = []
                while waiting and waiting[0].done:
                    yield waiting.popleft().result()
            self._embed(queue)
            while waiting:
                yield waiting.popleft().result()

    def _embed(self, queue: list[tuple[Job, Cut]]) -> None:
        """Give each job its window's vector. A window longer than the input is itself covered by windows."""
        if not queue:
            return
        rate = self.frontend.sample_rate
        pieces = [(row, piece) for row, (_, (_, _, wave)) in enumerate(queue) for piece in self._pieces(wave)]
        sums_ND = np.zeros((len(queue), self.preset.embedding_size), np.float32)
        for start in range(0, len(pieces), len(queue)):
            part = pieces[start : start + len(queue)]
            with torch.inference_mode():
                batch = self.frontend([torch.from_numpy(piece) for _, piece in part])
                vectors = self.engine.encode_audio(batch).cpu().numpy()
            np.add.at(sums_ND, [row for row, _ in part], vectors)
        for (job, (start, end, _)), vector in zip(queue, _unit(sums_ND), strict=True):
            job.windows.append(Window(start / rate, end / rate, vector))
            job.open -= 1
            if not np.isfinite(vector).all():
                job.error = AudioError(f"{job.name}: gives no finite vector. Are its samples far beyond -1..1?")


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


LOUDEST = 100.0
"""Floating-point samples beyond this are integers that lost their type."""


def _checked(wave: NDArray[Any], rate: int) -> Wave:
    """A waveform from a caller: mono float32; integers are scaled to -1..1 by their type."""
    array = np.asarray(wave)
    if not (
        isinstance(rate, (int, float, np.integer, np.floating)) and rate == int(rate) and 1 <= rate <= HIGHEST_RATE
    ):
        raise AudioError(f"A waveform at {rate} Hz was given, expected a whole number of Hz from 1 to {HIGHEST_RATE}.")
    if array.ndim not in (1, 2) or array.size == 0:
        raise AudioError(
            f"A waveform of shape {array.shape} at {rate} Hz was given, expected (samples,) or (samples, channels)."
        )
    if array.ndim == 2 and array.shape[1] > array.shape[0]:
        raise AudioError(f"A waveform of shape {array.shape} was given, expected (samples, channels): transpose it.")
    if np.issubdtype(array.dtype, np.integer):
        array = _scaled(array)
    elif not np.issubdtype(array.dtype, np.floating):
        raise AudioError(f"A waveform of {array.dtype} was given, expected floating-point or integer samples.")
    mono = to_mono(array.astype(np.float32, copy=False))
    if not np.isfinite(mono).all():
        raise AudioError("A waveform with NaN or infinite samples was given.")
    if np.abs(mono).max() > LOUDEST:
        raise AudioError(
            f"A waveform of {array.dtype} with samples up to {np.abs(mono).max():.0f} was given, expected about -1..1. "
            "Divide by 32768 if these are 16-bit samples."
        )
    return mono


HIGHEST_RATE = 10_000_000


def _scaled(array: NDArray[Any]) -> NDArray[Any]:
    """Integers to -1..1. Types that no recorder writes, and samples that do not use theirs, are mistakes."""
    if array.dtype.itemsize > 4:
        raise AudioError(f"A waveform of {array.dtype} was given, expected int16, int32, uint8 or floating point.")
    half = (int(np.iinfo(array.dtype).max) - int(np.iinfo(array.dtype).min) + 1) / 2
    middle = half if array.dtype.kind == "u" else 0.0
    centred = array.astype(np.float64) - middle
    loudest = float(np.abs(centred).max())
    if array.dtype.itemsize == 4 and 1 < loudest <= 32768:
        raise AudioError(
            f"A waveform of {array.dtype} with samples up to {loudest:.0f} was given: 16-bit samples in a 32-bit type. "
            "Convert it to int16 first."
        )
    return centred / half


def _named(sounds: Iterable[Sound]) -> Iterator[tuple[str, Sound]]:
    for sound in sounds:
        named = not isinstance(sound, (tuple, np.ndarray))
        yield name_of(sound) if named else "A waveform", sound  # type: ignore[arg-type]


def _unit(sums_ND: Vectors) -> Vectors:
    norms_N1 = np.linalg.norm(sums_ND, axis=1, keepdims=True)
    unit: Vectors = sums_ND / np.maximum(norms_N1, 1e-12)
    return unit
