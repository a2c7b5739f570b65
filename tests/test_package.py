"""The package as a whole: quick to import, and divided into using a model and making one."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import openclap
from openclap.errors import ConfigError
from openclap.runtimes import RUNTIMES, resolve
from support.errors import raises_naming

ROOT = Path(__file__).parents[1]


def run_fresh(code: str) -> str:
    """Run code in a new interpreter and return what it prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def modules_of_use() -> list[str]:
    """The modules that import-linter keeps free of torch; packages as such and with all their modules."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    [listed] = [each["source_modules"] for each in contracts if each["name"] == "Using a model needs no torch"]
    names = list(listed)
    for name in listed:
        folder = ROOT / "src" / name.replace(".", "/")
        names += [f"{name}.{path.stem}" for path in sorted(folder.glob("*.py")) if path.stem != "__init__"]
    return names


def test_importing_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys, time; t = time.perf_counter(); import openclap; print(time.perf_counter() - t); "
        "print([n for n in ('torch', 'transformers', 'numpy', 'lancedb') if n in sys.modules])"
    )
    runs = [run_fresh(code).splitlines() for _ in range(3)]
    assert min(float(run[0]) for run in runs) < 0.2
    assert {run[1] for run in runs} == {"[]"}


@pytest.mark.parametrize("module", ["openclap.cli", "openclap.types", None])
def test_using_a_model_imports_no_torch(module: str | None) -> None:
    """import-linter reads the sources; this runs them. `openclap.cli` is what the command line imports at its start."""
    modules = [module] if module else modules_of_use()
    assert module or {"openclap.embedder", "openclap.library", "openclap.search.scan"} <= set(modules)
    code = (
        f"import importlib, sys; [importlib.import_module(name) for name in {modules}]; "
        "print([n for n in ('torch', 'transformers') if n in sys.modules])"
    )
    assert run_fresh(code) == "[]"


def test_embedding_by_another_runtime_imports_no_torch() -> None:
    code = (
        "import sys; sys.path.insert(0, 'tests'); from support.numpy_runtime import embed_a_tone; "
        "print(embed_a_tone().shape, [n for n in ('torch', 'transformers') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stdout.strip() == "(2, 4) []", done.stderr


def test_attributes_of_torch_are_refused_by_another_runtime() -> None:
    from support.numpy_runtime import embedder

    for name in ("clap", "frontend", "device"):
        with raises_naming(ConfigError, name, "numpy"):
            getattr(embedder(), name)
    with raises_naming(ConfigError, "audio_tensor"):
        embedder().audio_tensor([])


def test_every_runtime_of_the_table_is_there() -> None:
    for target in RUNTIMES.values():
        assert callable(resolve(target))


def test_search_imports_no_model() -> None:
    code = (
        "import sys, openclap.search.index, openclap.search.scan; import lancedb; "
        "print([n for n in ('torch', 'openclap.embedder') if n in sys.modules])"
    )
    assert run_fresh(code) == "[]"


def test_public_names_resolve() -> None:
    assert set(openclap.__all__) <= set(dir(openclap))
    with pytest.raises(AttributeError, match="nothing"):
        _ = openclap.nothing
