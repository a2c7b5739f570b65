"""Load a model from a path, by its name, or from the hub."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from openclap import runtimes
from openclap.audio.mono import Channels, MonoConfig
from openclap.checkpoints import hub, published
from openclap.embedder import Embedder
from openclap.errors import CheckpointError
from openclap.limits import check_path

if TYPE_CHECKING:
    import torch

    from openclap.presets import Preset

STARTS = {"demo-start": "openclap.checkpoints.starts:start"}
"""Initial models for training by name, with the functions that make their folders. Strings, so that this module imports
no torch (see `openclap.runtimes.RUNTIMES`)."""

HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")
"""USER/NAME."""
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
) -> Embedder:
    """Load a model from a path, by its name, or from the hub.

    Args:
        source: a folder written by openclap or transformers; a LAION-CLAP `.pt` file; the name of a published model
            (`openclap models`); any repository of the Hugging Face hub ("user/name"); or an initial model for training
            ("demo-start").
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

    Raises CheckpointError when there is no such model or it is damaged, ConfigError for an invalid option.

    Examples:
        >>> model = openclap.load("demo-start")
        >>> model.embed_text(["rain on a tin roof", "a dog barks"]).shape
        (2, 512)
    """
    mono = MonoConfig(channels, trim_silence)
    loader = runtimes.loader("torch", device, precision, compile=compile)  # check options before a download
    path = locate(check_path("source", source, "a path or a name"), revision=revision, offline=offline)
    return Embedder(loader.read(path, preset=preset, tokenizer=tokenizer, offline=offline), mono=mono)


def locate(
    source: str,
    *,
    revision: str | None = None,
    offline: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> Path:
    """The path of a model, which is downloaded if it is not on this machine.

    Names of initial models come first, then existing paths, published models, and repositories of the hub.

    Args:
        report: receives a line before each slow step.

    Raises CheckpointError when there is no such model.
    """
    path = Path(source).expanduser()
    if source in STARTS:
        start: Path = runtimes.resolve(STARTS[source])(source, report, offline=offline or hub.is_offline())
        return start
    if path.exists():
        return path
    known = published.find(source)
    if known is not None:
        return published.fetch(known, revision=revision, offline=offline)
    if HUB_NAME.fullmatch(source) and path.suffix not in CHECKPOINT_SUFFIXES:
        return hub.download(source, revision=revision, offline=offline)
    similar = published.closest(source)
    hint = f" Did you mean {' or '.join(similar)}?" if similar else " `openclap models` lists the names."
    raise CheckpointError(f"{source}: no such model, expected a file, a folder or a name.{hint}")
