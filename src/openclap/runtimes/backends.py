"""Backends of the torch runtime: run the networks by torch in a chosen precision, or by OpenVINO.

B clips or captions, V views, T frames, F mel bins, L tokens, D embedding.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openclap import paths
from openclap.errors import ConfigError
from openclap.models.config import NaFlexConfig, PANNConfig
from openclap.types import COSINE_BOUNDS, AudioBatch, Precision, TextBatch

if TYPE_CHECKING:
    from openclap.models.clap import CLAP

CPU_CLIPS = 4
"""Clips per forward pass of an audio tower on a CPU: with more, activations no longer fit its caches (see
docs/benchmarks.md)."""


class Backend(Protocol):
    """Runs a CLAP model without gradients.

    Attributes:
        name: the software and the precision, for people.
        precision: of the arithmetic.
    """

    name: str
    precision: Precision

    def encode_audio(self, batch: AudioBatch) -> Tensor:
        """(B, D) float32 unit vectors."""
        ...

    def encode_text(self, batch: TextBatch) -> Tensor:
        """(B, D) float32 unit vectors."""
        ...


@dataclass(frozen=True, slots=True)
class BackendChoice:
    """A backend and a precision, not yet built."""

    backend: Literal["torch", "openvino"]
    precision: Precision


FP32 = BackendChoice("torch", "fp32")


def choose(precision: str, device: torch.device) -> BackendChoice:
    """Choose the backend for `precision` on `device`.

    "auto" is the fastest one whose embeddings have a cosine of at least 0.9995 to fp32, by this table:

    ====================  =============================  ==================
    device                feature                        choice
    ====================  =============================  ==================
    CUDA                  bfloat16 units (Ampere on)     torch bf16
    CPU, with OpenVINO    bfloat16 units (AMX, AVX-512)  OpenVINO bf16
    CPU, with OpenVINO                                   OpenVINO fp32
    CPU                   bfloat16 units                 torch bf16
    any other                                            torch fp32
    ====================  =============================  ==================

    Raises ConfigError for an unknown precision, or one that the device does not have.
    """
    if precision == "auto":
        return _fastest(device)
    if precision not in COSINE_BOUNDS:
        raise ConfigError(f"precision is {precision!r}, expected one of: {', '.join([*COSINE_BOUNDS, 'auto'])}.")
    if precision == "int8" and device.type != "cpu":
        raise ConfigError(f"precision 'int8' runs on a CPU only, not on {device}. Choose 'bf16' or 'auto'.")
    return BackendChoice("torch", cast(Precision, precision))


def _fastest(device: torch.device) -> BackendChoice:
    if device.type == "cuda":
        return BackendChoice("torch", "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32")
    if device.type != "cpu":
        return BackendChoice("torch", "fp32")
    precision: Precision = "bf16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "fp32"
    return BackendChoice("openvino" if importlib.util.find_spec("openvino") else "torch", precision)


def build(
    choice: BackendChoice, clap: CLAP, device: torch.device, *, compile: bool, digest: Callable[[], str]
) -> Backend:
    """Build the chosen backend. `digest` names the model in the cache of converted networks.

    Towers with category heads compute in fp32 where bf16 was chosen: their embeddings are centred, so that rounded
    convolutions leave a cosine of 0.998 to fp32, below the bound of bf16.
    """
    config = clap.audio_tower.config
    if choice.precision == "bf16" and isinstance(config, PANNConfig) and config.categories:
        choice = replace(choice, precision="fp32")
    # Its converted networks have no input for the lengths of clips, so towers that read any length stay with torch.
    if choice.backend == "openvino" and not compile and not isinstance(config, NaFlexConfig):
        return OpenVinoBackend(clap, choice.precision, digest)
    return TorchBackend(clap, choice.precision, device, compile=compile)


class TorchBackend:
    """torch in fp32, in bf16 by autocast, or with int8 in the linear layers of the audio side.

    With int8, clips are computed one at a time: torch quantises the input of a layer with a single scale, which would
    make an embedding depend on its batch. Captions stay in fp32: a few channels of a pretrained text tower are so much
    larger than the others that eight bits for all of them give a cosine of 0.94 only (docs/benchmarks.md).
    """

    def __init__(self, clap: CLAP, precision: Precision, device: torch.device, *, compile: bool = False) -> None:
        self.precision: Precision = precision
        self.name = f"torch {precision}{' compiled' if compile else ''}"
        self._device = device
        self._clips = 1 if precision == "int8" else CPU_CLIPS if device.type == "cpu" and not compile else None
        audio_clap = _quantised(clap) if precision == "int8" else clap
        self._audio: Callable[[AudioBatch], Tensor] = audio_clap.encode_audio
        self._text: Callable[[TextBatch], Tensor] = clap.encode_text
        if compile:
            self._audio = torch.compile(self._audio, dynamic=True)
            self._text = torch.compile(self._text, dynamic=True)

    def encode_audio(self, batch: AudioBatch) -> Tensor:
        with torch.inference_mode(), self._arithmetic():
            # Clips of their own lengths come in batches by tokens (`openclap.runtimes.torch`); int8 needs single ones.
            is_whole = self._clips is None or (batch.frames_B is not None and self._clips > 1)
            parts = [self._audio(part) for part in ([batch] if is_whole else batch.split(self._clips or 1))]
            return F.normalize(torch.cat(parts).float(), dim=-1)

    def encode_text(self, batch: TextBatch) -> Tensor:
        with torch.inference_mode(), self._arithmetic():
            return F.normalize(self._text(batch).float(), dim=-1)

    def _arithmetic(self) -> torch.autocast:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self.precision == "bf16")


def _quantised(clap: CLAP) -> CLAP:
    """A copy with int8 weights in the linear layers of the audio side; their inputs are quantised dynamically."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", UserWarning)
        from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic

        sides = dict.fromkeys(("audio_tower", "audio_head"), per_channel_dynamic_qconfig)
        quantised: CLAP = quantize_dynamic(clap, sides)
    return quantised


class OpenVinoBackend:
    """OpenVINO on a CPU. Each tower is converted on first use and cached under openclap's home, by digest."""

    def __init__(self, clap: CLAP, precision: Precision, digest: Callable[[], str]) -> None:
        self.precision: Precision = precision
        self.name = f"OpenVINO {precision}"
        self._clap, self._digest = clap, digest
        self._torch = TorchBackend(clap, precision, torch.device("cpu"))
        self._fuses = getattr(clap.audio_tower.config, "fusion", None) is not None
        self._graphs: dict[str, Any] = {}

    def encode_audio(self, batch: AudioBatch) -> Tensor:
        return torch.cat([self._encode(part) for part in batch.split(CPU_CLIPS)])

    def encode_text(self, batch: TextBatch) -> Tensor:
        return self._run("text", batch.ids_BL, batch.mask_BL)

    def _encode(self, batch: AudioBatch) -> Tensor:
        """Long clips of a fusion model go through torch: OpenVINO's conversion of the fusion fails."""
        if self._fuses and bool(batch.is_long_B.any()):
            return self._torch.encode_audio(batch)
        return self._run("audio", batch.mel_BVTF.contiguous())

    def _run(self, side: str, *inputs: Tensor) -> Tensor:
        if side not in self._graphs:
            self._graphs[side] = self._compiled(side, inputs)
        return torch.from_numpy(self._graphs[side]([tensor.numpy() for tensor in inputs])[0].copy())

    def _compiled(self, side: str, inputs: tuple[Tensor, ...]) -> Any:
        import openvino

        core = openvino.Core()
        place = paths.home() / "engines" / f"{self._digest()[:32]}-{openvino.__version__.split('-')[0]}" / f"{side}.xml"
        if not place.is_file():
            _convert(SIDES[side](self._clap), inputs, place)
        options = {
            "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[self.precision],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        return core.compile_model(core.read_model(place), "CPU", options)


class _Audio(nn.Module):
    """The audio tower and head, for clips that need no fusion."""

    def __init__(self, clap: CLAP) -> None:
        super().__init__()
        self.clap = clap

    def forward(self, mel_BVTF: Tensor) -> Tensor:
        return self.clap.encode_audio(AudioBatch(mel_BVTF, torch.zeros(len(mel_BVTF), dtype=torch.bool)))

    @staticmethod
    def example(mel_BVTF: Tensor) -> tuple[Tensor, ...]:
        return (mel_BVTF[:1].repeat(2, 1, 1, 1),)


class _Text(nn.Module):
    """The text tower and head over ids and mask."""

    def __init__(self, clap: CLAP) -> None:
        super().__init__()
        self.clap = clap

    def forward(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        return self.clap.encode_text(TextBatch(ids_BL, mask_BL))

    @staticmethod
    def example(ids_BL: Tensor, mask_BL: Tensor) -> tuple[Tensor, ...]:
        """Two captions, one with padding: without padding, no mask would be traced."""
        mask_2L = torch.ones_like(mask_BL[:1]).repeat(2, 1)
        mask_2L[1, -1] = 0
        return ids_BL[:1].repeat(2, 1), mask_2L


SIDES: dict[str, Callable[[CLAP], _Audio | _Text]] = {"audio": _Audio, "text": _Text}


def _convert(network: _Audio | _Text, inputs: tuple[Tensor, ...], place: Path) -> None:
    """Trace a network on two items and write OpenVINO's files, the `.xml` file last: it marks a complete entry."""
    # Without its telemetry package, OpenVINO sends nothing home from a conversion.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    shapes = [([-1] * tensor.ndim, getattr(openvino.Type, TYPES[tensor.dtype])) for tensor in inputs]
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = openvino.convert_model(network, example_input=network.example(*inputs), input=shapes)
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as scratch:
        draft = Path(scratch) / place.name
        openvino.save_model(graph, draft, compress_to_fp16=False)
        draft.with_suffix(".bin").replace(place.with_suffix(".bin"))
        draft.replace(place)


TYPES = {torch.int64: "i64", torch.float32: "f32"}
