"""Which files of a repository on the hub a model consists of."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

TOKENIZER = "tokenizer.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
BESIDE = ("unused.safetensors", "objective.safetensors")
ALTERNATIVES = (
    (
        ("model.safetensors",),
        ("model.safetensors.index.json", "model-*.safetensors"),
        ("pytorch_model.bin",),
        ("pytorch_model.bin.index.json", "pytorch_model-*.bin"),
    ),
    ((TOKENIZER,), ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json")),
)
"""Weights, and words: of each, the first that a repository holds is the only one that is fetched. Weights in parts
have an index that names them."""
FILES = (
    *("config.json", "preprocessor_config.json", "processor_config.json", *BESIDE),
    *(name for choices in ALTERNATIVES for choice in choices for name in choice),
)
"""What a model consists of, ours or Hugging Face's."""


def choose(names: Sequence[str], files: Sequence[str] | None) -> list[str]:
    """Of the `names` in a repository, those to fetch."""
    passed_over = [name for choices in ALTERNATIVES for name in _passed_over(names, choices)] if files is None else []
    wanted = [name for name in names if any(fnmatchcase(name, pattern) for pattern in files or FILES)]
    return [name for name in wanted if not any(fnmatchcase(name, pattern) for pattern in passed_over)]


def _passed_over(names: Sequence[str], choices: Sequence[Sequence[str]]) -> list[str]:
    first = next((choice for choice in choices if choice[0] in names), ())
    return [name for choice in choices if choice is not first for name in choice]


def lacking(names: Sequence[str], files: Sequence[str] | None) -> list[str]:
    """What must be among `names` and is not."""
    if files is not None:
        return [file for file in files if not glob.has_magic(file) and file not in names]
    missing = [] if "config.json" in names else ["config.json"]
    chosen = choose(names, None)
    if not any(choice[0] in chosen for choice in ALTERNATIVES[0]):
        missing.append(" or ".join(WEIGHTS))
    numbered = [part for name in chosen if (part := PART.fullmatch(name))]
    parts = {f"{part[1]}{number:05}{part[2]}" for part in numbered for number in range(1, int(part[3]) + 1)}
    return missing + sorted(parts - set(names))


PART = re.compile(r"(.+-)\d{5}(-of-(\d{5})\..+)")
"""Weights in parts: `model-00002-of-00003.safetensors`."""
