"""Options that several verbs of `openclap dataset` share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from openclap.audio.mono import Channels
from openclap.cli.console import note, shown
from openclap.cli.reading import ReadAs

if TYPE_CHECKING:
    from openclap.data.config import DataRecipe
    from openclap.embedder import Embedder

Flag = Annotated[bool, Parameter(negative="")]


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class RecordOptions:
    """Which records are included; without an option, as the recipe says."""

    root: Path = Path()
    """The folder that contains the sources of a recipe."""
    missing_ok: Flag = False
    """Continue without the parts of a recipe that are missing."""
    test_fraction: float | None = None
    """The fraction of clips in the test split, in whole groups; 0.2 without a recipe."""
    seed: int | None = None
    """The seed of the split."""
    licences: str | None = None
    """Allowed families of licences, separated by commas: cc0,by,by-sa. Any licence without it."""
    channels: Channels | None = None
    """The channel of multichannel sounds: their mean, or the left, right or loudest one. Without it, the mean; sounds
    whose channels cancel each other are then left out."""
    drop_duplicates: Flag = False
    """Of clips with the same samples, use the first one alone."""
    decontaminate: Annotated[tuple[str, ...], Parameter(negative="")] = ()
    """An evaluation set as NAME=FOLDER (esc50=~/ESC-50), whose clips are left out. May be repeated."""

    def arguments(self, collection: str, read_as: ReadAs, *, skip_caption_check: bool) -> dict[str, Any]:
        """Arguments of `openclap.data.build.build_dataset` and `dataset_input`.

        Raises ConfigError for invalid options, and for a collection that is neither a recipe nor there.
        """
        return {
            "source": _recipe_or_path(collection),
            "reading": read_as.reading,
            "root": self.root,
            "missing_ok": self.missing_ok,
            "test_fraction": self.test_fraction,
            "seed": self.seed,
            "licences": None if self.licences is None else self.licences.split(","),
            "channels": self.channels,
            "drop_duplicates": self.drop_duplicates,
            "decontaminate": dict(map(_name_and_folder, self.decontaminate)),
            "skip_caption_check": skip_caption_check,
            "note": _note_on(Path(collection)),
        }


def _recipe_or_path(source: str) -> DataRecipe | Path:
    from openclap.errors import ConfigError
    from openclap.recipes import DATA_RECIPES, data_recipe

    path = Path(source).expanduser()
    if source in DATA_RECIPES or path.suffix == ".py":
        return data_recipe(source)
    if not path.exists() and not path.suffix:
        raise ConfigError(f"{source}: is neither a recipe ({', '.join(DATA_RECIPES)}) nor an existing table or folder.")
    return path


def _note_on(source: Path) -> Callable[[str], None]:
    """Print notes with the source's path as the user may read it."""
    path = source.expanduser().absolute()
    return lambda sentence: note(sentence.replace(str(path), shown(path), 1))


def _name_and_folder(text: str) -> tuple[str, str]:
    from openclap.errors import ConfigError
    from openclap.sources import SOURCES

    name, _, folder = text.partition("=")
    if name not in SOURCES or not folder:
        raise ConfigError(f"--decontaminate is {text!r}, expected NAME=FOLDER with a NAME from: {', '.join(SOURCES)}.")
    return name, folder


def load_model(near_duplicates: float | None, model: str | None) -> Embedder | None:
    """Load the model for --near-duplicates; None without that option.

    Raises ConfigError for an invalid threshold and for a model without one; CheckpointError as `openclap.load`.
    """
    from openclap.cli.model_options import ModelOptions
    from openclap.data.near_duplicates import check_threshold
    from openclap.errors import ConfigError

    if near_duplicates is None:
        if model is not None:
            raise ConfigError("--model is for --near-duplicates: add that option with a cosine, such as 0.98.")
        return None
    check_threshold(near_duplicates)
    return ModelOptions(model=model).load()
