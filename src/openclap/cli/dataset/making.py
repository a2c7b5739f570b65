"""What a data set is made from, as the command line says it: the options that its verbs share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from openclap.audio.mono import Channels
from openclap.cli.console import note
from openclap.cli.reading import ReadAs, caption_check

if TYPE_CHECKING:
    from openclap.captions.check import CaptionCheck
    from openclap.data.recipe import DataRecipe, Told
    from openclap.sources import Record

Flag = Annotated[bool, Parameter(negative="")]


@dataclass(frozen=True, slots=True)
class Making:
    """A data set in the making: its recipe, its records, and a check of captions that nobody has looked at."""

    recipe: DataRecipe
    records: Callable[[], Iterator[Record]]
    check: CaptionCheck | None = None


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """Which records, and what becomes of them; a recipe's own choices without these."""

    root: Path = Path()
    """Where the folders of a recipe's sources lie."""
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

    def making(self, what: str, read_as: ReadAs, *, any_captions: bool) -> Making:
        """What a data set is made from, with these choices: the recipe of that name or file, or what is recognised.

        Raises ConfigError for what cannot be, DataError for what cannot be read.
        """
        from openclap.data.recipe import DataRecipe
        from openclap.errors import ConfigError
        from openclap.recipes import DATA_RECIPES, data_recipe

        path = Path(what).expanduser()
        if what in DATA_RECIPES or path.suffix == ".py":
            recipe = self._changed(data_recipe(what))
            return Making(recipe, partial(recipe.records, self.root, self.told()))
        recipe = self._changed(
            DataRecipe(path.stem, {})
        )  # impossible choices are said before a folder is looked through
        if not path.exists() and not path.suffix:
            raise ConfigError(
                f"{what}: is neither a recipe ({', '.join(DATA_RECIPES)}) nor a table or folder that is there."
            )
        found = read_as.recognise(path)
        return Making(recipe, found.read, caption_check(found, any_captions=any_captions))

    def _changed(self, recipe: DataRecipe) -> DataRecipe:
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
