"""Follow docs/howto/add-a-source.md in a copy of the package, and read records with its example source."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.layouts import put, write

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "howto" / "add-a-source.md").read_text(encoding="utf-8")

READ = """
import json, sys
from openclap.errors import DataError
from openclap.sources import SOURCES
try:
    for record in SOURCES["field_notes"].read(sys.argv[1]):
        print(json.dumps([record.id, str(record.audio), record.captions, record.group, record.licence]))
except DataError as error:
    print(json.dumps(str(error)))
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with the changes that the page describes."""
    source = tmp_path_factory.mktemp("copy")
    shutil.copytree(
        ROOT / "src" / "openclap", source / "openclap", ignore=shutil.ignore_patterns("*.ogg", "__pycache__")
    )
    file = re.search(r"^```python\n# src/(\S+)\n(.*?)^```$", PAGE, re.M | re.S)
    line = re.search(r"^```\n(    \"\w+\": (\w+)\.SOURCE,\n)```$", PAGE, re.M)
    assert file and line
    (source / file[1]).write_text(file[2], encoding="utf-8")
    registry = source / "openclap" / "sources" / "__init__.py"
    text = registry.read_text(encoding="utf-8")
    text = text.replace("    fsd50k,\n", f"    {line[2]},\n    fsd50k,\n", 1)
    text = text.replace("    # layouts\n", f"{line[1]}    # anything else\n", 1)
    registry.write_text(text, encoding="utf-8")
    return source


def read(copy: Path, root: Path) -> list[object]:
    done = subprocess.run(
        [sys.executable, "-c", READ, str(root)],
        env={**os.environ, "PYTHONPATH": str(copy)},
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_example_source_of_the_howto_reads_a_folder(copy: Path, tmp_path: Path) -> None:
    write(
        tmp_path / "notes.csv",
        "file,description,place,day,terms\n"
        "a.wav,A blackbird sings.,Oslo,2024-05-01,CC BY 4.0\n"
        "b.wav,,Oslo,2024-05-01,\n",
    )
    put(tmp_path / "sounds" / "a.wav")
    sounds = tmp_path / "sounds"
    assert read(copy, tmp_path) == [
        ["a.wav", str(sounds / "a.wav"), ["A blackbird sings."], "field_notes:Oslo/2024-05-01", "CC-BY-4.0"],
        ["b.wav", str(sounds / "b.wav"), [], "field_notes:Oslo/2024-05-01", None],
    ]


def test_example_source_names_missing_files(copy: Path, tmp_path: Path) -> None:
    write(tmp_path / "notes.csv", "file,description\n")
    [message] = read(copy, tmp_path)
    assert "no sounds in it" in str(message)
    assert "Field notes needs notes.csv and the folder sounds." in str(message)


def test_howto_names_every_source() -> None:
    from openclap.sources import SOURCES

    assert " ".join(SOURCES) in PAGE
