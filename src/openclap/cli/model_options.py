"""The options by which commands choose and load a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from openclap.audio.mono import Channels
from openclap.cli.console import note
from openclap.cli.defaults import default_model

if TYPE_CHECKING:
    from openclap.embedder import Embedder
    from openclap.library import Library

Offline = Annotated[bool, Parameter(negative="")]
TrimSilence = Annotated[bool, Parameter(negative="")]
OptionalFlag = Annotated[bool | None, Parameter(negative="")]
Tokenizer = Annotated[Path | None, Parameter(help="A `tokenizer.json`, for a model that has none beside it.")]


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """How models are loaded, whatever their names; see `openclap.load`. None stands for its default."""

    offline: Offline = False
    """Take models from the hub's cache alone, without any request."""
    tokenizer: Tokenizer = None
    precision: str | None = None
    """The model's arithmetic: fp32 (the default), bf16, int8, or auto, the fastest that stays close to fp32."""
    device: str | None = None
    """Where the model runs: cpu, cuda, …; a GPU without it, when there is one."""
    channels: Channels | None = None
    """The channel to read of sounds with several: their mean (the default), or the left, right or loudest one."""
    trim_silence: OptionalFlag = None
    """Cut silent ends (below -80 dBFS) off each sound before it is embedded."""

    def load_named(self, name: str, *, revision: str | None = None) -> Embedder:
        """Load a model by name. Raises CheckpointError and ConfigError as `openclap.load` does."""
        import openclap
        from openclap.loading import locate

        return openclap.load(
            locate(name, revision=revision, offline=self.offline, report=note),
            offline=self.offline,
            tokenizer=self.tokenizer,
            precision=self.precision or "fp32",
            device=self.device,
            channels=self.channels or "mean",
            trim_silence=bool(self.trim_silence),
        )


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions(LoadOptions):
    """A model by name, and how it is loaded; see `openclap.load`."""

    model: str | None = None
    """A model folder, file or name (`openclap models`), or USER/NAME on the hub; the demo's model without it."""
    revision: str | None = None
    """The branch, tag or commit of a model on the hub."""

    @property
    def name(self) -> str:
        """The named model, or the default. Raises CheckpointError when there is neither."""
        return self.model or default_model()

    def load(self) -> Embedder:
        """Load the model. Raises CheckpointError and ConfigError as `openclap.load` does."""
        return self.load_named(self.name, revision=self.revision)

    def open_library(self, folder: Path) -> Library:
        """Open the index in `folder`, or make it; without --model, an existing index uses its own model."""
        from openclap.library import Library
        from openclap.search.index import Index

        return Library.open(
            folder,
            self.model if Index.exists(folder) else self.name,
            tokenizer=self.tokenizer,
            channels=self.channels,
            trim_silence=self.trim_silence,
            precision=self.precision,
            device=self.device,
            revision=self.revision,
            offline=self.offline,
        )

    def facts(self, embedder: Embedder) -> dict[str, str | bool]:
        """Everything that determines embeddings besides the sounds, for `--json` and for files of vectors."""
        mono = embedder.mono
        return {
            "model": self.name,
            "precision": embedder.precision,
            "channels": mono.channels,
            "trim_silence": mono.trim_silence,
        }
