"""Filters and facets against plain Python over the rows."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from openclap.errors import ConfigError
from openclap.search.filters import FACTS, facets, mask_of
from openclap.search.rows import FileRow, files_table, iso_time
from support.search_helpers import row


def made_rows(count: int) -> list[FileRow]:
    rng = random.Random(0)
    rows = []
    for number in range(count):
        folder = rng.choice(["/s/Field/2021", "/s/Field/2022", "/s/field", "/s/Airfield/2021", "/"])
        suffix = rng.choice(["wav", "FLAC", "mp3"])
        rows.append(
            replace(
                row(f"{folder.rstrip('/')}/{number} Rain.{suffix}", f"{number:064x}"),
                duration_s=rng.choice([0.5, 1.0, 9.75, 10.0, 3600.0]),
                rate=rng.choice([8000, 44100, 48000]),
                size=rng.randint(0, 2**40),
                mtime_ns=rng.randint(0, 2 * 10**18),
                caption=rng.choice([None, "rain on a roof", "Rain"]),
                tags=tuple(rng.sample(["rain", "Rain", "dog", "tin roof"], rng.randint(0, 3))),
                keywords=tuple(rng.sample(["rain", "AMBIENCE"], rng.randint(0, 2))),
                category=rng.choice([None, "AMB", "WATR", "DOOR"]),
                title=rng.choice([None, "Tin | roof", "100%", "Straße"]),
                date=rng.choice([None, "2021", "2021-05", "2021-05-03", "2022-01-01"]),
            )
        )
    return rows


ROWS = made_rows(300)
FILES = files_table(ROWS)


def has_tag(file: FileRow, *tags: str) -> bool:
    return bool({tag.lower() for tag in (*file.tags, *file.keywords)} & set(tags))


def within(file: FileRow, folder: str) -> bool:
    return f"/{folder}/" in file.path.lower()


CASES: list[tuple[Any, Any]] = [
    ({}, lambda file: True),
    ([], lambda file: True),
    ({"duration_s": (1, 10)}, lambda file: 1 <= file.duration_s <= 10),
    ({"duration": (None, 1)}, lambda file: file.duration_s <= 1),
    (["duration<10"], lambda file: file.duration_s < 10),
    (["duration_s>=9.75", "rate=48000"], lambda file: file.duration_s >= 9.75 and file.rate == 48000),
    ({"rate": [8000, 44100]}, lambda file: file.rate in (8000, 44100)),
    (["size>1e12"], lambda file: file.size > 1e12),
    (["size>549755813887"], lambda file: file.size > 549755813887),
    ([f"size<{2**63}", f"rate!={10**30}"], lambda file: True),
    ({"size": (10**400, None)}, lambda file: False),
    ({"tags": "RAIN"}, lambda file: has_tag(file, "rain")),
    (["tag=dog|ambience"], lambda file: has_tag(file, "dog", "ambience")),
    (["tags!=rain"], lambda file: not has_tag(file, "rain")),
    (["tags~roof"], lambda file: has_tag(file, "tin roof")),
    ({"tags": None}, lambda file: not file.tags and not file.keywords),
    ({"category": ["AMB", "watr"]}, lambda file: file.category in ("AMB", "WATR")),
    ({"category": None}, lambda file: file.category is None),
    (["category="], lambda file: file.category is None),
    (["category!="], lambda file: file.category is not None),
    (["category!=amb"], lambda file: file.category != "AMB"),
    ({"category": []}, lambda file: False),
    ({"folder": "Field/2021"}, lambda file: within(file, "field/2021")),
    ({"folder": "/s/field/"}, lambda file: file.path.lower().startswith("/s/field/")),
    ({"folder": "/"}, lambda file: True),
    ({"folder": "\udcff"}, lambda file: False),
    (["name=\udcff|7 rain.wav"], lambda file: file.path.lower().endswith("/7 rain.wav")),
    (["tags!=\udcff"], lambda file: True),
    (["folder!=2021"], lambda file: not within(file, "2021")),
    (["format=flac|mp3"], lambda file: file.path.lower().endswith(("flac", "mp3"))),
    (["name~7 rain"], lambda file: "7 rain" in file.path.rsplit("/", 1)[1].lower()),
    ({"title": "tin | ROOF"}, lambda file: file.title == "Tin | roof"),
    (["title~100%"], lambda file: file.title == "100%"),
    (["date=2021"], lambda file: (file.date or "").startswith("2021")),
    (["date<=2021-05"], lambda file: file.date is not None and file.date[:7] <= "2021-05"),
    (["modified>=2001"], lambda file: iso_time(file.mtime_ns) >= "2001"),
    (["modified=2010|2011-02"], lambda file: iso_time(file.mtime_ns).startswith(("2010", "2011-02"))),
    (["caption=rain"], lambda file: file.caption == "Rain"),
]


@pytest.mark.parametrize(("where", "expected"), CASES, ids=lambda value: str(value) if not callable(value) else "")
def test_filters_equal_plain_python(where: Any, expected: Any) -> None:
    assert mask_of(FILES, where).tolist() == [expected(file) for file in ROWS]


def test_a_table_in_chunks_and_one_of_format_1() -> None:
    import pyarrow as pa

    chunked = pa.concat_tables([files_table(ROWS[:100]), files_table(ROWS[100:])])
    for where, expected in CASES:
        assert mask_of(chunked, where).tolist() == [expected(file) for file in ROWS]
    old = FILES.drop_columns(["title", "category", "keywords"])
    assert not mask_of(old, ["title~roof"]).any() and mask_of(old, {"category": None}).all()
    assert mask_of(old, {"tags": "dog"}).tolist() == ["dog" in file.tags for file in ROWS]
    assert mask_of(FILES.slice(0, 0), ["rate=8000"]).shape == (0,)


def test_facets_count_the_values_of_files() -> None:
    chosen = mask_of(FILES, ["rate=48000"])
    kept = [file for file in ROWS if file.rate == 48000]
    assert dict(facets(FILES, "category", chosen)) == Counter(file.category for file in kept if file.category)
    assert dict(facets(FILES, "tag", chosen)) == Counter(tag for file in kept for tag in {*file.tags, *file.keywords})
    assert dict(facets(FILES, "duration_s")) == Counter(file.duration_s for file in ROWS)
    counts = [count for _, count in facets(FILES, "folder")]
    assert counts == sorted(counts, reverse=True) and sum(counts) == len(ROWS)
    assert facets(FILES, "format", np.zeros(len(ROWS), bool)) == []


@pytest.mark.parametrize(
    "where",
    [
        {"colour": "red"},
        ["colour=red"],
        ["rate"],
        ["=8000"],
        ["rate=fast"],
        {"rate": "fast"},
        ["rate=²"],
        {"rate": (1, 2, 3)},
        ["folder<x"],
        "rate=8000",
        3,
        {"rate": {"a": 1}},
    ],
)
def test_conditions_that_cannot_be_read(where: Any) -> None:
    with pytest.raises(ConfigError) as error:
        mask_of(FILES, where)
    assert "\n" not in str(error.value)


def test_a_missing_fact_lists_the_facts() -> None:
    with pytest.raises(ConfigError, match=", ".join(sorted(FACTS))):
        mask_of(FILES, {"colour": "red"})
