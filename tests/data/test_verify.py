"""Find, list and repair damage in data sets."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace
from pathlib import Path

import polars
import pytest

from openclap.data.build import build
from openclap.data.card import stats_of
from openclap.data.config import DataConfig
from openclap.data.shards import index_shards
from openclap.data.verify import NOT_IN_MANIFEST, UNKNOWN, CheckReport, check, repair
from openclap.errors import DataError
from support.errors import raises_naming
from support.packs import MakeRecords, contents


@pytest.fixture
def packed(tmp_path: Path, make_records: MakeRecords) -> Path:
    build(make_records(9), tmp_path / "out", DataConfig(splits={"train": 1.0}, shard_size=3))
    return tmp_path / "out"


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_undamaged_set(packed: Path) -> None:
    assert check(packed) == CheckReport(3, 9, ())


def test_damage_is_listed_and_repaired_alone(packed: Path) -> None:
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


def test_damaged_tar_without_work_is_not_repaired(packed: Path) -> None:
    shutil.rmtree(packed / "work")
    (packed / "train/1.tar").unlink()
    with raises_naming(DataError, packed, "work/"):
        repair(packed, check(packed))


def test_tars_from_elsewhere_are_decoded(packed: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    shutil.copy(packed / "train/0.tar", tmp_path / "theirs" / "a.tar")
    assert check(tmp_path / "theirs") == CheckReport(1, 3, ())
    flip(tmp_path / "theirs" / "a.tar", 512 + 200)
    [(name, reason)] = check(tmp_path / "theirs").damage
    assert name == "a.tar" and "sample 0 of a.tar" in reason


def test_folder_without_tars(tmp_path: Path) -> None:
    with raises_naming(DataError, tmp_path):
        check(tmp_path)


def test_tar_without_its_sounds_is_not_touched(packed: Path, tmp_path: Path) -> None:
    tar = packed / "train" / "0.tar"
    flip(tar, 512 + 200)
    damaged = tar.read_bytes()
    shutil.rmtree(tmp_path / "sounds")
    [(name, reason)] = repair(packed, check(packed)).damage
    assert name == "train/0.tar" and "cannot be written again" in reason and "no such file" in reason
    assert tar.read_bytes() == damaged


def test_sizes_and_tars_outside_the_manifest(packed: Path) -> None:
    (packed / "train" / "sizes.json").write_text("{}")
    shutil.copy(packed / "train/0.tar", packed / "train/9.tar")
    assert dict(check(packed).damage) == {
        "train/sizes.json": "is missing, damaged, or states other numbers",
        "train/9.tar": NOT_IN_MANIFEST,
    }
    assert dict(repair(packed, check(packed)).damage) == {"train/9.tar": NOT_IN_MANIFEST}


def other(packed: Path, make_records: MakeRecords) -> bytes:
    """The manifest of another data set."""
    build(make_records(12)[9:], packed.parent / "other", DataConfig(splits={"train": 1.0}))
    return (packed.parent / "other" / "manifest.parquet").read_bytes()


DAMAGE = {
    "cut off": lambda whole: whole[: len(whole) // 2],
    "without its end": lambda whole: whole[:-1],
    "zeros at the start": lambda whole: bytes(512) + whole[512:],
    "zeros in its rows": lambda whole: whole[: len(whole) // 8] + bytes(256) + whole[len(whole) // 8 + 256 :],
    "zeros at the end": lambda whole: whole[:-512] + bytes(512),
    "empty": lambda whole: b"",
    "no parquet": lambda whole: b"PAR1 not really",
}


@pytest.mark.parametrize("kind", [*DAMAGE, "another table", "of another set", "missing"])
@pytest.mark.parametrize("work", [True, False])
def test_damaged_manifest_is_rebuilt(packed: Path, make_records: MakeRecords, kind: str, work: bool) -> None:
    path = packed / "manifest.parquet"
    whole, before = path.read_bytes(), contents(packed)
    if kind == "missing":
        path.unlink()
    elif kind == "another table":
        polars.DataFrame({"file": ["a.wav"], "caption": ["A dog."]}).write_parquet(path)
    else:
        path.write_bytes(other(packed, make_records) if kind == "of another set" else DAMAGE[kind](whole))
    if not work:
        shutil.rmtree(packed / "work")
        before = {name: content for name, content in before.items() if not name.startswith("work")}
    health = check(packed)
    assert [name for name, _ in health.damage] == ["manifest.parquet"], health
    mended = repair(packed, health)
    assert mended.damage == () and check(packed) == CheckReport(3, 9, ())
    if work:
        assert contents(packed) == before  # byte for byte
        return
    found, wanted = polars.read_parquet(path), polars.read_parquet(io.BytesIO(whole))
    assert found.schema == wanted.schema
    told = [name for name in wanted.columns if name not in (*UNKNOWN, "audio")]
    assert found.select(told).equals(wanted.select(told))
    assert found["audio"].to_list() == [Path(audio).name for audio in wanted["audio"]]
    assert all(name in mended.notes[0] for name in UNKNOWN) and found.select(UNKNOWN).null_count().row(0) == (9,) * 9
    assert stats_of(packed).samples == 9
    after = contents(packed)
    assert {name for name in before if after.get(name) != before[name]} == {"manifest.parquet"}


def test_error_of_a_damaged_manifest_names_the_repair(packed: Path) -> None:
    for damage in (lambda path: path.write_bytes(b""), Path.unlink):
        damage(packed / "manifest.parquet")
        with raises_naming(DataError, f"openclap dataset check {packed} --repair"):
            stats_of(packed)


def test_ids_are_rebuilt_from_the_tars(tmp_path: Path, make_records: MakeRecords) -> None:
    """Decontamination of other sets compares these ids."""
    first, second = make_records(2)
    rows = [
        replace(first, link="https://freesound.org/s/77/", freesound_id=77),
        replace(second, group="youtube:r1nicOVtvkQ", youtube_id="r1nicOVtvkQ"),
    ]
    build(rows, tmp_path / "out", DataConfig(splits={"train": 1.0}))
    whole = polars.read_parquet(tmp_path / "out" / "manifest.parquet")
    shutil.rmtree(tmp_path / "out" / "work")
    (tmp_path / "out" / "manifest.parquet").unlink()
    repair(tmp_path / "out", check(tmp_path / "out"))
    found = polars.read_parquet(tmp_path / "out" / "manifest.parquet")
    ids = ["freesound_id", "youtube_id", "captions", "made", "seconds"]
    assert found.select(ids).equals(whole.select(ids)) and found["freesound_id"].to_list() == [77, None]


def test_manifest_and_tars_are_repaired_together(packed: Path) -> None:
    before = contents(packed)
    (packed / "manifest.parquet").write_bytes(b"")
    flip(packed / "train/0.tar", 512 + 200)
    (packed / "train/2.tar").unlink()
    (packed / "skipped.jsonl").unlink()
    (packed / "train/sizes.json").unlink()
    assert repair(packed, check(packed)).damage == ()
    assert contents(packed) == before


def test_manifest_is_rebuilt_even_where_a_tar_cannot_be(packed: Path, tmp_path: Path) -> None:
    whole = (packed / "manifest.parquet").read_bytes()
    (packed / "manifest.parquet").unlink()
    (packed / "train" / "0.tar").unlink()
    shutil.rmtree(tmp_path / "sounds")
    [(name, reason)] = repair(packed, check(packed)).damage
    assert name == "train/0.tar" and "cannot be written again" in reason
    assert (packed / "manifest.parquet").read_bytes() == whole


def test_foreign_files_are_listed(packed: Path) -> None:
    (packed / "notes.txt").write_text("mine", encoding="utf-8")
    (packed / "train" / "0.flac").write_bytes(b"")
    (packed / "train" / "4.tar").mkdir()
    (packed / "old").mkdir()
    (packed / "README.md").write_text("card", encoding="utf-8")
    health = check(packed)
    assert health.foreign == ("notes.txt", "old/", "train/0.flac", "train/4.tar/")
    assert health.damage == ()


def test_folder_in_place_of_a_tar(packed: Path) -> None:
    (packed / "train" / "1.tar").unlink()
    (packed / "train" / "1.tar").mkdir()
    health = check(packed)
    assert health.damage == (("train/1.tar", "is a folder, expected a tar. Move it away"),)
    [(name, reason)] = repair(packed, health).damage
    assert name == "train/1.tar" and "cannot be written again" in reason
    (packed / "train" / "1.tar").rmdir()
    assert repair(packed, check(packed)).damage == ()


def test_folder_in_place_of_the_manifest(packed: Path) -> None:
    manifest = packed / "manifest.parquet"
    content = manifest.read_bytes()
    manifest.unlink()
    manifest.mkdir()
    with raises_naming(DataError, manifest):
        repair(packed, check(packed))
    manifest.rmdir()
    assert repair(packed, check(packed)).damage == () and manifest.read_bytes() == content


def test_folders_named_like_tars(packed: Path) -> None:
    (packed / "train" / "4.tar").mkdir()
    index = index_shards(packed / "train")
    assert len(index) == 9 and index.damaged == (("4.tar", "is a folder, expected a tar"),)
    (packed / "none").mkdir()
    (packed / "none" / "4.tar").mkdir()
    with raises_naming(DataError, "4.tar"):
        index_shards(packed / "none")
