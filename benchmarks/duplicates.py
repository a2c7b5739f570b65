"""Precision and recall of `openclap duplicates` on 2,000 real clips, 200 copies of them, and takes of one session.

    python benchmarks/duplicates.py SOUNDS --clips 2000 --copies 200

SOUNDS are folders of unpacked packages: Debian's hydrogen-drumkits, hydrogen-drumkits-effects, scratch, minetest-data,
asterisk-core-sounds-en-wav, lmms-common, lincity-ng-data and wesnoth-1.16-data, and npm's supersonic-scsynth-samples.
Clips with the samples of an earlier one are left out, whatever their level. A copy is a clip in another codec, 6 dB
louder or softer, cut, or resampled. Hard negatives are takes: clips of one folder whose names differ only in digits. A
reported pair is right if one is a copy of the other.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import av
import numpy as np
import soundfile
import soxr

from openclap import Library
from openclap.audio.io import decode
from openclap.errors import AudioError
from openclap.types import AUDIO_SUFFIXES

LEAST_S, MOST_S = 0.25, 10.0


def clips(folders: list[Path]) -> Iterator[tuple[Path, np.ndarray, int]]:
    """Yield the distinct sounds of folders: (path, (N, C) samples, rate)."""
    known = set()
    paths = sorted(path for folder in folders for path in folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES)
    for path in np.random.default_rng(0).permutation(np.array(paths, object)):
        try:
            wave_NC, rate = decode(path)
        except AudioError:
            continue
        peak = np.abs(wave_NC).max()
        if not LEAST_S * rate <= len(wave_NC) <= MOST_S * rate or peak < 0.01:
            continue
        digest = hashlib.sha256(np.round(wave_NC / peak, 2).tobytes()).digest()
        if path.is_symlink() or digest in known:
            continue
        known.add(digest)
        yield path, wave_NC, rate


def encode(path: Path, codec: str, bit_rate: int, wave_NC: np.ndarray, rate: int) -> None:
    if rate not in (44100, 48000):
        wave_NC, rate = soxr.resample(wave_NC, rate, 44100), 44100
    layout = "mono" if wave_NC.shape[1] == 1 else "stereo"
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=rate, layout=layout, bit_rate=bit_rate)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave_NC.T[:2], np.float32), "fltp", layout)
        frame.sample_rate = rate
        for each in (frame, None):
            file.mux(stream.encode(each))


def write_copy(folder: Path, number: int, wave_NC: np.ndarray, rate: int, rng: np.random.Generator) -> str:
    """Write a copy of a clip of one of eight kinds, and return the kind."""
    peak, place = np.abs(wave_NC).max(), folder / f"copy-{number}"
    kind = ("mp3", "ogg", "aac", "louder", "softer", "cut", "resampled", "ogg, softer, cut")[number % 8]
    if "cut" in kind:
        first, last = rng.uniform(0.02, 0.15, 2)
        wave_NC = wave_NC[int(first * len(wave_NC)) : len(wave_NC) - int(last * len(wave_NC))]
    if kind == "mp3":
        encode(place.with_suffix(".mp3"), "libmp3lame", 96_000, wave_NC, rate)
    elif kind == "aac":
        encode(place.with_suffix(".m4a"), "aac", 96_000, wave_NC, rate)
    elif "ogg" in kind:
        gain = 0.5 if "softer" in kind else 1.0
        soundfile.write(place.with_suffix(".ogg"), gain * wave_NC, rate, format="OGG", subtype="VORBIS")
    elif kind in ("louder", "softer"):
        gain = min(2.0, 0.999 / peak) if kind == "louder" else 0.5
        soundfile.write(place.with_suffix(".flac"), gain * wave_NC, rate)
    elif kind == "resampled":
        other = 22050 if rate > 22050 else 16000
        soundfile.write(place.with_suffix(".wav"), np.clip(soxr.resample(wave_NC, rate, other), -1, 1), other)
    else:
        soundfile.write(place.with_suffix(".flac"), wave_NC, rate)
    return kind


def build(folder: Path, sources: list[Path], count: int, copies: int) -> tuple[dict[str, str], dict[str, str], set]:
    """Write clips and copies; return the clip of each file, the kind of each copy, and the pairs of takes."""
    rng = np.random.default_rng(1)
    origin, kinds, takes = {}, {}, defaultdict(list)
    chosen = []
    for number, (path, *_) in enumerate(clips(sources)):
        if number == count:
            break
        name = f"clip-{number}{path.suffix.lower()}"
        shutil.copyfile(path, folder / name)
        origin[name] = f"clip-{number}"
        takes[path.parent, re.sub(r"\d+", "#", path.stem)].append(name)
        chosen.append(path)
    for number, clip in enumerate(rng.choice(len(chosen), copies, replace=False)):
        wave_NC, rate = decode(chosen[clip])
        kind = write_copy(folder, number, wave_NC[:, :2], rate, rng)
        [file] = folder.glob(f"copy-{number}.*")
        origin[file.name], kinds[file.name] = f"clip-{clip}", kind
    (folder / "sources.txt").write_text("".join(f"clip-{n}\t{path}\n" for n, path in enumerate(chosen)))
    return origin, kinds, {frozenset(pair) for names in takes.values() for pair in combinations(names, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sounds", type=Path, nargs="+")
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--copies", type=int, default=200)
    parser.add_argument("--model", default="demo-start")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp())
    (folder / "sounds").mkdir(parents=True)
    origin, kinds, takes = build(folder / "sounds", options.sounds, options.clips, options.copies)
    in_takes = set().union(*takes)
    print(
        f"{len(origin) - len(kinds)} clips, {len(kinds)} copies; {len(in_takes)} clips are takes ({len(takes)} pairs)"
    )
    library = Library.open(folder / "index", options.model)
    library.add([folder / "sounds"])
    start = time.perf_counter()
    groups, failed = library.duplicates()
    print(f"compared in {time.perf_counter() - start:.0f} s; {len(failed)} pairs not compared")
    members = [[Path(each.file.path).name for each in group.files] for group in groups]
    found = {frozenset(pair) for names in members for pair in combinations(names, 2)}
    right = {pair for pair in found if len({origin[name] for name in pair}) == 1}
    of_copies = [frozenset((name, other)) for name in kinds for other in origin if name != other]
    truth = {pair for pair in of_copies if len({origin[name] for name in pair}) == 1}
    print(f"precision {len(right) / len(found):.3f} ({len(right)} of {len(found)} pairs)")
    print(f"recall {len(right & truth) / len(truth):.3f} (of {len(truth)} pairs)")
    print(f"takes called duplicates: {len(found & takes)} of {len(takes)} pairs")
    missed = Counter(kinds[name] for pair in truth - found for name in pair if name in kinds)
    print("missed by kind:", dict(missed))
    for pair in sorted(map(sorted, found - right)):
        print("wrong:", *pair)


if __name__ == "__main__":
    main()
