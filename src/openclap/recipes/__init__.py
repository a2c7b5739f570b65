"""Recipes: training runs and data sets, each with its command, cost and result.

A recipe is a module or a row of a table. Reading one imports no torch.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from openclap.errors import ConfigError
from openclap.recipes import current, demo, laion, laion_630k, small
from openclap.training.config import ExpectedInputs, TrainConfig

if TYPE_CHECKING:
    from openclap.data.config import DataRecipe

C = TypeVar("C")


class Recipe(Protocol):
    """A recipe's module, or a row of a table of recipes."""

    def config(self) -> TrainConfig: ...


class DataSetRecipe(Protocol):
    """The module of a data set, or a row of a table of data sets."""

    def config(self) -> DataRecipe: ...


RECIPES: dict[str, Recipe] = {"demo": demo, "small": small, **laion.RUNS}
DATA_RECIPES: dict[str, DataSetRecipe] = {"laion-630k": laion_630k, **current.DATA}


def recipe(name: str) -> TrainConfig:
    """Read the configuration of a training run by name, or from any Python file with a function `config()`.

    Raises ConfigError for an unknown name and for a file without a usable `config`.
    """
    return _read_recipe(name, RECIPES, TrainConfig)


def expected_inputs(name: str) -> ExpectedInputs | None:
    """Return the model and the number of pairs that a recipe of the paper expects; None for other recipes."""
    return laion.RUNS[name].expected_inputs() if name in laion.RUNS else None


def data_recipe(name: str) -> DataRecipe:
    """Read the recipe of a data set, by name or from a Python file. Raises ConfigError as `recipe` does."""
    from openclap.data.config import DataRecipe

    return _read_recipe(name, DATA_RECIPES, DataRecipe)


def _read_recipe(name: str, known: Mapping[str, Any], kind: type[C]) -> C:
    if name in known:
        config: C = known[name].config()
        return config
    path = Path(name)
    if path.suffix != ".py" or not path.is_file():
        raise ConfigError(
            f"There is no recipe {name!r}. Expected one of: {', '.join(known)}; or the path of a Python file."
        )
    return _run_file(path, kind)


def _run_file(path: Path, kind: type[C]) -> C:
    spec = importlib.util.spec_from_file_location(f"openclap_recipe_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path}: cannot be read as Python.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.config()
    except (Exception, SystemExit) as error:  # a recipe is the user's own code, and may raise anything
        raise ConfigError(f"{path}: the recipe failed ({type(error).__name__}: {error}).") from error
    if not isinstance(config, kind):
        raise ConfigError(f"{path}: config() returned {type(config).__name__}, expected a {kind.__name__}.")
    return config
