"""Precision and recall of `openclap duplicates` on 2,000 real clips, 200 copies of them, and takes of one session.

    python benchmarks/duplicates.py SOUNDS --clips 2000 --copies 200

SOUNDS are folders of unpacked packages: Debian's hydrogen-drumkits, hydrogen-drumkits-effects, scratch, minetest-data,
asterisk-core-sounds-en-wav, lmms-common, lincity-ng-data and wesnoth-1.16-data, and npm's supersonic-scsynth-samples.
A copy is a clip in another codec, 6 dB louder or softer, cut, or resampled. Hard negatives are takes: clips of one
folder whose names differ only in digits.

The packages hold some recordings twice, most of them drums whose strengths are one recording at several levels. A
reported pair that is no copy is therefore checked apart from openclap: where the waveforms of two files correlate by
0.9999 at their own rate (0.998 where one is lossy), they are one recording, and the pair is right. Recall is that of
the copies that were made.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import lru_cache
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


@lru_cache(64)
def mono(path: Path) -> tuple[np.ndarray, int]:
    wave_NC, rate = decode(path)
    return wave_NC.mean(axis=1, dtype=np.float64), rate


def is_one_recording(one: Path, other: Path) -> bool:
    """Whether two files hold the same samples but for their level, a shift, and what encoding changes."""
    (one_N, rate), (other_N, other_rate) = mono(one), mono(other)
    if rate != other_rate:
        return False
    size = 1 << (len(one_N) + len(other_N)).bit_length()
    cross = np.fft.irfft(np.fft.rfft(one_N, size) * np.fft.rfft(other_N, size).conj(), size)
    lag = int(np.abs(cross).argmax())
    lag -= size if lag > len(one_N) else 0
    one_N, other_N = one_N[max(0, lag) :], other_N[max(0, -lag) :]
    shared = min(len(one_N), len(other_N))
    if shared < 0.5 * min(len(mono(one)[0]), len(mono(other)[0])):
        return False
    one_N, other_N = one_N[:shared], other_N[:shared]
    is_lossy = {one.suffix, other.suffix} & {".ogg", ".mp3", ".m4a"}
    return abs(one_N @ other_N) >= (0.998 if is_lossy else 0.9999) * np.linalg.norm(one_N) * np.linalg.norm(other_N)


def with_natural_copies(folder: Path, origin: dict[str, str], reported: list[frozenset[str]]) -> tuple[dict, int]:
    """`origin` with one name for clips that are one recording, and the number of pairs that were found to be."""
    root = {clip: clip for clip in origin.values()}

    def find(clip: str) -> str:
        while root[clip] != clip:
            clip = root[clip]
        return clip

    count = 0
    for one, other in map(sorted, reported):
        if find(origin[one]) != find(origin[other]) and is_one_recording(folder / one, folder / other):
            root[find(origin[one])] = find(origin[other])
            count += 1
    return {name: find(clip) for name, clip in origin.items()}, count


def find_duplicates(index: Path, sounds: int) -> tuple[list[list[str]], int]:
    """The file names of all groups, and the number of pairs that could not be compared, by the command line."""
    command = [sys.executable, "-m", "openclap", "duplicates", "--index", str(index), "--json"]
    environment = os.environ | {"OPENCLAP_CACHE_SIZE": "0"}  # no comparisons of an earlier run
    run = subprocess.run([*command, "--page-size", str(sounds)], capture_output=True, check=True, env=environment)
    page = json.loads(run.stdout)
    return [[Path(file["path"]).name for file in group["files"]] for group in page["listed"]], len(page["skipped"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sounds", type=Path, nargs="+")
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--copies", type=int, default=200)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp())
    (folder / "sounds").mkdir(parents=True)
    origin, kinds, takes = build(folder / "sounds", options.sounds, options.clips, options.copies)
    in_takes = set().union(*takes)
    print(
        f"{len(origin) - len(kinds)} clips, {len(kinds)} copies; {len(in_takes)} clips are takes ({len(takes)} pairs)"
    )
    Library.open(folder / "index", options.model).add([folder / "sounds"])
    start = time.perf_counter()
    members, failed = find_duplicates(folder / "index", len(origin))
    print(f"compared in {time.perf_counter() - start:.0f} s; {failed} pairs not compared")
    found = {frozenset(pair) for names in members for pair in combinations(names, 2)}
    made = {
        frozenset((name, other))
        for name in kinds
        for other in origin
        if other not in kinds and origin[name] == origin[other]
    }
    joined, natural = with_natural_copies(folder / "sounds", origin, sorted(found, key=sorted))
    right = {pair for pair in found if len({joined[name] for name in pair}) == 1}
    of_copies = {pair for pair in found if len({origin[name] for name in pair}) == 1}
    print(f"{natural} clips hold the recording of another clip ({len(right - of_copies)} of the reported pairs)")
    print(f"precision {len(right) / len(found):.3f} ({len(right)} of {len(found)} pairs)")
    print(f"recall {len(made & found) / len(made):.3f} (of {len(made)} copies)")
    print(f"takes called duplicates: {len((found - right) & takes)} of {len(takes)} pairs")
    missed = Counter(kinds[name] for pair in made - found for name in pair if name in kinds)
    print("missed by kind:", dict(missed))
    for pair in sorted(map(sorted, found - right)):
        print("wrong:", *pair)


if __name__ == "__main__":
    main()
