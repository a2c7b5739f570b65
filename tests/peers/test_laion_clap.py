"""Files of `convert --to laion` load in the package laion-clap 1.1.7, with equal embeddings."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import openclap
from openclap import presets
from openclap.checkpoints import openclap_folder
from openclap.cli import run
from openclap.models.build import build_clap
from support.reference import rng, state, wave
from support.tiny_models import tiny_roberta_tokenizer

pytestmark = pytest.mark.long

PACKAGES = (
    *("laion-clap==1.1.7", "torchlibrosa==0.1.0", "librosa==0.11.0", "h5py", "ftfy", "wget", "braceexpand"),
    *("audioread", "lazy_loader", "msgpack", "pooch", "decorator", "numba", "llvmlite", "wcwidth"),  # theirs
)
TEXTS = ["rain on a roof", "a wolf howling in the rain", "dog"]
WAVES = {"short": 20000, "middle": 150000, "whole": 480000, "long": 700001}


@pytest.fixture(scope="session")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with laion-clap and what it imports beside what the tests have. Skips where no index can be reached."""
    place = tmp_path_factory.mktemp("laion-clap")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(place), *PACKAGES]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    if done.returncode and re.search(r"Retrying|[Cc]onnection|timed out|resolve", done.stderr):
        pytest.skip(f"The package index cannot be reached, so nothing went through laion-clap: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stderr
    return place


def perturbed(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Perturb weights as training would: fresh batch norms and biases are 0 or 1 and would hide mistakes."""
    return {
        name: tensor + torch.from_numpy(0.05 * rng(name).standard_normal(tuple(tensor.shape)).astype(np.float32)).abs()
        if tensor.is_floating_point() and tensor.ndim == 1
        else tensor
        for name, tensor in weights.items()
    }


def from_laion(place: Path) -> str:
    """Write a file like the published ones: every tensor of the reference, and an optimizer's state."""
    named = {f"module.{name}": tensor for name, tensor in state("htsat-tiny+roberta").items()}
    named["module.text_branch.embeddings.position_ids"] = torch.arange(514)[None]
    torch.save({"epoch": 45, "name": "run", "optimizer": {"state": {}}, "state_dict": named}, place / "source.pt")
    assert run(["convert", str(place / "source.pt"), str(place / "ours"), "--to", "openclap"]) == 0
    return "ours"


def from_huggingface(place: Path, *, fused: bool = False, base: bool = False) -> str:
    """A ClapModel with random weights, as transformers saves it."""
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

    sizes = {"patch_embeds_hidden_size": 128, "depths": [2, 2, 12, 2], "hidden_size": 1024} if base else {}
    fusion = {"enable_fusion": True, "fusion_type": "aff_2d"} if fused else {}
    torch.manual_seed(5)
    model = ClapModel(ClapConfig(audio_config=sizes | fusion, text_config={"layer_norm_eps": 1e-5}))
    model.load_state_dict(perturbed(model.state_dict()))
    model.save_pretrained(place / "clap")
    ClapFeatureExtractor(
        frequency_min=50, frequency_max=14000, truncation="fusion" if fused else "rand_trunc"
    ).save_pretrained(place / "clap")
    return "clap"


def ours(place: Path, name: str) -> str:
    """A model of a preset, without any part that embedding does not read."""
    preset = presets.PRESETS[name]
    preset = replace(preset, audio=replace(preset.audio, classes=0), temperatures=1, transforms=False)
    torch.manual_seed(6)
    clap = build_clap(preset)
    clap.load_state_dict(perturbed(clap.state_dict()))
    openclap_folder.save(place / "own", clap, preset, None)
    return "own"


TINY = {"amodel": "HTSAT-tiny", "tmodel": "roberta"}
BASE = TINY | {"amodel": "HTSAT-base"}
CASES: dict[str, tuple[Callable[[Path], str], dict[str, Any]]] = {
    "a LAION file": (from_laion, TINY),
    "a ClapModel": (from_huggingface, TINY),
    "a fused ClapModel": (partial(from_huggingface, fused=True), TINY | {"enable_fusion": True}),
    "a base ClapModel": (partial(from_huggingface, base=True), BASE),
    "ours": (partial(ours, name="htsat-tiny-roberta"), TINY),
    "ours, fused": (partial(ours, name="htsat-tiny-fusion-roberta"), TINY | {"enable_fusion": True}),
    "PANN": (partial(ours, name="pann-14-roberta"), TINY | {"amodel": "PANN-14"}),
    # CLAP_Module tokenizes for RoBERTa whatever the text tower: of these, only sounds can be compared
    "BERT": (partial(ours, name="htsat-tiny-bert"), TINY | {"tmodel": "bert"}),
    "BART": (partial(ours, name="htsat-tiny-bart"), TINY | {"tmodel": "bart"}),
    "CLIP": (partial(ours, name="htsat-tiny-clip"), TINY | {"tmodel": "transformer"}),
}


@pytest.mark.parametrize("name", CASES)
def test_laion_clap_loads_converted_files_with_equal_embeddings(
    name: str, peer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, module = CASES[name]
    tokens = tiny_roberta_tokenizer(tmp_path / "tokenizer.json")
    source, file = tmp_path / make(tmp_path), tmp_path / "out.pt"
    capsys.readouterr()
    assert run(["convert", str(source), str(file), "--to", "laion", "--tokenizer", str(tokens)]) == 0
    message = " ".join(capsys.readouterr().err.split())
    fused = module.get("enable_fusion", False)
    names = [one for one in WAVES if fused or one != "long"]  # without fusion the reference crops long clips at random
    request = {
        "tokenizer": str(tokens),
        "texts": TEXTS if module["tmodel"] == "roberta" else [],
        "sounds": str(tmp_path / "sounds.npz"),
        "cases": {"it": {"file": str(file), "module": module, "sounds": names}},
    }
    np.savez(tmp_path / "sounds.npz", **{one: wave(one, samples) for one, samples in WAVES.items()})
    (tmp_path / "request.json").write_text(json.dumps(request), encoding="utf-8")
    script = Path(__file__).parent / "laion_clap_script.py"
    words = [sys.executable, str(script), str(peer), str(tmp_path / "request.json"), str(tmp_path / "found.npz")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = np.load(tmp_path / "found.npz")
    embedder = openclap.load(source, tokenizer=tokens, device="cpu")
    if request["texts"]:
        np.testing.assert_allclose(found["it/texts"], embedder.embed_text(TEXTS), atol=2e-5)
    for one in names:
        audio_embeddings = embedder.embed_audio([(wave(one, WAVES[one]), 48000)])
        np.testing.assert_allclose(found[f"it/{one}"], audio_embeddings, atol=1e-4, err_msg=one)
    choices = f"enable_fusion={fused}, amodel={module['amodel']!r}, tmodel={module['tmodel']!r}"
    assert f"CLAP_Module({choices}).load_ckpt(FILE)" in message
