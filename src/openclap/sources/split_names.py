"""Read the split of a file from the names of its folders and its own.

The words are those of the Hugging Face library `datasets`: https://huggingface.co/docs/hub/datasets-file-names-and-splits.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import PurePosixPath

SPLIT_WORDS = {
    "train": ("train", "training"),
    "valid": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SPLIT_OF = {word: split for split, words in SPLIT_WORDS.items() for word in words}
_BETWEEN = re.compile(r"[-._ 0-9]+")


def split_of(path: str) -> str | None:
    """Return the split that a path from the root names ("data/train-00000-of-00002.parquet" → "train"), or None.

    Folders take precedence over the file name, and inner folders over outer ones.
    """
    return split_of_folders(path) or _first_split((PurePosixPath(path).name,))


def split_of_folders(path: str) -> str | None:
    """Return the split that the folders of a path name, or None.

    For audio files: their own names may be about trains and tests.
    """
    return _first_split(PurePosixPath(path).parts[-2::-1])


@lru_cache(maxsize=4096)
def _first_split(names: Sequence[str]) -> str | None:
    words = (word for name in names for word in _BETWEEN.split(name.lower()))
    return next((_SPLIT_OF[word] for word in words if word in _SPLIT_OF), None)
