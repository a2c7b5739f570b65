"""Data classes that are passed between the packages of openclap.

Letters in names are dimensions: B clips, V views, T frames (in `mel_BVTF`) or captions (in `owner_T`), F mel bins,
L tokens, N samples, D embedding. Tensors and arrays are annotations only: importing this module imports neither torch
nor numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

Progress = Callable[[int, int], None]
"""Receives the number of items done and the total."""
KeywordUse = Literal["auto", "off", "fused", "only"]
"""Of the words of a query in a search: its rare words together with its embedding, none, all together with it, or all
alone."""
SecondsProgress = Callable[[float], None]
"""Receives the seconds of sound that were embedded since the last call."""
Precision = Literal["fp32", "bf16", "int8"]
"""The arithmetic of a model."""
COSINE_BOUNDS: dict[str, float] = {"fp32": 0.999999, "bf16": 0.9995, "int8": 0.99}
"""By precision, the least cosine between an embedding and that of torch in fp32 (measured: docs/benchmarks.md)."""

# fmt: off
AUDIO_SUFFIXES = frozenset({
    ".aac", ".ac3", ".aif", ".aifc", ".aiff", ".alac", ".amr", ".ape", ".au", ".bwf", ".caf", ".dts", ".eac3",
    ".flac", ".m4a", ".m4b", ".mka", ".mp1", ".mp2", ".mp3", ".oga", ".ogg", ".opus", ".rf64", ".snd", ".spx",
    ".tta", ".voc", ".w64", ".wav", ".wave", ".wma", ".wv",
})
# fmt: on
"""Endings of sound files, in lower case."""


@dataclass(frozen=True, slots=True)
class Signature:
    """What a model reads and returns, whatever computes it.

    Attributes:
        name: of the model's preset or type, for people.
        rate: Hz of its waveforms.
        samples: length of its input, which is also that of the windows of a recording.
        whole_samples: the longest clip that it reads in one piece; longer ones are read in windows, unless it `fuses`.
        is_any_length: whether a shorter clip keeps its length, and costs in proportion to it.
        fuses: whether it reads a longer clip as a whole and three stretches of it.
        embedding_size: dimensions D of its embeddings.
        context: the tokens of a text that it reads.
    """

    name: str
    rate: int
    samples: int
    whole_samples: int
    is_any_length: bool
    fuses: bool
    embedding_size: int
    context: int


@dataclass(frozen=True, slots=True)
class AudioBatch:
    """Input of an audio tower. V is 1 for plain presets and 4 for fusion: whole, front, middle, back.

    Attributes:
        mel_BVTF: log-mels.
        is_long_B: true for clips longer than the input: a fusion model fuses their views.
        frames_B: number of valid frames of each clip, if they differ.
    """

    mel_BVTF: Tensor
    is_long_B: Tensor
    frames_B: Tensor | None = None

    def to(self, device: torch.device) -> AudioBatch:
        """The same batch on `device`."""
        frames_B = None if self.frames_B is None else self.frames_B.to(device)
        return AudioBatch(self.mel_BVTF.to(device), self.is_long_B.to(device), frames_B)

    def split(self, clips: int) -> list[AudioBatch]:
        """Split into batches of at most `clips` clips, without frames that are padding for all of a batch."""
        starts = range(0, len(self.is_long_B), clips)
        return [self.rows(slice(start, start + clips)) for start in starts]

    def rows(self, rows: slice | Sequence[int]) -> AudioBatch:
        """Select clips, without frames that are padding for all of them."""
        mel_BVTF, is_long_B = self.mel_BVTF[rows], self.is_long_B[rows]
        if self.frames_B is None:
            return AudioBatch(mel_BVTF, is_long_B)
        frames_B = self.frames_B[rows]
        return AudioBatch(mel_BVTF[:, :, : int(frames_B.max())], is_long_B, frames_B)


@dataclass(frozen=True, slots=True)
class TextBatch:
    """Input of a text tower: token ids, and a mask that is 1 on tokens and 0 on padding."""

    ids_BL: Tensor
    mask_BL: Tensor

    def to(self, device: torch.device) -> TextBatch:
        """The same batch on `device`."""
        return TextBatch(self.ids_BL.to(device), self.mask_BL.to(device))


@dataclass(frozen=True, slots=True)
class PhraseBatch:
    """The phrases of a batch of B clips, and the moments M in which they are heard. P different phrases.

    Attributes:
        active_BMP: whether a phrase is heard in a moment of a clip.
        valid_BM: the moments that count: those of clips that have phrases, up to the end of the sound.
    """

    text: TextBatch
    active_BMP: Tensor
    valid_BM: Tensor

    def to(self, device: torch.device) -> PhraseBatch:
        """The same batch on `device`."""
        return PhraseBatch(self.text.to(device), self.active_BMP.to(device), self.valid_BM.to(device))


@dataclass(frozen=True, slots=True)
class PairBatch:
    """Clips and their captions.

    Attributes:
        owner_T: for each of the T captions, the number of its clip in this batch.
        caption_id_T: equal for equal captions, also on different processes.
        keys: names of the clips in the shards.
        numbers: their positions in the `ShardIndex`; () for a batch that is from no shards.
        phrases: for training with moments: what is heard when, if any clip has phrases.
    """

    audio: AudioBatch
    text: TextBatch
    owner_T: Tensor
    caption_id_T: Tensor
    keys: tuple[str, ...]
    numbers: tuple[int, ...] = ()
    phrases: PhraseBatch | None = None

    def to(self, device: torch.device) -> PairBatch:
        """The same batch on `device`."""
        return replace(
            self,
            audio=self.audio.to(device),
            text=self.text.to(device),
            owner_T=self.owner_T.to(device),
            caption_id_T=self.caption_id_T.to(device),
            phrases=None if self.phrases is None else self.phrases.to(device),
        )

    def split(self, clips: int) -> list[PairBatch]:
        """Split into batches of at most `clips` clips, each with its captions and without phrases. An empty batch gives
        one empty batch."""
        parts = []
        for number, audio in enumerate(self.audio.split(clips)):
            rows = slice(number * clips, (number + 1) * clips)
            is_in_part_T = (self.owner_T >= rows.start) & (self.owner_T < rows.stop)
            text = TextBatch(self.text.ids_BL[is_in_part_T], self.text.mask_BL[is_in_part_T])
            owner_T, caption_id_T = self.owner_T[is_in_part_T] - rows.start, self.caption_id_T[is_in_part_T]
            parts.append(PairBatch(audio, text, owner_T, caption_id_T, self.keys[rows], self.numbers[rows]))
        return parts or [self]


@dataclass(frozen=True, slots=True)
class Moments:
    """Moments of clips and phrases in the shared space, and which belong together (see `PhraseBatch`).

    Attributes:
        audio_BMD, phrase_PD: unit vectors.
    """

    audio_BMD: Tensor
    phrase_PD: Tensor
    active_BMP: Tensor
    valid_BM: Tensor


@dataclass(frozen=True, slots=True)
class Features:
    """Outputs of the two towers for a batch: the input of an objective.

    `clip_B` numbers the clips, and `owner_T` is the number of each caption's clip. In the batch of one process they
    start at 0; `openclap.training.distributed` makes them unique over all processes.

    Attributes:
        audio_BD, text_TD: unit vectors.
        caption_id_T: equal for equal captions, also on different processes.
        scale: factor of the similarities: exp(logit_scale), clamped to 1..100.
        scale_text: the second factor of LAION's four-term loss, if the model has it.
        audio_mlp_BD, text_mlp_TD: the same vectors after the transforms of that loss, if the model has them.
        teacher_audio_BE, teacher_text_TE: vectors of a teacher, where training has one: their products are the
            teacher's logits (`openclap.training.teacher`). NaN where it has none for a clip.
        moments: of the clips of one process, if any has phrases.
    """

    audio_BD: Tensor
    text_TD: Tensor
    clip_B: Tensor
    owner_T: Tensor
    caption_id_T: Tensor
    scale: Tensor
    scale_text: Tensor | None = None
    audio_mlp_BD: Tensor | None = None
    text_mlp_TD: Tensor | None = None
    teacher_audio_BE: Tensor | None = None
    teacher_text_TE: Tensor | None = None
    moments: Moments | None = None


@dataclass(frozen=True, slots=True)
class AudioFeatures:
    """An audio tower's output before projection, under the names of HTSAT's outputs in LAION-CLAP.

    Attributes:
        embedding: (B, D).
        clipwise, framewise: class scores in 0..1, (B, C) and (B, T, C), if the tower has a tagging head.
        fine: latent vectors of the frames (B, T, D), if the tower keeps the time axis.
    """

    embedding: Tensor
    clipwise: Tensor | None = None
    framewise: Tensor | None = None
    fine: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Phrase:
    """A phrase, and when its sound is in a clip.

    Attributes:
        text: a few words about one sound ("a dog barks").
        segments: (onset, offset) of each occurrence, in seconds from the beginning of the clip.
    """

    text: str
    segments: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """A sound with its captions and tags, as stored in a shard.

    Attributes:
        key: its name in the tar.
        original: the other fields of its JSON.
        audio: the encoded bytes of its audio file.
        phrases: phrases with segments, for frame-level training and evaluation; () where the data have none.
        by_field: the captions of each field of its JSON that was asked for and has some; `captions` are the first's.
    """

    key: str
    captions: tuple[str, ...]
    tags: tuple[str, ...]
    original: dict[str, Any]
    audio: bytes
    phrases: tuple[Phrase, ...] = ()
    by_field: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Window:
    """A window of a recording, in seconds, and its unit vector (D,)."""

    start_s: float
    end_s: float
    vector: np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class Recording:
    """The embedded windows of a recording, and the facts that an index stores.

    Attributes:
        duration_s, rate, channels: of the recording before mixing and resampling: seconds, Hz, number of channels.
        ends_early: whether the file lacks its end, so that this is what is there.
    """

    windows: list[Window]
    duration_s: float
    rate: int
    channels: int
    ends_early: bool = False


@dataclass(frozen=True, slots=True)
class Timeline:
    """The similarity of a recording to labels over time. T moments, C labels.

    Attributes:
        times_s: the middle of each moment in seconds (T,).
        scores: cosines between moments and labels (T, C).
        labels: in the order of the columns.
        resolution_s: seconds from one moment to the next. What a moment sounds like is known from its surroundings as
            well, as far as the audio tower looks.
        duration_s: of the recording.
    """

    times_s: np.ndarray[Any, np.dtype[np.float64]]
    scores: np.ndarray[Any, np.dtype[np.float32]]
    labels: tuple[str, ...]
    resolution_s: float
    duration_s: float


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a recording in which a label is heard, in seconds; `score` is the highest in it."""

    label: str
    start_s: float
    end_s: float
    score: float


class FileContent(bytes):
    """The bytes of a file, with the name of the file for messages."""

    name: str

    def __new__(cls, content: bytes, name: str) -> FileContent:
        self = super().__new__(cls, content)
        self.name = name
        return self


@dataclass(frozen=True, slots=True)
class FileMetadata:
    """The metadata that a sound file carries; None and () where it has none.

    Attributes:
        date: year, month or day, in ISO 8601.
        copyright: a licence, or another statement of rights.
        category, subcategory: of a sound library, as the file writes them.
        keywords: genres among them.
    """

    title: str | None = None
    artist: str | None = None
    album: str | None = None
    comment: str | None = None
    copyright: str | None = None
    date: str | None = None
    category: str | None = None
    subcategory: str | None = None
    keywords: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Hit:
    """A search result: a window of a file. `score` is a cosine. `search --json` prints one array of these.

    Attributes:
        caption, tags, licence: from the table that was given with the sounds.
        rate, channels, size, modified: Hz, number of channels, bytes, and time of the last change (ISO 8601, UTC).
        title, artist, album, comment, copyright, date, keywords: from the file's own metadata.
        category, subcategory: from the file's name if it follows UCS, otherwise from its metadata.
    """

    path: str
    start_s: float
    end_s: float
    score: float
    duration_s: float
    caption: str | None
    tags: tuple[str, ...]
    licence: str | None
    rate: int = 0
    channels: int = 0
    size: int = 0
    modified: str = ""
    title: str | None = None
    artist: str | None = None
    album: str | None = None
    comment: str | None = None
    copyright: str | None = None
    date: str | None = None
    category: str | None = None
    subcategory: str | None = None
    keywords: tuple[str, ...] = ()
