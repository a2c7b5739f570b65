"""Options that several commands of `openclap dataset` share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts import Parameter

from openclap.audio.mono import Channels
from openclap.cli.console import note, shown
from openclap.cli.reading import ReadAs

if TYPE_CHECKING:
    from openclap.data.config import DataRecipe
    from openclap.embedder import Embedder


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class RecordOptions:
    """Choice of records; an option that is not given has the value of the recipe."""

    root: Path = Path()
    """The folder that contains the sources of a recipe."""
    missing_ok: bool = False
    """Continue without the parts of a recipe that are missing."""
    test_fraction: float | None = None
    """The share of clips in the test split, in whole groups. Default: 0.2, or the recipe's."""
    seed: int | None = None
    """The seed of the split. Default: the recipe's."""
    licences: str | None = None
    """Licence families to include, separated by commas: cc0,by,by-sa. Default: all."""
    channels: Channels | None = None
    """The channel to read of multichannel sounds: the mean of all, left, right or loudest. Default: mean, and sounds
    whose channels cancel each other are left out."""
    drop_duplicates: bool = False
    """Leave out clips with the same samples as an earlier one."""
    decontaminate: tuple[str, ...] = ()
    """An evaluation set as NAME=FOLDER or NAME:SPLIT=FOLDER, such as esc50=~/ESC-50 or audioset:test=~/AudioSet: its
    clips are left out. id_list=FILE.csv leaves out the uploads of a column sound_id, as in DCASE's lists. May be
    repeated."""

    def arguments(self, read_as: ReadAs, *, skip_caption_check: bool) -> dict[str, Any]:
        """Convert to arguments of `openclap.data.build.build_dataset` and `InputOptions`.

        Raises ConfigError for invalid options.
        """
        return {
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
        }


def recipe_or_path(source: str) -> DataRecipe | Path:
    """Read a recipe by name or file, or return the path of a collection. Raises ConfigError where it is neither."""
    from openclap.errors import ConfigError
    from openclap.recipes import DATA_RECIPES, data_recipe

    path = Path(source).expanduser()
    if source in DATA_RECIPES or path.suffix == ".py":
        return data_recipe(source)
    if not path.exists() and not path.suffix:
        raise ConfigError(f"{source}: is neither a recipe ({', '.join(DATA_RECIPES)}) nor an existing table or folder.")
    return path


def note_on(source: str) -> Callable[[str], None]:
    """Return a function that prints notes, with the source's path shortened as the user gave it."""
    path = Path(source).expanduser().absolute()
    # The library names absolute paths, which do not depend on the working folder.
    return lambda sentence: note(sentence.replace(str(path), shown(path), 1))


def _name_and_folder(text: str) -> tuple[str, str]:
    from openclap.data.config import SourceSplits
    from openclap.errors import ConfigError

    name, _, folder = text.partition("=")
    if not folder:
        raise ConfigError(f"--decontaminate is {text!r}, expected NAME=FOLDER, such as esc50=~/ESC-50.")
    SourceSplits.parse(name)
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
            raise ConfigError("--model needs --near-duplicates. Add that option with a cosine, such as 0.98.")
        return None
    check_threshold(near_duplicates)
    return ModelOptions(model=model).load()
