"""Write the graphs without weights that come with openclap, src/openclap/runtimes/graphs, one for each tower.

    python scripts/build_graphs.py [--check] [PRESET ...]

Each graph is compared with torch for made weights that it was not exported with, which takes minutes for all presets.
Equal versions of torch, onnxscript and onnx give equal bytes; --check writes nothing and reports files that differ.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxscript.optimizer
import torch

from openclap import presets
from openclap.checkpoints.checkpoint import empty_network
from openclap.checkpoints.clap_model import preset_from_config
from openclap.interop.onnx import TOLERANCE, Graph, fuse_every_clip, graphs_of, trace
from openclap.models.clap import CLAP
from openclap.presets import Preset
from openclap.runtimes import preset_graphs
from openclap.runtimes.sessions import make_session

BASE = {"patch_embeds_hidden_size": 128, "depths": [2, 2, 12, 2]}
CLAP_MODELS: dict[str, dict[str, Any]] = {
    "laion/clap-htsat-unfused": {},
    "laion/clap-htsat-fused": {"audio_config": {"enable_fusion": True, "fusion_type": "aff_2d"}},
    # The three larger_clap_* models have one architecture.
    "laion/larger_clap_general": {"audio_config": BASE},
    # ClapModels that `openclap convert --to hf` writes from LAION-CLAP's files, which have another epsilon.
    "converted to a ClapModel": {"text_config": {"layer_norm_eps": 1e-5}},
}
"""The settings in which published ClapModels differ from transformers' defaults."""
PRESETS = ("mini", "htsat-tiny-roberta", "htsat-base-roberta", "htsat-tiny-fusion-roberta")
"""The preset of models that are fine-tuned from the bundled one, and those of LAION-CLAP's published files, for which
`openclap convert --to openclap` makes folders."""
FOLDED = 1 << 22
"""Elements of a constant that may be folded: index tables and masks of attention, which compress well."""
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time of every member of a zip file, so that equal graphs are equal files."""


def shipped() -> dict[str, Preset]:
    """All presets whose graphs come with openclap, by name."""
    plain = {name: presets.named(name) for name in PRESETS}
    return plain | {name: preset_from_config(config, {}) for name, config in CLAP_MODELS.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="*", metavar="PRESET")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    chosen = {name: preset for name, preset in shipped().items() if name in (options.presets or shipped())}
    differing = build(chosen.values(), check=options.check)
    for path in differing:
        print(f"{path} is not what this script makes now.")
    return 1 if differing else 0


def build(chosen: Iterable[Preset], *, check: bool) -> list[Path]:
    """Make the graphs of presets and return the files that differ, which `check` leaves as they are."""
    made: set[Path] = set()
    differing = []
    preset_graphs.FOLDER.mkdir(exist_ok=True)
    for preset in chosen:
        for name, file in ((name, preset_graphs.file_of(preset, name)) for name in preset_graphs.graphs_of(preset)):
            if file in made:
                continue
            made.add(file)
            content, difference = archive(preset, name)
            print(f"{file.name}: {len(content) / 1000:.0f} kB, differs from torch by {difference:.1e}", flush=True)
            if difference > TOLERANCE:
                raise SystemExit(f"{file.name} differs from torch by more than {TOLERANCE:.0e}.")
            if check and not (file.is_file() and file.read_bytes() == content):
                differing.append(file)
            elif not check:
                file.write_bytes(content)
    return differing


def archive(preset: Preset, name: str) -> tuple[bytes, float]:
    """The content of a graph's file, and the largest difference of its output from torch's."""
    clap = fuse_every_clip(empty_network(preset, preset.name).eval())
    [graph] = [each for each in graphs_of(clap, preset) if each.file == f"{name}.onnx"]
    model, shapes = without_weights(graph)
    members = {
        preset_graphs.GRAPH: model,
        preset_graphs.SHAPES: json.dumps(shapes).encode(),
        preset_graphs.CONFIGURATION: json.dumps(preset_graphs.configuration(preset, name), indent=2).encode(),
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for member, content in members.items():
            made.writestr(zipfile.ZipInfo(member, EPOCH), content, zipfile.ZIP_DEFLATED, 9)
    return buffer.getvalue(), largest_difference(clap, graph, model, shapes)


def without_weights(graph: Graph) -> tuple[bytes, dict[str, tuple[int, ...]]]:
    """Export a graph in which every weight is an external initializer of the stored tensor's name, shape and layout."""
    model = trace(graph, graph.file, optimize=False).model
    weights = {
        name: model.graph.initializers[name] for name in graph.network.state_dict() if name in model.graph.initializers
    }
    facts = {name: (value.dtype, value.shape) for name, value in weights.items()}
    # As inputs, weights are no constants, so that the optimizer folds nothing into them.
    for name, value in weights.items():
        del model.graph.initializers[name]
        value.const_value = None
        model.graph.inputs.append(value)
    onnxscript.optimizer.optimize(model, num_iterations=2, input_size_limit=FOLDED, output_size_limit=FOLDED)
    fuse_transposes(model, set(weights))
    shapes = {}
    for name, value in weights.items():
        model.graph.inputs.remove(value)
        dtype, shape = facts[name]
        value.name = name.removeprefix("clap.")
        value.const_value = ir.ExternalTensor("weights", 0, 0, dtype, shape=shape, name=value.name)
        model.graph.initializers[value.name] = value
        shapes[value.name] = tuple(int(size) for size in shape)
    return serialize(model), shapes


def fuse_transposes(model: ir.Model, weights: set[str]) -> None:
    """Let matrix products read weights transposed, as torch stores them: transposing them would take time at each
    start."""
    for node in list(model.graph):
        transpose = node.inputs[1].producer() if node.op_type == "MatMul" else None
        if transpose is None or transpose.op_type != "Transpose" or transpose.inputs[0].name not in weights:
            continue
        product = ir.Node(
            "com.microsoft", "FusedMatMul", [node.inputs[0], transpose.inputs[0]], [ir.AttrInt64("transB", 1)]
        )
        output, old = product.outputs[0], node.outputs[0]
        output.name, output.type, output.shape = old.name, old.type, old.shape
        model.graph.insert_before(node, product)
        ir.convenience.replace_all_uses_with(old, output)
        model.graph.remove(node, safe=True)
        if not transpose.outputs[0].uses():
            model.graph.remove(transpose, safe=True)
    model.opset_imports["com.microsoft"] = 1


def serialize(model: ir.Model) -> bytes:
    """The bytes of a model without the notes of its exporter, which name files of this machine."""
    proto = ir.to_proto(model)
    for node in proto.graph.node:
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
    proto.graph.ClearField("value_info")
    proto.graph.ClearField("metadata_props")
    content: bytes = proto.SerializeToString(deterministic=True)
    return content


def largest_difference(clap: CLAP, graph: Graph, model: bytes, shapes: dict[str, tuple[int, ...]]) -> float:
    """The largest difference from torch with made weights, which the graph has never contained; relative to the largest
    element of outputs that are no unit vectors."""
    randomise(clap)
    set_statistics(graph)
    weights = {name: clap.state_dict()[name].numpy() for name in shapes}
    session = make_session(model, weights)
    largest = 0.0
    for example in graph.examples:
        with torch.inference_mode():
            expected = graph.network(*example).numpy()
        feed = {name: tensor.numpy() for name, tensor in zip(graph.inputs, example, strict=True)}
        found = session.run(None, feed)[0]
        if len(expected) > 1 and np.allclose(expected[0], expected[1], atol=1e-3):
            raise SystemExit(f"{graph.file}: the output does not depend on the input, so that comparing it is no test.")
        difference = float(np.abs(found - expected).max() / max(1.0, float(np.abs(expected).max())))
        largest = max(largest, difference) if np.isfinite(difference) else np.inf
    return largest


def randomise(clap: CLAP) -> None:
    """Fill a network with numbers of the size that trained ones have: no scale is 1 and no bias 0, as in fresh ones."""
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in clap.state_dict().items():
            if not tensor.is_floating_point():
                continue
            noise = torch.randn(tensor.shape, generator=random)
            if tensor.ndim > 1:
                tensor.copy_(noise * (2 / tensor[0].numel()) ** 0.5)
            else:
                tensor.copy_(float("weight" in name) + 0.1 * noise)


def set_statistics(graph: Graph) -> None:
    """Give batch norms the statistics of an example: with others the output would hardly depend on the input."""
    for name, module in graph.network.named_modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
            # Fusion's global branch has one value for each clip. The variance of two of them may be next to nothing,
            # which would magnify rounding errors: most of the initial variance of 1 remains.
            module.momentum = 0.1 if "global_att" in name else None  # None: the mean of all batches, here of one
    with torch.no_grad():
        graph.network.train()(*graph.examples[0])
    graph.network.eval()


if __name__ == "__main__":
    sys.exit(main())
