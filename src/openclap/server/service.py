"""The models, indexes, threads and limits that requests share."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from starlette.requests import Request

from openclap.embedder import Embedder
from openclap.errors import ConfigError, OpenClapError
from openclap.library import Library
from openclap.server.batching import BatchedRuntime, BatchObserver, ModelTask, ModelThread
from openclap.server.errors import ApiError, of_library
from openclap.server.metrics import Metrics
from openclap.server.security import BodyLimits

T = TypeVar("T")
Pool = Literal["text", "audio", "files"]
"""Threads for work on texts and indexes, for decoding and embedding sounds, and for reading indexed files."""

BACKGROUND = 200
"""Most pieces of work that wait in the background."""
CLIENT_CLOSED = 499
"""The status of a request whose client has gone, for metrics: nobody receives it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of requests.

    Attributes:
        requests: most requests in progress that need threads; further ones get 429.
        characters: most in one text.
        audio_s: longest sound, in seconds, of an upload or a query.
        clip_s: longest part of an indexed sound that is sent as WAV.
        request_s: longest time for the answer.
        body: of the request's body.
    """

    requests: int = 128
    characters: int = 32768
    audio_s: float = 600.0
    clip_s: float = 120.0
    request_s: float = 300.0
    body: BodyLimits = field(default_factory=BodyLimits)


class TorchModel:
    """A model in torch, which has moments, beside one in a runtime without them; loaded when first needed.

    Args:
        load: raises as `openclap.load` does.
        observe: called after each forward pass.
    """

    def __init__(self, load: Callable[[], Embedder], observe: BatchObserver) -> None:
        self._load, self._observe, self._lock = load, observe, threading.Lock()
        self._thread: ModelThread | None = None

    def thread(self) -> ModelThread:
        """The thread that runs it."""
        with self._lock:
            if self._thread is None:
                self._thread = ModelThread(self._load().runtime, observe=self._observe)
            return self._thread

    def close(self) -> None:
        """Stop its thread."""
        with self._lock:
            if self._thread is not None:
                self._thread.close()


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model under the name that requests use.

    Attributes:
        sizes: shorter sizes of its embeddings (Matryoshka), which `dimensions` may choose.
        in_torch: for requests that need moments, where `embedder` has none.
    """

    name: str
    embedder: Embedder
    thread: ModelThread
    sizes: tuple[int, ...] = ()
    in_torch: TorchModel | None = None

    def embedder_of(self, task: ModelTask, longest_s: float = float("inf")) -> Embedder:
        """The embedder of one request: batched with those of others, and with a limit of length."""
        return Embedder(BatchedRuntime(self.thread, task), mono=self.embedder.mono, longest_s=longest_s)

    def locator_of(self, task: ModelTask, longest_s: float) -> Embedder:
        """The embedder of one request that needs moments. Raises as `openclap.load` where it is loaded first."""
        if self.in_torch is None or hasattr(self.embedder.runtime, "embed_moments"):
            return self.embedder_of(task, longest_s)
        return Embedder(BatchedRuntime(self.in_torch.thread(), task), mono=self.embedder.mono, longest_s=longest_s)


@dataclass(frozen=True, slots=True)
class ServedIndex:
    """An index under the name that requests use.

    Attributes:
        folders: sounds that `POST /v1/indexing` brings the index up to date with; without any, those that were added
            to the index.
    """

    name: str
    library: Library
    model: ServedModel
    folders: tuple[Path, ...] = ()

    def library_of(self, task: ModelTask, longest_s: float = float("inf")) -> Library:
        """The library of one request."""
        return Library(self.library.index, self.model.embedder_of(task, longest_s))


@dataclass(slots=True)
class _Progress:
    """The number of requests in progress."""

    count: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, most: int) -> bool:
        with self.lock:
            if self.count >= most:
                return False
            self.count += 1
            return True

    def end(self, _: object) -> None:
        with self.lock:
            self.count -= 1


class Service:
    """Models and indexes by name, and the threads in which requests use them.

    Args:
        models: at least one; the first is the default.
        indexes: the first is the default; none for embeddings alone.
        url_hosts: hosts from which sounds are fetched by URL.
    """

    def __init__(
        self,
        models: Sequence[ServedModel],
        indexes: Sequence[ServedIndex] = (),
        *,
        limits: Limits | None = None,
        url_hosts: frozenset[str] = frozenset(),
        metrics: Metrics | None = None,
    ) -> None:
        self.models: Mapping[str, ServedModel] = {model.name: model for model in models}
        self.indexes: Mapping[str, ServedIndex] = {index.name: index for index in indexes}
        self.limits, self.url_hosts = limits or Limits(), url_hosts
        self.metrics = metrics or Metrics()
        self._progress = _Progress()
        self._pools: dict[Pool, ThreadPoolExecutor] = {
            "text": ThreadPoolExecutor(64, thread_name_prefix="text"),
            "audio": ThreadPoolExecutor(32, thread_name_prefix="audio"),
            "files": ThreadPoolExecutor(8, thread_name_prefix="files"),
        }
        self._background = ThreadPoolExecutor(1, thread_name_prefix="background")
        self._background_slots = threading.BoundedSemaphore(BACKGROUND)
        self.metrics.watch(self)

    @property
    def in_progress(self) -> int:
        """The number of requests that use threads now."""
        return self._progress.count

    def model(self, name: str) -> ServedModel:
        """A model by the name in a request. Raises ApiError."""
        if name in ("", "default", "default/not-specified"):
            return next(iter(self.models.values()))
        if name not in self.models:
            raise ApiError(
                404,
                f"There is no model {name!r} here, expected {' or '.join(self.models)}.",
                param="model",
                code="model_not_found",
            )
        return self.models[name]

    def index(self, name: str | None) -> ServedIndex:
        """An index by the name in a request; the first without one. Raises ApiError."""
        if not self.indexes:
            raise ApiError(404, "No index is served here, only models. Start openclap serve with an index.")
        if name is None:
            return next(iter(self.indexes.values()))
        if name not in self.indexes:
            raise ApiError(
                404, f"There is no index {name!r} here, expected {' or '.join(self.indexes)}.", param="index"
            )
        return self.indexes[name]

    async def run(self, request: Request, pool: Pool, work: Callable[[ModelTask], T]) -> T:
        """Run `work` in a thread while the client waits, and return its result.

        Raises ApiError with status 429 when too many requests are in progress, 504 after `limits.request_s`, 499 when
        the client has gone, 408 or 413 when the rest of its body breaks a limit, and that of an error of the library.
        The work's inputs then leave the model's queue, and its result is dropped.
        """
        task = ModelTask()
        future = self._submit(pool, work, task)
        result, gone = asyncio.wrap_future(future), asyncio.ensure_future(_disconnected(request))
        either: set[asyncio.Future[Any]] = {result, gone}
        try:
            await asyncio.wait(either, timeout=self.limits.request_s, return_when=asyncio.FIRST_COMPLETED)
            if result.done():
                if not result.cancelled():
                    result.exception()  # or asyncio would log it as never retrieved
                return _result(future)
            if gone.done():
                gone.result()  # raises where the rest of the body broke a limit
                raise ApiError(CLIENT_CLOSED, "The client closed the connection.")
            raise ApiError(504, f"This took longer than {self.limits.request_s:g} s, the limit here.", "server_error")
        finally:
            gone.cancel()
            task.cancel()
            result.cancel()

    def _submit(self, pool: Pool, work: Callable[[ModelTask], T], task: ModelTask) -> Future[T]:
        if not self._progress.begin(self.limits.requests):
            raise ApiError(
                429,
                f"{self.limits.requests} requests are in progress, the limit here. Send it again a little later.",
                "rate_limit_error",
                code="rate_limit_exceeded",
                headers={"Retry-After": "1"},
            )
        try:
            future = self._pools[pool].submit(work, task)
        except RuntimeError:
            self._progress.end(None)
            raise ApiError(503, "The server is shutting down.", "server_error", headers={"Retry-After": "5"}) from None
        future.add_done_callback(self._progress.end)  # and not when the client goes: its thread still runs
        return future

    def in_background(self, work: Callable[[], object]) -> bool:
        """Run `work` in a thread for such work and ignore its result. False where it is dropped, since much is waiting
        or the server is shutting down."""
        if not self._background_slots.acquire(blocking=False):
            return False
        try:
            future = self._background.submit(work)
        except RuntimeError:
            return False
        future.add_done_callback(lambda _: self._background_slots.release())
        return True

    def close(self) -> None:
        """Stop the models and the threads; requests in progress end with an error."""
        for model in self.models.values():
            model.thread.close()
            if model.in_torch is not None:
                model.in_torch.close()
        for pool in (*self._pools.values(), self._background):
            pool.shutdown(wait=True, cancel_futures=True)


def _result(future: Future[T]) -> T:
    try:
        return future.result()
    except OpenClapError as error:
        raise of_library(error) from error
    except CancelledError:
        raise ApiError(503, "The server is shutting down.", "server_error", headers={"Retry-After": "5"}) from None


async def _disconnected(request: Request) -> None:
    """Wait until the client has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Names of indexes for URLs: those of their folders, numbered where two are equal."""
    names: list[str] = []
    for path in paths:
        base = path.name or "index"
        number = 1
        name = base
        while name in names:
            number += 1
            name = f"{base}-{number}"
        names.append(name)
    return names


def check_sizes(embedder: Embedder, sizes: Sequence[int]) -> tuple[int, ...]:
    """Check Matryoshka sizes against a model. Raises ConfigError."""
    whole = embedder.embedding_size
    if wrong := [size for size in sizes if not 1 <= size <= whole]:
        raise ConfigError(f"--matryoshka is {wrong[0]}, expected a size from 1 to {whole}, the model's own.")
    return tuple(sorted(set(sizes) - {whole}))
