"""Filters and selection: records left out, records included, and their place."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars
import pytest
import soundfile

from openclap.audio.io import decode
from openclap.data.build import build, fetch_and_decode, write_tars
from openclap.data.card import stats_of
from openclap.data.config import DataConfig
from openclap.data.filters import plan
from openclap.data.layout import read_table
from openclap.data.manifest import finish
from openclap.data.parallel import Share
from openclap.data.shards import index_shards
from openclap.errors import ConfigError, DataError
from openclap.sources import Record
from support.errors import raises_naming
from support.packs import MakeRecords, contents

ALL = {"train": 1.0}


def reasons(records: list[Record], out: Path, **choices: object) -> dict[str, str]:
    """The kind of each record that was left out, by its id."""
    report = build(records, out, DataConfig(splits=ALL, **choices))  # type: ignore[arg-type]
    return {skipped.id: skipped.kind for skipped in report.skipped}


def sound(path: Path, wave_N: np.ndarray, rate: int = 48_000, **fields: object) -> Record:
    soundfile.write(path, wave_N, rate, subtype="FLOAT" if path.suffix == ".wav" else "PCM_16")
    return Record(path.name, path, ("A sound.",), "test", **fields)  # type: ignore[arg-type]


def test_records_with_other_licences_are_left_out_and_counted(tmp_path: Path, make_records: MakeRecords) -> None:
    names = ["CC0-1.0", "CC-BY-4.0", "CC-BY-NC-3.0", "Sampling+", None, "LicenseRef-Shop"]
    records = [replace(r, licence=name) for r, name in zip(make_records(6), names, strict=True)]
    assert reasons(records, tmp_path / "any") == {}
    left = reasons(records, tmp_path / "free", licences=("cc0", "by"))
    assert left == dict.fromkeys(("id2", "id3", "id4", "id5"), "licence")


def test_declared_facts_exclude_records(tmp_path: Path, make_records: MakeRecords) -> None:
    good = make_records(5)
    records = [
        replace(good[0], length_s=181.0, source="freesound", audio=tmp_path / "never looked for.wav"),
        replace(good[1], length_s=181.0, source="other"),
        replace(good[2], rate=8000),
        replace(good[3], length_s=0.001),
        good[4],
    ]
    left = reasons(records, tmp_path / "out", longest_s={"freesound": 180.0}, lowest_rate=16_000, shortest_s=0.005)
    assert left == {"id0": "too long", "id2": "low rate", "id3": "too short"}


def test_decoded_facts_exclude_records(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = (0.2 * rng.standard_normal(48_000)).astype(np.float32)
    square = np.sign(rng.standard_normal(48_000)).astype(np.float32)
    records = [
        sound(tmp_path / "fine.wav", noise),
        sound(tmp_path / "silent.wav", np.zeros(48_000, np.float32)),
        sound(tmp_path / "faint.wav", 1e-6 * noise),
        sound(tmp_path / "clipped.wav", square),
        sound(tmp_path / "long.wav", np.tile(noise, 4)),
        sound(tmp_path / "short.wav", noise[:100]),
        sound(tmp_path / "old.wav", noise[:8000], rate=8000),
    ]
    left = reasons(
        records,
        tmp_path / "out",
        quietest_db=-90.0,
        most_clipped=0.1,
        longest_s={"*": 3.0},
        shortest_s=0.05,
        lowest_rate=16_000,
    )
    assert left == {
        "silent.wav": "silent",
        "faint.wav": "silent",
        "clipped.wav": "clipped",
        "long.wav": "too long",
        "short.wav": "too short",
        "old.wav": "low rate",
    }


def test_chosen_channel_is_packed_and_cancelled_mean_left_out(tmp_path: Path) -> None:
    left, right = 0.2 * np.random.default_rng(0).standard_normal((2, 48_000)).astype(np.float32)
    right *= 2
    records = [sound(tmp_path / "wide.wav", np.stack([left, right], 1)), sound(tmp_path / "mono.wav", left)]
    records.append(sound(tmp_path / "inverted.wav", np.stack([left, -left], 1)))
    assert reasons(records, tmp_path / "mean") == {"inverted.wav": "channels cancel"}
    wanted = {"left": [left, left, left], "right": [right, left, -left], "loudest": [right, left, left]}
    for channels, waves in wanted.items():
        assert reasons(records, tmp_path / channels, channels=channels) == {}
        index = index_shards(tmp_path / channels / "train")
        for number, wave in enumerate(waves):
            packed = decode(index.read_sample(number).audio)[0][:, 0]
            np.testing.assert_allclose(packed, np.clip(wave, -1, 1), atol=1e-4)
    with pytest.raises(ConfigError):
        DataConfig(channels="centre")  # type: ignore[arg-type]


def test_first_included_duplicate_is_packed(tmp_path: Path) -> None:
    wave = (0.3 * np.random.default_rng(1).standard_normal(4800)).astype(np.float32)
    pcm = np.round(wave * 32767).clip(-32768, 32767).astype(np.int16)
    for name in ("a.wav", "b.flac", "c.wav", "d.wav"):
        soundfile.write(tmp_path / name, pcm if name != "d.wav" else -pcm, 48_000)
    records = [Record(name, tmp_path / name, ("x",), "s") for name in ("a.wav", "b.flac", "c.wav", "d.wav")]
    records[0] = replace(records[0], captions=())  # may not stay for another reason
    assert reasons(records, tmp_path / "kept") == {"a.wav": "no caption"}
    out = tmp_path / "out"
    assert reasons(records, out, drop_duplicates=True) == {"a.wav": "no caption", "c.wav": "duplicate"}
    assert "has the same samples as b.flac of s" in (out / "skipped.jsonl").read_text()


def test_by_source_uses_folders_and_the_splits_of_sources(tmp_path: Path, make_records: MakeRecords) -> None:
    records = [
        replace(r, source="one" if n < 6 else "two", split=None if n < 6 else ("train", "valid")[n % 2])
        for n, r in enumerate(make_records(12))
    ]
    report = build(records, tmp_path / "out", DataConfig(splits={"train": 0.5, "test": 0.5}, by_source=True))
    assert report.packed == {"one/test": 3, "one/train": 3, "two/train": 3, "two/valid": 3}
    manifest = read_table(tmp_path / "out/manifest.parquet")
    assert manifest.filter(polars.col("shards") == "two/valid")["id"].to_list() == ["id7", "id9", "id11"]


def test_manifest_locates_every_sound(tmp_path: Path, make_records: MakeRecords) -> None:
    out = tmp_path / "out"
    build(make_records(5), out, DataConfig(splits=ALL, shard_size=2))
    manifest = read_table(out / "manifest.parquet")
    assert manifest["id"].to_list() == [f"id{n}" for n in range(5)]
    for row in manifest.iter_rows(named=True):
        content = (out / row["shards"] / f"{row['tar']}.tar").read_bytes()
        assert content[row["audio_offset"] :][:4] == b"fLaC"
        text = content[row["json_offset"] :][: row["json_size"]]
        assert text.startswith(b'{"text": ["Tone') and text.endswith(b"}")
        assert row["seconds"] == pytest.approx((480 + 10 * int(row["id"][2:])) / 48_000)


def test_parts_write_the_same_bytes_as_one_run(tmp_path: Path, make_records: MakeRecords) -> None:
    records, config = make_records(11), DataConfig(shard_size=2)
    whole = build(records, tmp_path / "whole", config)
    out = tmp_path / "parts"
    plan(records, out, config)
    with raises_naming(DataError, "11 of 11", "openclap dataset fetch"):
        write_tars(out)
    for number in (3, 1, 2):
        fetch_and_decode(out, Share(number, 3))
    write_tars(out, Share(1, 2))
    with raises_naming(DataError, out, "openclap dataset pack"):
        finish(out)
    write_tars(out, Share(2, 2))
    assert finish(out).packed == whole.packed
    assert contents(out) == contents(tmp_path / "whole")


def test_two_processes_write_the_same_bytes_as_one(tmp_path: Path, make_records: MakeRecords) -> None:
    records, config = make_records(7), DataConfig(shard_size=2)
    build(records, tmp_path / "one", config)
    build(records, tmp_path / "two", config, processes=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_split_names_outside_the_folder_are_left_out(tmp_path: Path, make_records: MakeRecords) -> None:
    splits = ["../../escaped", "work", "a/b", ".hidden", "train", "My split (2)"]
    records = [replace(r, split=split) for r, split in zip(make_records(6), splits, strict=True)]
    assert reasons(records, tmp_path / "out") == dict.fromkeys(("id0", "id1", "id2", "id3"), "bad split")
    assert {path.parent.name for path in tmp_path.rglob("*.tar")} == {"train", "My split (2)"}
    sources = [replace(r, source=name) for r, name in zip(make_records(2), ("..", "fine"), strict=True)]
    assert reasons(sources, tmp_path / "by", by_source=True) == {"id0": "bad source"}


def test_group_follows_the_split_of_its_source(tmp_path: Path, make_records: MakeRecords) -> None:
    records = [replace(r, group="one", split="test" if n == 3 else None) for n, r in enumerate(make_records(6))]
    assert build(records, tmp_path / "out", DataConfig()).packed == {"test": 6}


@pytest.mark.parametrize("decoded_sounds", ["there", "deleted"])
def test_sound_changed_after_decoding_is_packed_as_decoded_or_left_out(
    tmp_path: Path, make_records: MakeRecords, decoded_sounds: str
) -> None:
    records, out, config = make_records(3), tmp_path / "out", DataConfig(splits=ALL)
    build(records, tmp_path / "undisturbed", config)
    plan(records, out, config)
    fetch_and_decode(out)
    if decoded_sounds == "deleted":
        shutil.rmtree(out / "work/sounds")
    content = bytearray(Path(records[1].audio).read_bytes())
    content[-2] ^= 8
    Path(records[1].audio).write_bytes(content)
    write_tars(out)
    report = finish(out)
    if decoded_sounds == "there":
        assert report.packed == {"train": 3}
        assert (out / "train/0.tar").read_bytes() == (tmp_path / "undisturbed/train/0.tar").read_bytes()
    else:
        assert report.packed == {"train": 2} and "has changed" in report.skipped[0].reason


def test_invalid_names_and_addresses_are_left_out(tmp_path: Path, make_records: MakeRecords) -> None:
    good = make_records(6)
    records = [
        replace(good[0], audio=tmp_path / "caf\udce9.wav"),
        replace(good[1], audio="foo://bar"),
        replace(good[2], audio="ftp://127.0.0.1:1/a.wav"),
        replace(good[3], audio="file:///missing.wav"),
        replace(good[4], audio="/proc/self/mem"),
        good[5],
    ]
    left = reasons(records, tmp_path / "out")
    assert left == {"id0": "not text", **dict.fromkeys(("id1", "id2", "id3", "id4"), "not decoded")}


def test_finished_set_without_work_is_not_overwritten(tmp_path: Path, make_records: MakeRecords) -> None:
    records, out = make_records(3), tmp_path / "out"
    build(records, out, DataConfig())
    shutil.rmtree(out / "work")
    before = contents(out)
    with raises_naming(DataError, out, "work/"):
        build(records, out, DataConfig())
    assert contents(out) == before


def test_moved_sounds_resume(tmp_path: Path, make_records: MakeRecords) -> None:
    records, out = make_records(3), tmp_path / "out"
    plan(records, out, DataConfig())
    shutil.move(tmp_path / "sounds", tmp_path / "moved")
    moved = [replace(r, audio=tmp_path / "moved" / Path(r.audio).name) for r in records]
    assert sum(build(moved, out, DataConfig()).packed.values()) == 3


def test_set_without_included_records_is_described(tmp_path: Path, make_records: MakeRecords) -> None:
    records = [replace(r, licence="Sampling+") for r in make_records(2)]
    with raises_naming(DataError, "none of 2", "skipped.jsonl"):
        build(records, tmp_path / "out", DataConfig(licences=("cc0",)))
    assert stats_of(tmp_path / "out").samples == 0


def test_source_that_fails_midway_leaves_no_draft(tmp_path: Path, make_records: MakeRecords) -> None:
    """A second run with the mended source starts afresh, in the same folder."""
    good = make_records(3)

    def failing() -> Iterator[Record]:
        yield from good[:2]
        raise DataError("The table is cut off.")

    with pytest.raises(DataError):
        plan(failing(), tmp_path / "out", DataConfig())
    assert gc.isenabled()
    assert [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()] == []
    assert plan(good, tmp_path / "out", DataConfig()) == 3
