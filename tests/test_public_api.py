"""The names of `openclap`: typed, documented, and with examples that run."""

from __future__ import annotations

import doctest
import inspect
import shutil
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import openclap
from openclap.demo.run import SOUNDS

PUBLIC = [name for name in openclap.__all__ if name != "__version__"]
BUNDLED = {
    "dog.ogg": "scratch-dog1.ogg",
    "applause.ogg": "opensfx-applause.ogg",
    "horse.ogg": "opensfx-horse.ogg",
}


def documented(name: str) -> Iterator[tuple[str, Any]]:
    """A public name and, of a class, its public methods."""
    value = getattr(openclap, name)
    yield name, value
    if inspect.isclass(value):
        for attribute, member in vars(value).items():
            if not attribute.startswith("_"):
                yield f"{name}.{attribute}", getattr(member, "__func__", member)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_documented(name: str) -> None:
    for label, value in documented(name):
        assert inspect.getdoc(value), f"{label} has no docstring"
    if not isinstance(getattr(openclap, name), types.ModuleType):
        assert ">>>" in (inspect.getdoc(getattr(openclap, name)) or ""), f"{name} has no example"


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_typed(name: str) -> None:
    """Every parameter and result has an annotation, and type checkers read the same import."""
    for label, value in documented(name):
        function = value.fget if isinstance(value, property) else value
        function = function.__init__ if inspect.isclass(function) else function
        if not inspect.isfunction(function):
            continue
        signature = inspect.signature(function)
        parameters = [each for each in signature.parameters.values() if each.name not in ("self", "cls")]
        missing = [each.name for each in parameters if each.annotation is each.empty]
        assert not missing and signature.return_annotation is not signature.empty, f"{label}: {missing}"
    module, _, attribute = openclap._EXPORTS[name].partition(":")
    source = f"from {module if attribute else 'openclap'} import {name} as {name}"
    assert source in Path(openclap.__file__).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PUBLIC)
def test_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder with `dog.ogg`, `applause.ogg`, `horse.ogg`, and the same three in `sounds/`."""
    monkeypatch.chdir(tmp_path)
    place_sounds(tmp_path)
    for label, value in documented(name):
        example = doctest.DocTestParser().get_doctest(
            inspect.getdoc(value) or "", {"openclap": openclap}, label, None, None
        )
        report: list[str] = []
        results = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=report.append)
        assert results.failed == 0, "".join(report)


def place_sounds(folder: Path) -> None:
    """Copy bundled sounds under the names that examples use."""
    (folder / "sounds").mkdir()
    for name, bundled in BUNDLED.items():
        shutil.copyfile(SOUNDS / bundled, folder / "sounds" / name)
        shutil.copyfile(SOUNDS / bundled, folder / name)


@pytest.mark.parametrize("value", [None, 3, b"bytes"])
def test_wrong_types_of_paths_are_refused_in_a_sentence(value: Any, tmp_path: Path) -> None:
    calls = {
        "recipe": lambda: openclap.train(value, tmp_path / "run"),
        "out": lambda: openclap.train("demo", value),
        "sounds": lambda: openclap.finetune(value, "mini", tmp_path / "run"),
        "start": lambda: openclap.finetune(tmp_path, value, tmp_path / "run"),
        "source": lambda: openclap.build_dataset(value, tmp_path / "set"),
        "folder": lambda: openclap.Library.open(value),
    }
    if value is not None:  # None stands for the default
        calls |= {"data": lambda: openclap.evaluate("mini", value)}
    for name, call in calls.items():
        with pytest.raises(
            openclap.errors.ConfigError, match=f"^{name} is of the type {type(value).__name__}, expected "
        ):
            call()
