"""Training runs, one a file: what it is, what it needs, what it reached, and the configuration."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

from openclap.errors import ConfigError
from openclap.recipes import demo
from openclap.train.config import TrainConfig

RECIPES: dict[str, ModuleType] = {"demo": demo}


def recipe(name: str) -> TrainConfig:
    """The configuration of a recipe by name, or of any Python file with a function `config()`.

    Raises ConfigError for an unknown name and for a file without a usable `config`.
    """
    if name in RECIPES:
        config: TrainConfig = RECIPES[name].config()
        return config
    path = Path(name)
    if path.suffix != ".py" or not path.is_file():
        raise ConfigError(
            f"There is no recipe {name!r}. Expected one of: {', '.join(RECIPES)}; or the path of a Python file."
        )
    return _from_file(path)


def _from_file(path: Path) -> TrainConfig:
    spec = importlib.util.spec_from_file_location(f"openclap_recipe_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path}: cannot be read as Python.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        made = module.config()
    except Exception as error:  # a recipe is the user's own code: whatever it raises is told in one sentence
        raise ConfigError(f"{path}: the recipe failed ({type(error).__name__}: {error}).") from error
    if not isinstance(made, TrainConfig):
        raise ConfigError(f"{path}: config() returned {type(made).__name__}, expected a TrainConfig.")
    return made
