"""Newer data sets at full size, made up: a million rows of AudioSetCaps, and 400 MB of WavCaps' JSON, whole and cut."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.documents import ROOT
from support.errors import check_refusal

SIZE = 400_000_000


@pytest.mark.long
def test_a_million_rows_are_planned_in_a_minute_and_two_gigabytes(tmp_path: Path) -> None:
    """Processor time: other programs on the machine lengthen the minute, not the work."""
    command = [sys.executable, str(ROOT / "benchmarks" / "dataset.py"), "captions", "--folder", str(tmp_path)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"([\d.]+) s of processor time, at most ([\d,]+) MB; ([\d,]+) are in VGGSound", printed)
    assert found, printed
    seconds, megabytes, overlap = (float(text.replace(",", "")) for text in found.groups())
    assert seconds < 60 and megabytes < 2000 and overlap == 20_000, printed


@pytest.mark.long
@pytest.mark.parametrize("share", [1.0, 0.5], ids=["whole", "cut in the middle"])
def test_json_of_400_mb_is_read_entry_by_entry(share: float, tmp_path: Path) -> None:
    table = tmp_path / "WavCaps" / "json_files" / "FreeSound" / "fsd_final.json"
    table.parent.mkdir(parents=True)
    count = 0
    with table.open("w", encoding="utf-8") as file:
        size = file.write('{"num_captions_per_audio": 1, "data": [')
        while size < SIZE:
            entry = {
                "id": str(count),
                "caption": f"Sound {count} is heard.",
                "duration": 3.5,
                "author": f"user{count % 999}",
            }
            entry |= {"description": "A long description of a sound. " * 40, "tags": ["sound"] * 8}
            size += file.write(f"{', ' if count else ''}{json.dumps(entry)}")
            count += 1
        file.write("]}")
    os.truncate(table, int(table.stat().st_size * share))
    out = tmp_path / "out"
    script = (
        "import resource, sys\n"
        "from openclap.cli import run\n"
        f"code = run(['dataset', 'plan', {str(table.parents[2])!r}, {str(out)!r}, '--source', 'wavcaps'])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)\n"
        "sys.exit(code)"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert int(ran.stdout.split()[-1]) < 1000, ran
    if share == 1.0:
        assert ran.returncode == 0 and f"Planned {count:,} records" in ran.stderr, ran
        return
    # The number of entries before the cut is named, and nothing of them is kept.
    assert ran.returncode == 2 and not (out / "dataset.json").exists(), ran
    check_refusal(ran.stderr, table)
    named = re.search(r"after ([\d,]+) entries", ran.stderr)
    assert named and abs(int(named[1].replace(",", "")) - count / 2) < count / 100, ran.stderr
