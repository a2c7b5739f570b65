"""Sentences that a model writes from keywords: where they are stored, and that each is written once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile

from openclap.captions import CaptioningCounts
from openclap.data.build import build, fetch_and_decode, write_tars
from openclap.data.captioning import caption
from openclap.data.config import DataConfig
from openclap.data.filters import plan
from openclap.data.layout import read_table
from openclap.data.manifest import finish
from openclap.data.parallel import Share
from openclap.data.shards import index_shards
from openclap.errors import DataError
from openclap.sources import Record
from support.errors import raises_naming
from support.packs import MakeRecords, contents

ALL = DataConfig(splits={"train": 1.0}, shard_size=2)


class Lister:
    """Joins keywords to a sentence, and records the keywords of its calls."""

    name, identity = "lister", "lister 1"

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    def make(self, keywords: Sequence[tuple[str, ...]]) -> list[str | None]:
        self.asked += keywords
        return [None if "refuse" in words else f"A man hears {' and '.join(words)}." for words in keywords]


def records_of(folder: Path, make_records: MakeRecords) -> list[Record]:
    """Three clips of over two seconds, of which one is refused and one has no tags, and one that is too short."""
    made = make_records(4)
    for number in range(3):
        soundfile.write(made[number].audio, 0.1 * np.sin(np.arange(100_000 + number) / 30), 48_000)
    tags = [("dog", "bark"), ("refuse",), (), ("tone", "sine")]
    return [replace(record, tags=each, label=None) for record, each in zip(made, tags, strict=True)]


def test_sentences_are_stored_under_laions_names_too(tmp_path: Path, make_records: MakeRecords) -> None:
    maker, out = Lister(), tmp_path / "out"
    build(records_of(tmp_path, make_records), out, ALL, maker=lambda: maker)
    assert sorted(maker.asked) == [("dog", "bark"), ("refuse",)]
    index = index_shards(out / "train")
    first, *others = [index.read_sample(number) for number in range(4)]
    assert first.captions == ("Tone 0.", "A tone.", "A person hears dog and bark.")
    assert first.original["made"] == ["given", "given", "keywords:lister"]
    assert all(len(sample.captions) == 2 for sample in others)
    content = (out / "train" / "0.tar").read_bytes()
    assert b'"text_augment_t5": "A person hears dog and bark."' in content
    row = read_table(out / "manifest.parquet").row(0, named=True)
    assert row["captions"][2] == "A person hears dog and bark." and row["made"][2] == "keywords:lister"


def test_parts_write_each_sentence_once(tmp_path: Path, make_records: MakeRecords) -> None:
    records = records_of(tmp_path, make_records)
    build(records, tmp_path / "one", ALL, maker=Lister)
    out, maker = tmp_path / "two", Lister()
    plan(records, out, ALL)
    with raises_naming(DataError, out, "openclap dataset fetch"):
        caption(out, maker)
    fetch_and_decode(out)
    for number in (2, 1):
        caption(out, maker, Share(number, 2))
    asked = list(maker.asked)
    again = caption(out, maker)
    assert isinstance(again, CaptioningCounts) and (again.cached, again.failed, again.left_out) == (1, 1, 2)
    assert maker.asked[len(asked) :] == [("refuse",)]  # failures are tried again
    write_tars(out)
    finish(out)
    assert contents(out) == contents(tmp_path / "one")


def test_second_captioning_rewrites_only_changed_tars(tmp_path: Path, make_records: MakeRecords) -> None:
    records, out = records_of(tmp_path, make_records), tmp_path / "out"
    build(records, out, ALL)
    before = {path.name: path.stat().st_mtime_ns for path in out.rglob("*.tar")}
    build(records, out, ALL, maker=Lister)
    after = {path.name: path.stat().st_mtime_ns for path in out.rglob("*.tar")}
    assert before["0.tar"] != after["0.tar"] and before["1.tar"] == after["1.tar"]
