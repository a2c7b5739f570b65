"""Build, check and read a data set in object storage, by an address that fsspec knows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from openclap.data.build import build
from openclap.data.card import stats_of, write_card
from openclap.data.config import DataConfig
from openclap.data.shards import index_shards
from openclap.data.verify import check, repair
from openclap.errors import DataError
from openclap.sources import Record
from openclap.storage import place_of
from openclap.training.config import TrainConfig
from openclap.training.trainer import train
from support.building import Spelled
from support.packs import MakeRecords, contents

upath = pytest.importorskip("upath")
CONFIG = DataConfig(shard_size=3)


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"memory://{tmp_path.name}/set" if request.param == "memory" else f"file://{tmp_path}/store/set"


def held_by(store: str) -> dict[str, bytes]:
    folder = upath.UPath(store)
    return {
        path.path.removeprefix(folder.path).lstrip("/"): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_object_store_gets_the_same_files_as_a_folder(store: str, tmp_path: Path, make_records: MakeRecords) -> None:
    records = make_records(10)
    records[4].audio.write_bytes(b"no sound")  # type: ignore[union-attr]
    report = build(records, place_of(store), CONFIG, maker=Spelled)
    assert build(records, place_of(store), CONFIG, maker=Spelled) == report
    assert report == replace(build(records, tmp_path / "folder", CONFIG, maker=Spelled), out=report.out)
    write_card(place_of(store), "set")
    write_card(tmp_path / "folder", "set")
    expected = contents(tmp_path / "folder")
    assert held_by(store).keys() == expected.keys() - {"work/captions.jsonl"}  # stores cannot append to a file
    assert held_by(store).items() <= expected.items()
    assert stats_of(place_of(store)) == stats_of(tmp_path / "folder")


def test_stopped_build_resumes(store: str, tmp_path: Path, make_records: MakeRecords) -> None:
    records, folder = make_records(10), place_of(store)
    build(records, tmp_path / "folder", CONFIG)
    build(records, folder, CONFIG)
    for lost in ("work/records/0.parquet", "work/examined/0.parquet", "work/written/train/1.parquet", "train/2.tar"):
        (folder / lost).unlink()
        build(records, folder, CONFIG)
        assert held_by(store) == contents(tmp_path / "folder")


def test_damage_is_found_and_repaired(store: str, make_records: MakeRecords) -> None:
    folder = place_of(store)
    build(make_records(10), folder, CONFIG)
    whole = (folder / "train/1.tar").read_bytes()
    (folder / "train/1.tar").write_bytes(whole[:3000])
    health = check(folder)
    assert {name for name, _ in health.damage} == {"train/1.tar"}
    assert repair(folder, health).damage == () and (folder / "train/1.tar").read_bytes() == whole
    assert check(folder).damage == ()


def test_sounds_in_an_object_store(store: str, tmp_path: Path, make_records: MakeRecords) -> None:
    there = [replace(record, audio=f"{store}-sounds/{number}.wav") for number, record in enumerate(make_records(4))]
    for record, local in list(zip(there, make_records(4), strict=True))[:3]:
        place_of(record.audio).parent.mkdir(parents=True, exist_ok=True)
        place_of(record.audio).write_bytes(local.audio.read_bytes())  # type: ignore[union-attr]
    report = build(there, tmp_path / "out", DataConfig(splits={"train": 1.0}))
    assert report.packed == {"train": 3}
    assert [(item.kind, item.reason) for item in report.skipped] == [("not decoded", "3.wav: no such file.")]


def test_downloads_need_a_file_system(store: str) -> None:
    with pytest.raises(DataError, match="file system"):
        build([Record("1", "https://example.org/1.wav", ("A tone.",), "test")], place_of(store), CONFIG)


def test_training_from_a_store(store: str, tmp_path: Path, make_records: MakeRecords, tiny_model: Path) -> None:
    build(make_records(6), place_of(store), replace(CONFIG, splits={"train": 1.0}))
    index = index_shards(f"{store}/train")
    assert (index.tars, len(index), index.damaged) == (("0.tar", "1.tar"), 6, ())
    assert index.read_sample(5).captions == ("Tone 5.", "A tone.")
    config = TrainConfig(start=str(tiny_model), data=f"{store}/train", epochs=1, batch_size=2, save_every=2)
    assert train(config, tmp_path / "run").step == 3
