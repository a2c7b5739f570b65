from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest

from openclap.cli import run
from openclap.loading import load

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
    assert {f"openclap/server/static/{name}" for name in ("index.html", "page.js", "page.css", "licences.txt")} <= set(
        names
    )
    assert sum(name.endswith(".ogg") for name in names) >= 300
    assert any(name.endswith("ATTRIBUTION.md") for name in names) and any("LICENSE" in name for name in names)
    weights = {name for name in names if name.endswith((".safetensors", ".pth", ".pt", ".pyc"))}
    mini = "openclap/checkpoints/mini"
    assert weights == {"openclap/captions/model/model.safetensors", f"{mini}/model.safetensors"}
    assert {f"{mini}/{name}" for name in ("audio.onnx", "text.onnx", "onnx.json", "sounds.csv", "README.md")} <= set(
        names
    )
    assert {name.split("/")[0] for name in names} == {
        "openclap",
        next(n for n in names if "dist-info" in n).split("/")[0],
    }


class EmptyEnvironment:
    """A virtual environment with nothing but the wheel and what it requires, outside the checkout."""

    def __init__(self, folder: Path, *requirements: str) -> None:
        self.folder = folder
        venv.create(folder / "env", with_pip=True)
        names = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL"))}
        self.environment = names | {"OPENCLAP_HOME": str(folder / "home")}
        self.run("pip", "install", "--quiet", *requirements)

    def run(self, program: str, *words: object, code: int = 0) -> str:
        """Run a program of the environment; return what it prints, or, for a code other than 0, its errors."""
        command = [str(self.folder / "env" / "bin" / program), *map(str, words)]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stderr[-3000:]
        return done.stderr if code else done.stdout


@pytest.mark.long
def test_installed_elsewhere_it_runs_the_demo(wheel: Path, tmp_path: Path) -> None:
    """Nothing but the wheel, an empty home and no network: trains, evaluates, searches."""
    there = EmptyEnvironment(tmp_path, "torch==2.13.0", f"{wheel}[all]")
    there.environment |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")
    assert "wolf" in there.run("openclap", "demo")
    assert "scratch-wolf-howl.ogg" in there.run("openclap", "search", "wolf howling", "-k", "1")


SIZES = """
from importlib.metadata import distributions
def size(package):
    return sum(file.locate().stat().st_size for file in package.files or [] if file.locate().is_file())
sizes = {package.name: size(package) for package in distributions() if package.name != "pip"}
largest = sorted(sizes, key=lambda name: -sizes[name])
print(sum(sizes.values()), *(f"{name}={sizes[name] / 1e6:.1f}" for name in largest))
"""


@pytest.mark.long
def test_the_base_installation_searches_without_torch(
    wheel: Path, full_mini: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Index, search, embed and classify bundled sounds with the graphs of real weights, in at most 850 MB."""
    graphs, sounds = tmp_path / "graphs", ROOT / "src" / "openclap" / "demo" / "sounds"
    assert run(["convert", str(full_mini), str(graphs), "--to", "onnx"]) == 0
    there = EmptyEnvironment(tmp_path, str(wheel))
    dogs, model = sorted(sounds.glob("scratch-dog*.ogg")), ("--model", graphs)
    assert there.run("python", "-c", "import torch", code=1) and there.run(
        "python", "-c", "import transformers", code=1
    )
    there.run("openclap", "index", "add", *dogs, sounds / "scratch-cat.ogg", "--index", "index", *model)
    assert "scratch-" in there.run("openclap", "search", "a dog barking", "--index", "index")
    assert "scratch-dog2" in there.run("openclap", "similar", dogs[0], "--index", "index", "-k", "1")
    there.run("openclap", "embed", *dogs, "-o", "out.npy", *model)
    vectors = np.load(tmp_path / "out.npy")
    assert there.run("openclap", "classify", *dogs, "--labels", "dog,rain", *model)
    # The bundled model needs no --model, and no network: the home is empty, and no proxy leads anywhere.
    there.environment |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")
    there.run("openclap", "index", "add", *dogs, sounds / "scratch-cat.ogg")
    assert "scratch-dog" in there.run("openclap", "search", "a dog barking", "-k", "1")
    assert there.run("python", "-c", "import openclap; print(openclap.load('mini').embed_text(['rain']).shape)") == (
        "(1, 384)\n"
    )
    for words in (["eval", graphs, "--data", "index"], ["inspect", full_mini]):
        assert "openclap: " in there.run("openclap", *words, code=2)
    assert "pip install 'openclap[torch]'" in there.run("openclap", "inspect", full_mini, code=2)
    expected = load(full_mini, device="cpu").embed_audio(dogs)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    total, *sizes = there.run("python", "-c", SIZES).split()
    with capsys.disabled():
        print("\nInstalled, in MB:", " ".join(sizes))
    assert int(total) < 850e6
