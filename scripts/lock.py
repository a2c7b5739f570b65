"""Print the exact versions that were tested; `make lock` writes them to requirements.lock.

    python scripts/lock.py > requirements.lock

The packages are those that pyproject.toml's extras `all` and `dev` require on this machine, followed through the
metadata of installed packages. The versions are those of `pip freeze` without a build's local suffix ("2.13.0+cpu"
becomes "2.13.0"). Installed packages that nothing requires are left out.
"""

from __future__ import annotations

import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
HEADER = """\
# What was tested: every package that openclap[all,dev,docs] needs, exact. Written by `make lock` on Python {python};
# edit pyproject.toml, not this file. Local suffixes of builds, such as +cpu, are left out.
"""


def main() -> None:
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    print(HEADER.format(python=python), end="")
    for name, version in sorted(needed(everything()).items()):
        print(f"{name}=={version.partition('+')[0]}")


def needed(wanted: list[Requirement]) -> dict[str, str]:
    """Versions by name of packages and all that they require.

    Raises PackageNotFoundError when something that is needed is not installed.
    """
    versions: dict[str, str] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = list(wanted)
    while waiting:
        one = waiting.pop()
        name, extras = canonicalize_name(one.name), frozenset(one.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        found = distribution(name)
        versions[name] = found.version
        asked = [Requirement(line) for line in found.requires or ()]
        waiting += [each for each in asked if _applies(each, extras)]
    return versions


def everything() -> list[Requirement]:
    """What pyproject.toml asks for, with every extra; those that refer to openclap itself are followed already."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    asked = [Requirement(line) for lines in lists for line in lines]
    return [one for one in asked if one.name != project["name"] and _applies(one, frozenset())]


def _applies(requirement: Requirement, extras: frozenset[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in extras or {""})


if __name__ == "__main__":
    main()
