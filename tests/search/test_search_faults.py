"""A scan that is killed, interrupted or run twice at once leaves a whole index."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from openclap.errors import DataError, LockedError
from openclap.search.index import Index
from openclap.search.scan import add
from openclap.types import Window
from support.errors import raises_naming
from support.search_helpers import (
    IDENTITY,
    RATE,
    SpectrumEmbedder,
    describe,
    row,
    spectrum,
    start_scan,
    tone,
    write_tone,
)

FILES = 24


@pytest.fixture
def many(tmp_path: Path) -> Path:
    for number in range(FILES):
        write_tone(tmp_path / "many" / f"{number:02}.wav", 100 + 150 * number, seconds=0.25)
    return tmp_path / "many"


def wait_for_calls(process: subprocess.Popen[str], calls: int) -> None:
    assert process.stdout is not None
    for _ in range(calls):
        assert process.stdout.readline() == "embedding\n"


def assert_whole(index: Index) -> None:
    """Each file and each content once, and vectors for every file."""
    files = index._rows(["true"])
    assert len({file.path for file in files}) == len(files) == FILES
    with index.writing() as writer:
        assert set(writer.contents) == {file.hash for file in files}
    assert index.count() == (FILES, FILES)
    for number in (0, FILES // 2, FILES - 1):
        hits = index.search(spectrum(tone(100 + 150 * number, 0.25)), FILES)
        assert hits[0].path.endswith(f"{number:02}.wav")
        assert len(hits) == FILES


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_scan_that_was_stopped_goes_on(tmp_path: Path, many: Path, how: signal.Signals) -> None:
    process = start_scan(tmp_path / "index", many, seconds=0.05, hold=5)
    wait_for_calls(process, 4)  # so three batches are committed
    process.send_signal(how)
    process.communicate(timeout=20)
    assert process.returncode != 0
    index = Index.open(tmp_path / "index", IDENTITY)
    done = index.count()[0]
    assert 12 <= done < FILES
    assert len(index.search(spectrum(tone(100, 0.25)), FILES)) == done

    embed = SpectrumEmbedder()
    report = add(index, [many], embed, describe)
    assert (report.unchanged, report.added) == (done, FILES - done)
    assert len(embed.seen) == FILES - done
    assert_whole(index)


def test_kills_at_any_moment_never_damage_the_index(tmp_path: Path, many: Path) -> None:
    """Also in the middle of a commit: a batch a file, and no waiting anywhere."""
    for round_ in range(3):
        process = start_scan(tmp_path / "index", many, batch=1, hold=FILES // 3)
        wait_for_calls(process, 1)
        time.sleep(0.02 * round_)
        process.kill()
        process.communicate(timeout=20)
    index = Index.open_or_create(tmp_path / "index", IDENTITY)
    add(index, [many], SpectrumEmbedder(), describe)
    assert_whole(index)


def test_a_stop_between_vectors_and_files_embeds_nothing_twice(
    index: Index, many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vectors of the batch are there and no file uses them: the next scan takes them up."""

    def stop(_: str) -> None:
        raise KeyboardInterrupt

    embed = SpectrumEmbedder()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(index._files, "merge_insert", stop)
        add(index, [many], embed, describe, batch=8)
    assert index.count() == (0, 8)
    assert index.search(spectrum(tone(100, 0.25)), 3) == []
    assert add(index, [many], embed, describe).added == FILES
    assert len(embed.seen) == FILES
    assert_whole(index)


def test_a_second_scan_at_the_same_time_is_refused(tmp_path: Path, many: Path) -> None:
    first = start_scan(tmp_path / "index", many, hold=2)  # in the middle, for as long as the second takes
    wait_for_calls(first, 2)
    second = start_scan(tmp_path / "index", many)
    out, error = second.communicate(timeout=60)
    assert (second.returncode, out) == (1, "")
    assert error.startswith("LockedError: ") and "another process" in error and error.count("\n") == 1
    out, error = first.communicate(timeout=60)
    assert (first.returncode, error) == (0, "")
    assert json.loads(out.splitlines()[-1])["added"] == FILES
    assert_whole(Index.open(tmp_path / "index"))


def test_scans_that_race_to_make_and_fill_an_index(tmp_path: Path, many: Path) -> None:
    """Whoever wins: one index is made, each file is embedded once, and losers are refused with a sentence."""
    processes = [start_scan(tmp_path / "index", many, batch=6, seconds=0.02) for _ in range(2)]
    outcomes = [(*process.communicate(timeout=60), process.returncode) for process in processes]
    assert all("another process" in error for _, error, code in outcomes if code != 0), outcomes
    reports = [json.loads(out.splitlines()[-1]) for out, _, code in outcomes if code == 0]
    assert sum(report["embedded"] for report in reports) == FILES
    assert_whole(Index.open(tmp_path / "index", IDENTITY))


def test_searching_goes_on_while_another_process_writes(tmp_path: Path, many: Path) -> None:
    with start_scan(tmp_path / "index", many, batch=1, seconds=0.02, hold=FILES // 2) as process:
        wait_for_calls(process, 2)
        reader = Index.open(tmp_path / "index")
        counts = [len(reader.search(spectrum(tone(100, 0.25)), FILES))]
        assert process.stdin is not None
        process.stdin.close()
        while process.poll() is None:
            counts.append(len(reader.search(spectrum(tone(100, 0.25)), FILES)))
    assert counts == sorted(counts) and counts[0] < FILES
    assert_whole(reader)


def test_one_process_cannot_write_twice_at_once(index: Index) -> None:
    with index.writing(), pytest.raises(LockedError):
        Index.open(index.folder).remove(["/s/a.wav"])
    assert index.remove(["/s/a.wav"]) == 0


def test_many_small_additions_are_merged(index: Index) -> None:
    """A watcher adds a file at a time; what it leaves behind does not grow with the number of its visits."""
    vector = spectrum(tone(400))
    with index.writing() as writer:
        for number in range(90):
            digest = f"{number:064x}"
            writer.put([row(f"/s/{number}.wav", digest)], {digest: [Window(0.0, 1.0, vector)]})
    assert index.count() == (90, 90)
    assert index._windows.stats()["fragment_stats"]["num_fragments"] < 40
    assert len(index.search(vector, 100)) == 90


def test_a_folder_that_was_deleted_under_an_open_index(index: Index, many: Path) -> None:
    add(index, [many], SpectrumEmbedder(), describe)
    shutil.rmtree(index.folder)
    with raises_naming(DataError, index.folder):
        index.search(spectrum(tone(100, 1 / RATE * 800)), 1)


def test_nothing_is_written_to_a_disk_that_is_almost_full(
    index: Index, many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(index, many / "00.wav", SpectrumEmbedder(), describe)
    with monkeypatch.context() as full:
        usage = shutil.disk_usage(index.folder)
        full.setattr("shutil.disk_usage", lambda _: usage._replace(free=1 << 20))
        with pytest.raises(DataError, match="free space"):
            add(index, many, SpectrumEmbedder(), describe)
        assert len(Index.open(index.folder).search(spectrum(tone(100, 0.25)), FILES)) == 1
    add(index, many, SpectrumEmbedder(), describe)
    assert_whole(index)
