"""Indexes on a disk that is really full, and on one that is read-only."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from openclap.library import Library
from support.mounts import run_with_mounts
from support.search_helpers import write_tone

COMMANDS = """
import contextlib, io, json, os
from pathlib import Path
from openclap.cli import run

def call(*words):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run([str(word) for word in words])
    return code, out.getvalue(), err.getvalue().strip()

def refused(*words):
    code, out, err = call(*words)
    assert code == 2 and out == "" and err.count("\\n") == 0 and "Traceback" not in err, (code, out, err)
    return err
"""

WHILE_INDEXING = (
    COMMANDS
    + """
from openclap.search import place
from openclap.search.index import Index
from openclap.search.scan import add
from openclap.search.verify import verify
from openclap.errors import DataError
from support.search_helpers import IDENTITY, SpectrumEmbedder, describe

disk, sounds = Path(sys.argv[1]), sys.argv[2]
filler = disk / "filler"

def fill_disk(leaving):
    with filler.open("ab") as file, contextlib.suppress(OSError):
        while True:
            os.posix_fallocate(file.fileno(), file.tell(), 4096)
            file.seek(0, os.SEEK_END)
    with filler.open("ab") as file:
        file.truncate(max(0, file.tell() - leaving))

# What another program leaves differs: the disk becomes full in the middle of a file, of a manifest, of the keywords.
messages = []
for leaving in (0, 4096, 8192, 12288, 20480, 40960):
    index = Index.create(disk / f"index-{leaving}", IDENTITY)

    class Filling(SpectrumEmbedder):
        def __call__(self, given):
            for number, recording in enumerate(super().__call__(given)):
                if number == 9:
                    # As if the disk had become full between our own look at it and the write.
                    place.LocalPlace.check_space = lambda self, size: None
                    fill_disk(leaving)
                yield recording

    check_space = place.LocalPlace.check_space
    try:
        add(index, sounds, Filling(), describe, batch=4)
    except DataError as error:
        messages.append(str(error))
    place.LocalPlace.check_space = check_space
    reader = Index.open(index.folder)
    done = verify(reader).files
    assert 8 <= done < 24, done
    assert len(reader.search([1.0] * 64, 24)) == done
    filler.unlink()
    embed = SpectrumEmbedder()
    report = add(reader, sounds, embed, describe)
    assert report.added + report.unchanged == verify(reader).files == 24 and report.skipped == []
    assert len(embed.seen) <= 16
    assert len(reader.search([1.0] * 64, 24)) == 24
assert len(messages) == 6
print("\\n".join(messages))
"""
)


def test_a_disk_that_becomes_full_while_indexing(tmp_path: Path) -> None:
    """What was indexed is whole, and the rest follows when there is room again."""
    for number in range(24):
        write_tone(tmp_path / "many" / f"{number:02}.wav", 100 + 150 * number, seconds=0.25)
    disk = tmp_path / "disk"
    disk.mkdir()
    output = run_with_mounts([f"mount -t tmpfs -o size=80m tmpfs '{disk}'"], WHILE_INDEXING, disk, tmp_path / "many")
    for line in output.splitlines():
        assert str(disk) in line and ("No space left" in line or "disk is full" in line or "free space" in line)


FULL_COMMANDS = (
    COMMANDS
    + """
disk, sounds, model = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
index = ("--index", disk / "index")
assert call("index", "add", sounds / "low.wav", *index, "--model", model)[0] == 0
with (disk / "filler").open("ab", buffering=0) as file, contextlib.suppress(OSError):
    while file.write(bytes(4096)):
        pass
print(refused("index", "add", sounds, *index))
assert call("index", "verify", *index)[0] == 0
assert json.loads(call("index", "status", *index, "--json")[1])["files"] == 1
assert len(json.loads(call("search", "a low tone", *index, "--json")[1])) == 1
(disk / "filler").unlink()
code, out, _ = call("index", "add", sounds, *index, "--json")
assert code == 0 and json.loads(out)["added"] == 3
assert call("index", "verify", *index)[0] == 0
"""
)


@pytest.mark.long
def test_commands_on_a_full_disk(tmp_path: Path, tiny_model: Path, sounds: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounts = [f"mount -t tmpfs -o size=40m tmpfs '{disk}'"]
    [message] = run_with_mounts(mounts, FULL_COMMANDS, disk, sounds, tiny_model).splitlines()
    assert str(disk) in message and "free space" in message and "again" in message


READ_ONLY_SEARCHES = (
    COMMANDS
    + """
disk, sounds = Path(sys.argv[1]), sys.argv[2]
index = ("--index", disk / "index")
try:
    (disk / "x").touch()
except OSError as error:
    assert error.errno == 30
print(call("search", "a low tone", *index, "--json")[1])
print(call("search", "low", *index, "--keywords", "only", "--json")[1])
"""
)
READ_ONLY_CHANGES = """
code, out, err = call("index", "verify", *index)
assert code == 0, err
for words in (("index", "add", sounds), ("index", "remove", sounds), ("index", "optimize")):
    message = refused(*words, *index)
    assert "Read-only file system" in message and str(disk) in message, message
assert "Read-only file system" in refused("index", "add", sounds, "--index", disk / "new", "--model", sys.argv[3])
"""


@pytest.mark.long
def test_an_index_on_a_read_only_disk(tmp_path: Path, tiny_model: Path, sounds: Path) -> None:
    """Searches find what they find where it can be written, also without a snapshot; changes get a sentence."""
    library = Library.open(tmp_path / "disk" / "index", tiny_model)
    library.add([sounds])
    mounts = [f"mount --bind '{tmp_path}/disk' '{tmp_path}/disk'", f"mount -o remount,ro,bind '{tmp_path}/disk'"]
    places = (tmp_path / "disk", sounds, tiny_model)
    with_snapshot = run_with_mounts(mounts, READ_ONLY_SEARCHES + READ_ONLY_CHANGES, *places)
    assert with_snapshot.count('"path"') == 4 + 1
    for derived in ("snapshot", "keywords.sqlite"):
        place = tmp_path / "disk" / "index" / derived
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    assert run_with_mounts(mounts, READ_ONLY_SEARCHES, *places) == with_snapshot
