"""The index of a folder of tars: complete, damaged, and from elsewhere."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from pathlib import Path
from typing import Any

import pytest

from openclap.data.build import pack
from openclap.data.shards import index_shards
from openclap.errors import ConfigError, DataError
from support.errors import raises_naming
from support.packs import MakeRecords


def write_tar(path: Path, members: dict[str, bytes], **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def pair(key: str, **fields: Any) -> dict[str, bytes]:
    return {f"{key}.flac": b"fLaC" + key.encode(), f"{key}.json": json.dumps({"text": "x"} | fields).encode()}


def test_laions_own_shards(tmp_path: Path) -> None:
    members = {
        **pair("./7", text="One caption.", tag=["a", None, ""], original_data={"title": "t"}),
        **pair("8", text=["", None, "Two. "], tag="one", text_augment_t5="more"),
        **pair("dir/9", text=["x"], original_data="free text"),
    }
    write_tar(tmp_path / "0.tar", members, format=tarfile.PAX_FORMAT)
    index = index_shards(tmp_path)
    samples = [index.read_sample(number) for number in range(3)]
    assert [sample.key for sample in samples] == ["7", "8", "dir/9"]
    assert [sample.captions for sample in samples] == [("One caption.",), ("Two.",), ("x",)]
    assert [sample.tags for sample in samples] == [("a",), ("one",), ()]
    assert [sample.original for sample in samples] == [{"title": "t"}, {}, {}]
    assert samples[0].audio == b"fLaC./7"


def test_text_is_what_other_tools_call_captions_whatever_fields_are_beside_it(tmp_path: Path) -> None:
    members = {
        "0.flac": b"fLaC",
        "0.json": json.dumps({"captions": ["a", "b"], "caption": "c", "title": "t"}).encode(),
        "1.flac": b"fLaC",
        "1.json": json.dumps({"title": [], "note": "n"}).encode(),
    }
    write_tar(tmp_path / "0.tar", members)
    index = index_shards(tmp_path)
    assert index.read_sample(0).captions == ("a", "b", "c")
    assert index.read_sample(0, {"title": 0.3, "text": 0.7}).by_field == {"title": ("t",), "text": ("a", "b", "c")}
    assert index.read_sample(0, {"text": 0.5, "caption": 0.5}).by_field == {"text": ("a", "b"), "caption": ("c",)}
    for fields, names in (
        ({"text": 1.0}, '"text" or "captions" or "caption"'),
        ({"title": 0.3, "text": 0.7}, '"title" or "text" or "captions" or "caption"'),
        ({"title": 1.0}, '"title"'),
    ):
        with raises_naming(DataError, f"under {names}."):
            index.read_sample(1, fields)


def test_natural_order_and_all_audio_suffixes(tmp_path: Path) -> None:
    for number, suffix in {0: "flac", 2: "WAV", 10: "ogg", 11: "mp3"}.items():
        write_tar(tmp_path / f"{number}.tar", {f"{number}.json": b'{"text": "x"}', f"{number}.{suffix}": b"y"})
    index = index_shards(tmp_path)
    assert index.tars == ("0.tar", "2.tar", "10.tar", "11.tar")
    assert index.keys == ("0", "2", "10", "11")
    assert index.tar_S.tolist() == [0, 1, 2, 3]


def test_equal_keys_in_two_tars_are_two_samples(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", pair("0", text="first"))
    write_tar(tmp_path / "1.tar", pair("0", text="second"))
    index = index_shards(tmp_path)
    assert [index.read_sample(number).captions for number in range(2)] == [("first",), ("second",)]


def test_members_without_their_pair_are_counted(tmp_path: Path) -> None:
    members = {**pair("0"), "1.flac": b"x", "2.json": b"{}", "notes.txt": b"x", **pair("a.b")}
    write_tar(tmp_path / "0.tar", members)
    index = index_shards(tmp_path)
    assert (index.keys, index.unpaired, index.damaged) == (("0", "a.b"), 2, ())


def test_index_can_be_pickled(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", pair("0"))
    assert pickle.loads(pickle.dumps(index_shards(tmp_path))).read_sample(0).audio == b"fLaC0"


def test_truncated_tar_has_its_complete_samples(tmp_path: Path) -> None:
    members = {name: content * 40 for key in "0123" for name, content in pair(key).items() if name.endswith("c")}
    members |= {f"{key}.json": b'{"text": "x"}' for key in "0123"}
    members = dict(sorted(members.items()))
    write_tar(tmp_path / "whole.tar", members)
    whole = (tmp_path / "whole.tar").read_bytes()
    end = 512 * 2 * len(members)
    for length in [*range(0, end + 512, 256), *range(3, end, 700)]:
        folder = tmp_path / f"cut{length}"
        folder.mkdir()
        (folder / "0.tar").write_bytes(whole[:length])
        write_tar(folder / "1.tar", pair("9"))
        index = index_shards(folder)
        complete = sum(length >= 2048 * number + 1536 + 13 for number in range(4))
        assert index.keys == (*"0123"[:complete], "9")
        assert [damage.tar for damage in index.damaged] == ["0.tar"]
        assert index.damaged[0].reason
        for number in range(complete):
            assert index.read_sample(number).audio == members[f"{number}.flac"]


def test_damaged_header_is_detected(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {**pair("0"), **pair("1")})
    content = bytearray((tmp_path / "0.tar").read_bytes())
    content[2048:2100] = b"\xff" * 52
    (tmp_path / "0.tar").write_bytes(content)
    index = index_shards(tmp_path)
    assert index.keys == ("0",)
    assert index.damaged == (("0.tar", "a damaged header at byte 2048"),)


def test_invalid_tar_is_listed(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(b"<html>not found</html>" * 100)
    index = index_shards(tmp_path)
    assert len(index) == 0
    assert index.damaged[0].reason.startswith("cannot be read as a tar")


def test_folders_without_tars(tmp_path: Path, make_records: MakeRecords) -> None:
    with raises_naming(DataError, tmp_path / "missing"):
        index_shards(tmp_path / "missing")
    with raises_naming(DataError, tmp_path):
        index_shards(tmp_path)
    pack(make_records(2), tmp_path / "out")
    with raises_naming(DataError, tmp_path / "out", "test"):
        index_shards(tmp_path / "out")


@pytest.mark.parametrize(
    "text", [b'{"text": ', b"\xff\xfe", b"[1]", b'{"text": [""]}'], ids=["cut", "bytes", "a list", "no caption"]
)
def test_damaged_json_names_sample_and_tar(tmp_path: Path, text: bytes) -> None:
    write_tar(tmp_path / "3.tar", {"42.flac": b"x", "42.json": text})
    with raises_naming(DataError, 42, "3.tar"):
        index_shards(tmp_path).read_sample(0)


def test_tar_changed_or_removed_after_indexing(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", pair("0"))
    index = index_shards(tmp_path)
    (tmp_path / "0.tar").write_bytes(b"")
    with raises_naming(DataError, index.where(0)):
        index.read_sample(0)
    (tmp_path / "0.tar").unlink()
    with raises_naming(DataError, index.where(0)):
        index.read_sample(0)


def test_unreachable_store_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("upath")
    from fsspec.implementations.memory import MemoryFileSystem

    def unplugged(*given: Any, **more: Any) -> None:
        raise RuntimeError("Could not connect\nto the endpoint")

    with raises_naming(DataError, "memory://nothing"):
        index_shards("memory://nothing")
    monkeypatch.setattr(MemoryFileSystem, "glob", unplugged)
    with raises_naming(DataError, "memory://nothing", "Could not connect"):
        index_shards("memory://nothing")
    with raises_naming(ConfigError, "nonsense://nothing"):
        index_shards("nonsense://nothing")
