"""Which model a command works with, and how: the options that commands share."""

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

Offline = Annotated[bool, Parameter(negative="")]
TrimSilence = Annotated[bool, Parameter(negative="")]


Tokenizer = Annotated[Path | None, Parameter(help="A `tokenizer.json`, for a model that has none beside it.")]


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """How models are loaded, whatever their names; see `openclap.load`."""

    offline: Offline = False
    """Take models from the hub's cache alone, and ask the network for nothing."""
    tokenizer: Tokenizer = None
    precision: str = "fp32"
    """What the model computes in: fp32, bf16, int8, or auto, the fastest that stays true to fp32."""
    device: str | None = None
    """Where it computes: cpu, cuda, …; a GPU without it, when there is one."""
    channels: Channels = "mean"
    """The channel to read of sounds with several: their mean, or the left, the right or the loudest one."""
    trim_silence: TrimSilence = False
    """Cut silent ends (below -80 dBFS) off each sound before it is embedded."""

    def load_named(self, name: str, *, revision: str | None = None) -> Embedder:
        """Load a model by name. Raises CheckpointError and ConfigError as `openclap.load` does."""
        import openclap
        from openclap.embedder import located

        return openclap.load(
            located(name, revision=revision, offline=self.offline, report=note),
            offline=self.offline,
            tokenizer=self.tokenizer,
            precision=self.precision,
            device=self.device,
            channels=self.channels,
            trim_silence=self.trim_silence,
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
        """The model that is meant. Raises CheckpointError when none is named and there is no default."""
        return self.model or default_model()

    def load(self) -> Embedder:
        """The model. Raises CheckpointError and ConfigError as `openclap.load` does."""
        return self.load_named(self.name, revision=self.revision)

    def facts(self, embedder: Embedder) -> dict[str, str | bool]:
        """Everything that vectors depend on besides the sounds, for `--json` and for files of vectors."""
        mono = embedder.mono
        return {
            "model": self.name,
            "precision": embedder.engine.precision,
            "channels": mono.channels,
            "trim_silence": mono.trim_silence,
        }
