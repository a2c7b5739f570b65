"""What a data set is made from, as the command line says it: the options that its verbs share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from openclap.audio.mono import Channels
from openclap.cli.console import note

if TYPE_CHECKING:
    from openclap.data.recipe import DataRecipe, Told

Flag = Annotated[bool, Parameter(negative="")]


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """Which records, and what becomes of them; a recipe's own choices without these."""

    root: Path = Path()
    """Where the folders of a recipe's sources lie."""
    source: str | None = None
    """How a folder is read: esc50, clotho, … (`openclap dataset sources`); by its file names without it."""
    missing_ok: Flag = False
    """Go on without the parts of a recipe that are not there."""
    test: float | None = None
    """The share of clips that is held out for testing, in whole groups; 0.2 without a recipe."""
    seed: int | None = None
    """Which groups are held out."""
    licences: str | None = None
    """Families of licences that may be used, with commas between: cc0,by,by-sa. Any, without it."""
    channels: Channels | None = None
    """The channel to read of sounds with several: their mean, or the left, the right or the loudest one. Without it,
    the mean; sounds whose channels cancel each other are then left out."""
    drop_duplicates: Flag = False
    """Of clips with the same samples, keep the first."""
    apart: Annotated[tuple[str, ...], Parameter(negative="")] = ()
    """A set that is measured on, as NAME=FOLDER (esc50=~/ESC-50); what it holds is left out. May be given again."""

    def recipe(self, what: str) -> DataRecipe:
        """The recipe of that name or file, or one for a table or a folder, with these choices.

        Raises ConfigError for what cannot be.
        """
        recipe = self._named(what)
        changed: dict[str, object] = {}
        if self.test is not None:
            changed["splits"] = _splits(self.test)
        if self.seed is not None:
            changed["seed"] = self.seed
        if self.licences is not None:
            changed["licences"] = tuple(part.strip().lower() for part in self.licences.split(","))
        if self.channels is not None:
            changed["channels"] = self.channels
        if self.drop_duplicates:
            changed["drop_duplicates"] = True
        apart = dict(recipe.apart) | dict(map(_name_and_place, self.apart))
        return replace(recipe, config=replace(recipe.config, **changed), apart=apart)  # type: ignore[arg-type]

    def _named(self, what: str) -> DataRecipe:
        from openclap.data.recipe import DataRecipe
        from openclap.errors import ConfigError
        from openclap.recipes import DATA_RECIPES, data_recipe
        from openclap.sources import SOURCES

        path = Path(what).expanduser()
        if what in DATA_RECIPES or path.suffix == ".py":
            return data_recipe(what)
        name = self.source or ("folder" if path.is_dir() else "table")
        if name not in SOURCES:
            raise ConfigError(f"--source is {name!r}, expected one of: {', '.join(SOURCES)}.")
        if not path.exists() and not path.suffix:
            raise ConfigError(
                f"{what}: is neither a recipe ({', '.join(DATA_RECIPES)}) nor a table or folder that is there."
            )
        return DataRecipe(path.stem, {name: str(path.absolute())})

    def told(self) -> Told | None:
        """What is told of missing parts; None when they are errors."""
        return (lambda error: note(f"Left out: {error}")) if self.missing_ok else None


def _splits(test: float) -> dict[str, float]:
    from openclap.errors import ConfigError

    if not 0 <= test < 1:
        raise ConfigError(f"--test is {test}, expected a share from 0 to below 1.")
    return {"train": 1 - test, "test": test} if test else {"train": 1.0}


def _name_and_place(text: str) -> tuple[str, str]:
    from openclap.errors import ConfigError
    from openclap.sources import SOURCES

    name, _, place = text.partition("=")
    if name not in SOURCES or not place:
        raise ConfigError(f"--apart is {text!r}, expected NAME=FOLDER with a NAME from: {', '.join(SOURCES)}.")
    return name, str(Path(place).expanduser().absolute())
