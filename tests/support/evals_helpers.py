"""Sounds, shards and a small embedder to evaluate; its vectors are computed from the audio.

S samples, N items, B bands, V words, D embedding.
"""

from __future__ import annotations

import io
import itertools
import json
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

import openclap
from openclap.evals.cached_embedder import CachedEmbedder, open_cached
from openclap.evals.dataset import EvalClip, EvalClips
from openclap.evals.probing import LabelledClips

RATE = 16_000
SOUNDS = {
    "low_hum": "a low electric hum",
    "whistle": "a high thin whistle",
    "rain": "steady rain on a roof",
    "thunder": "distant rolling thunder",
    "alarm": "an alarm that beeps again and again",
    "siren": "a siren that rises and falls",
}


def make_wave(label: str, seed: int, seconds: float = 0.6) -> np.ndarray:
    """(S,) one take of a sound."""
    rng = np.random.default_rng([zlib.crc32(label.encode()), seed])
    t = np.arange(int(RATE * seconds)) / RATE
    noise, wobble = rng.standard_normal(len(t)), rng.uniform(0.85, 1.2)
    wave = {
        "low_hum": np.sin(2 * np.pi * 110 * wobble * t) + 0.4 * np.sin(2 * np.pi * 220 * wobble * t),
        "whistle": np.sin(2 * np.pi * 3000 * wobble * t),
        "rain": noise,
        "thunder": np.convolve(noise, np.hanning(200), "same") / 8,
        "alarm": np.sin(2 * np.pi * 900 * wobble * t) * (np.sin(2 * np.pi * 6 * t) > 0),
        "siren": np.sin(2 * np.pi * (700 * wobble * t + 90 * np.sin(2 * np.pi * 1.5 * t))),
    }[label]
    return (0.3 * wave + 0.02 * rng.standard_normal(len(t))).astype(np.float32)


def flac(wave: np.ndarray) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, wave, RATE, format="FLAC")
    return out.getvalue()


def write_shard(folder: Path, samples: list[tuple[str, bytes, dict[str, Any]]]) -> Path:
    """A folder with one webdataset tar: key.flac and key.json of each sample."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / "0.tar", "w") as tar:
        for key, audio, facts in samples:
            for name, content in ((f"{key}.flac", audio), (f"{key}.json", json.dumps(facts).encode())):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return folder


def facts(label: str | None, group: str, captions: list[str], **more: str) -> dict[str, Any]:
    original = {
        "id": group,
        "title": f"{group} take",
        "label": label,
        "group": group,
        "licence": "CC0-1.0",
        "author": "A. Recordist",
        "link": "https://example.org/sound",
        "source": "field recordings",
        "file": f"{group}.wav",
    }
    return {"text": captions, "tag": [], "original_data": original | more}


def write_split(folder: Path, takes: int, first_seed: int) -> Path:
    """Every kind of sound, `takes` recordings of each, every recording as two clips of one group."""
    samples = []
    for label, caption in SOUNDS.items():
        for take in range(takes):
            group = f"{label}-{first_seed + take}"
            for part in range(2):
                wave = make_wave(label, 10 * (first_seed + take) + part)
                words = [caption, f"{caption}, recording {first_seed + take} part {part}"]
                samples.append((f"{group}-{part}", flac(wave), facts(label, group, words)))
    return write_shard(folder, samples)


def with_labels(clips: EvalClips, label: dict[str, str | None]) -> EvalClips:
    """The same clips with labels replaced as the table says."""
    renamed = [replace(clip, label=label.get(str(clip.label), clip.label)) for clip in clips.clips]
    return replace(clips, clips=tuple(renamed))


class BandEmbedder:
    """Sounds are embedded as energies in frequency bands, words by a ridge regression onto those energies.

    Small, but a real joint embedding: it learns from pairs and generalises to other takes.
    """

    clip_policy = "Every clip is embedded whole: energies are averaged over its length."
    bands, words = 24, 128

    def __init__(self) -> None:
        self.calls: list[int] = []
        rng = np.random.default_rng(0)
        self.mean_B = np.zeros(self.bands)
        self.map_VB = rng.standard_normal((self.words, self.bands))

    def fit(self, sounds: list[bytes], captions: list[str]) -> BandEmbedder:
        energy_NB = np.stack([self._energies(io.BytesIO(sound)) for sound in sounds])
        self.mean_B = energy_NB.mean(0)
        words_NV = np.stack([self._words(caption) for caption in captions])
        gram_VV = words_NV.T @ words_NV + 0.5 * np.eye(self.words)
        self.map_VB = np.linalg.solve(gram_VV, words_NV.T @ (energy_NB - self.mean_B))
        return self

    def embed_audio(self, sounds: list[Any], batch_size: int = 16) -> np.ndarray:
        self.calls.append(len(sounds))
        return _unit(np.stack([self._energies(sound) for sound in sounds]) - self.mean_B)

    def embed_text(self, texts: list[str]) -> np.ndarray:
        return _unit(np.stack([self._words(text) for text in texts]) @ self.map_VB + 1e-9)

    def _energies(self, sound: Any) -> np.ndarray:
        wave, _ = soundfile.read(sound)
        power = np.abs(np.fft.rfft(wave)) ** 2
        edges = np.geomspace(4, len(power) - 1, self.bands + 1).astype(int)
        return np.log(1e-6 + np.array([power[a:b].mean() for a, b in itertools.pairwise(edges)]))

    def _words(self, text: str) -> np.ndarray:
        counts = np.zeros(self.words)
        for word in text.lower().replace(",", " ").replace(".", " ").split():
            counts[zlib.crc32(word.encode()) % self.words] += 1
        return counts


def _unit(vector_ND: np.ndarray) -> np.ndarray:
    return (vector_ND / np.linalg.norm(vector_ND, axis=1, keepdims=True)).astype(np.float32)


def separable_embeddings(seed: int, rows: int, multilabel: bool) -> LabelledClips:
    """Embeddings of four classes that overlap a little."""
    rng = np.random.default_rng(seed)
    middle = np.random.default_rng(9).standard_normal((4, 12))
    truth = rng.random((rows, 4)) < 0.4 if multilabel else np.eye(4, dtype=bool)[rng.integers(0, 4, rows)]
    embedding = (truth @ middle + 1.5 * rng.standard_normal((rows, 12))).astype(np.float32)
    clips = tuple(EvalClip(f"{seed}-{n}", (), None, f"{seed}-{n}", 1.0) for n in range(rows))
    return LabelledClips(EvalClips(f"part {seed}", clips, "", lambda index: b""), embedding, truth)


def cached(model: Path, home: Path, name: str = "tiny", **options: Any) -> CachedEmbedder:
    """A model of a folder, with its cache under `home`."""
    return open_cached(name, partial(openclap.load, model), home, **options)


class RefusingEmbedder:
    """A model that has an identity and refuses to embed."""

    def __init__(self, model: Any) -> None:
        self.tokenizer, self.clip_policy, self.clap = model.tokenizer, model.clip_policy, model.clap

    def embed_each(self, sounds: Sequence[Any], batch_size: int) -> Iterator[Any]:
        raise AssertionError("a sound was embedded")

    def embed_text(self, texts: Sequence[str]) -> Any:
        raise AssertionError("a text was embedded")
