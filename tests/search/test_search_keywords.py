"""Keyword search against a BM25 written out here, over the facts of real rows, and the database beside the tables."""

from __future__ import annotations

import csv
import math
import random
import re
import shutil
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import openclap
from openclap.errors import ConfigError
from openclap.search.index import Index
from openclap.search.keywords import KeywordIndex, in_memory, search_tables, split_words, tables_of
from openclap.search.rows import FileRow
from openclap.search.scan import add
from openclap.types import Window
from support.search_helpers import SpectrumEmbedder, axis, describe, fill, row, write_tone

SOUNDS = Path(openclap.__file__).parent / "demo" / "sounds"
NAMES = [
    "FX_RainRoof_01_close.wav",
    "Train passing.wav",
    "rain.flac",
    "Heavy_Rain-02.wav",
    "roof works 01.wav",
    "AMBForest2021.wav",
    "Straßenbahn_Köln.ogg",
]


def named(*names: str, **facts: Any) -> list[FileRow]:
    return [row(f"/s/{name}", f"{number:064x}", **facts) for number, name in enumerate(names)]


def found(files: list[FileRow], query: str, limit: int = 100, allowed: set[str] | None = None) -> list[str]:
    return [path.removeprefix("/s/") for path in in_memory(files, query, limit, allowed)]


def test_words_of_names() -> None:
    assert split_words("RainOnRoof_02-close") == ["rain", "on", "roof", "02", "close"]
    assert split_words("AMBForest2021") == ["amb", "forest", "2021"]
    assert split_words("ÜberGang ΣΙΓΜΑτικό 雨") == ["über", "gang", "σιγμ", "ατικό", "雨"]
    assert split_words("...") == []


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("RainRoof_0", "FX_RainRoof_01_close.wav"),
        ("rain roof 0", "FX_RainRoof_01_close.wav"),
        ("ainRo", "FX_RainRoof_01_close.wav"),
        ("forest", "AMBForest2021.wav"),
        ("orest20", "AMBForest2021.wav"),
        ("works", "roof works 01.wav"),
        ("working", "roof works 01.wav"),
        ("koln", "Straßenbahn_Köln.ogg"),
        ("STRASSEN", "Straßenbahn_Köln.ogg"),
        ("rain", "rain.flac"),
        ("Heavy_Rain-02.wav", "Heavy_Rain-02.wav"),
        ("AMBForest", "AMBForest2021.wav"),
        ("strassenbahn koln", "Straßenbahn_Köln.ogg"),
        ("Ko\u0308ln", "Straßenbahn_Köln.ogg"),
        ("roo", "roof works 01.wav"),
    ],
)
def test_a_part_of_a_name_finds_it_first(query: str, first: str) -> None:
    assert found(named(*NAMES), query)[0] == first


def test_a_word_comes_before_its_letters_in_another() -> None:
    assert found(named(*NAMES), "rain")[-1] == "Train passing.wav"
    assert len(found(named(*NAMES), "rain")) == 4
    files = [*named("train.wav", "rainbow.wav", "a rain of a long name.wav"), row("/s/x.wav", "x", caption="rain")]
    assert found(files, "rain") == ["a rain of a long name.wav", "x.wav", "rainbow.wav", "train.wav"]


def test_files_with_all_words_come_before_files_with_some() -> None:
    files = named("loop loop loop.wav", "fruity.wav", "FruityLoops kick 01.wav", "loops, very fruity.wav")
    files += [
        row("/s/made.wav", "m", comment="made with fruityloops"),
        row("/s/b.wav", "b", comment="by FruityLoops 4"),
    ]
    ranked = found(files, "FruityLoops")
    assert ranked[0] == "FruityLoops kick 01.wav" and set(ranked[4:]) == {"loop loop loop.wav", "fruity.wav"}
    ranked = found(files, "fruity loops")
    assert ranked[0] == "FruityLoops kick 01.wav" and set(ranked[1:3]) == {"loops, very fruity.wav", "b.wav"}
    assert set(found(files, "fruityloops")) == {"FruityLoops kick 01.wav", "made.wav", "b.wav"}
    with_others = found(files, "fruity loops nowhere")  # a word that no file has excludes none
    assert set(with_others[:3]) == set(ranked[:3]) and set(with_others) == set(ranked)


def test_a_part_of_each_bundled_name_finds_it_first() -> None:
    """Before a name come only names that have each word, or its beginning, too, though captions have the words as well.

    Queries are all runs of up to three words of each name, typed as in it, and each word without its last letter.
    """
    with (SOUNDS / "sounds.csv").open(newline="") as table:
        captions = {row["file"]: row["captions"] for row in csv.DictReader(table)}
    files = [row(f"/s/{name}", name, caption=caption) for name, caption in captions.items()]
    words = {name: split_words(name) for name in captions}
    queries = 0
    with closing(tables_of(files)) as tables:
        for name in sorted(captions)[::5]:
            spans = [match.span() for match in re.finditer(r"[^\W\d_]+|\d+", name)]
            runs = {(i, j) for i in range(len(spans)) for j in range(i, min(i + 3, len(spans)))}
            typed = {name[spans[i][0] : spans[j][1]] for i, j in runs}
            for query in sorted(typed | {word[:-1] for word in words[name] if len(word) > 3}):
                ranked = [Path(path).name for path in search_tables(tables, query, len(files), None)]
                queries += 1
                for other in ranked[: ranked.index(name)]:
                    letters = "".join(words[other])
                    assert all(word[:4] in letters for word in split_words(query)), (query, name, other)
    assert queries > 500


def bm25(documents: list[list[list[str]]], words: list[str], weights: tuple[float, ...]) -> list[float]:
    """BM25 of columns with weights, as FTS5 defines it: k1 = 1.2, b = 0.75, idf at least 1e-6."""
    mean = sum(len(column) for document in documents for column in document) / len(documents)
    scores = [0.0] * len(documents)
    for word in words:
        hits = [number for number, document in enumerate(documents) if any(word in column for column in document)]
        idf = max(1e-6, math.log((len(documents) - len(hits) + 0.5) / (len(hits) + 0.5)))
        for number in hits:
            frequency = sum(weight * Counter(c)[word] for weight, c in zip(weights, documents[number], strict=True))
            length = sum(map(len, documents[number]))
            scores[number] += idf * frequency * 2.2 / (frequency + 1.2 * (0.25 + 0.75 * length / mean))
    return scores


def test_ranking_equals_bm25() -> None:
    rng = random.Random(0)
    words = ["zab", "zeb", "zib", "zob", "zub"]  # without English endings
    files = []
    for number in range(300):
        name = "_".join(rng.choices(words, k=rng.randint(1, 4)))
        files += named(f"{number}_{name}.xq", caption=" ".join(rng.choices(words, k=rng.randint(0, 6))))
    documents = [[split_words(Path(file.path).name), split_words(file.caption or "")] for file in files]
    number_of = {file.path: number for number, file in enumerate(files)}
    for query in (["zab"], ["zib", "zub"], ["zob", "nothing", "the"]):
        scores = bm25(documents, query, (3.0, 1.0))
        ranked = [number_of[path] for path in in_memory(files, " ".join(query), 300)]
        known, letters = [word for word in query if word in words], ["".join(name) for name, _ in documents]
        # Names with the query come first, by length; then files with all words, and then those with some, by BM25.
        is_named = [
            "".join(query) in each if len(query) > 1 else query[0] in name
            for each, (name, _) in zip(letters, documents, strict=True)
        ]
        has_all = [all(word in (*name, *facts) for word in known) for name, facts in documents]
        named_first = sorted((n for n in range(300) if is_named[n]), key=lambda n: (len(letters[n]), files[n].path))
        assert ranked[: len(named_first)] == named_first
        rest = [n for n in range(300) if scores[n] and not is_named[n]]
        rest.sort(key=lambda n: (not has_all[n], -scores[n], files[n].path))
        assert [has_all[n] for n in ranked[len(named_first) :]] == [has_all[n] for n in rest]
        got = [scores[n] for n in ranked[len(named_first) :]]
        assert got == pytest.approx([scores[n] for n in rest], abs=1e-9)


def test_facts_are_found_too() -> None:
    files = named("a.wav", title="Storm", tags=("wind",))
    files.append(row("/s/b.wav", "b", keywords=("Thunder",), caption="far"))
    for query, name in (("storm", "a.wav"), ("wind", "a.wav"), ("thunder", "b.wav"), ("far", "b.wav")):
        assert found(files, query) == [name]


@pytest.mark.parametrize("query", ["", "   ", "…", '"', "'", "AND", "a OR", "NEAR(", "*", "words: x", "\0", "-", "the"])
def test_no_query_is_read_as_syntax(query: str) -> None:
    assert found(named("a.wav"), query) in ([], ["a.wav"])


def test_a_query_of_five_thousand_words() -> None:
    assert found(named(*NAMES), "rain roof " * 2500)[0] in NAMES
    assert found(named(*NAMES), " ".join(f"word{i}x" for i in range(5000)) + " rain") == []


def test_limit_and_allowed_files() -> None:
    assert len(found(named(*NAMES), "rain", limit=2)) == 2
    assert found(named(*NAMES), "rain", allowed={"/s/Train passing.wav"}) == ["Train passing.wav"]
    assert found(named(*NAMES), "rain", allowed=set()) == []


def test_the_database_follows_the_index(index: Index, embed: SpectrumEmbedder, sounds: Path, tmp_path: Path) -> None:
    def find(query: str) -> list[str]:
        return [Path(path).name for path in index.find_by_keywords(query, 10)]

    add(index, sounds, embed, describe)
    keywords = KeywordIndex(index.folder)
    assert keywords.version() == index._files.version and find("middle") == ["middle.wav"]
    (sounds / "middle.wav").rename(sounds / "CenterTone.wav")
    write_tone(sounds / "new bell.wav", 700)
    add(index, sounds, embed, describe, batch=1)
    assert find("middle") == [] and find("center") == ["CenterTone.wav"] and find("bell") == ["new bell.wav"]
    sounds.rename(tmp_path / "elsewhere")
    add(index, tmp_path / "elsewhere", embed, describe)
    assert index.find_by_keywords("center", 10) == [str(tmp_path / "elsewhere" / "CenterTone.wav")]
    index.remove([tmp_path / "elsewhere" / "new bell.wav"])
    assert find("bell") == [] and keywords.version() == index._files.version


def test_a_database_that_is_missing_damaged_or_old_is_made_again(index: Index) -> None:
    fill(index, [axis(0)[None], axis(1)[None]])
    place = index.folder / "keywords.sqlite"
    for damage in (place.unlink, lambda: place.write_bytes(b"junk" * 5000), lambda: place.write_bytes(b"")):
        damage()
        assert index.find_by_keywords("1", 10) == ["/s/1.wav"]
        with index.writing():
            pass
        assert KeywordIndex(index.folder).version() == index._files.version
    with sqlite3.connect(place) as database:
        database.execute("UPDATE version SET number = 0")
    index.add([row("/s/third.wav", f"{0:064x}")], {})
    assert index.find_by_keywords("third", 10) == ["/s/third.wav"]
    with pytest.raises(ConfigError):
        index.find_by_keywords("x", 0)


def test_rare_words_are_those_that_few_files_have(tmp_path: Path) -> None:
    files = named(*(f"rain_{number}_02.wav" for number in range(996)), caption="a quiet field")
    files += named("glockenspiel.wav", "Kalimba_fx.wav", "kalimba.wav", title="an fx")
    keywords = KeywordIndex(tmp_path)
    assert keywords.rare_words("glockenspiel", 4) == []  # there is no database
    keywords.rebuild(files, 1)
    query = "a quiet glockenspiel and 998 Kalimbas, in rain, with fx and a trumpet"
    assert keywords.rare_words(query, 4) == ["glockenspiel", "kalimbas"]
    assert keywords.rare_words(query, 0) == []


def test_rare_words_of_an_index_without_a_snapshot_read_no_vectors(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = named("glockenspiel.wav", "rain.wav")
    index.add(files, {file.hash: [Window(0.0, 1.0, axis(0))] for file in files})
    shutil.rmtree(index.folder / "snapshot")
    monkeypatch.setattr("openclap.search.snapshot_tables.read_tables", lambda *_: pytest.fail("vectors were read"))
    assert Index.open(index.folder).rare_words("glockenspiel", 0.5) == ["glockenspiel"]
