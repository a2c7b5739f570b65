"""Build shards from records: their content, and the records left out."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
import webdataset

from openclap.audio.io import decode
from openclap.data.build import pack
from openclap.data.decode import to_flac, to_pcm
from openclap.data.shards import index_shards
from openclap.errors import ConfigError, DataError
from openclap.sources import Record, read_table
from support.errors import raises_naming
from support.packs import MakeRecords, contents

ALL = {"train": 1.0}


def test_round_trip_bit_for_bit(tmp_path: Path, make_records: MakeRecords) -> None:
    records = make_records(5)
    report = pack(records, tmp_path / "out", splits=ALL, shard_size=2)
    assert (report.packed, report.tars, report.skipped) == ({"train": 5}, {"train": 3}, ())
    assert json.loads((tmp_path / "out/train/sizes.json").read_text()) == {"0.tar": 2, "1.tar": 2, "2.tar": 1}
    index = index_shards(tmp_path / "out/train")
    assert index.keys == ("0", "1", "2", "3", "4")
    for number, record in enumerate(records):
        sample = index.read_sample(number)
        assert (sample.captions, sample.tags) == (record.captions, record.tags)
        wave_NC, rate = decode(sample.audio)
        assert rate == 48_000
        np.testing.assert_array_equal(wave_NC, decode(record.audio)[0])
    assert index.read_sample(3).original == {
        "id": "id3",
        "title": "Tone 3",
        "label": "tone",
        "group": "group3",
        "licence": "CC0",
        "author": "Ada",
        "link": "https://x.org",
        "source": "test",
        "file": "3.wav",
        "made": ["given", "given"],
    }


def test_members_are_laions_layout(tmp_path: Path, make_records: MakeRecords) -> None:
    pack(make_records(2), tmp_path / "out", splits=ALL)
    with tarfile.open(tmp_path / "out/train/0.tar") as tar:
        members = tar.getmembers()
        assert [member.name for member in members] == ["0.flac", "0.json", "1.flac", "1.json"]
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {(0, 0, 0, "", "", 0o644)}
        text = tar.extractfile("1.json")
        assert text is not None
        assert set(json.load(text)) == {"text", "tag", "original_data"}


def test_stereo_and_other_rates_become_48_khz_mono_and_loud_samples_are_clipped(tmp_path: Path) -> None:
    wave_NC = np.tile(np.array([[3.0, 1.0]], np.float32), (4410, 1))
    soundfile.write(tmp_path / "loud.wav", wave_NC, 44_100, subtype="FLOAT")
    pack([Record("a", tmp_path / "loud.wav", ("Loud.",), "s")], tmp_path / "out", splits=ALL)
    packed_NC, rate = decode(index_shards(tmp_path / "out/train").read_sample(0).audio)
    assert (rate, packed_NC.shape) == (48_000, (4800, 1))
    assert packed_NC[1000:3000].min() > 0.99


def test_sound_of_one_sample() -> None:
    assert decode(to_flac(to_pcm(np.array([-1.0], np.float32))))[0].tolist() == [[-1.0]]


def test_webdatasets_own_reader_reads_our_tars(tmp_path: Path, make_records: MakeRecords) -> None:
    pack(make_records(5), tmp_path / "out", splits=ALL, shard_size=3)
    index = index_shards(tmp_path / "out/train")
    urls = [str(tmp_path / "out/train" / tar) for tar in index.tars]
    read = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [sample["__key__"] for sample in read] == list(index.keys)
    for number, sample in enumerate(read):
        assert sample["flac"] == index.read_sample(number).audio
        assert tuple(json.loads(sample["json"])["text"]) == index.read_sample(number).captions


def test_groups_stay_in_one_split_in_any_row_order(tmp_path: Path, make_records: MakeRecords) -> None:
    records = [replace(record, group=f"g{number // 3}") for number, record in enumerate(make_records(15))]
    pack(records, tmp_path / "a", seed=3)
    pack(records[::-1], tmp_path / "b", seed=3)
    homes = []
    for out in ("a", "b"):
        splits = {name: index_shards(tmp_path / out / name) for name in ("train", "test")}
        homes.append(
            {
                name: {index.read_sample(i).original["group"] for i in range(len(index))}
                for name, index in splits.items()
            }
        )
        assert len(splits["test"]) == 3
    assert homes[0] == homes[1]
    assert not homes[0]["train"] & homes[0]["test"]


def test_equal_input_gives_equal_bytes_anywhere(tmp_path: Path, make_records: MakeRecords) -> None:
    records = make_records(6)
    pack(records, tmp_path / "a", shard_size=2)
    pack(records, tmp_path / "deep" / "b", shard_size=2)
    assert contents(tmp_path / "a") == contents(tmp_path / "deep" / "b")


def damaged(folder: Path, good: Record) -> list[Record]:
    flac = to_flac(to_pcm(np.random.default_rng(0).uniform(-0.5, 0.5, 48_000).astype(np.float32)))
    (folder / "zero.wav").touch()
    (folder / "text.wav").write_text("this is no sound at all\n" * 20)
    (folder / "cut.flac").write_bytes(flac[: len(flac) // 2])
    (folder / "head.flac").write_bytes(flac[:20])
    soundfile.write(folder / "nan.wav", np.full(100, np.nan, np.float32), 48_000, subtype="FLOAT")
    soundfile.write(folder / "none.wav", np.zeros(0, np.float32), 48_000)
    names = [
        "zero.wav",
        "text.wav",
        "cut.flac",
        "head.flac",
        "nan.wav",
        "none.wav",
        "missing.wav",
        "nul\0.wav",
    ]
    records = [Record(name, folder / name, ("x",), "s") for name in names]
    return [
        *records,
        replace(good, id="blank", captions=(" ", ""), title=None, tags=(), label=None),
        Record("folder", folder, ("x",), "s"),
    ]


def test_unusable_records_are_listed_and_left_out(tmp_path: Path, make_records: MakeRecords) -> None:
    good = make_records(3)
    bad = damaged(tmp_path, good[0])
    mixed = [record for pair in zip(bad, [*good, *bad[len(good) :]], strict=True) for record in pair]
    report = pack(mixed[:6] + bad[3:] + [good[0]], tmp_path / "out", splits=ALL, shard_size=2)
    assert report.packed == {"train": 4}
    assert [skipped.id for skipped in report.skipped] == [record.id for record in bad]
    lines = [json.loads(line) for line in (tmp_path / "out/skipped.jsonl").read_text().splitlines()]
    assert [set(line) for line in lines] == [{"id", "source", "file", "kind", "reason"}] * len(bad)
    reasons = {line["id"]: line["reason"] for line in lines}
    assert all(reasons.values())
    for name, word in {
        "zero.wav": "empty",
        "nan.wav": "NaN",
        "none.wav": "no samples",
        "missing.wav": "no such file",
        "blank": "no caption",
        "folder": "folder",
    }.items():
        assert word in reasons[name]
    index = index_shards(tmp_path / "out/train")
    assert [index.read_sample(i).original["id"] for i in range(4)] == ["id0", "id1", "id2", "id0"]


def test_blank_captions_are_dropped(tmp_path: Path, make_records: MakeRecords) -> None:
    pack([replace(make_records(1)[0], captions=("", " A dog. "))], tmp_path / "out", splits=ALL)
    assert index_shards(tmp_path / "out/train").read_sample(0).captions == ("A dog.",)


def test_no_usable_record_is_an_error_that_names_the_list(tmp_path: Path, make_records: MakeRecords) -> None:
    bad = damaged(tmp_path, make_records(1)[0])
    for _ in range(2):
        with raises_naming(DataError, "none of 10", "skipped.jsonl"):
            pack(bad, tmp_path / "out")
    assert len((tmp_path / "out/skipped.jsonl").read_text().splitlines()) == len(bad)
    with raises_naming(DataError, tmp_path / "empty", "none of 0"):
        pack([], tmp_path / "empty")


def test_progress_counts_every_record_twice(tmp_path: Path, make_records: MakeRecords) -> None:
    seen: list[tuple[int, int]] = []
    pack(make_records(5), tmp_path / "out", shard_size=2, progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (0, 10) and seen[-1] == (10, 10) and (5, 10) in seen
    assert seen == sorted(seen)


def test_invalid_shard_size(tmp_path: Path, make_records: MakeRecords) -> None:
    with raises_naming(ConfigError, "shard_size", 0):
        pack(make_records(1), tmp_path / "out", shard_size=0)
    assert not (tmp_path / "out").exists()


def test_row_with_a_start_is_a_segment_of_its_file(tmp_path: Path) -> None:
    wave_N = np.random.default_rng(0).uniform(-0.5, 0.5, 48_000).astype(np.float32)
    soundfile.write(tmp_path / "long.wav", wave_N, 48_000, subtype="PCM_16")
    rows = ["long.wav,First.,0,0.25", "long.wav,Second.,0.25,0.5", "long.wav,Whole.,,0.9"]
    (tmp_path / "table.csv").write_text("\n".join(["file,caption,start_s,length_s", *rows]) + "\n")
    pack(read_table(tmp_path / "table.csv"), tmp_path / "out", splits=ALL)
    index, whole_NC = index_shards(tmp_path / "out/train"), decode(tmp_path / "long.wav")[0]
    found = [decode(index.read_sample(number).audio)[0] for number in range(3)]
    for wave_NC, segment in zip(found, (slice(0, 12_000), slice(12_000, 36_000), slice(None)), strict=True):
        np.testing.assert_array_equal(wave_NC, whole_NC[segment])
