"""Microsoft's CLAP at its published sizes: embeddings are those of the package msclap 1.3.4, from made-up weights."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import openclap
from support.microsoft import RATE, TEXTS, bert_tokenizer, waves

pytestmark = pytest.mark.long

PACKAGES = (
    *("msclap==1.3.4", "torchlibrosa==0.1.0", "librosa==0.11.0", "pyyaml"),
    *("audioread", "lazy_loader", "msgpack", "pooch", "decorator", "numba", "llvmlite"),  # theirs
)
SCRIPT = Path(__file__).parent / "msclap_script.py"


@pytest.fixture(scope="session")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with msclap and what it imports beside what the tests have. Skips where no index can be reached."""
    place = tmp_path_factory.mktemp("msclap")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(place), *PACKAGES]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    if done.returncode and re.search(r"Retrying|[Cc]onnection|timed out|resolve", done.stderr):
        pytest.skip(f"The package index cannot be reached, so nothing went through msclap: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stderr
    return place


@pytest.mark.parametrize("version", ["2022", "2023"])
def test_embeddings_of_the_published_sizes_are_msclaps(version: str, peer: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "weights.pth", tmp_path / "found.npz"
    words = [sys.executable, str(SCRIPT), str(peer), version, str(file), str(out)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    tokenizer = bert_tokenizer(tmp_path / "tokenizer.json") if version == "2022" else None
    model = openclap.load(file, tokenizer=tokenizer, device="cpu")
    assert model.preset.embedding_size == 1024
    found = np.load(out)
    audio = np.stack([found["audio_short"], found["audio_whole"]])
    for ours, theirs in (
        (model.embed_audio([(waves(version)[name], RATE) for name in ("short", "whole")]), audio),
        (model.embed_text(TEXTS), found["texts"]),
    ):
        expected = theirs / np.linalg.norm(theirs, axis=1, keepdims=True)
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_the_golden_file_can_be_made_again(peer: Path, tmp_path: Path) -> None:
    words = [sys.executable, str(SCRIPT), str(peer), "--golden", str(tmp_path / "again.npz")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    committed = np.load(Path(__file__).parents[1] / "golden" / "msclap.npz")
    again = np.load(tmp_path / "again.npz")
    assert again.files == committed.files
    for name in again.files:
        if name.endswith("keys"):
            assert str(again[name]) == str(committed[name])
        else:
            np.testing.assert_allclose(again[name], committed[name], rtol=1e-5, atol=1e-5, err_msg=name)
