"""Features of changed and of mixed sounds, for `scripts.mini.ablate`: mini itself was not better with them.

    python -m scripts.mini.views DIR [--only NAME ...]

DIR holds pairs.csv and aiSFX's weights, and gets view-NAME.npz, a file for each change in `CHANGES`, mixtures.npz, and
untrained.npz with the features of an untrained network.
Random numbers depend on a sound's place in its package alone, so a run that was stopped goes on with the same.

S samples, W windows, F features.
"""

from __future__ import annotations

import argparse
import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
import soundfile
import soxr
import torch
from scripts.mini.features import AudioFeatures, Cache, Row, read_rows
from scripts.mini.heads import Array

from openclap import presets
from openclap.models.build import build_audio_tower

MIXTURES = 2_000
MIXTURES_FILE, UNTRAINED_FILE = "mixtures.npz", "untrained.npz"
SAVED_EVERY = 500
Change = Callable[[Array, int, np.random.Generator], Array]


def speed(wave_S: Array, rate: int, rng: np.random.Generator) -> Array:
    """Play up to 25 % faster or slower, which changes pitch as well."""
    return _resampled(wave_S, rate, 1.25 ** rng.uniform(-1, 1))


def pitch(wave_S: Array, rate: int, rng: np.random.Generator) -> Array:
    """Transpose by up to three semitones at the same length: FFmpeg's atempo takes back a change of speed."""
    factor = 2 ** (rng.uniform(-3, 3) / 12)
    moved_S = _resampled(wave_S, rate, factor)
    graph = av.filter.Graph()
    source = graph.add_abuffer(sample_rate=rate, format="flt", layout="mono")
    graph.link_nodes(source, graph.add("atempo", f"{1 / factor:.6f}"), graph.add("abuffersink")).configure()
    frame = av.AudioFrame.from_ndarray(moved_S[None], format="flt", layout="mono")
    frame.sample_rate = rate
    graph.push(frame)
    graph.push(None)
    parts = []
    while True:
        try:
            parts.append(graph.pull().to_ndarray()[0])
        except (av.error.EOFError, av.error.BlockingIOError):
            return np.concatenate(parts) if parts else wave_S


def room(wave_S: Array, rate: int, rng: np.random.Generator) -> Array:
    """Add the reverberation of noise that decays by 60 dB in 0.2 to 1.2 s."""
    decay_s = rng.uniform(0.2, 1.2)
    time_S = np.arange(int(decay_s * rate)) / rate
    impulse_S = rng.standard_normal(len(time_S)) * 10 ** (-3 * time_S / decay_s)
    impulse_S *= rng.uniform(0.2, 0.8) / np.linalg.norm(impulse_S)
    impulse_S[0] += 1
    length = len(wave_S) + len(impulse_S) - 1
    wet_S = np.fft.irfft(np.fft.rfft(wave_S, length) * np.fft.rfft(impulse_S, length), length)
    return _limited(wet_S)


def codec(wave_S: Array, rate: int, rng: np.random.Generator) -> Array:
    """Encode as Ogg Vorbis of low quality at half the rate, or a quarter."""
    low = rate // int(rng.integers(2, 5))
    file = io.BytesIO()
    soundfile.write(file, soxr.resample(wave_S, rate, low), low, format="OGG", compression_level=0.95)
    decoded_S, _ = soundfile.read(io.BytesIO(file.getvalue()), dtype="float32")
    return _limited(soxr.resample(decoded_S, low, rate))


CHANGES: dict[str, Change] = {"speed": speed, "pitch": pitch, "room": room, "codec": codec}


def view_file(folder: Path, change: str) -> Path:
    return folder / f"view-{change}.npz"


def mixed(one_S: Array, other_S: Array, rng: np.random.Generator) -> Array:
    """Add two sounds of equal power, up to 6 dB apart; the shorter one begins anywhere within the longer one."""
    longer_S, shorter_S = (one_S, other_S) if len(one_S) >= len(other_S) else (other_S, one_S)
    start = int(rng.integers(0, len(longer_S) - len(shorter_S) + 1))
    gain = 10 ** (rng.uniform(-6, 6) / 20)
    sum_S = longer_S / (np.sqrt((longer_S**2).mean()) + 1e-6)
    sum_S[start : start + len(shorter_S)] += gain * shorter_S / (np.sqrt((shorter_S**2).mean()) + 1e-6)
    return _limited(0.1 * sum_S)


def choose_mixtures(rows: Sequence[Row], count: int = MIXTURES) -> list[tuple[int, int]]:
    """Draw pairs of recordings of different groups, by group, so that takes do not prevail."""
    rng = np.random.default_rng(0)
    by_group: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        if row.caption_from not in ("rendered", "transcript"):
            by_group.setdefault(row.group, []).append(number)
    groups = list(by_group.values())
    pairs = [rng.choice(len(groups), 2, replace=False) for _ in range(count)]
    return [(int(rng.choice(groups[one])), int(rng.choice(groups[other]))) for one, other in pairs]


def random_of(name: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()))


def _resampled(wave_S: Array, rate: int, factor: float) -> Array:
    return np.asarray(soxr.resample(wave_S, rate * factor, rate), np.float32)


def _limited(wave_S: Array) -> Array:
    return (wave_S / max(1.0, np.abs(wave_S).max(initial=0.0))).astype(np.float32)


def _fill(file: Path, compute: Sequence[tuple[str, Callable[[], Array]]]) -> None:
    cache = Cache(file)
    for number, (key, features) in enumerate(compute, start=1):
        if key not in cache.known:
            cache.known[key] = features().astype(np.float16)
        if number % SAVED_EVERY == 0 or number == len(compute):
            cache.save()
            print(f"{file.name}: {number} of {len(compute)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    names = [*CHANGES, "mixtures", "untrained"]
    parser.add_argument("--only", nargs="+", default=names, choices=names, metavar="NAME")
    options = parser.parse_args()
    folder = options.folder
    torch.set_num_threads(1)
    rows, audio = read_rows(folder / "pairs.csv"), AudioFeatures(folder)

    def changed(name: str, row: Row) -> Array:
        wave_S = CHANGES[name](audio.read(row.path), audio.rate, random_of(f"{name} {row.path}"))
        return audio.compute(wave_S)

    def both(one: Row, other: Row) -> Array:
        waves = (audio.read(row.path)[: 10 * audio.rate] for row in (one, other))
        return audio.compute(mixed(*waves, random_of(f"{one.path} {other.path}")))

    for name in CHANGES:
        if name in options.only:
            _fill(view_file(folder, name), [(row.path, lambda row=row: changed(name, row)) for row in rows])  # noqa: B023
    if "mixtures" in options.only:
        pairs = [(rows[one], rows[other]) for one, other in choose_mixtures(rows)]
        mixtures = [(f"{one.path} {other.path}", lambda one=one, other=other: both(one, other)) for one, other in pairs]
        _fill(folder / MIXTURES_FILE, mixtures)
    if "untrained" in options.only:
        torch.manual_seed(0)
        audio.tower = build_audio_tower(presets.MINI.audio).eval()
        plain = [(row.path, lambda row=row: audio.compute(audio.read(row.path))) for row in rows]
        _fill(folder / UNTRAINED_FILE, plain)


if __name__ == "__main__":
    main()
