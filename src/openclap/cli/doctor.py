"""`openclap doctor`: installed packages, device, missing extras."""

from __future__ import annotations

import os
import platform
import re
from importlib import metadata
from typing import Any

from openclap import paths
from openclap.cli.console import note, print_json, print_table


def doctor(*, json: bool = False) -> None:
    """Show installed packages, the device, and missing extras.

    Parameters
    ----------
    json
        Print one JSON object instead of a table.
    """
    facts = examine()
    if json:
        print_json(facts)
        return
    rows = [[name, version or "missing", extra] for name, version, extra in facts["packages"]]
    print_table(["package", "version", "needed by"], rows)
    note("")
    for name in ("openclap", "python", "device", "fastest", "threads", "home", "hub_cache", "demo"):
        note(f"{name:9} {facts[name]}")
    for extra in facts["missing_extras"]:
        note(f"Missing: pip install 'openclap[{extra}]'")
    if not facts["missing_extras"]:
        note("Everything is there.")


MACHINE_WITHOUT_TORCH = {"device": "cpu", "fastest": "onnx fp32", "threads": os.cpu_count()}


def examine() -> dict[str, Any]:
    """The facts that `doctor` prints."""
    from huggingface_hub.constants import HF_HUB_CACHE

    import openclap
    from openclap import runtimes

    packages = [(name, _version(name), extra) for extra, names in _requirements().items() for name in names]
    machine = runtimes.resolve(runtimes.MACHINE)() if runtimes.has("torch") else MACHINE_WITHOUT_TORCH
    return {
        "openclap": openclap.__version__,
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        **machine,
        "home": str(paths.home()),
        "hub_cache": HF_HUB_CACHE,
        "demo": "done" if _is_demo_done() else "not run yet: openclap demo",
        "packages": packages,
        "missing_extras": sorted({extra for _, version, extra in packages if version is None and extra != "core"}),
    }


def _is_demo_done() -> bool:
    return (paths.home() / "demo" / "report" / "tables.json").is_file()


def _requirements() -> dict[str, list[str]]:
    """Names of packages in openclap's own metadata: {"core": [...], extra: [...]}, developers' tools left out."""
    wanted: dict[str, list[str]] = {}
    for line in metadata.requires("openclap") or []:
        name = re.split(r"[^\w.-]", line, maxsplit=1)[0]
        if name == "openclap":  # an extra that includes another one
            continue
        marker = re.search(r"extra\s*==\s*['\"](\w+)['\"]", line)
        extra = marker.group(1) if marker else "core"
        if extra not in ("all", "dev"):
            wanted.setdefault(extra, []).append(name)
    return wanted


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
