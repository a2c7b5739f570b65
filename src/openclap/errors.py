"""Errors that a user can cause, as one small tree.

    OpenClapError            the root of all of them
    ├── AudioError           a sound that cannot be decoded, or holds nothing usable
    ├── CheckpointError      weights, presets and folders that are damaged or do not fit
    │   └── MissingTokenizerError   text cannot be embedded without a tokenizer.json
    ├── DataError            tables, shards, captions and indexes that are missing, damaged or invalid
    ├── TrainingError        training failed or diverged
    ├── ConfigError          an invalid or incompatible option
    ├── IndexMismatchError   a search index built with another model
    └── MissingExtraError    an optional dependency that is not installed

The command line prints the message and exits with 2; Python callers catch `OpenClapError`. A message is one or more
sentences: what happened, what was expected, what to do. `AudioWarning`, `CheckpointWarning` and `IndexWarning` are no
errors: the sound is decoded, the checkpoint read, and the index written, all the same.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


class OpenClapError(Exception):
    """The root of the errors that a user can cause."""


class AudioError(OpenClapError):
    """A sound that cannot be decoded, or holds nothing usable."""


class TruncatedAudioError(AudioError):
    """A sound that ends before the length that its file states. It is raised after all that could be decoded."""


class CheckpointError(OpenClapError):
    """Weights, presets and folders that do not fit or are damaged."""


class MissingTokenizerError(CheckpointError):
    """Text cannot be embedded without a tokenizer.json.

    `why` is the sentence that describes what is missing. The message adds the argument of the Python interface; the
    command line adds its own option instead.
    """

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why

    def __str__(self) -> str:
        return f"{self.why} Pass a tokenizer.json as tokenizer=."


class DataError(OpenClapError):
    """Tables, shards, captions and indexes that are missing, damaged or invalid."""


class LockedError(DataError):
    """Another process or thread is writing to the same folder."""


class TrainingError(OpenClapError):
    """Training failed or diverged."""


class ConfigError(OpenClapError):
    """An invalid or incompatible option."""


class IndexMismatchError(OpenClapError):
    """A search index that was built with another model."""


class MissingExtraError(OpenClapError):
    """An optional dependency that is not installed."""


class CheckpointWarning(UserWarning):
    """A checkpoint was read, but holds something that was ignored."""


class AudioWarning(UserWarning):
    """A sound was decoded, but probably not as intended: its channels cancel each other."""


class IndexWarning(UserWarning):
    """Sounds were added to an index, but something derived from them is not up to date."""


@contextmanager
def reporting_missing_torch() -> Iterator[None]:
    """Raise MissingExtraError where an import within the block fails because torch or transformers is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("torch", "transformers"):
            raise
        raise MissingExtraError("This needs torch. Install it with: pip install 'openclap[torch]'.") from error


def require(module: str, extra: str) -> ModuleType:
    """Import an optional `module`. Raises MissingExtraError with the name of the extra that installs it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{module} is not installed, and this needs it. Run pip install 'openclap[{extra}]' to install it."
        ) from error
