"""The nouns that travel between the rooms.

Letters in names are dimensions: B clips, V views, T frames, F mel bins, L tokens, N samples, D embedding.
Tensor names here are annotations only: importing this file imports neither torch nor numpy.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

# fmt: off
AUDIO_SUFFIXES = frozenset({
    ".aac", ".ac3", ".aif", ".aifc", ".aiff", ".alac", ".amr", ".ape", ".au", ".bwf", ".caf", ".dts", ".eac3",
    ".flac", ".m4a", ".m4b", ".mka", ".mp1", ".mp2", ".mp3", ".oga", ".ogg", ".opus", ".rf64", ".snd", ".spx",
    ".tta", ".voc", ".w64", ".wav", ".wave", ".wma", ".wv",
})
# fmt: on
"""What sound files are called."""


@dataclass(frozen=True, slots=True)
class AudioBatch:
    """What an audio tower reads. V = 1 for plain presets; 4 for fusion: whole, front, middle, back."""

    mel_BVTF: Tensor
    is_long_B: Tensor
    frames_B: Tensor | None = None

    def to(self, device: torch.device) -> AudioBatch:
        """The same batch on `device`."""
        frames_B = None if self.frames_B is None else self.frames_B.to(device)
        return AudioBatch(self.mel_BVTF.to(device), self.is_long_B.to(device), frames_B)

    def split(self, clips: int) -> list[AudioBatch]:
        """The same clips in batches of at most `clips`."""
        starts = range(0, len(self.is_long_B), clips)
        rows = [slice(start, start + clips) for start in starts]
        frames = [None if self.frames_B is None else self.frames_B[row] for row in rows]
        return [
            AudioBatch(self.mel_BVTF[row], self.is_long_B[row], part) for row, part in zip(rows, frames, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class TextBatch:
    """What a text tower reads: token ids and a mask that is 1 on tokens and 0 on padding."""

    ids_BL: Tensor
    mask_BL: Tensor

    def to(self, device: torch.device) -> TextBatch:
        """The same batch on `device`."""
        return TextBatch(self.ids_BL.to(device), self.mask_BL.to(device))


@dataclass(frozen=True, slots=True)
class PairBatch:
    """Clips and their captions. Of T captions, `owner_T` is each one's clip in this batch, and
    `caption_id_T` is equal for equal captions, on whatever process they are. `keys` name the clips as the shards do."""

    audio: AudioBatch
    text: TextBatch
    owner_T: Tensor
    caption_id_T: Tensor
    keys: tuple[str, ...]

    def to(self, device: torch.device) -> PairBatch:
        """The same batch on `device`."""
        return replace(
            self,
            audio=self.audio.to(device),
            text=self.text.to(device),
            owner_T=self.owner_T.to(device),
            caption_id_T=self.caption_id_T.to(device),
        )

    def split(self, clips: int) -> list[PairBatch]:
        """The same pairs in batches of at most `clips` clips, each with its captions; never none at all."""
        pieces = []
        for number, audio in enumerate(self.audio.split(clips)):
            rows = slice(number * clips, (number + 1) * clips)
            mine_T = (self.owner_T >= rows.start) & (self.owner_T < rows.stop)
            text = TextBatch(self.text.ids_BL[mine_T], self.text.mask_BL[mine_T])
            owner_T, caption_id_T = self.owner_T[mine_T] - rows.start, self.caption_id_T[mine_T]
            pieces.append(PairBatch(audio, text, owner_T, caption_id_T, self.keys[rows]))
        return pieces or [self]


@dataclass(frozen=True, slots=True)
class Features:
    """What the two towers make of a batch, and all that an objective reads.

    `clip_B` numbers the clips and `owner_T` names each caption's clip by that number. Of one process's batch alone the
    numbers run from 0; `openclap.training.distributed` numbers the clips of all processes through.

    Attributes:
        audio_BD, text_TD: unit vectors.
        caption_id_T: equal for equal captions, on whatever process they are.
        scale: what similarities are multiplied by, exp'd and clamped.
        scale_text: the second one of LAION's four-term loss, where the model has it.
        audio_mlp_BD, text_mlp_TD: the same vectors after the transforms of that loss, where the model has them.
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


@dataclass(frozen=True, slots=True)
class AudioFeatures:
    """An audio tower's output before projection: (B, D) embedding; where the tower has a tagging head, (B, C)
    clipwise and (B, T, C) framewise class scores in 0..1; where it keeps time, (B, T, D) fine latent vectors."""

    embedding: Tensor
    clipwise: Tensor | None = None
    framewise: Tensor | None = None
    fine: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One sound and what is said of it, as it stands in a shard."""

    key: str
    captions: tuple[str, ...]
    tags: tuple[str, ...]
    original: dict[str, Any]
    audio: bytes


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of a recording and its unit vector (D,)."""

    start_s: float
    end_s: float
    vector: np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class Recording:
    """A decoded recording: its windows, and the facts that an index stores.

    Attributes:
        duration_s, rate, channels: of the recording itself: seconds, Hz, number of channels.
    """

    windows: list[Window]
    duration_s: float
    rate: int
    channels: int


class FileContent(bytes):
    """The bytes of a file, with the name of the file for messages."""

    name: str

    def __new__(cls, content: bytes, name: str) -> FileContent:
        self = super().__new__(cls, content)
        self.name = name
        return self


@dataclass(frozen=True, slots=True)
class Hit:
    """A found stretch of sound. `score` is a cosine. What `search --json` prints is one array of these."""

    path: str
    start_s: float
    end_s: float
    score: float
    duration_s: float
    caption: str | None
    tags: tuple[str, ...]
    licence: str | None
