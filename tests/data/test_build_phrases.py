"""Phrases with segments on their way from a record to a sample."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import polars

from openclap.data.build import pack
from openclap.data.records import with_phrases
from openclap.data.shards import index_shards
from openclap.data.verify import check, manifest_from_tars, repair
from openclap.sources import SOURCES
from openclap.types import Phrase
from support.packs import MakeRecords, contents

ALL = {"train": 1.0}
TONE = Phrase("a tone", ((0.0, 0.004), (0.005, 0.01)))


def test_phrases_are_in_samples_and_manifest(tmp_path: Path, make_records: MakeRecords) -> None:
    first, second = make_records(2)
    report = pack([first, replace(second, phrases=(TONE,))], tmp_path / "out", splits=ALL)
    index = index_shards(tmp_path / "out" / "train")
    assert [index.read_sample(number).phrases for number in range(2)] == [(), (TONE,)]
    rows = polars.read_parquet(tmp_path / "out" / "manifest.parquet")["phrases"].to_list()
    assert rows == [[], [{"phrase": "a tone", "segments": [[0.0, 0.004], [0.005, 0.01]]}]]
    assert (report.segments, report.notes) == ((), ())
    assert not (tmp_path / "out" / "skipped_segments.jsonl").exists()
    assert not check(tmp_path / "out").damage
    (tmp_path / "out" / "manifest.parquet").unlink()
    assert not repair(tmp_path / "out", check(tmp_path / "out")).damage
    assert polars.read_parquet(tmp_path / "out" / "manifest.parquet")["phrases"].to_list() == rows


def test_impossible_segments_are_listed_and_left_out_of_samples(tmp_path: Path, make_records: MakeRecords) -> None:
    [record] = make_records(1)  # of 10 ms
    lost = Phrase("a late tone", ((0.5, 0.9),))
    wrong = Phrase("a tone", ((-1.0, 0.005), (0.005, 0.004), (0.002, 0.006)))
    report = pack([replace(record, phrases=(wrong, lost))], tmp_path / "out", splits=ALL)
    assert index_shards(tmp_path / "out" / "train").read_sample(0).phrases == (Phrase("a tone", ((0.002, 0.006),)),)
    lines = [json.loads(line) for line in (tmp_path / "out" / "skipped_segments.jsonl").read_text().splitlines()]
    assert [(line["id"], line["file"]) for line in lines] == [("id0", "0.wav")] * 3
    assert [line["reason"] for line in lines] == [segment.reason for segment in report.segments]
    assert "3 segments of phrases were left out" in report.notes[0] and "0.wav" in report.notes[0]
    assert not check(tmp_path / "out").damage and not check(tmp_path / "out").foreign


def test_phrases_survive_another_build_from_the_shards(tmp_path: Path, make_records: MakeRecords) -> None:
    [record] = make_records(1)
    pack([replace(record, phrases=(TONE,))], tmp_path / "out", splits=ALL)
    [again] = SOURCES["shards"].read(tmp_path / "out" / "train", cache=tmp_path / "cache")
    assert again.phrases == (TONE,)
    rows = manifest_from_tars(tmp_path / "out")["phrases"].to_list()
    assert rows == [[{"phrase": "a tone", "segments": [[0.0, 0.004], [0.005, 0.01]]}]]


def test_records_without_phrases_pack_as_before_there_were_phrases(tmp_path: Path, make_records: MakeRecords) -> None:
    """Tables of older versions have no such column; a set that they began is continued and checked."""
    records = make_records(3)
    pack(records, tmp_path / "out", splits=ALL)
    before = contents(tmp_path / "out")
    for table in (tmp_path / "out" / "manifest.parquet", tmp_path / "out" / "work" / "records" / "0.parquet"):
        polars.read_parquet(table).drop("phrases").write_parquet(table)
    assert not check(tmp_path / "out").damage
    pack(records, tmp_path / "out", splits=ALL)
    assert contents(tmp_path / "out") == before


def test_text_of_a_phrase_that_is_no_utf_8_is_refused_with_its_record(
    tmp_path: Path, make_records: MakeRecords
) -> None:
    good, bad = make_records(2)
    report = pack([good, replace(bad, phrases=(Phrase("a \ud800", ((0.0, 0.01),)),))], tmp_path / "out", splits=ALL)
    assert [skipped.kind for skipped in report.skipped] == ["not text"]


def test_a_table_without_phrases_gets_the_column() -> None:
    assert with_phrases(polars.DataFrame({"n": [1]}))["phrases"].to_list() == [[]]
