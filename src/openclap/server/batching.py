"""Batch the inputs of concurrent requests through one model.

A runtime is used by one thread only. `ModelThread` is that thread; `BatchedRuntime` stands in its place in an
`Embedder`, once for each request, and hands over inputs:

    model = ModelThread(embedder.runtime)
    with ModelTask() as task:
        Embedder(BatchedRuntime(model, task), mono=embedder.mono).embed_audio(sounds)

Decoding, windows and averages are those of `Embedder`, in the threads of the requests, so results are those of
`embed_audio` and `embed_text`. Waveforms, texts, and waveforms whose moments are wanted wait in queues of their own,
since they share no batch, and take turns, so that texts do not wait behind all waveforms, which take ten times as long.

N items, D embedding, M moments, S samples of a waveform.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from openclap.errors import CheckpointError
from openclap.runtimes import Runtime
from openclap.text.numpy_tokenizer import NumpyTokenizer
from openclap.types import Signature

Modality = Literal["audio", "text", "moments"]
Vector = NDArray[np.float32]

BATCH = 16
"""Most inputs in one forward pass."""
WAIT_S = 0.003
"""Time for which the first input of a batch waits for others. During a forward pass the next batch gathers anyway."""


class ModelTask:
    """The inputs of one request. Leaving the context, or `cancel`, takes those that wait out of the queues."""

    def __init__(self) -> None:
        self.is_cancelled = False
        self._waiting: set[Future[Vector]] = set()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    def cancel(self) -> None:
        """Drop the inputs that wait. Threads that wait for their embeddings get CancelledError, now and later."""
        with self._lock:
            self.is_cancelled = True
            waiting, self._waiting = self._waiting, set()
        for future in waiting:
            future.cancel()

    def add(self, future: Future[Vector]) -> None:
        """Register a result. Raises CancelledError for a task that was cancelled."""
        with self._lock:
            if self.is_cancelled:
                raise CancelledError
            self._waiting.add(future)
        future.add_done_callback(self._discard)

    def _discard(self, future: Future[Vector]) -> None:
        with self._lock:
            self._waiting.discard(future)


@dataclass(slots=True)
class _Input:
    """A waveform (S,) or a text that waits for its embedding (D,), or a waveform for those of its moments (M, D)."""

    value: Any
    cost: float = 1.0
    """In inputs of the network: a fusion model reads a long recording at once."""
    result: Future[Vector] = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)


class _Queue:
    """Inputs of one modality by task. A batch takes one input of each task in turn, so that a request with thousands
    of inputs does not hold up the others."""

    def __init__(self) -> None:
        self._by_task: dict[ModelTask, deque[_Input]] = {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    @property
    def since(self) -> float:
        """When the input that waits longest came; infinity for an empty queue."""
        return min((inputs[0].since for inputs in self._by_task.values()), default=float("inf"))

    def put(self, task: ModelTask, inputs: Sequence[_Input]) -> None:
        self._by_task.setdefault(task, deque()).extend(inputs)
        self._length += len(inputs)

    def take(self, most: float) -> list[_Input]:
        """Remove inputs until their cost reaches `most`, and return those that were not cancelled."""
        taken: list[_Input] = []
        while self._by_task and sum(each.cost for each in taken) < most:
            task = next(iter(self._by_task))
            inputs = self._by_task.pop(task)
            first = inputs.popleft()
            self._length -= 1
            if inputs:
                self._by_task[task] = inputs  # at the end: the next task's turn
            if first.result.set_running_or_notify_cancel():
                taken.append(first)
        return taken


BatchObserver = Callable[[Modality, int, float], None]
"""Receives the modality, the number of inputs and the seconds of each forward pass."""


class ModelThread:
    """The thread that runs a model.

    Args:
        batch_size: most inputs in a forward pass; one waveform, where the runtime embeds them one by one.
        wait_s: time for which the first input of a batch waits for others.
        observe: called after each forward pass.
    """

    def __init__(
        self,
        runtime: Runtime,
        *,
        batch_size: int = BATCH,
        wait_s: float = WAIT_S,
        observe: BatchObserver = lambda modality, size, seconds: None,
    ) -> None:
        self.runtime = runtime
        self._wait_s, self._observe = wait_s, observe
        # On a CPU, torch gains nothing by batches either, but the last digits of its results depend on them: so all
        # windows of a single client's sound share a batch, as they do in a command, and both print the same.
        waves = batch_size if runtime.batches_waves else 1
        self._batch_sizes: dict[Modality, int] = {"audio": waves, "text": batch_size, "moments": waves}
        self._turns: list[Modality] = ["text", "audio", "moments"]
        self._queues: dict[Modality, _Queue] = {modality: _Queue() for modality in self._turns}
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    @cached_property
    def weights_digest(self) -> str:
        """A SHA-256 of weights and preset; a server changes neither."""
        return self.runtime.weights_digest()

    def waiting(self, modality: Modality) -> int:
        """The number of inputs in the queue."""
        return len(self._queues[modality])

    def embed(self, task: ModelTask, modality: Modality, values: Sequence[Any]) -> list[Vector]:
        """Embed waveforms or texts, (D,) each, or waveforms' moments, (M, D) each, and wait for the result.

        Raises CancelledError when the task is cancelled or the thread is closed, and the runtime's own errors.
        """
        samples = self.runtime.signature.samples
        inputs = [_Input(each, max(1.0, len(each) / samples) if modality != "text" else 1.0) for each in values]
        for each in inputs:
            task.add(each.result)
        with self._changed:
            if self._is_closed:
                raise CancelledError
            self._queues[modality].put(task, inputs)
            self._changed.notify()
        return [each.result.result() for each in inputs]

    def close(self) -> None:
        """Cancel what waits, and stop the thread after the current batch."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()
        for queue in self._queues.values():
            for each in queue.take(float("inf")):
                each.result.set_exception(CancelledError())

    def _run(self) -> None:
        while (batch := self._next_batch()) is not None:
            modality, inputs = batch
            if inputs:
                self._embed(modality, inputs)

    def _next_batch(self) -> tuple[Modality, list[_Input]] | None:
        """Wait for a batch; where both modalities have one, they take turns. None when closed."""
        with self._changed:
            while not self._is_closed:
                left_s = {modality: self._left_s(modality) for modality in self._turns}
                modality = next((each for each in self._turns if left_s[each] <= 0), None)
                if modality is not None:
                    self._turns.remove(modality)
                    self._turns.append(modality)
                    return modality, self._queues[modality].take(self._batch_sizes[modality])
                shortest_s = min(left_s.values())
                self._changed.wait(None if shortest_s == float("inf") else shortest_s)
        return None

    def _left_s(self, modality: Modality) -> float:
        """Seconds until the next batch of a modality is due; infinity for an empty queue."""
        queue = self._queues[modality]
        if len(queue) >= self._batch_sizes[modality]:
            return 0.0
        return queue.since + self._wait_s - time.monotonic()

    def _embed(self, modality: Modality, inputs: Sequence[_Input]) -> None:
        began = time.monotonic()
        try:
            vectors = self._forward(modality, [each.value for each in inputs])
        except Exception as error:
            if len(inputs) == 1:
                inputs[0].result.set_exception(error)
                return
            for each in inputs:  # one at a time, so that an input that cannot be embedded fails alone
                self._embed(modality, [each])
            return
        self._observe(modality, len(inputs), time.monotonic() - began)
        for each, vector_D in zip(inputs, vectors, strict=True):
            each.result.set_result(vector_D)

    def _forward(self, modality: Modality, values: list[Any]) -> Sequence[Vector] | Vector:
        if modality == "audio":
            return self.runtime.embed_waves(values)
        if modality == "moments":
            moments: list[Vector] = self.runtime.embed_moments(values)  # type: ignore[attr-defined]
            return moments
        return self.runtime.embed_texts(values, self._batch_sizes["text"])


def is_on_cpu(runtime: Runtime) -> bool:
    """Whether a runtime computes on the CPU; only torch's have a device."""
    return str(getattr(runtime, "device", "cpu")) == "cpu"


class BatchedRuntime:
    """The inputs of one task to a `ModelThread`, as a runtime (`openclap.runtimes.Runtime`).

    Attributes:
        embed_moments, preset, objective: where the thread's runtime has them.
    """

    def __init__(self, model: ModelThread, task: ModelTask) -> None:
        self._model, self._task = model, task
        self.name, self.precision = model.runtime.name, model.runtime.precision
        self.batches_waves = model.runtime.batches_waves
        self.signature: Signature = model.runtime.signature
        if hasattr(model.runtime, "embed_moments"):
            self.preset, self.objective = model.runtime.preset, model.runtime.objective  # type: ignore[attr-defined]
            self.embed_moments = lambda waves: model.embed(task, "moments", waves)

    @property
    def logit_scale(self) -> float:
        """The factor of cosines before a softmax."""
        return self._model.runtime.logit_scale

    @property
    def has_tokenizer(self) -> bool:
        """Whether a tokenizer file is on this machine."""
        return self._model.runtime.has_tokenizer

    @property
    def tokenizer(self) -> NumpyTokenizer:
        """The tokenizer. Raises CheckpointError when it is missing."""
        return self._model.runtime.tokenizer

    def check_tokenizer(self) -> None:
        """Read the tokenizer. Raises CheckpointError if text could not be embedded later."""
        self._model.runtime.check_tokenizer()

    def embed_waves(self, waves: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """(N, D) unit vectors of mono waveforms (S,) at the model's rate. Raises as `ModelThread.embed`."""
        return np.stack(self._model.embed(self._task, "audio", waves))

    def embed_texts(self, texts: Sequence[str], batch_size: int) -> NDArray[np.float32]:
        """(N, D) unit vectors, in the order of `texts`. Raises as `ModelThread.embed`."""
        return np.stack(self._model.embed(self._task, "text", texts))

    def weights_digest(self) -> str:
        """A SHA-256 of weights and preset."""
        return self._model.weights_digest

    def save(self, folder: Path) -> None:
        """Refuse: a server writes no models."""
        raise CheckpointError("A model that is served cannot be saved. Load it with openclap.load, and save that.")
