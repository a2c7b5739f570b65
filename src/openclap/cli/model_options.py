"""The options by which commands choose and load a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from openclap.audio.mono import Channels
from openclap.cli.console import note
from openclap.cli.defaults import default_model

if TYPE_CHECKING:
    from openclap.embedder import Embedder
    from openclap.library import Library
    from openclap.loading import RuntimeName

TokenizerFile = Annotated[Path | None, Parameter(help="A `tokenizer.json`, for a model without one.")]


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """Options for loading any model; see `openclap.load`. None means not given: the default of `openclap.load`, or,
    for an existing index, the index's own option."""

    offline: bool = False
    """Use only the hub's cache, without network access."""
    tokenizer: TokenizerFile = None
    precision: str | None = None
    """The arithmetic of the model: fp32, bf16, int8, or auto, the fastest that stays close to fp32. Default: fp32."""
    device: str | None = None
    """The device that runs the model: cpu, cuda, … Default: a GPU if there is one."""
    channels: Channels | None = None
    """The channel to read of multichannel sounds: the mean of all, left, right or loudest. Default: mean."""
    trim_silence: bool | None = None
    """Cut silence (below -80 dBFS) off both ends of each sound before embedding."""

    def load_named(self, name: str, *, revision: str | None = None, runtime: RuntimeName | None = None) -> Embedder:
        """Load a model by name. Raises as `openclap.load` does."""
        import openclap

        return openclap.load(
            name,
            revision=revision,
            offline=self.offline,
            tokenizer=self.tokenizer,
            precision=self.precision or "fp32",
            device=self.device,
            channels=self.channels or "mean",
            trim_silence=bool(self.trim_silence),
            runtime=runtime,
        )


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions(LoadOptions):
    """Options for choosing and loading one model."""

    model: str | None = None
    """A model folder, file or name (`openclap models`), or USER/NAME on the hub. Default: mini, which is in the
    package."""
    revision: str | None = None
    """The branch, tag or commit of a model on the hub."""

    @property
    def name(self) -> str:
        """The given model, or the bundled one."""
        return self.model or default_model()

    def announce(self) -> None:
        """Say which model is used, where none was given."""
        if self.model is None:
            note(f"Model: {self.name}. Choose another one with --model (`openclap models` lists them).")

    def load(self) -> Embedder:
        """Load the model, without torch where it was converted. Raises as `openclap.load` does."""
        self.announce()
        return self.load_named(self.name, revision=self.revision, runtime="auto")

    def open_library(self, folder: Path) -> Library:
        """Open the index in `folder`, or create it. Without --model, an existing index uses its own model, and a new
        one the bundled one. Raises as `openclap.Library.open`."""
        from openclap.library import Library
        from openclap.search.index import Index

        if is_new := not Index.exists(folder):
            self.announce()
        model = self.name if is_new else self.model
        return Library.open(folder, model, **self.library_options())

    def library_options(self) -> dict[str, Any]:
        """The options of `openclap.Library.open` and `rebuild`, without the model."""
        return {
            "tokenizer": self.tokenizer,
            "channels": self.channels,
            "trim_silence": self.trim_silence,
            "precision": self.precision,
            "device": self.device,
            "revision": self.revision,
            "offline": self.offline,
        }

    def facts(self, embedder: Embedder) -> dict[str, str | bool]:
        """The options that determine embeddings, for `--json` and for files of embeddings."""
        mono = embedder.mono
        return {
            "model": self.name,
            "precision": embedder.precision,
            "channels": mono.channels,
            "trim_silence": mono.trim_silence,
        }
