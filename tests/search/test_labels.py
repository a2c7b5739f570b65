"""Labels of sounds, by made vectors; expected labels are found by a plain softmax over every window."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest

from openclap.errors import ConfigError, DataError
from openclap.search import labels as module
from openclap.search.index import FileRow, Index
from openclap.search.labels import (
    LEAST,
    MOST,
    Label,
    default_labels,
    parse_labels,
    read_labels,
    update_labels,
    with_labels,
)
from openclap.search.place import LABELS_NAME
from openclap.search.queries import SearchQuery, count_facets, count_files, find
from openclap.types import Window
from support.search_helpers import DIM, axis, fill

SCALE = 20.0
LABELS = (Label("Rain", ("rain", "heavy rain")), Label("Wind", ("wind",)), Label("Bells", ("a bell", "a gong", "ding")))


class Texts:
    """Fixed random directions for texts; `asked` are those that were embedded."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        self.asked += texts
        made = np.stack([np.random.default_rng(sum(map(ord, text))).standard_normal(DIM) for text in texts])
        return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def sounds(count: int, windows: int, seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).standard_normal((count, windows, DIM)).astype(np.float32))


def expected(index: Index, labels: Sequence[Label], embed: Texts) -> dict[str, list[str]]:
    """The labels of each file, without blocks, keys or snapshots."""
    by_hash: dict[str, list[np.ndarray]] = {}
    for batch in index.window_batches():
        vectors = batch.column("vector").flatten().to_numpy(zero_copy_only=False).reshape(-1, DIM)
        for digest, vector in zip(batch.column("hash").to_pylist(), vectors, strict=True):
            by_hash.setdefault(digest, []).append(vector.astype(np.float64))
    found = {}
    for path, row in index.files_by_path().items():
        counts: dict[int, int] = {}
        for vector in by_hash[row.hash]:
            cosines = [
                max(float(text @ vector) for text in embed(each.texts).astype(np.float16).astype(np.float64))
                / np.linalg.norm(vector)
                for each in labels
            ]
            shares = np.exp(SCALE * np.array(cosines))
            best = int(np.argmax(shares))
            if shares[best] / shares.sum() >= LEAST:
                counts[best] = counts.get(best, 0) + 1
        ranked = sorted(counts, key=lambda label: (-counts[label], label))[:MOST]
        found[path] = [labels[label].name for label in ranked]
    return found


def stored(index: Index) -> dict[str, list[str]]:
    table = with_labels(index, index.facts(), always=True)
    return dict(zip(table["path"].to_pylist(), (each or [] for each in table["labels"].to_pylist()), strict=True))


@pytest.mark.parametrize("block", [8192, 7])
def test_labels_are_those_of_a_plain_softmax(index: Index, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(module, "_BLOCK", block)
    texts = Texts()
    fill(index, sounds(60, 5))
    update_labels(index, texts, SCALE, LABELS)
    found = stored(index)
    assert found == expected(index, LABELS, texts)
    assert {len(each) for each in found.values()} >= {1, 2}, "files with one label and with several"


def test_only_new_contents_are_labelled_and_texts_embedded_once(index: Index) -> None:
    texts = Texts()
    fill(index, sounds(40, 3))
    update_labels(index, texts, SCALE, LABELS)
    assert texts.asked == ["rain", "heavy rain", "wind", "a bell", "a gong", "ding"]
    before = (index.folder / LABELS_NAME).stat().st_mtime_ns
    assert update_labels(index, texts, SCALE) is not None
    assert (index.folder / LABELS_NAME).stat().st_mtime_ns == before, "nothing is written when nothing is new"
    fill(index, [*sounds(40, 3), *sounds(30, 2, seed=5)])
    update_labels(index, texts, SCALE)
    index.remove(sorted(index.files_by_path())[:10])
    kept = update_labels(index, texts, SCALE)
    assert len(texts.asked) == 6 and kept is not None and len(kept.keys_C) == 60
    assert stored(index) == expected(index, LABELS, texts)
    index.optimize()
    assert stored(index) == expected(index, LABELS, texts)


def test_conditions_on_labels_filter_searches_and_counts(index: Index) -> None:
    texts = Texts()
    fill(index, sounds(80, 2))
    update_labels(index, texts, SCALE, LABELS)
    found = stored(index)
    rain = {path for path, names in found.items() if "Rain" in names}
    neither = {path for path, names in found.items() if not names}
    assert 0 < len(rain) < 80
    hits = find(index, SearchQuery(axis(0), where=["label=rain"]), 100)
    assert {hit.path for hit in hits} == rain
    assert {hit.path for hit in find(index, SearchQuery(axis(0), where={"labels": ["Rain"]}), 100, exact=True)} == rain
    either = {path for path, names in found.items() if {"Rain", "Bells"} & set(names)}
    assert count_files(index, ["labels=Rain|Bells"]) == len(either)
    assert count_files(index, ["labels!=Rain"]) == 80 - len(rain)
    assert count_files(index, ["labels="]) == len(neither)
    assert dict(count_facets(index, "label"))["Rain"] == len(rain)


def test_an_index_without_labels_has_files_without_them(index: Index) -> None:
    fill(index, sounds(3, 1))
    assert update_labels(index, Texts(), SCALE) is None, "few windows are not labelled unless someone asks"
    assert count_files(index, ["labels="]) == 3 and count_facets(index, "labels") == []
    (index.folder / LABELS_NAME).write_bytes(b"PK no archive")
    assert read_labels(index) is None and count_files(index, ["labels=Rain"]) == 0
    assert update_labels(index, Texts(), SCALE, LABELS) is not None
    assert sum(count for _, count in count_facets(index, "labels")) > 0


def test_new_labels_replace_those_of_all_sounds(index: Index) -> None:
    texts = Texts()
    fill(index, sounds(50, 2))
    update_labels(index, texts, SCALE, LABELS)
    own = parse_labels("# mine\n\nRain\nSea: waves; surf\n")
    assert own == (Label("Rain", ("Rain",)), Label("Sea", ("waves", "surf")))
    update_labels(index, texts, SCALE, own)
    assert stored(index) == expected(index, own, texts)
    assert {name for names in stored(index).values() for name in names} <= {"Rain", "Sea"}


def test_another_writer_is_not_disturbed(index: Index) -> None:
    fill(index, sounds(50, 2))
    results: list[object] = []

    def other() -> None:
        try:
            update_labels(index, Texts(), SCALE, LABELS)
        except DataError as error:
            results.append(error)

    with index.writing():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(results) == 1 and read_labels(index) is None


def test_files_of_equal_content_share_labels(index: Index) -> None:
    vector = Texts()(["wind"])[0]
    rows = [FileRow(f"/sounds/{name}.wav", "a" * 64, 1, 1, 2.0, 48000, 1) for name in ("one", "two")]
    index.add(rows, {"a" * 64: [Window(0.0, 2.0, vector)]})
    update_labels(index, Texts(), SCALE, LABELS)
    assert stored(index) == {"/sounds/one.wav": ["Wind"], "/sounds/two.wav": ["Wind"]}


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "Rain\nrain: heavy rain", "Rain|Wind", "x" * 300, "\n".join(map(str, range(1001)))]
)
def test_lists_that_cannot_be_read_say_why(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_labels(text)


def test_the_default_labels_can_be_read() -> None:
    labels = default_labels()
    assert len(labels) > 70 and all(label.texts for label in labels)
    assert "Rain" in {label.name for label in labels}
