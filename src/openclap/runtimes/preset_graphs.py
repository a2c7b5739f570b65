"""Graphs without weights that come with openclap, for each published preset: onnxruntime gets the weights from a model
folder when a session is made, so that a downloaded model needs neither torch nor a conversion.

`scripts/build_graphs.py` makes the files in `graphs/`. Each is a zip of `graph.onnx`, whose weights have openclap's
names and no content, `weights.json` (their shapes) and `configuration.json`, which determines the graph.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from openclap import presets
from openclap.checkpoints import mapped, openclap_config
from openclap.checkpoints.destination import drafted
from openclap.errors import CheckpointError
from openclap.formatting import describe_error, join_first
from openclap.presets import Preset
from openclap.runtimes import graph_cache
from openclap.runtimes.sessions import make_session
from openclap.text.numpy_tokenizer import FILE as TOKENIZER

FOLDER = Path(__file__).parent / "graphs"
GRAPH, SHAPES, CONFIGURATION = "graph.onnx", "weights.json", "configuration.json"
OUTSIDE = (
    ("audio", "classes"),
    *(("frontend", "fill"), ("frontend", "antialias")),
    *(("text", "context"), ("text", "tokenizer")),
)
"""Parts and fields of a preset that no graph depends on."""
HEADS: dict[str, tuple[str, ...]] = {"audio": ("audio_head", "unit_audio"), "logmel": (), "text": ("text_head",)}
"""Fields of a preset that determine the head in a graph."""


def graphs_of(preset: Preset) -> tuple[str, ...]:
    """The graphs that a model consists of: "audio", "text", and "logmel" where the audio graph reads log-mels."""
    return ("audio", "logmel", "text") if preset.frontend.long == "fusion" else ("audio", "text")


def configuration(preset: Preset, graph: str) -> dict[str, Any]:
    """The part of a preset that determines one of its graphs.

    The names, the heads that embedding does not use, and everything that is done outside the graphs are left out:
    filling, cutting, tokenizing.
    """
    facts = presets.to_dict(preset)
    for part, name in OUTSIDE:
        facts[part].pop(name, None)
    size = {"embedding_size": facts["embedding_size"]}
    # Heads other than LAION's are in the facts, and LAION's are not (`presets.ADDED`): digests of older graphs stay.
    heads = {name: facts[name] for name in HEADS[graph] if name in facts}
    if graph == "text":
        return {"text": facts["text"]} | size | heads
    front = {"frontend": facts["frontend"]}
    return front if graph == "logmel" else {"audio": facts["audio"]} | front | size | heads


def file_of(preset: Preset, graph: str) -> Path:
    """The file of a graph, which exists only for presets that are shipped.

    Its name has the kind of tower and a digest of the configuration, so that no graph serves another preset.
    """
    facts = configuration(preset, graph)
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
    kinds = {"audio": "tower", "text": "model_type"}
    tower = [facts[graph][kinds[graph]]] if graph in kinds else []
    return FOLDER / f"{'-'.join([graph, *tower, digest])}.zip"


def obstacle(model: Path) -> str | None:
    """The reason why a model file or folder cannot be bound to graphs; None where it can."""
    if model.is_file():
        return "is a single file, and only a folder with its configuration can be read without torch"
    try:
        preset = mapped.read_preset(model)
        files = mapped.weight_files(model)
    except (CheckpointError, OSError):
        return "is no complete model folder of openclap or transformers"  # reading it says what is wrong
    if pickled := [file.name for file in files if file.suffix != ".safetensors"]:
        return f"has its weights in {pickled[0]}, and only safetensors can be read without torch"
    if any(not file_of(preset, graph).is_file() for graph in graphs_of(preset)):
        return f"has the preset {preset.name}, for which openclap ships no graphs"
    return None


class BoundGraphs:
    """The graphs of a preset with the weights of a model folder, which are mapped into memory.

    Raises CheckpointError for a damaged or incomplete folder.
    """

    advice = "Is the model damaged?"

    def __init__(self, folder: Path) -> None:
        self.folder, self.preset = folder, mapped.read_preset(folder)
        self.scale = self._checkpoint.scale

    def __getstate__(self) -> dict[str, Any]:
        """Without the weights, which another process maps again."""
        return {name: value for name, value in vars(self).items() if name != "_checkpoint"}

    @cached_property
    def _checkpoint(self) -> mapped.MappedCheckpoint:
        return mapped.read(self.folder)

    def digest(self) -> str:
        """A SHA-256 of weights and preset, computed once and stored under openclap's home."""
        return graph_cache.digest_of(self.folder) or self._checkpoint.digest()

    def session(self, graph: str) -> Any:
        """An onnxruntime session of a graph. Raises CheckpointError for weights that do not fit it."""
        content, shapes = read_graph(file_of(self.preset, graph))
        weights = self._checkpoint.weights
        if missing := sorted(name for name in shapes if name not in weights):
            raise CheckpointError(f"{self.folder}: lacks {join_first(missing)}. Is it complete?")
        if wrong := [name for name, shape in shapes.items() if weights[name].shape != shape]:
            name = wrong[0]
            raise CheckpointError(
                f"{self.folder}: the weights do not fit the model: {name} is {weights[name].shape}, expected "
                f"{shapes[name]}."
            )
        return make_session(content, {name: weights[name] for name in shapes})

    def save(self, place: Path, tokenizer: str) -> None:
        """Write a model folder of openclap. Raises CheckpointError as `checkpoints.destination`."""
        from safetensors.numpy import save_file

        def check(draft: Path) -> None:
            if mapped.read(draft).digest() != self.digest():
                raise CheckpointError("The model reads back differently. Is the disk damaged?")

        with drafted(place, openclap_config.KIND, check, [self.folder]) as draft:
            draft.mkdir()
            openclap_config.write_preset(draft, self.preset)
            # Not ascontiguousarray, which gives scalars a dimension.
            weights = {name: np.require(array, requirements="C") for name, array in self._checkpoint.weights.items()}
            save_file(weights, draft / openclap_config.WEIGHTS)
            for file in (openclap_config.UNUSED, openclap_config.OBJECTIVE):
                if (self.folder / file).is_file():
                    shutil.copyfile(self.folder / file, draft / file)
            (draft / TOKENIZER).write_text(tokenizer, encoding="utf-8")


def read_graph(file: Path) -> tuple[bytes, dict[str, tuple[int, ...]]]:
    """The ONNX graph of a file, and the shapes of its weights by name. Raises CheckpointError for a damaged file."""
    try:
        with zipfile.ZipFile(file) as archive:
            shapes = json.loads(archive.read(SHAPES))
            return archive.read(GRAPH), {name: tuple(shape) for name, shape in shapes.items()}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{file}: is damaged ({describe_error(error)}). Install openclap again.") from None
