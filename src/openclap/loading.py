"""Load a model from a path, by its name, or from the hub."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from openclap import runtimes
from openclap.audio.mono import Channels, MonoConfig
from openclap.checkpoints import bundled, hub, published
from openclap.embedder import Embedder
from openclap.errors import CheckpointError, ConfigError, MissingExtraError
from openclap.limits import check_path
from openclap.runtimes import graph_cache, preset_graphs

if TYPE_CHECKING:
    import torch

    from openclap.presets import Preset

RuntimeName = Literal["torch", "onnx", "auto"]

HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")
"""USER/NAME."""
PREFIXES = ("hf-hub:", "local-dir:")
"""How open_clip marks repositories and folders; both are found without a mark, too."""
CHECKPOINT_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".json")
"""Endings of checkpoint files: "models/best.pt" without such a file is a mistyped path, not a repository."""


def load(
    source: str | os.PathLike[str],
    *,
    device: str | torch.device | None = None,
    precision: str = "fp32",
    tokenizer: str | os.PathLike[str] | None = None,
    preset: Preset | None = None,
    revision: str | None = None,
    offline: bool = False,
    compile: bool = False,
    channels: Channels = "mean",
    trim_silence: bool = False,
    runtime: RuntimeName | None = None,
) -> Embedder:
    """Load a model from a path, by its name, or from the hub.

    Args:
        source: "mini", the model in the package; a folder written by openclap, transformers or open_clip; a folder of
            ONNX graphs; a LAION-CLAP `.pt` file; the name of a published model (`openclap models`); or any repository
            of the Hugging Face hub ("user/name", or "hf-hub:user/name" as in open_clip).
        device: "cpu", "cuda", …; the default is a GPU if there is one.
        precision: "fp32", "bf16", "int8", or "auto", the fastest with a cosine of at least 0.9995 to fp32 (see
            `openclap.runtimes.backends`).
        tokenizer: a `tokenizer.json` that replaces the model's own.
        preset: replaces the stored or recognised preset.
        revision: branch, tag or commit of a repository on the hub.
        offline: use only the hub's cache, without network access.
        compile: compile the networks with `torch.compile`: a minute at first use, faster from then on.
        channels: the channel to read of multichannel recordings: "mean", "left", "right" or "loudest" (see
            `openclap.audio.mono`).
        trim_silence: cut ends below -80 dBFS off a recording before embedding.
        runtime: "torch" reads any checkpoint; "onnx" computes the same embeddings without torch, for folders with
            safetensors of a published preset, and by graphs that `openclap convert --to onnx` wrote; "auto" is onnx if
            it can read this model and there is no GPU. The default is torch if it is installed. A folder of graphs is
            always read by onnx.

    Raises CheckpointError when there is no such model or it is damaged, ConfigError for an invalid option,
    MissingExtraError when torch is needed and not installed.

    Examples:
        >>> model = openclap.load("mini")
        >>> model.embed_text(["rain on a tin roof", "a dog barks"]).shape
        (2, 384)
    """
    mono = MonoConfig(channels, trim_silence)
    name = _without_prefix(check_path("source", source, "a path or a name"))
    chosen = _choose_runtime(name, runtime, device, precision, revision, is_plain=preset is None and not compile)
    loader = runtimes.loader(chosen, device, precision, compile=compile)  # check options before a download
    path = locate(name, revision=revision, offline=offline)
    return Embedder(loader.read(path, preset=preset, tokenizer=tokenizer, offline=offline), mono=mono, check_texts=True)


def _choose_runtime(
    name: str,
    runtime: RuntimeName | None,
    device: str | torch.device | None,
    precision: str,
    revision: str | None,
    *,
    is_plain: bool,
) -> str:
    """Choose the runtime for a model: "torch" or "onnx".

    Args:
        is_plain: whether no option is given that only torch has.

    Raises ConfigError for an unknown runtime or one that cannot read the model, MissingExtraError where torch is needed
    and not installed.
    """
    if runtime not in (*runtimes.RUNTIMES, "auto", None):
        raise ConfigError(f"runtime is {runtime!r}, expected one of: {', '.join(runtimes.RUNTIMES)}, auto.")
    if graph_cache.has_only_graphs(Path(name).expanduser()):
        if runtime == "torch":
            raise ConfigError(f"{name}: holds ONNX graphs, which the torch runtime cannot read. Choose runtime 'onnx'.")
        return "onnx"
    if runtime == "onnx":
        return "onnx"
    if not runtimes.has("torch"):
        _check_readable_without_torch(name)
        return "onnx"
    is_wanted = runtime == "auto" and is_plain and _is_onnx_fastest(device, precision)
    return "onnx" if is_wanted and _has_graphs(name, revision) else "torch"


def _check_readable_without_torch(name: str) -> None:
    """Raise MissingExtraError for a model that only torch reads, before it is fetched, and CheckpointError where there
    is none of this name. Whether any other repository needs torch is known when it is read."""
    known = published.find(name)
    path = Path(name).expanduser()
    needs_torch = known is not None and known.format == "laion" and not path.exists()
    if needs_torch:
        raise MissingExtraError(f"{name}: needs torch. Install it with: pip install 'openclap[torch]'.")
    if not (_is_known(name) or path.exists()):
        raise _no_such_model(name)


def _is_onnx_fastest(device: str | torch.device | None, precision: str) -> bool:
    """Whether nothing that is installed computes faster than onnxruntime, judged without importing torch.

    torch is faster on a GPU, and, where the precision is left open, by OpenVINO and by bfloat16 units of the CPU.
    """
    has_gpu = shutil.which("nvidia-smi") is not None
    if str(device) != "cpu" and (device is not None or has_gpu):
        return False
    return precision == "fp32" or (precision == "auto" and not runtimes.has("openvino") and not _has_bfloat16_units())


def _has_bfloat16_units() -> bool:
    """Whether the CPU multiplies bfloat16 numbers; known on Linux only."""
    try:
        return re.search(r"\b(avx512|amx)_bf16\b", Path("/proc/cpuinfo").read_text(encoding="utf-8")) is not None
    except OSError:
        return False


def _has_graphs(name: str, revision: str | None) -> bool:
    """Whether the graphs of a model are at hand. A model that would first have to be fetched has none."""
    try:
        path = locate(name, revision=revision, offline=True)
        return preset_graphs.obstacle(path) is None or graph_cache.find(path) is not None
    except CheckpointError:
        return False


def locate(source: str, *, revision: str | None = None, offline: bool = False) -> Path:
    """The path of a model, which is downloaded if it is not on this machine.

    The bundled model's name comes first, then existing paths, published models, and repositories of the hub.

    Raises CheckpointError when there is no such model.
    """
    source = _without_prefix(source)
    path = Path(source).expanduser()
    if source == bundled.MINI:
        return bundled.FOLDER
    if path.exists():
        return path
    known = published.find(source)
    if known is not None:
        return published.fetch(known, revision=revision, offline=offline)
    if names := published.names_in(source):
        raise CheckpointError(f"{source}: holds several models. Choose one by its name: {', '.join(names)}.")
    if _is_known(source):
        return hub.download(source, revision=revision, offline=offline)
    raise _no_such_model(source)


def _without_prefix(source: str) -> str:
    """The source without a mark of open_clip."""
    prefix = next((prefix for prefix in PREFIXES if source.startswith(prefix)), "")
    return source.removeprefix(prefix)


def _is_known(source: str) -> bool:
    """Whether this is the name of the bundled or a published model, or looks like a repository of the hub."""
    is_repository = HUB_NAME.fullmatch(source) and Path(source).suffix not in CHECKPOINT_SUFFIXES
    return source == bundled.MINI or published.find(source) is not None or bool(is_repository)


def _no_such_model(source: str) -> CheckpointError:
    similar = published.closest(source)
    hint = f" Did you mean {' or '.join(similar)}?" if similar else " `openclap models` lists the names."
    return CheckpointError(f"{source}: no such model, expected a file, a folder or a name.{hint}")
