"""Which split a file belongs to, from the names of its folders and its own.

The words are those that the Hugging Face library `datasets` goes by: https://huggingface.co/docs/hub/datasets-file-names-and-splits.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import PurePosixPath

WORDS = {
    "train": ("train", "training"),
    "valid": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SPLIT_OF = {word: split for split, words in WORDS.items() for word in words}
_BETWEEN = re.compile(r"[-._ 0-9]+")


def split_of(path: str) -> str | None:
    """The split that a path from the root names ("data/train-00000-of-00002.parquet" → "train"); None for none.

    A folder counts before the file, and the folder next to the file before those around it.
    """
    return split_of_folders(path) or _first((PurePosixPath(path).name,))


def split_of_folders(path: str) -> str | None:
    """The split that the folders of a path name. For sounds, whose own names may speak of trains and tests."""
    return _first(PurePosixPath(path).parts[-2::-1])


@lru_cache(maxsize=4096)
def _first(names: Sequence[str]) -> str | None:
    words = (word for name in names for word in _BETWEEN.split(name.lower()))
    return next((_SPLIT_OF[word] for word in words if word in _SPLIT_OF), None)
