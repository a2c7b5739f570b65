"""Damage in tars is found, named and mended."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from packs import MakeRecords, contents

from openclap.data.check import Health, check, repair
from openclap.data.config import DataConfig
from openclap.data.pack import build
from openclap.errors import DataError


@pytest.fixture
def packed(tmp_path: Path, make_records: MakeRecords) -> Path:
    build(make_records(9), tmp_path / "out", DataConfig(splits={"train": 1.0}, shard_size=3))
    return tmp_path / "out"


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_a_whole_set_is_whole(packed: Path) -> None:
    assert check(packed) == Health(3, 9, ())


def test_every_kind_of_damage_is_named_and_only_that_is_written_again(packed: Path) -> None:
    whole = contents(packed)
    flip(packed / "train/0.tar", 512 + 200)  # in a sound
    (packed / "train/1.tar").unlink()
    (packed / "train/2.tar").write_bytes(whole["train/2.tar"][:3000])
    health = check(packed)
    said = dict(health.damage)
    assert set(said) == {"train/0.tar", "train/1.tar", "train/2.tar"}
    assert "other bytes than were written in sample 0" in said["train/0.tar"]
    assert said["train/1.tar"] == "is missing"
    shutil.copy2(packed / "train/0.tar", packed / "kept")
    assert repair(packed, health).damage == ()
    (packed / "kept").unlink()
    assert contents(packed) == whole


def test_a_damaged_header_and_damaged_json_are_found(packed: Path) -> None:
    tar = packed / "train/0.tar"
    flip(tar, 10)  # in the name of the first member
    assert {name for name, _ in check(packed).damage} == {"train/0.tar"}
    flip(tar, 10)
    place = tar.read_bytes().index(b'"Tone 0."')
    flip(tar, place + 2)
    assert {name for name, _ in check(packed).damage} == {"train/0.tar"}


def test_undamaged_tars_are_not_touched_by_repair(packed: Path) -> None:
    (packed / "train/1.tar").write_bytes(b"")
    before = {name: (packed / f"train/{name}.tar").stat().st_mtime_ns for name in (0, 2)}
    assert repair(packed, check(packed)).damage == ()
    assert before == {name: (packed / f"train/{name}.tar").stat().st_mtime_ns for name in (0, 2)}


def test_without_work_nothing_is_mended(packed: Path) -> None:
    shutil.rmtree(packed / "work")
    (packed / "train/1.tar").unlink()
    with pytest.raises(DataError, match="work/ was deleted"):
        repair(packed, check(packed))


def test_tars_of_others_are_decoded(packed: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    shutil.copy(packed / "train/0.tar", tmp_path / "theirs" / "a.tar")
    assert check(tmp_path / "theirs") == Health(1, 3, ())
    flip(tmp_path / "theirs" / "a.tar", 512 + 200)
    [(name, reason)] = check(tmp_path / "theirs").damage
    assert name == "a.tar" and "sample 0 of a.tar" in reason


def test_a_folder_without_tars(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no tar"):
        check(tmp_path)


def test_a_tar_whose_sounds_are_gone_is_left_as_it_is(packed: Path, tmp_path: Path) -> None:
    tar = packed / "train" / "0.tar"
    flip(tar, 512 + 200)
    damaged = tar.read_bytes()
    shutil.rmtree(tmp_path / "sounds")
    [(name, reason)] = repair(packed, check(packed)).damage
    assert name == "train/0.tar" and "cannot be written again" in reason and "no such file" in reason
    assert tar.read_bytes() == damaged


def test_sizes_and_strange_tars(packed: Path) -> None:
    (packed / "train" / "sizes.json").write_text("{}")
    shutil.copy(packed / "train/0.tar", packed / "train/9.tar")
    assert dict(check(packed).damage) == {
        "train/sizes.json": "is missing, damaged, or tells other numbers",
        "train/9.tar": "is not in the manifest",
    }
    assert dict(repair(packed, check(packed)).damage) == {"train/9.tar": "is not in the manifest"}
