"""Work on an index that takes minutes, in a thread of its own: one run at a time, with a state that shows progress."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from typing import Any, Generic, TypeVar

from openclap.errors import OpenClapError
from openclap.server.batching import ModelTask
from openclap.server.errors import ApiError
from openclap.server.index_schemas import JobState
from openclap.server.service import ServedIndex

S = TypeVar("S", bound=JobState)


class Job(ABC, Generic[S]):
    """The latest run of some work on an index.

    Args:
        idle: the state before the first run, and at the beginning of each.
        busy: the error when a run is started during another.

    Attributes:
        state: replaced at each change, and never changed itself.
    """

    def __init__(self, index: ServedIndex, idle: S, busy: str) -> None:
        self.index, self.state = index, idle
        self._idle, self._busy = idle, busy
        self._task = ModelTask()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @abstractmethod
    def work(self, task: ModelTask) -> Mapping[str, Any]:
        """Do the work, and return the changes of the state at its end. Its progress goes to `advance`."""

    def start(self) -> S:
        """Start a run. Raises ApiError when one is running."""
        with self._lock:
            if self.state.state == "running":  # and not the thread: it ends a moment after the state says so
                raise ApiError(409, self._busy)
            self._task = ModelTask()
            self.state = self._idle.model_copy(update={"state": "running"})
            self._thread = threading.Thread(target=self._run, args=(self._task,), name=type(self).__name__, daemon=True)
            self._thread.start()
        return self.state

    def stop(self) -> S:
        """Stop the run at its next progress; what it stored stays."""
        self._task.cancel()
        if self._thread is not None:
            self._thread.join()
        return self.state

    def advance(self, task: ModelTask) -> Callable[[int, int], None]:
        """A function for progress, which raises CancelledError when the run is stopped."""

        def advance(done: int, total: int) -> None:
            if task.is_cancelled:
                raise CancelledError
            self.update(done=done, total=total)

        return advance

    def update(self, **changes: object) -> None:
        """Change fields of the state."""
        self.state = self.state.model_copy(update=changes)

    def _run(self, task: ModelTask) -> None:
        try:
            changes = self.work(task)
        except CancelledError:
            self.update(state="stopped", message="It was stopped; the next run goes on from here.")
        except OpenClapError as error:
            self.update(state="failed", message=str(error))
        except Exception:  # of any kind, or the state would be "running" for ever; the log gets the traceback
            self.update(state="failed", message="The server failed. Its log says why.")
            raise
        else:
            self.update(state="done", **changes)
