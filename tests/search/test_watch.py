"""Follow changes without notifications of the file system. With them: tests/cli/test_index_cli.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from openclap.search.watch import _is_on_network
from support.mounts import run_with_mounts
from support.search_helpers import write_tone

POLLING = """
import shutil, threading, time
from pathlib import Path
from openclap.search.index import Index
from openclap.search.scan import add, add_changed
from openclap.search.watch import watch
from support.search_helpers import IDENTITY, SpectrumEmbedder, describe, spectrum, tone, write_tone

index, sounds = Index.create(sys.argv[1], IDENTITY), Path(sys.argv[2])
embed, notes, reports, stop = SpectrumEmbedder(), [], [], threading.Event()
add(index, [sounds], embed, describe)

def update(changed):
    return add(index, [sounds], embed, describe) if changed is None else add_changed(index, changed, embed, describe)

thread = threading.Thread(target=watch, args=(index, update, reports.append, notes.append), kwargs={"stop": stop})
thread.start()
while not reports:
    time.sleep(0.05)
searcher = Index.open(index.folder)

def until(hertz, name):
    "Wait until the best hit of a tone is a file, and return the seconds of that."
    began = time.monotonic()
    while Path(searcher.search(spectrum(tone(hertz)), 1)[0].path).name != name:
        assert time.monotonic() - began < 30, (name, notes)
        time.sleep(0.05)
    return time.monotonic() - began

def took(name, hertz, best):
    print(name, until(hertz, best))

time.sleep(1.1)  # a file system may store times in whole seconds
write_tone(sounds / "new.wav", 1700)
took("added", 1700, "new.wav")
write_tone(sounds / "new.wav", 2000, seconds=1.5)
took("changed", 2000, "new.wav")
(sounds / "deeper").mkdir()
(sounds / "new.wav").rename(sounds / "deeper" / "moved.wav")
took("moved", 2000, "moved.wav")
embedded = len(embed.seen)
shutil.rmtree(sounds / "deeper")
took("removed", 2000, "high.wav")
stop.set()
thread.join()
assert sum("new.wav" == name for name in embed.seen) == 2 and len(embed.seen) == embedded, embed.seen
print(*notes, sep="\\n")
"""


def test_changes_are_searchable_within_5_s_without_notifications(tmp_path: Path, sounds: Path) -> None:
    """Linux refuses to watch, as it does where its limit is reached, so folders are listed."""
    refuse = "echo 0 > /proc/sys/user/max_inotify_instances"
    *lines, note = run_with_mounts([refuse], POLLING, tmp_path / "index", sounds).splitlines()
    assert [line.split()[0] for line in lines] == ["added", "changed", "moved", "removed"]
    assert max(float(line.split()[1]) for line in lines) < 5, lines
    assert "no notifications" in note


MOUNTS = """22 1 0:21 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:50 / /mnt/nas rw,relatime shared:2 - nfs4 nas:/sounds rw,vers=4.2
31 30 0:51 / /mnt/nas/local rw,relatime - ext4 /dev/sdb1 rw
32 22 0:52 / /mnt/my\\040share rw,relatime - cifs //host/share rw
"""


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("/mnt/nas", True),
        ("/mnt/nas/field/2021", True),
        ("/mnt/nas/local/x", False),
        ("/mnt/my share/x", True),
        ("/mnt/nasty", False),
        ("/home", False),
    ],
)
def test_network_drives_are_recognised(folder: str, expected: bool) -> None:
    assert _is_on_network(folder, MOUNTS) is expected
    assert not _is_on_network(folder, "")


def test_the_mounts_of_this_machine_can_be_read(tmp_path: Path) -> None:
    from openclap.search.watch import _mounts

    write_tone(tmp_path / "a.wav", 100)
    assert isinstance(_is_on_network(str(tmp_path), _mounts()), bool)
