"""Print the installed size of openclap and of each of its extras, as the table of docs/howto/use-a-model.md.

    python scripts/sizes.py

Sizes are those of the files of the packages that are installed on this machine, in millions of bytes.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement

from lock import PROJECT, needed

LARGE = 20e6
"""Bytes from which a package is named."""
LEFT_OUT = ("all", "dev", "docs")


def main() -> None:
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    base = packages(project["dependencies"], extras)
    rows = [("openclap", base), *((f"[{name}]", packages(lines, extras)) for name, lines in extras.items())]
    print("| installed | MB | largest packages |\n|---|---|---|")
    for name, names in rows:
        if name.strip("[]") in LEFT_OUT:
            continue
        sizes = {package: size(package) for package in (names if name == "openclap" else names - base)}
        largest = sorted((package for package in sizes if sizes[package] >= LARGE), key=lambda each: -sizes[each])
        listed = ", ".join(f"{package} {sizes[package] / 1e6:.0f}" for package in largest)
        print(f"| `{name}` | {sum(sizes.values()) / 1e6:.0f} | {listed} |")


def packages(lines: Iterable[str], extras: dict[str, list[str]]) -> set[str]:
    """The names of all packages that these requirements bring; those on openclap's own extras are followed."""
    wanted = [Requirement(line) for line in lines]
    own = [line for one in wanted if one.name == "openclap" for extra in one.extras for line in extras[extra]]
    names = set(needed([one for one in wanted if one.name != "openclap"]))
    return names | (packages(own, extras) if own else set())


def size(package: str) -> int:
    """Bytes of a package's files."""
    files = [Path(str(file.locate())) for file in distribution(package).files or []]
    return sum(file.stat().st_size for file in files if file.is_file())


if __name__ == "__main__":
    main()
