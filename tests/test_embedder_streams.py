"""Many sounds, long sounds, and sounds beside bad ones."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openclap.audio.frontend import FrontEnd
from openclap.audio.windows import cut_windows, window_starts
from openclap.decode_ahead import DecodeAhead, PooledWindow
from openclap.embedder import Embedder
from openclap.errors import AudioError
from openclap.models.build import build_clap
from openclap.models.config import HTSATConfig
from openclap.runtimes.torch import TorchRuntime
from openclap.types import AudioBatch
from support.tiny_models import TINY_PRESET, tiny_tokenizer

HTSAT = HTSATConfig(width=24, depths=(2, 2), heads=(2, 4), n_mels=24, image=96, window=6, classes=0)


def embedder(*, fusion: bool = False) -> Embedder:
    torch.manual_seed(0)
    frontend = replace(TINY_PRESET.frontend, long="fusion" if fusion else "windows", fill="repeatpad")
    audio = replace(HTSAT, fusion="aff_2d" if fusion else None)
    preset = replace(TINY_PRESET, frontend=frontend, audio=audio)
    return Embedder(TorchRuntime(build_clap(preset), preset, tiny_tokenizer()))


MODELS = {fusion: embedder(fusion=fusion) for fusion in (False, True)}

sounds = st.tuples(
    st.floats(0.05, 61.0),
    st.sampled_from([8000, 11025, 22050, 44100, 48000, 96000]),
    st.integers(1, 6),
    st.integers(0, 99),
)


def make(length_s: float, rate: int, channels: int, seed: int) -> tuple[np.ndarray, int]:
    samples = max(channels, round(length_s * rate))
    return (0.3 * np.random.default_rng(seed).standard_normal((samples, channels))).astype(np.float32), rate


@settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(sounds, min_size=2, max_size=4), st.sampled_from([1, 3, 16]), st.booleans())
def test_embeddings_do_not_depend_on_the_batch(
    drawn: list[tuple[float, int, int, int]], batch_size: int, fusion: bool
) -> None:
    model, clips = MODELS[fusion], [make(*sound) for sound in drawn]
    together = model.embed_audio(clips, batch_size=batch_size)
    np.testing.assert_allclose(together, np.concatenate([model.embed_audio([clip]) for clip in clips]), atol=1e-5)
    np.testing.assert_array_equal(together, model.embed_audio(clips, batch_size=batch_size))
    np.testing.assert_allclose(together[::-1], model.embed_audio(clips[::-1]), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)


@given(st.integers(0, 60), st.integers(1, 20), st.integers(1, 25), st.lists(st.integers(0, 30), max_size=6))
@settings(max_examples=200, deadline=None)
def test_cutting_blocks_is_cutting_the_whole(length: int, window: int, hop: int, cuts: list[int]) -> None:
    wave = np.arange(length, dtype=np.float32)
    found = list(cut_windows(np.split(wave, sorted(c for c in cuts if c <= length)), window, hop))
    assert [start for start, _, _ in found] == window_starts(length, window, hop)
    for start, end, piece in found:
        np.testing.assert_array_equal(piece, wave[start:end] if length else [0.0])


def test_bad_sounds_stop_no_others(tmp_path: Path) -> None:
    good = tmp_path / "good.wav"
    soundfile.write(good, make(1.0, 16000, 1, 0)[0], 16000)
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    cut_short = tmp_path / "cut.flac"
    soundfile.write(cut_short, make(1.0, 16000, 1, 0)[0], 16000)
    cut_short.write_bytes(cut_short.read_bytes()[:9000])
    found = list(MODELS[False].embed_each([tmp_path / "bad.wav", good, cut_short, good, "missing.wav"], batch_size=2))
    assert [isinstance(vector, AudioError) for vector in found] == [True, False, True, False, True]
    np.testing.assert_allclose(found[1], found[3], atol=1e-6)


def write_wav(path: Path, seconds: float, rate: int = 16000) -> Path:
    soundfile.write(path, make(seconds, rate, 1, 0)[0], rate)
    return path


def test_one_open_file_many_times(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", 12.0)
    [wanted] = MODELS[False].embed_audio([path])
    with path.open("rb") as file:
        np.testing.assert_allclose(MODELS[False].embed_audio([file] * 6), [wanted] * 6, atol=1e-5)


@pytest.mark.parametrize("fusion", [False, True])
@pytest.mark.parametrize("length_s", [None, 10.0])
def test_batches_are_bounded_by_samples(tmp_path: Path, fusion: bool, length_s: float | None) -> None:
    """What goes through together, and what is read ahead, does not grow with the length of the recordings."""
    model = MODELS[fusion]
    paths = [write_wav(tmp_path / f"{number}.wav", 20.0) for number in range(3)]
    batches: list[list[int]] = []
    with pytest.MonkeyPatch.context() as patch:
        real = model.frontend
        patch.setattr(model.runtime, "frontend", Watched(real, batches))
        if length_s:
            assert [len(windows) for windows in model.windows_each(paths, length_s=length_s)] == [2] * 3
        else:
            assert len(model.embed_audio(paths)) == 3
    longest = max(map(max, batches))
    assert longest == (real.samples if not fusion else round((length_s or 20) * 16000))
    assert max(map(sum, batches)) < 16 * real.samples + longest


class Watched:
    """A front end that notes how many samples it is given at once."""

    def __init__(self, frontend: FrontEnd, batches: list[list[int]]) -> None:
        self.frontend, self.batches = frontend, batches
        self.samples, self.sample_rate = frontend.samples, frontend.sample_rate

    def __call__(self, waves: list[torch.Tensor]) -> AudioBatch:
        self.batches.append([len(wave) for wave in waves])
        return self.frontend(waves)


def test_decode_ahead_is_bounded() -> None:
    requested: list[int] = []

    def endless(number: int) -> Iterator[np.ndarray]:
        while True:
            requested.append(number)
            yield np.zeros(1000, np.float32)

    sounds = ((str(number), endless(number)) for number in range(99))
    with DecodeAhead(sounds, lambda blocks: ((PooledWindow(), block) for block in blocks), 8, 3500) as ahead:
        jobs = iter(ahead)
        assert next(jobs).name == "0"
        for _ in range(10):
            next(jobs)
        end = time.monotonic() + 20
        while len(set(requested)) < 8 and time.monotonic() < end:  # threads begin when they can
            time.sleep(0.01)
    assert sorted(set(requested)) == list(range(8)) and len(requested) <= 10 + 7 * 4


def test_progress_receives_the_seconds_of_sound(tmp_path: Path) -> None:
    seconds: list[float] = []
    list(MODELS[False].embed_each([write_wav(tmp_path / "a.wav", 20.0)], progress=seconds.append))
    assert len(seconds) > 2 and sum(seconds) == pytest.approx(20.0)


def test_stopping_early_stops_the_threads() -> None:
    before = threading.active_count()
    stream = MODELS[False].embed_each(make(1.0, 16000, 1, seed) for seed in range(1000))
    next(stream)
    stream.close()
    assert threading.active_count() == before


def test_windows_longer_than_the_input_are_covered() -> None:
    model, sound = MODELS[False], make(4.0, 16000, 1, 1)
    [window] = model.windows(sound, length_s=4.0)
    np.testing.assert_allclose(window.vector, model.embed_audio([sound])[0], atol=1e-5)


def test_clip_policy_names_fusion() -> None:
    assert "fused by the model" in MODELS[True].clip_policy and "Windows of" in MODELS[False].clip_policy


def test_gradients_reach_waveforms_of_any_length() -> None:
    for model in MODELS.values():
        waves = [torch.rand(n).requires_grad_() for n in (3000, 20000)]
        model.audio_tensor(waves).sum().backward()
        assert all(wave.grad is not None and wave.grad.abs().sum() > 0 for wave in waves)


TEN_HOURS = """
import resource, sys
sys.path.insert(0, sys.argv[2])
from test_embedder_streams import MODELS
MODELS[False].windows(sys.argv[1], length_s=0.5, hop_s=30)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
"""


@pytest.mark.long
def test_ten_hours_need_no_more_memory_than_ten_minutes(tmp_path: Path) -> None:
    peaks = []
    for name, blocks in (("minutes", 60), ("hours", 3600)):
        path = tmp_path / f"{name}.flac"
        with soundfile.SoundFile(path, "w", 16000, 2) as file:
            for seed in range(blocks):
                file.write(make(10.0, 16000, 2, seed % 7)[0])
        code = textwrap.dedent(TEN_HOURS) + "print(before)"
        run = subprocess.run(
            [sys.executable, "-c", code, str(path), str(Path(__file__).parent)],
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(int(run.stdout) / 1024)
    assert peaks[1] - peaks[0] < 500, peaks
