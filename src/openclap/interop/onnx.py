"""Export models as ONNX graphs, which onnxruntime and others run without torch and openclap.

A folder holds `audio.onnx` and `text.onnx`, which compute unit vectors, `tokenizer.json`, and `onnx.json`, which
describes the inputs. The audio graph of plain models takes a waveform and contains the log-mel. That of fusion models
takes the log-mels of four views, which `logmel.onnx` computes from waveforms of any length.

B clips or captions, N samples, V views, T frames, F mel bins, L tokens.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from openclap import __version__, presets
from openclap.audio.clips import quantise
from openclap.audio.mel import LogMel
from openclap.checkpoints.checkpoint import Checkpoint, build_network, weights_digest
from openclap.checkpoints.conversion_report import ConversionLosses, objective_names
from openclap.checkpoints.destination import drafted
from openclap.errors import CheckpointError, require
from openclap.models.fusion import every_clip
from openclap.models.modern_text import ModernText
from openclap.runtimes import graph_cache, preset_graphs
from openclap.runtimes.graph_cache import DESCRIPTION
from openclap.runtimes.onnx import FORMAT_VERSION, KIND
from openclap.runtimes.torch import TorchRuntime
from openclap.storage import write_bytes
from openclap.text.tokenizer import FILE as TOKENIZER
from openclap.text.tokenizer import Tokenizer
from openclap.types import AudioBatch, TextBatch

if TYPE_CHECKING:
    from torch.onnx import ONNXProgram

    from openclap.audio.config import FrontEndConfig
    from openclap.embedder import Embedder
    from openclap.models.clap import CLAP
    from openclap.presets import Preset

EXTRA = "export"
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-5
"""Largest difference from an element of torch's unit vectors; of other outputs, relative to the largest element."""


def write(checkpoint: Checkpoint, place: Path, tokenizer: Tokenizer | None) -> ConversionLosses:
    """Write the folder, but only if onnxruntime computes what torch computes.

    Raises CheckpointError where it does not, or where `place` is anything else (see `checkpoints.destination`), and
    MissingExtraError without onnx, onnxscript and onnxruntime.
    """
    for module in PACKAGES:
        require(module, EXTRA)
    clap = build_network(checkpoint, checkpoint.preset.name)
    digest = weights_digest(clap, checkpoint.preset)
    graphs = graphs_of(fuse_every_clip(clap), checkpoint.preset)

    def check_folder(draft: Path) -> None:
        for graph in graphs:
            check(graph, draft / graph.file)
        if tokenizer is not None:
            Tokenizer.read(draft / TOKENIZER, checkpoint.preset.text.context)

    with drafted(place, KIND, check_folder, [checkpoint.source]) as draft:
        draft.mkdir()
        for graph in graphs:
            export(graph, draft / graph.file)
        description = describe(graphs, checkpoint.preset, clap.scale.item(), digest) | card_of(checkpoint.source)
        (draft / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        if tokenizer is not None:
            (draft / TOKENIZER).write_text(tokenizer.settled, encoding="utf-8")
    left_out = tuple(name for name in [*checkpoint.weights, *checkpoint.unused] if not _is_exported(name))
    return ConversionLosses(left_out=(*left_out, *objective_names(checkpoint.objective)))


def prepare(embedder: Embedder, source: Path, report: Callable[[str], None]) -> None:
    """Write the graphs of a loaded model under openclap's home, once, so that later commands start without torch.

    Nothing happens for another runtime than torch and another precision than fp32, for models whose graphs come with
    openclap (`runtimes.preset_graphs`) or are there already, without the extra, and where this version of openclap has
    failed to convert the model before.

    Args:
        source: the file or folder of the model.
        report: receives a line before the conversion, and the reason of a failure.
    """
    runtime = embedder.runtime
    is_installed = all(importlib.util.find_spec(package) for package in PACKAGES)
    if not isinstance(runtime, TorchRuntime) or runtime.precision != "fp32" or not is_installed:
        return
    if preset_graphs.obstacle(source) is None:
        return
    digest = runtime.weights_digest()
    place = graph_cache.place_of(digest)
    failure = place.with_name(f"{digest}.failed")
    if not graph_cache.is_graph_folder(place):
        if failure.is_file() and failure.read_text(encoding="utf-8").startswith(f"{__version__}\n"):
            return
        report("Converting the model for onnxruntime, once: later commands start without torch.")
        weights = {name: tensor.cpu() for name, tensor in runtime.clap.state_dict().items()}
        try:
            words = runtime.tokenizer if runtime.has_tokenizer else None
            write(Checkpoint("openclap", runtime.preset, weights, source=source), place, words)
        except CheckpointError as error:
            report(f"The model stays with torch: {error}")
            write_bytes(failure, f"{__version__}\n{error}\n".encode())
            return
    graph_cache.remember(source, digest)


def fuse_every_clip(clap: CLAP) -> CLAP:
    """Make the network fuse every clip and select afterwards, with equal results.

    Normally only long clips are fused, but no shape in a graph may depend on a value.
    """
    for module in clap.modules():
        if hasattr(module, "where_long"):
            module.where_long = every_clip  # type: ignore[assignment]
    return clap


@dataclass(frozen=True, slots=True)
class Graph:
    """One graph, before its export to a file.

    Attributes:
        inputs: the name of each input with its dimensions: names of variable sizes, and fixed sizes as numbers.
        output: the name of the output.
        examples: inputs of several sizes. The first is traced, all are compared with torch.
    """

    file: str
    network: nn.Module
    inputs: dict[str, tuple[str | int, ...]]
    output: str
    examples: Sequence[tuple[Tensor, ...]]


def graphs_of(clap: CLAP, preset: Preset) -> list[Graph]:
    """Return the graphs of a model, with examples of several sizes."""
    random = torch.Generator().manual_seed(0)  # the same examples, and so the same graph, at every export
    front = preset.frontend

    def waves(clips: int, samples: int) -> tuple[Tensor, ...]:
        """Make noise that ends in silence, as padded clips do; every second clip is quieter and darker, since clips
        that are alike would not show whether a graph mixes them."""
        wave_BN = 0.1 * torch.randn(clips, samples, generator=random)
        wave_BN[1::2] = 0.05 * (wave_BN[1::2] + wave_BN[1::2].roll(1, dims=1))
        wave_BN[:, samples - samples // 4 :] = 0  # exercises the floor of the log-mel
        return (wave_BN,)

    def views(clips: int) -> tuple[Tensor, ...]:
        mel_BVTF = torch.randn(clips, 4, front.frames, front.mel.n_mels, generator=random)
        return mel_BVTF, torch.arange(clips) % 2 == 0

    def captions(texts: int, tokens: int) -> tuple[Tensor, ...]:
        """Make token ids, the last ones with padding: without any, the mask would not be traced."""
        ids_BL = torch.randint(int(preset.text.sizes.get("vocab_size", 100)), (texts, tokens), generator=random)
        mask_BL = torch.ones_like(ids_BL)
        mask_BL[-1, tokens - tokens // 3 :] = 0
        return ids_BL, mask_BL

    # BART pools over padding and is always padded to the context; other towers take any length.
    lengths = (
        [preset.text.context] * 3 if preset.text.padded else [max(preset.text.context // 2, 3), 3, preset.text.context]
    )
    text_sizes = ("batch", "tokens")
    text = Graph(
        "text.onnx",
        TextGraph(clap),
        {"ids": text_sizes, "mask": text_sizes},
        "vector",
        [captions(texts, tokens) for texts, tokens in zip((2, 1, 3), lengths, strict=True)],
    )
    if front.long == "windows":
        samples: list[int] = [front.samples] * 3
        if front.is_any_length:
            # The traced clip must not fill its last patch: the graph would have no padding for other clips.
            is_full = front.frames % getattr(preset.audio, "patch_time", 1) == 0
            samples = [front.samples + is_full * front.mel.hop, front.mel.n_fft, 2 * front.samples + 1]
        examples = [waves(clips, length) for clips, length in zip((2, 1, 3), samples, strict=True)]
        size = "samples" if front.is_any_length else front.samples
        return [Graph("audio.onnx", WaveformGraph(clap, front), {"wave": ("batch", size)}, "vector", examples), text]
    sizes = {"mel": ("batch", 4, front.frames, front.mel.n_mels), "is_long": ("batch",)}
    lengths = [front.samples + front.samples // 3, front.samples, 2 * front.samples + 1]
    examples = [waves(clips, samples) for clips, samples in zip((2, 1, 3), lengths, strict=True)]
    return [
        Graph("audio.onnx", FusionGraph(clap), sizes, "vector", [views(clips) for clips in (2, 1, 3)]),
        Graph("logmel.onnx", LogMelGraph(front), {"wave": ("batch", "samples")}, "mel", examples),
        text,
    ]


class LogMelGraph(nn.Module):
    """Compute (B, T, F) log-mels of (B, N) waveforms of any length."""

    def __init__(self, config: FrontEndConfig) -> None:
        super().__init__()
        self.logmel = LogMel(config.mel)
        self.round = quantise if config.int16 else nn.Identity()

    def forward(self, wave_BN: Tensor) -> Tensor:
        return self.logmel.at_once(self.round(wave_BN))


class WaveformGraph(nn.Module):
    """Embed (B, N) waveforms of the model's input length."""

    def __init__(self, clap: CLAP, config: FrontEndConfig) -> None:
        super().__init__()
        self.clap, self.mels = clap, LogMelGraph(config)

    def forward(self, wave_BN: Tensor) -> Tensor:
        mel_BVTF = self.mels(wave_BN).unsqueeze(1)
        return self.clap.encode_audio(AudioBatch(mel_BVTF, mel_BVTF.new_zeros(mel_BVTF.shape[0], dtype=torch.bool)))


class FusionGraph(nn.Module):
    """Embed (B, 4, T, F) log-mels of four views, with a flag for each long clip."""

    def __init__(self, clap: CLAP) -> None:
        super().__init__()
        self.clap = clap

    def forward(self, mel_BVTF: Tensor, is_long_B: Tensor) -> Tensor:
        return self.clap.encode_audio(AudioBatch(mel_BVTF, is_long_B))


class TextGraph(nn.Module):
    """Embed (B, L) token ids with their mask.

    Unlike the towers, which skip a mask without padding, the graph always applies it.
    """

    def __init__(self, clap: CLAP) -> None:
        super().__init__()
        self.clap = clap

    def forward(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        return F.normalize(self.clap.text_head(self._pooled(TextBatch(ids_BL, mask_BL))), dim=-1)

    def _pooled(self, batch: TextBatch) -> Tensor:
        tower = self.clap.text_tower
        if isinstance(tower, ModernText):
            return tower.masked(batch)
        output = tower.encoder(input_ids=batch.ids_BL, attention_mask=batch.mask_BL)  # type: ignore[operator]
        pooled_BC: Tensor = tower.pool(output, batch)  # type: ignore[operator]
        return pooled_BC


def export(graph: Graph, path: Path) -> None:
    """Write one graph. Raises CheckpointError where torch cannot export it."""
    # Weights in a file of their own are mapped into memory, which halves the time to open a graph.
    trace(graph, path.name).save(path, external_data=True)


def trace(graph: Graph, name: str, *, optimize: bool = True) -> ONNXProgram:
    """Export one graph. Raises CheckpointError where torch cannot.

    Args:
        optimize: fold constants and simplify. Without it, each weight is an initializer as the network stores it, under
            its name in the network.
    """
    shapes = tuple(
        {place: size for place, size in enumerate(sizes) if isinstance(size, str)} for sizes in graph.inputs.values()
    )
    try:
        # MATH exports attention as matrix products and softmax, which every ONNX runtime has.
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), _quiet_exporter():
            program: ONNXProgram = torch.onnx.export(  # type: ignore[assignment]
                graph.network.eval(),
                graph.examples[0],
                dynamo=True,
                dynamic_shapes=shapes,
                input_names=list(graph.inputs),
                output_names=[graph.output],
                verbose=False,
                optimize=optimize,
            )
            return program
    except (torch.onnx.errors.OnnxExporterError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(f"{name}: torch cannot export this model as ONNX ({reason[0]}).") from error


def check(graph: Graph, path: Path) -> None:
    """Raise CheckpointError where onnxruntime computes other numbers than torch."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only: warnings are about its own optimisations
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    for example in graph.examples:
        with torch.inference_mode():
            expected = graph.network(*example)
        feed = {name: tensor.numpy() for name, tensor in zip(graph.inputs, example, strict=True)}
        found = torch.from_numpy(session.run([graph.output], feed)[0])
        largest = float((found - expected).abs().max() / max(1.0, float(expected.abs().max())))
        if not largest <= TOLERANCE:  # written so that NaN fails too
            shapes = " and ".join(str(tuple(tensor.shape)) for tensor in example)
            raise CheckpointError(
                f"{path.name}: onnxruntime differs from torch by {largest:.1e} for inputs of {shapes}, expected at "
                f"most {TOLERANCE:.0e}."
            )


def describe(graphs: Sequence[Graph], preset: Preset, scale: float, digest: str) -> dict[str, Any]:
    """Return the content of `onnx.json`: facts for programs that use the graphs, and, for openclap, the preset and the
    digest of weights and preset."""
    front, text = preset.frontend, preset.text
    facts: dict[str, dict[str, Any]] = {
        "audio": {
            "rate": front.mel.rate,
            "samples": front.samples,
            "short": SHORT[front.fill],
            "long": f"whole, up to {front.longest} samples; then {LONG[front.long]}"
            if front.is_any_length
            else LONG[front.long],
        },
        "logmel": {"rate": front.mel.rate, "hop": front.mel.hop},
        "text": {"tokenizer": TOKENIZER, "context": text.context, "padded": text.padded},
    }
    return {
        "format_version": FORMAT_VERSION,
        "name": preset.name,
        "embedding_size": preset.embedding_size,
        "scale": scale,
        **{Path(graph.file).stem: _signature(graph) | facts[Path(graph.file).stem] for graph in graphs},
        "preset": presets.to_dict(preset),
        "weights_digest": digest,
    }


def card_of(source: Path | None) -> dict[str, Any]:
    """The card of a model folder (its licence is in the head) and the figures of its evaluation, where it has them."""
    if source is None or not source.is_dir():
        return {}
    card, evaluation = source / "README.md", source / "evaluation.json"
    facts: dict[str, Any] = {"card": card.read_text(encoding="utf-8", errors="replace")} if card.is_file() else {}
    with suppress(OSError, ValueError):  # a damaged evaluation is no reason not to convert the weights
        facts["evaluation"] = json.loads(evaluation.read_text(encoding="utf-8"))
    return facts


def _signature(graph: Graph) -> dict[str, Any]:
    tensors = zip(graph.inputs.items(), graph.examples[0], strict=True)
    return {
        "file": graph.file,
        "inputs": {name: {"type": TYPES[tensor.dtype], "shape": list(sizes)} for (name, sizes), tensor in tensors},
        "output": graph.output,
    }


TYPES = {torch.float32: "float32", torch.int64: "int64", torch.bool: "bool"}
SHORT = {
    "pad": "zeros after it",
    "repeat": "copies end to end, the last one cut",
    "repeatpad": "as many whole copies as fit, then zeros",
    "none": "as it is; one shorter than a window of the Fourier transform, zeros up to that length",
}
LONG = {
    "windows": "windows end to end, the last one anchored at the end; the mean of their embeddings, normalised",
    "fusion": (
        "is_long, and four views: the log-mel of all of it, resized to the frames of the input (bilinear, half-pixel "
        "centres), then as many frames from the middle start of each third of the possible starts (numpy.array_split); "
        "a clip that is not long is one view four times"
    ),
}
"""How to prepare clips that are shorter or longer than the input, for users of the graphs."""

NOT_EXPORTED = ("audio_transform.", "text_transform.", "audio_tower.tagger.", "logit_scale_text")


def _is_exported(name: str) -> bool:
    return name.startswith(("audio_", "text_", "logit_scale")) and not name.startswith(NOT_EXPORTED)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence the exporter's notes on optional libraries."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
