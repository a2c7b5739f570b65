"""Sounds that end early: cut anywhere, what is there is decoded and said to end early; complete ones never are."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import soxr

import openclap
from openclap.audio.inputs import blocks
from openclap.audio.io import decode, decoded
from openclap.errors import AudioError, TruncatedAudioError

SOUNDS = Path(openclap.__file__).parent / "demo" / "sounds"
RATE, DURATION_S = 44100, 8


@pytest.fixture(scope="module")
def wave_N() -> np.ndarray:
    """A falling tone in noise."""
    time_N = np.arange(DURATION_S * RATE) / RATE
    noise_N = np.random.default_rng(0).standard_normal(len(time_N))
    return (0.4 * np.sin(2000 * time_N * (1 - time_N / 30)) + 0.02 * noise_N).astype(np.float32)


def write(path: Path, wave_N: np.ndarray) -> bytes:
    if path.suffix == ".mp3":  # FFmpeg writes an Info frame with the number of bytes
        with av.open(str(path), "w") as file:
            stream = file.add_stream("libmp3lame", rate=RATE, layout="mono", bit_rate=96_000)
            frame = av.AudioFrame.from_ndarray(wave_N[None], "fltp", "mono")
            frame.sample_rate = RATE
            for each in (frame, None):
                file.mux(stream.encode(each))
    else:
        form = {".opus": ("OGG", "OPUS"), ".ogg": ("OGG", "VORBIS")}.get(
            path.suffix, (path.suffix[1:].upper(), "PCM_16")
        )
        rate = 48000 if path.suffix == ".opus" else RATE
        soundfile.write(path, soxr.resample(wave_N, RATE, rate), rate, format=form[0], subtype=form[1])
    return path.read_bytes()


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "opus", "mp3"])
@pytest.mark.parametrize("share", [0.4, 0.9])
def test_what_is_there_of_a_cut_sound_is_kept(suffix: str, share: float, wave_N: np.ndarray, tmp_path: Path) -> None:
    content = write(tmp_path / f"whole.{suffix}", wave_N)
    whole = blocks(content, RATE, keep_truncated=True)
    assert abs(sum(map(len, whole)) / RATE - DURATION_S) < 0.1 and not whole.ends_early
    cut = content[: int(share * len(content))]
    kept = blocks(cut, RATE, keep_truncated=True)
    there_N = np.concatenate(list(kept))
    assert kept.ends_early and 0 < kept.duration_s < share * DURATION_S + 0.5
    # The first samples of an MP3 are the delay of its encoder, which the Info frame of the cut file still states.
    count = len(there_N) - 2000
    assert np.corrcoef(there_N[:count], wave_N[:count])[0, 1] > 0.97
    with pytest.raises(TruncatedAudioError):
        list(decoded(cut, check_end=True))
    if suffix in ("wav", "flac"):  # they state their lengths, so decoding them whole is an error
        with pytest.raises(AudioError):
            decode(cut)
    else:
        assert len(decode(cut)[0]) > 0


def test_no_bundled_sound_ends_early() -> None:
    for path in sorted(SOUNDS.glob("*.ogg"))[::7]:
        read = blocks(path, 8000, keep_truncated=True)
        assert sum(map(len, read)) > 0 and not read.ends_early, path


def test_a_sound_without_a_sample_is_an_error(wave_N: np.ndarray, tmp_path: Path) -> None:
    for suffix, count in (("wav", 44), ("ogg", 200)):
        content = write(tmp_path / f"whole.{suffix}", wave_N)[:count]
        with pytest.raises(AudioError):
            list(blocks(content, RATE, keep_truncated=True))
