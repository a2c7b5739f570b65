"""Fixtures for all tests: small models, small sounds, an isolated home, and a finished demo."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from openclap import collapse
from support.demo_runner import run_demo

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test an empty home, so that no test reads or changes the user's."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("OPENCLAP_HOME", str(folder))
    return folder


@pytest.fixture(autouse=True)
def no_warning_of_collapse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh weights embed everything alike, so most models of tests would be warned of (tests/test_collapse.py)."""
    monkeypatch.setattr(collapse, "LIMIT", 2.0)


@pytest.fixture(scope="session")
def full_mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model as an ordinary folder in fp32, without graphs of its own, as fine-tuning writes it."""
    import openclap

    folder = tmp_path_factory.mktemp("full") / "mini"
    openclap.load("mini", runtime="torch", device="cpu").save(folder)
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the tests so that several processes finish together.

    The demo takes minutes and comes first; the documents need a finished demo and come after the rooms that take long;
    short tests fill the gaps at the end.
    """
    order = {"demo": 0, "audio": 1, "captions": 1, "checkpoints": 1, "cli": 1, "data": 1, "docs": 2}
    items.sort(key=lambda item: order.get(item.path.parent.name, 3))


@pytest.fixture(scope="session")
def demo_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home after a real `openclap demo`: interrupted once, then completed (minutes).

    `first.err`, `demo.out` and `demo.err` hold its output. Processes that share the tests share the home.
    """
    root = tmp_path_factory.getbasetemp()
    folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "demo-home"
    with FileLock(f"{folder}.lock"):
        if not (folder / "done").exists():
            _run_demo_with_a_stop(folder)
            (folder / "done").touch()
    return folder


def _run_demo_with_a_stop(folder: Path) -> None:
    folder.mkdir()
    # Early in training, since every process embeds the clips of its first epoch anew.
    assert run_demo(folder, "first", stop_at=2, number=signal.SIGINT) == 130
    assert run_demo(folder, "demo") == 0, (folder / "demo.err").read_text(encoding="utf-8")[-2000:]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with small towers and fresh weights: half a second of audio at 16 kHz, 16 dimensions."""
    from support.tiny_models import save_tiny_model

    return save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def tiny_graphs(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, worker_id: str) -> Path:
    """The graphs of `tiny_model` for onnxruntime, made by the command line (seconds).

    Processes that share the tests share the folder: each has the same small model.
    """
    from openclap.cli import run

    root = tmp_path_factory.getbasetemp()
    place = (root if worker_id == "master" else root.parent) / "tiny-graphs"
    with FileLock(f"{place}.lock"):
        if not place.exists():
            assert run(["convert", str(tiny_model), str(place), "--to", "onnx"]) == 0
    return place


@pytest.fixture(scope="session")
def tiny_swin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same small model with a Swin transformer, whose attention LoRA can adapt."""
    from support.tiny_models import TINY_SWIN_PRESET, save_tiny_model

    return save_tiny_model(tmp_path_factory.mktemp("swin") / "model", TINY_SWIN_PRESET)


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    """A folder of six short sounds of three kinds, and `sounds.csv` beside them."""
    import soundfile

    folder = tmp_path / "sounds"
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = ["file,captions,label,group,licence"]
    for number, (kind, hz) in enumerate([("low", 150), ("high", 3000), ("noise", 0)] * 2):
        seconds = np.arange(int(16000 * (0.3 + 0.2 * number))) / 16000
        tone = np.sin(2 * np.pi * hz * seconds) if hz else rng.standard_normal(len(seconds))
        soundfile.write(folder / f"{kind}-{number}.wav", 0.4 * tone / np.abs(tone).max(), 16000)
        rows.append(f"{kind}-{number}.wav,a {kind} tone | {kind} number {number},{kind},{kind}-{number},CC0-1.0")
    (folder / "sounds.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder
