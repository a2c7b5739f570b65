from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_carries_what_the_demo_needs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {"openclap/py.typed", "openclap/evals/report.html", "openclap/demo/sounds/sounds.csv"} <= set(names)
    assert sum(name.endswith(".ogg") for name in names) >= 300
    assert any(name.endswith("ATTRIBUTION.md") for name in names) and any("LICENSE" in name for name in names)
    weights = [name for name in names if name.endswith((".safetensors", ".pth", ".pt", ".pyc"))]
    assert weights == ["openclap/captions/model/model.safetensors"], "the captioner is ours; no other weights travel"
    assert {name.split("/")[0] for name in names} == {
        "openclap",
        next(n for n in names if "dist-info" in n).split("/")[0],
    }


@pytest.mark.long
def test_installed_elsewhere_it_runs_the_demo(wheel: Path, tmp_path: Path) -> None:
    """Nothing but the wheel, in an empty environment, outside the checkout: installs, fetches, trains, searches."""
    venv.create(tmp_path / "env", with_pip=True)
    bin_ = tmp_path / "env" / "bin"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL"))}
    environment |= {"OPENCLAP_HOME": str(tmp_path / "home")}

    def run(*command: object) -> str:
        done = subprocess.run(
            [str(word) for word in command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    run(bin_ / "pip", "install", "--quiet", "torch==2.13.0", f"{wheel}[all]")
    assert "wolf" in run(bin_ / "openclap", "demo")
    assert "scratch-wolf-howl.ogg" in run(bin_ / "openclap", "search", "wolf howling", "-k", "1")
