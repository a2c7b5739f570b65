"""Captions are generated once, cached, and assigned to the right record."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from openclap.captions.cache import CaptionCache
from openclap.captions.makers import CaptioningCounts, augment, keywords_of, with_generated
from openclap.captions.rules import Caption, captions_of
from openclap.errors import DataError
from openclap.sources.record import Record
from support.errors import raises_naming


@dataclass
class Joiner:
    """A minimal maker; it fails for "silence" and records the keywords of its calls."""

    name: str = "joiner"
    identity: str = "joiner 1"
    asked: list[tuple[str, ...]] = field(default_factory=list)
    stop_after: int | None = None

    def make(self, keywords: Sequence[tuple[str, ...]]) -> list[str | None]:
        if self.stop_after is not None and len(self.asked) >= self.stop_after:
            raise KeyboardInterrupt
        self.asked += keywords
        return [None if "silence" in words else f"A man with {' and '.join(words)}" for words in keywords]


def record(*tags: str, length_s: float | None = None, source: str = "freesound") -> Record:
    return Record("1", Path("a.wav"), (), source, tags=tags, length_s=length_s)


def test_each_record_gets_its_own_caption() -> None:
    maker, seen = Joiner(), list[CaptioningCounts]()
    records = [
        record("dog", "rain"),
        record("rain", "dog"),
        record("dog", "rain", length_s=1.99),
        record("dog", "rain", length_s=2.0),
        record("silence"),
        record(),
        record("12", "…"),
    ]
    found = list(augment(records, maker, progress=seen.append))
    texts = [caption and caption.text for caption in found]
    first, second = "A person with dog and rain", "A person with rain and dog"
    assert texts == [first, second, None, first, None, None, None]
    assert found[0] == Caption(first, "keywords:joiner")
    assert seen == [CaptioningCounts(done=7, made=3, cached=0, failed=1, left_out=3)]
    assert maker.asked == [("dog", "rain"), ("rain", "dog"), ("silence",)]


def test_debiasing_is_optional_and_not_cached(tmp_path: Path) -> None:
    cache = tmp_path / "new" / "captions.jsonl"
    assert [c and c.text for c in augment([record("dog")], Joiner(), cache=cache, neutral=False)] == ["A man with dog"]
    maker, seen = Joiner(), list[CaptioningCounts]()
    again = list(augment([record("dog")], maker, cache=cache, progress=seen.append))
    assert [c and c.text for c in again] == ["A person with dog"]
    assert maker.asked == []
    assert seen == [CaptioningCounts(done=1, cached=1)]


def test_stopped_run_resumes(tmp_path: Path) -> None:
    cache = tmp_path / "captions.jsonl"
    records = [record(f"word {number}") for number in range(1200)]
    with pytest.raises(KeyboardInterrupt):
        list(augment(records, Joiner(stop_after=1024), cache=cache))
    maker = Joiner()
    assert all(augment(records, maker, cache=cache))
    assert len(maker.asked) == 1200 - 1024


def test_other_maker_or_keyword_order_misses_the_cache(tmp_path: Path) -> None:
    cache = tmp_path / "captions.jsonl"
    list(augment([record("dog", "rain")], Joiner(), cache=cache))
    for maker, one in ((Joiner(identity="joiner 2"), record("dog", "rain")), (Joiner(), record("rain", "dog"))):
        list(augment([one], maker, cache=cache))
        assert len(maker.asked) == 1
    maker = Joiner()
    list(augment([record("dog", "rain")], maker, cache=cache))
    assert maker.asked == []


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.97])
def test_torn_last_line_loses_only_its_caption(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "captions.jsonl"
    CaptionCache(path, "m").add([(("dog",), "A dog — barks"), (("cat",), "A cat purrs")])
    whole, last = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(whole + last[: int(len(last) * kept)])
    torn = path.read_bytes()
    cache = CaptionCache(path, "m")
    assert cache.get(("dog",)) == "A dog — barks"
    assert cache.get(("cat",)) is None
    cache.add([(("cat",), "A cat hisses")])
    cache.add([(("cow",), "A cow moos")])
    assert path.read_bytes().startswith(torn)
    assert [CaptionCache(path, "m").get((word,)) for word in ("dog", "cat", "cow")] == [
        "A dog — barks", "A cat hisses", "A cow moos",
    ]  # fmt: skip


def test_damaged_lines_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "captions.jsonl"
    CaptionCache(path, "m").add([(("dog",), "A dog")])
    damage = [b"\xff\xfe", b"{}", b"[]", b'{"maker": "m", "keywords": 3, "text": "x"}', b"", b"[" * 100_000]
    damage += [json.dumps({"maker": "m", "keywords": ["a"], "text": None}).encode()]
    with path.open("ab") as file:
        file.write(b"\n".join(damage) + b"\n")
    CaptionCache(path, "m").add([(("cat",), "A cat")])
    assert len(CaptionCache(path, "m")) == 2


def test_other_file_is_refused_as_cache(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("file,caption\n", encoding="utf-8")
    with raises_naming(DataError, path):
        list(augment([record("dog")], Joiner(), cache=path))
    assert path.read_text(encoding="utf-8") == "file,caption\n"
    with raises_naming(DataError, tmp_path):
        CaptionCache(tmp_path, "m")
    with raises_naming(DataError, path / "in" / "a file"):
        CaptionCache(path / "in" / "a file", "m").add([(("dog",), "A dog")])


def test_keywords() -> None:
    assert keywords_of(record("dog_bark", " rain ", "dog bark", "44", "")) == ("dog bark", "rain")
    assert len(keywords_of(record(*(f"dog {letter}" for letter in "abcdefghijklmnop")))) == 12
    assert keywords_of(Record("1", Path("a.wav"), (), "esc50", label="door_wood_knock")) == ("door wood knock",)


def test_generated_captions_are_appended_and_replace_audioset_labels() -> None:
    made = Caption("A dog barks.", "keywords:joiner")
    one = Record("1", Path("a.wav"), (), "freesound", title="dog.wav", tags=("Dog", "Rain"))
    assert with_generated(one, made) == (*captions_of(one), made)
    assert with_generated(one, None) == captions_of(one)
    assert with_generated(record("Dog", "Rain", source="audioset"), made) == (made,)
    assert [c.text for c in with_generated(record("Dog", source="audioset"), None)] == ["The sound of Dog"]
    same = Record("1", Path("a.wav"), ("A dog barks.",), "freesound")
    assert [c.made for c in with_generated(same, made)] == ["given"]
