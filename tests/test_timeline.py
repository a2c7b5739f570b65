"""`Embedder.timeline`: the similarity of each moment of a recording to labels."""

from __future__ import annotations

import functools
import math
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import openclap
from openclap.audio.windows import WeightedMean
from openclap.embedder import Embedder
from openclap.errors import AudioError, ConfigError
from openclap.models.config import WhisperConfig
from openclap.presets import Preset
from openclap.runtimes.torch import TorchRuntime
from support.numpy_runtime import NumpyRuntime
from support.open_clip import write_folder
from support.tiny_models import TINY_PRESET, TINY_SWIN_PRESET, save_tiny_model, tiny_clap, tiny_tokenizer

RATE = 16000
LABELS = ["a dog", "rain on the roof", "low noise"]
WHISPER = replace(
    TINY_PRESET,
    name="tiny-whisper",
    audio=WhisperConfig(width=16, layers=1, heads=2, embedding_size=8, n_mels=24, positions=16),
)
PRESETS = {"pann": TINY_PRESET, "swin": TINY_SWIN_PRESET, "whisper": WHISPER}


@functools.cache
def model(kind: str) -> Embedder:
    preset: Preset = PRESETS[kind]
    return Embedder(TorchRuntime(tiny_clap(preset), preset, tiny_tokenizer(), device=torch.device("cpu")))


def noise(seconds: float, seed: int = 0) -> tuple[np.ndarray, int]:
    """Noise whose level and colour change over time."""
    rng = np.random.default_rng(seed)
    wave = rng.standard_normal(round(seconds * RATE)) * np.exp(np.sin(np.arange(round(seconds * RATE)) / 3000))
    return (0.1 * np.cumsum(wave) / 20).clip(-1, 1).astype(np.float32), RATE


@pytest.mark.parametrize("kind", PRESETS)
def test_a_timeline_has_a_row_for_each_moment_and_a_column_for_each_label(kind: str) -> None:
    embedder, seconds = model(kind), 2.6
    timeline = embedder.timeline(noise(seconds), LABELS)
    step = embedder.preset.moment_samples / RATE
    assert timeline.labels == tuple(LABELS) and timeline.scores.shape == (len(timeline.times_s), 3)
    assert timeline.resolution_s == step and timeline.duration_s == seconds
    np.testing.assert_allclose(timeline.times_s, (np.arange(len(timeline.times_s)) + 0.5) * step)
    # No moment begins after the end, and what no moment covers is shorter than a moment.
    assert timeline.times_s[-1] - step / 2 < seconds < timeline.times_s[-1] + 1.5 * step
    assert np.abs(timeline.scores).max() <= 1.00001


@pytest.mark.parametrize("kind", PRESETS)
def test_a_short_clip_is_read_at_once(kind: str) -> None:
    embedder, clip = model(kind), noise(0.4)
    batch = embedder.frontend([torch.from_numpy(clip[0])])
    with torch.inference_mode():
        expected = embedder.clap.encode_moments(batch)[0].numpy() @ embedder.embed_text(LABELS).T
    timeline = embedder.timeline(clip, LABELS)
    inside = math.ceil(len(clip[0]) / embedder.preset.moment_samples)
    np.testing.assert_allclose(timeline.scores, expected[:inside], atol=1e-6)


@pytest.mark.parametrize("kind", PRESETS)
@pytest.mark.parametrize("seconds", [0.001, 0.3, 0.5, 0.51, 1.0, 3.37])
def test_a_timeline_does_not_depend_on_the_batch(kind: str, seconds: float) -> None:
    embedder, sound = model(kind), noise(seconds)
    alone = embedder.timeline(sound, LABELS, batch_size=1)
    for batch_size in (3, 16):
        together = embedder.timeline(sound, LABELS, batch_size=batch_size)
        np.testing.assert_allclose(together.scores, alone.scores, atol=1e-5)
    one_label = embedder.timeline(sound, LABELS[1:2])
    np.testing.assert_allclose(one_label.scores[:, 0], alone.scores[:, 1], atol=1e-5)


@pytest.mark.parametrize("seconds", [0.2, 9.0, 10.3, 24.0])
def test_a_timeline_of_a_model_that_reads_any_length_does_not_depend_on_the_batch(
    seconds: float, tmp_path: Path
) -> None:
    embedder = openclap.load(write_folder(tmp_path / "tiny", "tiny"))
    sound = np.repeat(noise(seconds)[0], 3), 48000
    score = lambda vectors_MD: vectors_MD[:, :3]  # noqa: E731
    alone = embedder.compare_moments(sound, LABELS, score, batch_size=1)
    together = embedder.compare_moments(sound, LABELS, score, batch_size=16)
    assert alone.duration_s == seconds
    np.testing.assert_allclose(together.scores, alone.scores, atol=1e-5)


@pytest.mark.parametrize("kind", PRESETS)
def test_overlapping_windows_are_averaged_by_the_distance_from_their_edges(kind: str) -> None:
    """Against a table of every window's moments, filled by hand."""
    embedder, (wave, _) = model(kind), noise(1.3)
    step, length = embedder.preset.moment_samples, embedder.input_samples
    hop = round(length / step / 2)
    steps_over = math.ceil((len(wave) - length) / step)  # beyond the first window
    starts = [*range(0, steps_over + 1, hop)]
    starts += [steps_over] if starts[-1] < steps_over else []
    padded = np.pad(wave, (0, length + round(steps_over * step) - len(wave)))
    total, weights = np.zeros((steps_over + 100, 3)), np.zeros(steps_over + 100)
    text = embedder.embed_text(LABELS)
    for start in starts:
        piece = torch.from_numpy(padded[round(start * step) :][:length])
        with torch.inference_mode():
            rows = embedder.clap.encode_moments(embedder.frontend([piece]))[0].numpy() @ text.T
        for moment, row in enumerate(rows):
            weight = min(moment + 1, len(rows) - moment)
            total[start + moment] += weight * row
            weights[start + moment] += weight
    timeline = embedder.timeline((wave, RATE), LABELS)
    rows = len(timeline.scores)
    assert len(starts) > 2
    np.testing.assert_allclose(timeline.scores, total[:rows] / weights[:rows, None], atol=2e-5)


def test_a_mean_of_stretches_frees_what_is_finished() -> None:
    table, weight = np.random.default_rng(0).random((40, 2)).astype(np.float32), np.arange(1.0, 9.0)
    mean, sums, weights = WeightedMean(), np.zeros((40, 2)), np.zeros(40)
    for start in (0, 4, 8, 16, 20, 27, 32):
        mean.add(start, table[start : start + 8], weight)
        sums[start : start + 8] += table[start : start + 8] * weight[:, None]
        weights[start : start + 8] += weight
        assert len(mean._sum) <= 16  # type: ignore[arg-type]
    covered = weights > 0
    np.testing.assert_allclose(mean.mean()[covered], table[covered], rtol=1e-5)


def test_a_long_file_needs_no_more_memory_than_a_short_one(tmp_path: Path) -> None:
    def peak(seconds: float) -> int:
        file = tmp_path / f"{seconds}.wav"
        soundfile.write(file, *noise(seconds))
        model("pann").timeline(noise(1.0), LABELS)
        tracemalloc.start()
        timeline = model("pann").timeline(file, LABELS)
        assert timeline.duration_s == seconds
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    # 270 s more are 17 MB of samples, and 0.1 MB of scores.
    assert peak(300.0) < peak(30.0) + 2_000_000


def test_silence_that_was_cut_from_the_front_counts_in_time(tiny_model: Path) -> None:
    wave = np.concatenate([np.zeros(RATE, np.float32), noise(0.4)[0]])
    trimmed = openclap.load(tiny_model, runtime="torch", trim_silence=True).timeline((wave, RATE), LABELS)
    assert trimmed.times_s[0] == pytest.approx(1.0 + trimmed.resolution_s / 2, abs=0.01)


def test_progress_counts_the_seconds_of_the_recording() -> None:
    seconds: list[float] = []
    model("pann").timeline(noise(4.0), LABELS, batch_size=2, progress=seconds.append)
    assert len(seconds) > 3 and sum(seconds) == pytest.approx(4.0, abs=0.3)


@pytest.mark.parametrize(
    "labels", [[], "a dog", [""], ["a dog", "  "], ["a dog", "rain", "a dog"], [1], None, ["a dog", None]]
)
def test_labels_are_different_texts(labels: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        model("pann").timeline(noise(0.3), labels)
    assert "\n" not in str(error.value)


def test_a_template_holds_one_place_for_the_label() -> None:
    with pytest.raises(ConfigError):
        model("pann").timeline(noise(0.3), LABELS, template="a sound")
    as_template = model("pann").timeline(noise(0.3), ["dog"], template="a {}")
    plain = model("pann").timeline(noise(0.3), LABELS)
    np.testing.assert_allclose(as_template.scores[:, 0], plain.scores[:, 0], atol=1e-5)


@pytest.mark.parametrize("content", [b"", b"no sound at all", b"RIFF\x24\x00\x00\x00WAVEfmt "])
def test_a_file_without_sound_is_named(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "broken.wav"
    file.write_bytes(content)
    with pytest.raises(AudioError, match=r"broken\.wav"):
        model("pann").timeline(file, LABELS)


def test_weights_that_are_not_finite_are_reported_as_such(tmp_path: Path) -> None:
    embedder = openclap.load(save_tiny_model(tmp_path / "model"), runtime="torch")
    with torch.no_grad():
        embedder.clap.audio_head[2].bias.fill_(math.nan)
    with pytest.raises(openclap.errors.CheckpointError, match="finite"):
        embedder.compare_moments(noise(0.3), ["x"], lambda vectors_MD: vectors_MD[:, :1])


def test_a_runtime_without_networks_says_that_it_has_no_moments() -> None:
    with pytest.raises(ConfigError, match="torch"):
        Embedder(NumpyRuntime()).timeline(noise(0.3), LABELS)
