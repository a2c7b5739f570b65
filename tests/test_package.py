from __future__ import annotations

import subprocess
import sys

import openclap


def fresh(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_importing_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys, time; t = time.perf_counter(); import openclap; print(time.perf_counter() - t); "
        "print([n for n in ('torch', 'transformers', 'numpy', 'lancedb') if n in sys.modules])"
    )
    runs = [fresh(code).splitlines() for _ in range(3)]
    assert min(float(run[0]) for run in runs) < 0.2
    assert {run[1] for run in runs} == {"[]"}


def test_search_never_imports_torch() -> None:
    code = (
        "import sys, openclap.search.index, openclap.search.scan; import lancedb; "
        "print([n for n in ('torch', 'openclap.embedder') if n in sys.modules])"
    )
    assert fresh(code) == "[]"


def test_the_public_names_are_there() -> None:
    for name in openclap.__all__:
        assert getattr(openclap, name) is not None
    assert set(openclap.__all__) <= set(dir(openclap))
