"""Batching: results are those of the model alone, requests share batches fairly, cancelled ones leave the queue."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openclap.embedder import Embedder
from openclap.errors import AudioError, CheckpointError
from openclap.library import Library
from openclap.server.batching import BatchedRuntime, ModelTask, ModelThread
from support.numpy_runtime import NumpyRuntime


class Gate(NumpyRuntime):
    """Records its batches, and computes only while it is open."""

    def __init__(self) -> None:
        self.is_open, self.is_entered = threading.Event(), threading.Event()
        self.batches: list[list[Any]] = []

    def embed_waves(self, waves: Sequence[np.ndarray]) -> np.ndarray:
        self._pass(waves)
        return super().embed_waves(waves)

    def embed_texts(self, texts: Sequence[str], batch_size: int) -> np.ndarray:
        self._pass(texts)
        if "bad" in texts:
            raise CheckpointError("The text cannot be embedded.")
        return super().embed_texts(texts, batch_size)

    def _pass(self, values: Sequence[Any]) -> None:
        self.batches.append(list(values))
        self.is_entered.set()
        assert self.is_open.wait(20)


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def start(gate: Gate) -> Iterator[Callable[..., ModelThread]]:
    threads: list[ModelThread] = []

    def make(**options: Any) -> ModelThread:
        threads.append(ModelThread(gate, **options))
        return threads[-1]

    yield make
    gate.is_open.set()
    for thread in threads:
        thread.close()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_concurrent_results_are_those_of_the_embedder(library: Library) -> None:
    files: list[Any] = sorted((library.index.folder.parent / "sounds").glob("*.wav"))
    texts = [f"{word} number {number}" for number in range(10) for word in ("low tone", "a high noise", "sound")]
    expected_audio, expected_text = library.embedder.embed_audio(files), library.embedder.embed_text(texts)
    sizes: list[tuple[str, int]] = []
    thread = ModelThread(
        library.embedder.runtime, batch_size=8, wait_s=0.02, observe=lambda kind, size, s: sizes.append((kind, size))
    )

    def ask(number: int) -> float:
        with ModelTask() as task:
            embedder = Embedder(BatchedRuntime(thread, task), mono=library.embedder.mono)
            audio = np.abs(embedder.embed_audio([files[number % 6]])[0] - expected_audio[number % 6]).max()
            text = np.abs(embedder.embed_text([texts[number % 30]])[0] - expected_text[number % 30]).max()
            return float(max(audio, text))

    with ThreadPoolExecutor(16) as pool:
        assert max(pool.map(ask, range(60))) < 1e-5
    thread.close()
    assert {kind for kind, _ in sizes} == {"audio", "text"}
    assert max(size for _, size in sizes) > 1 and sum(size for kind, size in sizes if kind == "text") == 60
    assert all(size <= 8 for kind, size in sizes if kind == "text")


def test_a_large_request_does_not_hold_up_a_small_one(gate: Gate, start: Callable[..., ModelThread]) -> None:
    model = start(batch_size=4)
    with ThreadPoolExecutor(2) as pool, ModelTask() as large, ModelTask() as small:
        pool.submit(model.embed, large, "text", [f"large {number}" for number in range(100)])
        gate.is_entered.wait(20)  # with the first batch
        answer = pool.submit(model.embed, small, "text", ["small"])
        until(lambda: model.waiting("text") == 97)
        gate.is_open.set()
        answer.result(20)
    assert "small" in gate.batches[1]
    assert all(len(batch) <= 4 for batch in gate.batches)


def test_texts_do_not_wait_behind_all_waveforms(gate: Gate, start: Callable[..., ModelThread]) -> None:
    """Where waveforms go one by one, texts take turns with them. Waveforms of one request keep their order."""
    gate.batches_waves = False
    model = start(batch_size=4, wait_s=0.0)
    with ThreadPoolExecutor(3) as pool, ModelTask() as sounds, ModelTask() as texts:
        held = pool.submit(model.embed, ModelTask(), "audio", [np.zeros(4, np.float32)])
        gate.is_entered.wait(20)
        waves = pool.submit(model.embed, sounds, "audio", [np.full(4, number, np.float32) for number in range(1, 9)])
        until(lambda: model.waiting("audio") == 8)
        words = pool.submit(model.embed, texts, "text", [f"text {number}" for number in range(6)])
        until(lambda: model.waiting("text") == 6)
        gate.is_open.set()
        for each in (held, waves, words):
            each.result(20)
    kinds = ["text" if isinstance(batch[0], str) else "audio" for batch in gate.batches]
    assert kinds == ["audio", "text", "audio", "text", *["audio"] * 7]
    assert [len(batch) for batch in gate.batches[:4]] == [1, 4, 1, 2]
    assert [batch[0][0] for batch in gate.batches if not isinstance(batch[0], str)] == list(range(9))


def test_cancelled_requests_leave_the_queue(gate: Gate, start: Callable[..., ModelThread]) -> None:
    model = start(batch_size=1)
    with ThreadPoolExecutor(3) as pool:
        first, second, third = ModelTask(), ModelTask(), ModelTask()
        running = pool.submit(model.embed, first, "text", ["first"])
        gate.is_entered.wait(20)
        waiting = pool.submit(model.embed, second, "text", ["second"])
        until(lambda: model.waiting("text") == 1)
        after = pool.submit(model.embed, third, "text", ["third"])
        until(lambda: model.waiting("text") == 2)
        second.cancel()
        with pytest.raises(CancelledError):
            waiting.result(20)
        with pytest.raises(CancelledError):
            model.embed(second, "text", ["again"])
        gate.is_open.set()
        assert np.shape(running.result(20)) == np.shape(after.result(20)) == (1, 4)
    assert gate.batches == [["first"], ["third"]]


def test_an_input_that_cannot_be_embedded_fails_alone(gate: Gate, start: Callable[..., ModelThread]) -> None:
    model = start(batch_size=8, wait_s=0.2)
    gate.is_open.set()

    def embed(text: str) -> Any:
        with ModelTask() as task:
            try:
                return np.shape(model.embed(task, "text", [text]))
            except CheckpointError as error:
                return str(error)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(embed, ["a", "bad", "b", "c"])) == [(1, 4), "The text cannot be embedded.", (1, 4), (1, 4)]


def test_closing_ends_requests_that_wait(gate: Gate, start: Callable[..., ModelThread]) -> None:
    model = start(batch_size=1)
    with ThreadPoolExecutor(3) as pool:
        running = pool.submit(model.embed, ModelTask(), "text", ["first"])
        gate.is_entered.wait(20)
        waiting = pool.submit(model.embed, ModelTask(), "audio", [np.zeros(4, np.float32)])
        until(lambda: model.waiting("audio") == 1)
        closing = pool.submit(model.close)
        gate.is_open.set()
        assert np.shape(running.result(20)) == (1, 4)
        with pytest.raises(CancelledError):
            waiting.result(20)
        closing.result(20)
    with pytest.raises(CancelledError):
        model.embed(ModelTask(), "text", ["late"])


def test_recordings_over_the_limit_are_refused_while_they_are_decoded(tmp_path: Path, library: Library) -> None:
    import soundfile

    soundfile.write(tmp_path / "hour.flac", np.zeros(3600 * 16000, np.int16), 16000)
    assert (tmp_path / "hour.flac").stat().st_size < 1 << 20
    embedder = Embedder(library.embedder.runtime, longest_s=2.0)
    for mono in (embedder.mono, type(embedder.mono)("loudest", True)):
        with pytest.raises(AudioError, match="longer than 2 s"):
            Embedder(library.embedder.runtime, mono=mono, longest_s=2.0).embed_audio([tmp_path / "hour.flac"])
    wave = np.ones(2 * 16000, np.float32) * 0.1
    np.testing.assert_array_equal(embedder.embed_audio([(wave, 16000)]), library.embedder.embed_audio([(wave, 16000)]))
