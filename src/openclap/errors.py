"""Errors that a user can cause, as one small tree.

    OpenClapError            the root
    ├── AudioError           a sound that cannot be decoded, or holds nothing usable
    ├── CheckpointError      weights, presets and folders that are damaged or do not fit
    │   └── MissingTokenizerError   text cannot be embedded without a tokenizer.json
    ├── DataError            tables, shards and captions
    ├── TrainingError        training failed or diverged
    ├── ConfigError          an invalid or incompatible option
    ├── IndexMismatchError   a search index built with another model
    └── MissingExtraError    an optional dependency that is not installed

The command line prints the sentence and exits with 2; Python callers catch `OpenClapError`. `AudioWarning` is a Python
warning beside the tree: the sound is decoded all the same.
"""

from __future__ import annotations

import importlib
from types import ModuleType


class OpenClapError(Exception):
    """The root. The text is one sentence: what happened, what was expected, what to do."""


class AudioError(OpenClapError):
    """A sound that cannot be decoded, or holds nothing usable."""


class CheckpointError(OpenClapError):
    """Weights, presets and folders that do not fit or are damaged."""


class MissingTokenizerError(CheckpointError):
    """Text cannot be embedded without a tokenizer.json.

    `why` describes what is missing. The text names the argument for Python callers; the command line names its option.
    """

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why

    def __str__(self) -> str:
        return f"{self.why} Pass a tokenizer.json as tokenizer=."


class DataError(OpenClapError):
    """Tables, shards and captions."""


class TrainingError(OpenClapError):
    """Training failed or diverged."""


class ConfigError(OpenClapError):
    """An invalid or incompatible option."""


class IndexMismatchError(OpenClapError):
    """A search index that was built with another model."""


class MissingExtraError(OpenClapError):
    """An optional dependency that is not installed."""


class AudioWarning(UserWarning):
    """A sound that is decoded, but hardly as intended: its channels cancel each other."""


def require(module: str, extra: str) -> ModuleType:
    """Import an optional `module`. Raises MissingExtraError with the name of the extra that installs it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{module} is not installed, and this needs it. Run: pip install 'openclap[{extra}]'"
        ) from error
