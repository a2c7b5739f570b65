"""Training runs and data sets, one a file, or a table of a kind: what it is, what it needs, what it reached, and the
configuration."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, TypeVar

from openclap.data.config import DataRecipe
from openclap.errors import ConfigError
from openclap.recipes import demo, laion, laion_630k, small
from openclap.training.config import TrainConfig
from openclap.training.plan import Given

C = TypeVar("C")


class Recipe(Protocol):
    """A file's module, or a row of a table."""

    def config(self) -> TrainConfig: ...


RECIPES: dict[str, Recipe] = {"demo": demo, "small": small, **laion.ROWS}
DATA_RECIPES: dict[str, ModuleType] = {"laion-630k": laion_630k}


def recipe(name: str) -> TrainConfig:
    """The configuration of a training run by name, or of any Python file with a function `config()`.

    Raises ConfigError for an unknown name and for a file without a usable `config`.
    """
    return _recipe(name, RECIPES, TrainConfig)


def given(name: str) -> Given | None:
    """What the recipe of that name knows without its start and data."""
    return laion.ROWS[name].given() if name in laion.ROWS else None


def data_recipe(name: str) -> DataRecipe:
    """The recipe of a data set, in the same way."""
    return _recipe(name, DATA_RECIPES, DataRecipe)


def _recipe(name: str, known: Mapping[str, Any], kind: type[C]) -> C:
    if name in known:
        config: C = known[name].config()
        return config
    path = Path(name)
    if path.suffix != ".py" or not path.is_file():
        raise ConfigError(
            f"There is no recipe {name!r}. Expected one of: {', '.join(known)}; or the path of a Python file."
        )
    return _from_file(path, kind)


def _from_file(path: Path, kind: type[C]) -> C:
    spec = importlib.util.spec_from_file_location(f"openclap_recipe_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path}: cannot be read as Python.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        made = module.config()
    except (
        Exception,
        SystemExit,
    ) as error:  # a recipe is the user's own code
        raise ConfigError(f"{path}: the recipe failed ({type(error).__name__}: {error}).") from error
    if not isinstance(made, kind):
        raise ConfigError(f"{path}: config() returned {type(made).__name__}, expected a {kind.__name__}.")
    return made
