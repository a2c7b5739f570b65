"""Find the ONNX graphs of a model that were converted before, without torch.

They are under openclap's home, in `graphs/` by the digest of weights and preset. Computing that digest takes seconds
for a large model, so `graphs/digests.json` stores it with the size and time of each file that it was computed from.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import openclap
from openclap import paths
from openclap.checkpoints import mapped
from openclap.errors import CheckpointError
from openclap.storage import write_bytes

DESCRIPTION = "onnx.json"
"""The file by which a folder of graphs is recognised."""
CONFIGS = ("config.json", "preprocessor_config.json", "processor_config.json")
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt")


def is_graph_folder(path: Path) -> bool:
    """Whether `path` is a folder that `openclap convert --to onnx` wrote, damaged or not."""
    return (path / DESCRIPTION).is_file()


def has_only_graphs(path: Path) -> bool:
    """Whether `path` is a folder of graphs without a checkpoint beside them, which torch could read."""
    return is_graph_folder(path) and not (path / CONFIGS[0]).is_file()


def place_of(digest: str) -> Path:
    """The folder of the graphs of weights and preset with this digest; it need not exist."""
    return paths.home() / "graphs" / digest


def find(model: Path) -> Path | None:
    """The folder of a model's graphs: its own where they lie beside the weights, otherwise one under openclap's home;
    None where it was not converted, or its digest needs torch."""
    if is_graph_folder(model):
        return model
    if not (paths.home() / "graphs").is_dir():
        return None
    digest = digest_of(model)
    return place_of(digest) if digest and is_graph_folder(place_of(digest)) else None


def digest_of(model: Path) -> str | None:
    """The digest of a model's weights and preset; None where computing it needs torch."""
    return _stored_digest(model) or _computed_digest(model)


def remember(model: Path, digest: str) -> None:
    """Store the digest of a model file or folder; models that no longer exist are dropped."""
    entries = {name: entry for name, entry in _entries().items() if Path(name).exists()}
    entries[str(model.resolve())] = {"stamp": _stamp(model), "digest": digest, "openclap": openclap.__version__}
    (paths.home() / "graphs").mkdir(parents=True, exist_ok=True)
    write_bytes(_file(), json.dumps(entries, indent=2).encode() + b"\n")


def _file() -> Path:
    return paths.home() / "graphs" / "digests.json"


def _entries() -> dict[str, Any]:
    """The stored entries by path; none where the file is missing or damaged, since it can be made again."""
    try:
        stored = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stored if isinstance(stored, dict) else {}


def _stamp(model: Path) -> list[list[Any]]:
    """Name, size and time of the files that determine weights and preset."""
    files = (
        [
            file
            for file in sorted(model.iterdir())
            if file.name in CONFIGS or file.suffix in WEIGHT_SUFFIXES or file.name.endswith(".index.json")
        ]
        if model.is_dir()
        else [model]
    )
    facts = [(file.name, file.stat()) for file in files if file.is_file()]
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in facts]


def _stored_digest(model: Path) -> str | None:
    entry = _entries().get(str(model.resolve()))
    # Another version of openclap may infer another preset from the same file.
    current = {"stamp": _stamp(model), "openclap": openclap.__version__}
    if not isinstance(entry, dict) or not current.items() <= entry.items():
        return None
    return entry.get("digest")


def _computed_digest(model: Path) -> str | None:
    """The digest of a model folder with safetensors, and store it; None for any other checkpoint, which needs torch."""
    try:
        digest = mapped.read(model).digest()
    except (CheckpointError, OSError):
        return None  # loading the model reports damage
    with suppress(OSError):  # a home that this user may only read
        remember(model, digest)
    return digest
