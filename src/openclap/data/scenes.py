"""Compose recordings of known sounds at known times, for training and measuring models that say when a sound is heard.

As Scaper does (Salamon et al. 2017), from the clips of any data set: clips of different labels follow each other over
quiet noise, each trimmed of silence, so that its on- and offset are known. N samples of a waveform.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from openclap.arrays import Wave
from openclap.audio.inputs import blocks
from openclap.audio.mono import MonoConfig
from openclap.errors import AudioError, ConfigError
from openclap.sources.phrases import phrases_to_json
from openclap.sources.record import Record
from openclap.storage import write_bytes
from openclap.types import Phrase


@dataclass(frozen=True, slots=True)
class SceneConfig:
    """How scenes are composed.

    Attributes:
        rate: Hz of the scenes.
        length_s: seconds of a scene.
        pieces: the most clips in a scene; as many as fit.
        shortest_s, longest_s: clips that are shorter are not used, and longer ones are cut, with a fade.
        gap_s: the least silence between clips.
        noise_db: level of the noise in dBFS (RMS), whose spectrum falls by 3 dB in an octave.
        peak_db: lowest and highest peak of a clip in dBFS.
    """

    rate: int = 44100
    length_s: float = 15.0
    pieces: int = 4
    shortest_s: float = 0.3
    longest_s: float = 3.0
    gap_s: float = 1.0
    noise_db: float = -55.0
    peak_db: tuple[float, float] = (-12.0, -3.0)

    def __post_init__(self) -> None:
        """Raises ConfigError for a scene that cannot hold a clip."""
        if not 0 < self.shortest_s <= self.longest_s <= self.length_s or self.pieces < 1 or self.gap_s < 0:
            raise ConfigError(
                f"A scene of {self.length_s} s with clips of {self.shortest_s} to {self.longest_s} s cannot be made. "
                "Expected 0 < shortest_s <= longest_s <= length_s, pieces from 1 on, and gap_s from 0 on."
            )


@dataclass(frozen=True, slots=True)
class ScenePiece:
    """A clip in a scene: the number of its record, its caption, and its on- and offset in seconds."""

    record: int
    phrase: str
    onset_s: float
    offset_s: float


@dataclass(frozen=True, slots=True)
class Scene:
    """A composed recording (N,) in float32, and its clips in the order of time."""

    wave: Wave
    rate: int
    pieces: tuple[ScenePiece, ...]

    @property
    def phrases(self) -> tuple[Phrase, ...]:
        """Each phrase with its segments."""
        return tuple(Phrase(piece.phrase, ((piece.onset_s, piece.offset_s),)) for piece in self.pieces)


FADE_S = 0.05


class SceneMaker:
    """Composes scenes of the clips of `records`, which need captions; clips of one scene have different labels.

    Clips that cannot be decoded or are too short are left out.

    Raises DataError or ConfigError where no clip is left.
    """

    def __init__(self, records: Sequence[Record], config: SceneConfig = SceneConfig()) -> None:
        self.records, self.config = records, config
        self._waves: dict[int, Wave] = {}
        for number, record in enumerate(records):
            try:
                wave_N = _decoded(record, config)
            except AudioError:
                continue
            if len(wave_N) >= config.shortest_s * config.rate and record.captions:
                self._waves[number] = wave_N
        if not self._waves:
            raise ConfigError(f"None of the {len(records)} sounds has a caption and lasts {config.shortest_s} s.")

    @property
    def clips(self) -> dict[int, Wave]:
        """The clips that scenes are made of, by the numbers of their records."""
        return self._waves

    def scenes(self, number: int, seed: int = 0) -> Iterator[Scene]:
        """Compose scenes; in each round through all clips, every clip is drawn once."""
        rng = np.random.default_rng(seed)
        waiting: list[int] = []
        for _ in range(number):
            if len(waiting) < self.config.pieces:
                waiting += rng.permutation(list(self._waves)).tolist()
            chosen = self._choose(waiting)
            yield self._scene([waiting.pop(waiting.index(each)) for each in chosen], rng)

    def _choose(self, waiting: list[int]) -> list[int]:
        """The next clips of different labels and captions, as many as fit."""
        config, chosen, used_s = self.config, list[int](), 0.0
        for number in waiting:
            length_s = len(self._waves[number]) / config.rate + config.gap_s
            is_new = all(self._kind(number).isdisjoint(self._kind(other)) for other in chosen)
            if is_new and number not in chosen and (not chosen or used_s + length_s + config.gap_s <= config.length_s):
                chosen.append(number)
                used_s += length_s
            if len(chosen) == config.pieces:
                break
        return chosen

    def _kind(self, number: int) -> set[str]:
        record = self.records[number]
        return {record.captions[0], record.label or record.captions[0]}

    def _scene(self, chosen: Sequence[int], rng: np.random.Generator) -> Scene:
        config = self.config
        wave_N = _noise(round(config.length_s * config.rate), config.noise_db, rng)
        # The silence that is left is shared at random among the gaps.
        spare = (
            len(wave_N)
            - sum(len(self._waves[each]) for each in chosen)
            - round(config.gap_s * config.rate) * (len(chosen) + 1)
        )
        shares = np.sort(rng.integers(0, max(spare, 0) + 1, len(chosen)))
        pieces, at, given = [], 0, 0
        for number, share in zip(chosen, shares.tolist(), strict=True):
            clip_N = self._waves[number]
            at = min(at + round(config.gap_s * config.rate) + share - given, len(wave_N) - len(clip_N))
            given = share
            gain = 10 ** (rng.uniform(*config.peak_db) / 20) / np.abs(clip_N).max()
            wave_N[at : at + len(clip_N)] += np.float32(gain) * clip_N
            phrase = self.records[number].captions[0]
            pieces.append(ScenePiece(number, phrase, at / config.rate, (at + len(clip_N)) / config.rate))
            at += len(clip_N)
        return Scene(np.clip(wave_N, -1, 1), config.rate, tuple(pieces))


def write_scenes(maker: SceneMaker, folder: Path, number: int, seed: int = 0) -> list[Record]:
    """Write scenes as FLAC files and `phrases.jsonl`, in FineLAP's form, and return their records.

    The caption of a scene joins its phrases. Its group is that of none of its clips: split the clips, and not the
    scenes.
    """
    import soundfile

    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for place, scene in enumerate(maker.scenes(number, seed)):
        file = folder / f"scene-{place:05}.flac"
        soundfile.write(file, scene.wave, scene.rate)
        caption = ", then ".join(piece.phrase for piece in scene.pieces)
        records.append(Record(file.stem, file, (caption,), "scenes", phrases=scene.phrases))
    lines = [
        {"audio_id": each.id, "audio_path": str(each.audio), "caption": each.captions[0]}
        | {"phrases": phrases_to_json(each.phrases)}
        for each in records
    ]
    write_bytes(folder / "phrases.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())
    return records


def _decoded(record: Record, config: SceneConfig) -> Wave:
    """A clip without silent ends, at most `longest_s`, with a fade where it was cut."""
    wave_N = np.concatenate([*blocks(record.audio, config.rate, mono=MonoConfig("mean"))])
    loud = np.flatnonzero(np.abs(wave_N) >= 0.01 * max(np.abs(wave_N).max(initial=0), 1e-4))
    if not len(loud):
        raise AudioError(f"{record.audio}: is silent.")
    trimmed_N, most = wave_N[loud[0] : loud[-1] + 1].copy(), round(config.longest_s * config.rate)
    if len(trimmed_N) > most:
        fade = min(round(FADE_S * config.rate), most)
        trimmed_N = trimmed_N[:most]
        trimmed_N[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
    return trimmed_N


def _noise(samples: int, level_db: float, rng: np.random.Generator) -> Wave:
    """Noise whose power falls by 3 dB in an octave."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    spectrum[0] = 0
    noise_N = np.fft.irfft(spectrum, samples)
    scaled: Wave = (noise_N / np.sqrt(np.mean(noise_N**2)) * 10 ** (level_db / 20)).astype(np.float32)
    return scaled
