"""The cache of embeddings: bounds, kills, several processes, damage, and full disks. N inputs, D embedding."""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openclap import embedding_cache
from openclap.embedding_cache import CacheFile, EmbeddingCache, cache_folder, cache_size
from openclap.errors import AudioError, ConfigError
from openclap.types import Window

SIZE = 512


def vector(name: str) -> np.ndarray:
    """The (D,) vector of an input, which every process computes alike."""
    return np.random.default_rng(list(name.encode())).standard_normal(SIZE).astype(np.float32)


def store(cache: EmbeddingCache, names: Iterable[str]) -> None:
    cache.add((name, vector(name)) for name in names)


def check(cache: EmbeddingCache, names: Iterable[str]) -> int:
    """Compare what is cached with what was computed, and return its number."""
    found = cache.get(list(names))
    for name, stored in found.items():
        np.testing.assert_array_equal(stored, vector(name))
    return len(found)


@pytest.fixture
def own(home: Path) -> EmbeddingCache:
    return EmbeddingCache({"digest": "a" * 64, "vectors": "whole sounds"}, "mini")


def names(count: int, start: int = 0) -> list[str]:
    return [f"sound {number}" for number in range(start, start + count)]


def test_vectors_and_windows_come_back_bit_for_bit(own: EmbeddingCache) -> None:
    windows = [Window(0.1 * n, 0.1 * n + 1 / 3, vector(f"window {n}")) for n in range(5)]
    store(own, names(1200))
    own.add([("long", windows)])
    again = EmbeddingCache(own.made_by)
    assert check(again, names(1500)) == 1200
    found = again.get(["long"])["long"]
    assert [(each.start_s, each.end_s) for each in found] == [(each.start_s, each.end_s) for each in windows]
    np.testing.assert_array_equal([each.vector for each in found], [each.vector for each in windows])


def test_another_identity_never_hits(own: EmbeddingCache) -> None:
    store(own, names(3))
    for fact in ({"digest": "b" * 64}, {"vectors": "windows"}, {"decoders": "2"}):
        assert EmbeddingCache(own.made_by | fact).get(names(3)) == {}
    assert check(EmbeddingCache(dict(reversed(own.made_by.items()))), names(3)) == 3


def test_every_kind_of_sound_is_found_by_its_content(own: EmbeddingCache, tmp_path: Path) -> None:
    for name in ("a.wav", "b.ogg"):
        (tmp_path / name).write_bytes(b"content")
    wave = np.arange(6, dtype=np.int16)
    passed: list[Any] = []

    def embed(sounds: Iterable[Any]) -> Iterator[Any]:
        for sound in sounds:
            passed.append(sound)
            yield AudioError("no such file.") if sound == tmp_path / "none.wav" else vector(str(len(passed)))

    new = [b"content", (wave, 8000), tmp_path / "none.wav", open_file := io.BufferedReader(io.BytesIO(b"x"))]
    first = list(own.embed_each(new, embed))
    assert passed == new and isinstance(first[2], AudioError)
    for sound in (tmp_path / "a.wav", str(tmp_path / "b.ogg"), bytearray(b"content"), io.BytesIO(b"content")):
        np.testing.assert_array_equal(next(own.embed_each([sound], embed)), first[0])
    np.testing.assert_array_equal(next(own.embed_each([(wave.copy(), 8000)], embed)), first[1])
    assert passed == new and own.hits == 5
    others = [(wave, 8001), (wave.astype(np.int32), 8000), (wave.reshape(3, 2), 8000), new[2], open_file]
    assert len(list(own.embed_each(others, embed))) == 5 and passed == new + others


@pytest.mark.parametrize("ahead", [1, 3, 256])
def test_results_keep_the_order_of_the_sounds(own: EmbeddingCache, ahead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_cache, "_AHEAD", ahead)

    def embed(sounds: Iterable[Any]) -> Iterator[Any]:
        """Reads ahead, as the decoder does."""
        listed = list(sounds)
        passed.extend(listed)
        yield from (vector(sound.decode()) for sound in listed)

    passed: list[bytes] = []
    sounds = [name.encode() for name in names(60)]
    chosen = [sound for number, sound in enumerate(sounds) if number % 7 in (1, 2) or 20 < number < 40]
    assert len(list(own.embed_each(chosen, embed))) == len(chosen)
    passed.clear()
    found = list(own.embed_each(iter(sounds), embed))
    np.testing.assert_array_equal(found, [vector(sound.decode()) for sound in sounds])
    assert passed == [sound for sound in sounds if sound not in chosen] and own.hits == len(chosen)


def test_settled_files_are_read_once(own: EmbeddingCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_cache, "_SETTLED_NS", -1)
    file = tmp_path / "a.wav"
    file.write_bytes(b"one")
    first = own.hash_file(file)
    with monkeypatch.context() as patch:
        patch.setattr(embedding_cache.hashlib, "file_digest", None)
        assert own.hash_file(file) == first
    file.write_bytes(b"two")
    os.utime(file, ns=(1, 1))
    assert own.hash_file(file) != first


def test_the_least_recently_used_are_deleted(own: EmbeddingCache, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000_000.0
    monkeypatch.setattr(embedding_cache.time, "time", lambda: now)
    limit = 2_000_000
    own.file.limit = limit
    for start in range(0, 2000, 100):
        now += 7200
        store(own, names(100, start))
        assert check(own, names(50)) == 50  # used again and again
        assert own.file._path.stat().st_size < 1.1 * limit
    assert check(own, names(100, 1900)) == 100 and check(own, names(50, 50)) == 0
    kept = check(own, names(2000))
    assert 0.6 * limit < 4 * SIZE * kept < limit


@pytest.mark.parametrize(
    ("text", "size"), [("", 10**10), ("0", 0), ("1.5 GB", 15 * 10**8), ("20gb", 2 * 10**10), ("700", 700)]
)
def test_sizes(text: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENCLAP_CACHE_SIZE", text)
    assert cache_size() == size


@pytest.mark.parametrize("text", ["much", "-1", "1 XB", "GB", "1e9", "1" * 16, "nan"])
def test_invalid_sizes(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENCLAP_CACHE_SIZE", text)
    with pytest.raises(ConfigError, match="expected a size such as 20 GB"):
        cache_size()


def test_clearing_frees_the_disk_and_spares_other_models(own: EmbeddingCache) -> None:
    other = EmbeddingCache(own.made_by | {"digest": "b" * 64}, "other")
    store(own, names(500))
    store(other, names(500))
    before = own.file._path.stat().st_size
    assert own.file.clear(lambda space: space.model == "mini") == 500
    assert own.get(names(500)) == {} and check(other, names(500)) == 500
    assert own.file._path.stat().st_size < 0.6 * before
    assert other.file.clear() == 500 and other.file.spaces() == []
    store(own, names(3))
    assert check(own, names(3)) == 3


DAMAGE = {
    "bytes": None,
    "content": "update contents set content = zeroblob(2052) where id = (select min(id) from contents)",
    "swapped": "update contents set id = -id; update contents set id = 6 + id where id > -6;"
    "update contents set id = -id where id < 0",
    "no content": "update contents set content = null, checksum = 0",
    "text": "update contents set content = 'abc'",
    "text that is no UTF-8": "update contents set content = cast(x'ff00ff' as text)",
    "no facts": "update spaces set identity = 'lost'",
    "no time of use": "update entries set used = 'never'",
    "lost contents": "delete from contents where id > 7",
    "other tables": "drop table contents; create table contents (sound, numbers)",
    "no table": "drop table entries",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_never_gives_wrong_vectors(own: EmbeddingCache, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    store(own, names(10))
    own.file.close()
    path, change = own.file._path, DAMAGE[damage]
    if change is None:
        path.write_bytes(b"no database" * 1000)
    else:
        with sqlite3.connect(path) as database:
            database.executescript(change)
    again = EmbeddingCache(own.made_by)
    assert check(again, names(10)) <= 10
    store(again, names(10))
    assert check(again, names(10)) == 10 and check(EmbeddingCache(own.made_by), names(10)) == 10
    is_new = damage in ("bytes", "other tables", "no table")
    assert (again.file._path != path) == is_new == ("is damaged" in caplog.text)
    assert path.exists() and all(space.last_used >= 0 for space in again.file.spaces())
    again.file.clear()
    assert path.exists() != is_new


@pytest.mark.parametrize("seed", range(3))
def test_flipped_bytes_never_give_wrong_vectors(own: EmbeddingCache, seed: int) -> None:
    store(own, names(300))
    own.file.close()
    content, rng = bytearray(own.file._path.read_bytes()), np.random.default_rng(seed)
    for place in rng.integers(0, len(content), 40):
        content[place] ^= int(rng.integers(1, 256))
    own.file._path.write_bytes(content)
    again = EmbeddingCache(own.made_by)
    check(again, names(300))
    store(again, names(300, 300))
    assert check(again, names(600)) >= 300 - 10


def test_a_folder_that_cannot_be_written_means_no_cache(
    own: EmbeddingCache, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"")
    for _ in range(2):
        none = EmbeddingCache(own.made_by, folder=tmp_path / "file")
        store(none, names(3))
        assert none.get(names(3)) == {} and not none.file.is_open and none.file.spaces() == []
        assert none.file.clear() == 0
    assert caplog.text.count("cannot be cached") == 1


def test_a_full_disk_turns_the_cache_off(own: EmbeddingCache, caplog: pytest.LogCaptureFixture) -> None:
    store(own, names(100))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (own.file._path.stat().st_size + 20_000, hard))
    try:
        store(own, names(400, 100))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert caplog.text.count("works without the cache") == 1 and not own.file.is_open
    assert check(EmbeddingCache(own.made_by), names(500)) == 100


WRITER = """
    import sys, time
    import numpy as np
    from openclap import embedding_cache

    embedding_cache._WRITE_EVERY_S = 0
    cache = embedding_cache.EmbeddingCache({"digest": "a" * 64, "vectors": "whole sounds"})
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(int(sys.argv[1]), int(sys.argv[2])):
        name = f"sound {number}"
        vector = np.random.default_rng(list(name.encode())).standard_normal(512).astype(np.float32)
        cache.add([(name, vector)])
        print(name, flush=True)
"""


def start_writer(first: int, last: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(first), str(last)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def read_lines(process: subprocess.Popen[str], count: int) -> list[str]:
    assert process.stdout
    return [process.stdout.readline().strip() for _ in range(count)]


def release(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()


def test_two_processes_write_at_once_and_a_kill_loses_nothing(own: EmbeddingCache) -> None:
    writers = [start_writer(0, 60), start_writer(40, 100_000)]
    for writer in writers:
        assert read_lines(writer, 1) == ["ready"]
    for writer in writers:
        release(writer)
    written = read_lines(writers[1], 60)
    writers[1].kill()
    assert writers[0].wait(60) == 0
    written += writers[1].communicate()[0].split("\n")[:-1]
    assert check(own, names(60)) == 60 and check(own, written) == len(written)
    store(own, names(5, 200_000))
    with sqlite3.connect(own.file._path) as database:
        assert database.execute("pragma integrity_check").fetchall() == [("ok",)]


@pytest.mark.long
def test_twenty_kills_leave_the_cache_whole(own: EmbeddingCache) -> None:
    rng, written = np.random.default_rng(0), list[str]()
    for start in range(0, 20_000_000, 1_000_000):
        writer = start_writer(start, start + 1_000_000)
        release(writer)
        written += read_lines(writer, 1 + int(rng.integers(1, 200)))[1:]
        writer.kill()
        written += writer.communicate()[0].split("\n")[:-1]
        with sqlite3.connect(own.file._path) as database:
            assert database.execute("pragma integrity_check").fetchall() == [("ok",)]
    assert check(own, written) == len(written) > 1000


def test_spaces_describe_what_is_cached(own: EmbeddingCache) -> None:
    store(own, names(3))
    [space] = own.file.spaces()
    assert (space.made_by, space.model, space.entries) == (own.made_by, "mini", 3)
    assert 3 * 4 * SIZE < space.size_bytes < 2 * 3 * 4 * SIZE
    assert own.file.folder == cache_folder() and json.loads(own.identity) == own.made_by
    assert CacheFile(cache_folder(), 0).spaces() == []
