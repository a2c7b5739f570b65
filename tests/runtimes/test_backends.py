from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import openclap
from openclap import paths
from openclap.audio.frontend import FrontEnd
from openclap.errors import ConfigError
from openclap.models.build import build_clap
from openclap.models.clap import CLAP
from openclap.models.config import HTSATConfig
from openclap.runtimes import backends
from openclap.types import COSINE_BOUNDS, AudioBatch, Precision, TextBatch
from support import graphs
from support.errors import raises_naming
from support.tiny_models import TINY_PRESET, tiny_clap

CPU = torch.device("cpu")
SMALL = HTSATConfig(width=24, depths=(2, 2), heads=(2, 4), n_mels=16, image=64, classes=5, fusion="aff_2d")


@pytest.fixture(scope="module")
def clap() -> CLAP:
    torch.manual_seed(0)
    return build_clap(replace(TINY_PRESET, audio=SMALL)).eval()


def batches() -> tuple[AudioBatch, TextBatch]:
    generator = torch.Generator().manual_seed(1)
    is_long = torch.tensor([0, 0, 0, 0, 1, 0, 1], dtype=torch.bool)
    ids = torch.randint(4, 30, (5, 9), generator=generator)
    mask = torch.ones_like(ids)
    ids[2, 4:], mask[2, 4:] = 0, 0
    return AudioBatch(torch.randn(7, 4, 100, 16, generator=generator), is_long), TextBatch(ids, mask)


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_precisions_keep_their_bound(clap: CLAP, precision: Precision) -> None:
    audio, text = batches()
    exact, coarse = (backends.TorchBackend(clap, kind, CPU) for kind in ("fp32", precision))
    for one, other, is_exact in (
        (exact.encode_audio(audio), coarse.encode_audio(audio), False),
        (exact.encode_text(text), coarse.encode_text(text), precision == "int8"),
    ):
        assert other.dtype == torch.float32
        torch.testing.assert_close(other.norm(dim=1), torch.ones(len(other)))
        cosine = (one * other).sum(dim=1).min().item()
        assert COSINE_BOUNDS[precision] <= cosine
        assert torch.equal(one, other) if is_exact else cosine < 1 - 1e-8


def test_int8_keeps_its_bound_on_a_pretrained_text_tower() -> None:
    """With real weights, whose outliers random ones do not have; alone and beside others."""
    captions = ["a dog", "rain on a tin roof in the middle of the night", "footsteps", "an old bus pulls away"]
    exact, coarse = (openclap.load("mini", precision=kind) for kind in ("fp32", "int8"))
    together = coarse.embed_text(captions)
    assert (together * exact.embed_text(captions)).sum(axis=1).min() >= COSINE_BOUNDS["int8"]
    np.testing.assert_allclose(together[:1], coarse.embed_text(captions[:1]), atol=1e-5)


def test_int8_does_not_depend_on_the_batch(clap: CLAP) -> None:
    """A loud clip does not coarsen a quiet one beside it."""
    audio, _ = batches()
    mixed = AudioBatch(audio.mel_BVTF * torch.tensor([1.0, 30, 1, 1, 1, 30, 1])[:, None, None, None], audio.is_long_B)
    coarse = backends.TorchBackend(clap, "int8", CPU)
    together = coarse.encode_audio(mixed)
    alone = torch.cat([coarse.encode_audio(clip) for clip in mixed.split(1)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_parts_of_a_batch_change_nothing(clap: CLAP) -> None:
    audio, _ = batches()
    vectors = backends.TorchBackend(clap, "fp32", CPU).encode_audio(audio)
    with torch.inference_mode():
        torch.testing.assert_close(vectors, clap.encode_audio(audio), rtol=0, atol=1e-6)


def test_openvino_agrees_and_is_cached(tmp_path: Path) -> None:
    """In a process of its own: its native libraries stay out of the one that all other tests share."""
    pytest.importorskip("openvino")
    words = [sys.executable, "-c", "import test_backends; test_backends.compare_with_openvino()"]
    environment = os.environ | {
        "OPENCLAP_HOME": str(tmp_path),
        "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parent)]),
    }
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def compare_with_openvino() -> None:
    torch.manual_seed(0)
    clap = build_clap(replace(TINY_PRESET, audio=SMALL)).eval()
    audio, text = batches()
    fast, exact = backends.OpenVinoBackend(clap, "fp32", lambda: "d" * 64), backends.TorchBackend(clap, "fp32", CPU)
    torch.testing.assert_close(fast.encode_audio(audio), exact.encode_audio(audio), rtol=0, atol=1e-5)
    torch.testing.assert_close(fast.encode_text(text), exact.encode_text(text), rtol=0, atol=1e-5)
    other = TextBatch(text.ids_BL[:2, :5], text.mask_BL[:2, :5])
    torch.testing.assert_close(fast.encode_text(other), exact.encode_text(other), rtol=0, atol=1e-5)
    kept = {path.name: path.stat().st_mtime_ns for path in (paths.home() / "engines").glob("*/*")}
    assert set(kept) == {"audio.xml", "audio.bin", "text.xml", "text.bin"}
    again = backends.OpenVinoBackend(clap, "fp32", lambda: "d" * 64)
    torch.testing.assert_close(again.encode_text(other), exact.encode_text(other), rtol=0, atol=1e-5)
    assert kept == {path.name: path.stat().st_mtime_ns for path in (paths.home() / "engines").glob("*/*")}


@pytest.mark.long
def test_openvino_computes_the_newer_towers_too(tmp_path: Path) -> None:
    """Microsoft's and Whisper; NaFlex stays with torch, and says so in its name."""
    pytest.importorskip("openvino")
    words = [sys.executable, "-c", "import test_backends; test_backends.compare_newer_towers()"]
    environment = os.environ | {
        "OPENCLAP_HOME": str(tmp_path),
        "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parent)]),
    }
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def compare_newer_towers() -> None:
    choice = backends.BackendChoice("openvino", "fp32")
    for name, preset in graphs.NEW.items():
        clap = tiny_clap(preset)
        built = backends.build(choice, clap, CPU, compile=False, digest=lambda name=name: name.replace(" ", "-"))  # type: ignore[misc]
        if "naflex" in name:
            assert isinstance(built, backends.TorchBackend)
            continue
        exact = backends.TorchBackend(clap, "fp32", CPU)
        noise = torch.Generator().manual_seed(3)
        audio = FrontEnd(preset.frontend)(
            [0.1 * torch.randn(samples, generator=noise) for samples in (3000, 8000, 500)]
        )
        torch.testing.assert_close(built.encode_audio(audio), exact.encode_audio(audio), rtol=0, atol=1e-5)
        for shape, padding in (((3, 8), 0), ((2, 5), 2), ((1, 12), 0)):
            mask_BL = torch.ones(shape, dtype=torch.long)
            mask_BL[-1, shape[1] - padding :] = 0
            text = TextBatch(torch.randint(2, 60, shape, generator=noise) * mask_BL, mask_BL)
            torch.testing.assert_close(built.encode_text(text), exact.encode_text(text), rtol=0, atol=1e-5)


def test_auto_precision_follows_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(*, bf16: bool, openvino: bool) -> backends.BackendChoice:
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: bf16)
        monkeypatch.setattr(backends.importlib.util, "find_spec", lambda name: object() if openvino else None)
        return backends.choose("auto", CPU)

    assert chosen(bf16=True, openvino=True) == backends.BackendChoice("openvino", "bf16")
    assert chosen(bf16=False, openvino=True) == backends.BackendChoice("openvino", "fp32")
    assert chosen(bf16=True, openvino=False) == backends.BackendChoice("torch", "bf16")
    assert chosen(bf16=False, openvino=False) == backends.BackendChoice("torch", "fp32")


def test_invalid_precisions_are_refused() -> None:
    with raises_naming(ConfigError, "'fp64'", "fp32", "bf16", "int8", "auto"):
        backends.choose("fp64", CPU)
    with raises_naming(ConfigError, "'int8'", "cuda"):
        backends.choose("int8", torch.device("cuda"))


@pytest.mark.long
def test_compiled_networks_agree(clap: CLAP) -> None:
    audio, text = batches()
    exact, fast = (backends.TorchBackend(clap, "fp32", CPU, compile=compiled) for compiled in (False, True))
    torch.testing.assert_close(fast.encode_audio(audio), exact.encode_audio(audio), rtol=0, atol=1e-5)
    torch.testing.assert_close(fast.encode_text(text), exact.encode_text(text), rtol=0, atol=1e-5)
