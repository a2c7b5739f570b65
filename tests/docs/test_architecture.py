"""Compare docs/architecture.md with the code: the files that its tables name, and the layers of imports."""

from __future__ import annotations

import re
import tomllib

from support.documents import ROOT

PACKAGE = ROOT / "src" / "openclap"
TEXT = (ROOT / "docs" / "architecture.md").read_text("utf-8")
PRIVATE = {"__init__", "__main__"}


def section(title: str) -> str:
    """The text under a heading, up to the next heading of any level."""
    _, _, after = TEXT.partition(f"# {title}\n")
    assert after, f"There is no section {title!r}."
    return re.split(r"^#+ ", after, maxsplit=1, flags=re.M)[0]


def first_column(title: str) -> list[str]:
    """The names in backticks in the first column of a section's table."""
    rows = re.findall(r"^\| (`.*?) \|", section(title), re.M)
    return [name for cell in rows for name in re.findall(r"`([\w/]+)`", cell)]


def modules(room: str) -> set[str]:
    """The modules and packages in a room, without their suffix; in `.`, those of the package itself."""
    paths = [path for path in (PACKAGE / room).iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()]
    return {path.stem for path in paths} - PRIVATE


ROOMS_WITH_A_TABLE = re.findall(r"^### (\w+)$", TEXT, re.M)


def test_rooms_are_the_packages_and_modules() -> None:
    assert sorted(first_column("The rooms")) == sorted(modules("."))


def test_tables_list_every_file_of_their_room() -> None:
    assert {"audio", "data", "evals", "models", "search", "training"} <= set(ROOMS_WITH_A_TABLE)
    for room in ROOMS_WITH_A_TABLE:
        assert sorted(first_column(room)) == sorted(modules(room)), room


def test_paths_in_the_text_exist() -> None:
    written = set(re.findall(r"`(\w+/(?:\w+\.py)?)`", section("Where to add something")))
    assert "evals/tasks.py" in written and "sources/" in written
    assert [path for path in sorted(written) if not (PACKAGE / path).exists()] == []


def test_layers_are_those_that_import_linter_checks() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    [layers] = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    picture = re.search(r"^```\n(.*?)^```$", section("Layers"), re.M | re.S)
    assert picture is not None
    drawn = [[name.strip() for name in line.split("|")] for line in picture[1].splitlines()]
    assert drawn == [[name.strip().removeprefix("openclap.") for name in layer.split("|")] for layer in layers]


def test_every_room_has_a_layer() -> None:
    picture = set(re.findall(r"\w+", re.findall(r"^```\n(.*?)^```$", section("Layers"), re.M | re.S)[0]))
    assert picture == modules(".")
