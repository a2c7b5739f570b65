"""Write ONNX graphs beside a model folder's weights, which they read from its `model.safetensors`.

The graphs hold no weights of their own, so one file serves torch and onnxruntime. Tensors that the file stores as
float16 are converted to float32 in the graph, which onnxruntime does once, when it opens the graph.

The graphs of `runtimes.preset_graphs` know no file and fit every model of a preset; these fit one file, to which they
refer by offsets. The bundled model has them because it is stored in float16: bound to the graphs of its preset, the
weights would be converted by numpy and copied, and a process that embeds a text and a clip of five seconds would need
237 MB of memory in place of 139. A downloaded model cannot have them: its file lies behind a link of the hub's cache,
which onnxruntime refuses (docs/decisions/0022).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from openclap.checkpoints import openclap_folder
from openclap.checkpoints.checkpoint import build_network, weights_digest
from openclap.checkpoints.mapped import read_header
from openclap.checkpoints.openclap_config import WEIGHTS
from openclap.errors import CheckpointError, require
from openclap.interop.onnx import EXTRA, PACKAGES, Graph, check, describe, fuse_every_clip, graphs_of, trace
from openclap.runtimes.graph_cache import DESCRIPTION

PREFIX = "clap."
"""The beginning of the names of weights in graphs; the rest is the name in a model folder."""


def write(folder: Path) -> None:
    """Write audio.onnx, text.onnx and onnx.json into a model folder of openclap.

    Raises CheckpointError where onnxruntime computes other embeddings than torch, MissingExtraError without onnx,
    onnxscript and onnxruntime.
    """
    for module in PACKAGES:
        require(module, EXTRA)
    checkpoint = openclap_folder.read(folder)
    clap = build_network(checkpoint, folder.name)
    digest = weights_digest(clap, checkpoint.preset)
    graphs = graphs_of(fuse_every_clip(clap), checkpoint.preset)
    stored = read_header(folder / WEIGHTS)
    for graph in graphs:
        _export(graph, folder, stored)
        check(graph, folder / graph.file)
    facts = describe(graphs, checkpoint.preset, clap.scale.item(), digest)
    facts["shared_weights"] = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    (folder / DESCRIPTION).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def _export(graph: Graph, folder: Path, stored: dict[str, Any]) -> None:
    """Write one graph, its weights replaced by references. Raises CheckpointError where it keeps a weight."""
    import onnx

    # Optimising would merge weights with each other and transpose them; onnxruntime does so itself when it opens them.
    model = trace(graph, graph.file, optimize=False).model_proto
    kept = []
    for tensor in list(model.graph.initializer):
        name = tensor.name.removeprefix(PREFIX)
        if name not in stored:
            kept.append(tensor)
            continue
        model.graph.initializer.remove(tensor)
        _refer(model.graph, tensor, stored[name])
    if weights := [tensor.name for tensor in kept if tensor.name.endswith("weight")]:
        raise CheckpointError(f"{graph.file}: {weights[0]} is no tensor of {WEIGHTS}.")
    for node in model.graph.node:
        del node.metadata_props[:]  # where in the source each node comes from: half of the file
    onnx.save_model(model, folder / graph.file)


def _refer(graph: Any, tensor: Any, entry: dict[str, Any]) -> None:
    """Add an initializer that lies in the weights file, under the name of `tensor` once it is float32."""
    import onnx

    types = {"F16": onnx.TensorProto.FLOAT16, "F32": onnx.TensorProto.FLOAT, "I64": onnx.TensorProto.INT64}
    start, end = entry["data_offsets"]
    is_half = entry["dtype"] == "F16"
    outside = graph.initializer.add()
    outside.name = f"{tensor.name}.half" if is_half else tensor.name
    outside.data_type, outside.data_location = types[entry["dtype"]], onnx.TensorProto.EXTERNAL
    outside.dims.extend(entry["shape"])
    for key, value in (("location", WEIGHTS), ("offset", start), ("length", end - start)):
        outside.external_data.add(key=key, value=str(value))
    if is_half:
        graph.node.insert(0, onnx.helper.make_node("Cast", [outside.name], [tensor.name], to=onnx.TensorProto.FLOAT))
