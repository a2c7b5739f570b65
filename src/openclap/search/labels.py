"""Labels of sounds by zero-shot classification: a fact for filters, computed once for each content and stored.

A label has one description or more, and its cosine with a window is that of its best description. A window gets the
label with the largest probability, the softmax over all labels with the model's logit scale, when that is at least
LEAST: it is then more likely than all others together. A file has the labels of its windows, at most MOST: those of
most windows. A model can be wrong about any of them (docs/benchmarks.md has how often).

`labels.npz` has the labels, their embeddings, and a row for each content. It is derived, and may be deleted.

N windows, C contents, F files, L labels, P descriptions, D embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from openclap.arrays import Ints
from openclap.errors import ConfigError
from openclap.search.archive import archive_facts, read_archive, write_archive
from openclap.search.filters import LABELS_COLUMN, Where, asks_for_labels
from openclap.search.fit import FEWEST_WINDOWS, EmbedTexts
from openclap.search.index import Index
from openclap.search.label_list import DEFAULT_LABELS
from openclap.search.place import LABELS_NAME
from openclap.search.ranking import View, Windows, arrow_integers
from openclap.search.rows import having

LEAST = 0.5
"""Least probability of a label of a window."""
MOST = 3
"""Most labels of a file."""
MOST_LABELS = 1000
MOST_CHARACTERS = 200
_FORMAT = 1
_KEY = 16
"""Last hexadecimal digits of a content's hash, which are stored: of a million contents, two share them in one of 37
million indexes."""
_BLOCK = 8192
"""Windows that are compared at once: 7 MB of cosines with 212 descriptions."""
NONE = -1


@dataclass(frozen=True, slots=True)
class Label:
    """A label and the descriptions that it is found by."""

    name: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class StoredLabels:
    """Contents of `labels.npz`.

    Attributes:
        vectors_PD: embeddings of all descriptions, in the order of the labels.
        keys_C: the last digits of the hashes of the contents.
        labels_CM: the numbers of their labels, those of most windows first; NONE for no further one.
    """

    labels: tuple[Label, ...]
    vectors_PD: NDArray[np.float16]
    scale: float
    keys_C: NDArray[np.bytes_]
    labels_CM: NDArray[np.int16]


def parse_labels(text: str) -> tuple[Label, ...]:
    """Labels of a text: a line has a name, or a name, a colon, and descriptions separated by semicolons. A name alone
    is its own description. Empty lines and those that begin with # are left out.

    Raises ConfigError for no label, too many, two of a name, and a name or description that is too long.
    """
    labels: list[Label] = []
    for line in text.splitlines():
        name, _, rest = (part.strip() for part in line.partition(":"))
        if not name or name.startswith("#"):
            continue
        texts = tuple(filter(None, (each.strip() for each in rest.split(";")))) or (name,)
        if any(len(each) > MOST_CHARACTERS for each in (name, *texts)):
            raise ConfigError(f"The label {name[:40]!r} has a text of over {MOST_CHARACTERS} characters. Shorten it.")
        if "|" in name:
            raise ConfigError(f"The label {name!r} has a |, which separates values of conditions. Leave it out.")
        labels.append(Label(name, texts))
    if not labels:
        raise ConfigError("There are no labels, expected one a line: 'Rain', or 'Rain: rain falling; heavy rain'.")
    if len(labels) > MOST_LABELS:
        raise ConfigError(f"There are {len(labels)} labels, expected at most {MOST_LABELS}.")
    names = [label.name.lower() for label in labels]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(f"The label {twice!r} is there twice. Put all of its descriptions on one line.")
    return tuple(labels)


def default_labels() -> tuple[Label, ...]:
    """The labels of an index that was given none."""
    return parse_labels(DEFAULT_LABELS)


def read_labels(index: Index) -> StoredLabels | None:
    """The stored labels of an index; None when there are none, or they are damaged or of another model."""
    try:
        with read_archive(index.place, LABELS_NAME) as stored:
            facts = archive_facts(stored)
            if (facts["format"], facts["digest"]) != (_FORMAT, index.identity.digest):
                return None
            labels = tuple(Label(name, tuple(texts)) for name, texts in facts["labels"])
            found = StoredLabels(
                labels, stored["vectors_PD"], float(facts["scale"]), stored["keys_C"], stored["labels_CM"]
            )
    except Exception:  # missing, or damaged: then NumPy raises a dozen kinds of errors
        return None
    shape = (sum(len(label.texts) for label in labels), index.identity.dim)
    is_whole = found.vectors_PD.shape == shape and found.labels_CM.shape == (len(found.keys_C), MOST)
    return found if is_whole and found.labels_CM.max(initial=NONE) < len(labels) else None


def update_labels(
    index: Index, embed: EmbedTexts, scale: float, labels: Sequence[Label] | None = None
) -> StoredLabels | None:
    """Label the contents that have no labels yet, and forget those that are gone.

    Args:
        scale: the logit scale of the model.
        labels: in place of those that the index has: all contents are then labelled again.

    Returns the labels: those given, those that the index had, or `default_labels`. None for an index that has none yet
    and few windows.

    Raises DataError when the index cannot be read or written, or another process is writing to it, and as `embed`.
    """
    before = read_labels(index)
    if labels is None:
        if before is None and index.count()[1] < FEWEST_WINDOWS:
            return None
        labels = before.labels if before else default_labels()
    begun = before if before and before.labels == tuple(labels) else _begin(labels, embed, scale)
    view = index.view()
    contents = _used_contents(view)
    keys_C = _keys(view, contents)
    place_C = _places(begun.keys_C, keys_C)
    is_new_C = place_C < 0
    if begun is before and len(keys_C) == len(before.keys_C) and not is_new_C.any():
        return before
    labels_CM = np.full((len(keys_C), MOST), NONE, np.int16)
    labels_CM[~is_new_C] = begun.labels_CM[place_C[~is_new_C]]
    _label(view, begun, contents[is_new_C], labels_CM, np.flatnonzero(is_new_C))
    stored = replace(begun, keys_C=keys_C, labels_CM=labels_CM)
    write_labels(index, stored)
    return stored


def _begin(labels: Sequence[Label], embed: EmbedTexts, scale: float) -> StoredLabels:
    """Labels with their embeddings, and no contents yet."""
    vectors_PD = np.asarray(embed([text for label in labels for text in label.texts]), np.float16)
    return StoredLabels(tuple(labels), vectors_PD, scale, np.empty(0, f"S{_KEY}"), np.empty((0, MOST), np.int16))


def with_labels(index: Index, files: Any, where: Where = (), *, always: bool = False) -> Any:
    """The Arrow table of files with a column of labels, where conditions are about them (or always)."""
    if LABELS_COLUMN in files.schema.names or not (always or asks_for_labels(where)):
        return files
    stamp = labels_stamp(index)
    cached = _joined_tables.get(index)
    if cached is None or cached[0] is not files or cached[1] != stamp:
        cached = _joined_tables[index] = files, stamp, joined(files, read_labels(index))
    return cached[2]


def labels_of(index: Index, paths: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The labels of some files by path, those of most windows first; files without labels may be missing."""
    stored = index.stored_paths(paths)
    chosen = having(with_labels(index, index.facts(), always=True), "path", stored.values())
    found = dict(zip(chosen.column("path").to_pylist(), chosen.column(LABELS_COLUMN).to_pylist(), strict=True))
    return {path: tuple(found.get(old) or ()) for path, old in stored.items()}


def labels_stamp(index: Index) -> tuple[int, int] | None:
    """Changes whenever the labels do; None without labels. Of an index in object storage, changes by other processes
    are not noticed: labels are read again when its files change."""
    if index.place.own_folder is None:
        return (0, _writes[index]) if index in _writes else None
    try:
        facts = (index.place.own_folder / LABELS_NAME).stat()
    except OSError:
        return None
    return facts.st_ino, facts.st_mtime_ns


_writes: WeakKeyDictionary[Index, int] = WeakKeyDictionary()
"""How often this process wrote labels of an index."""
_joined_tables: WeakKeyDictionary[Index, tuple[Any, tuple[int, int] | None, Any]] = WeakKeyDictionary()
"""For each index the table of files, the stamp of the labels, and the table with them."""


def joined(files: Any, stored: StoredLabels | None) -> Any:
    """The Arrow table of files with the labels of their contents; of none without stored labels."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = pa.list_(pa.string())
    if stored is None:
        return files.append_column(LABELS_COLUMN, pa.nulls(len(files), kind))
    keys = pc.utf8_slice_codeunits(files.column("hash").combine_chunks(), -_KEY)
    place = pc.index_in(keys, value_set=pa.array(stored.keys_C.astype(str).tolist(), pa.string()))
    place_F = pc.fill_null(place, -1).to_numpy()
    labels_FM = np.vstack([stored.labels_CM, np.full((1, MOST), NONE, np.int16)])[place_F]  # -1 is the last row
    offsets = np.concatenate([[0], np.cumsum((labels_FM != NONE).sum(axis=1))])
    names = pa.array([label.name for label in stored.labels], pa.string())
    values = names.take(arrow_integers(labels_FM[labels_FM != NONE].astype(np.int64)))
    column = pa.ListArray.from_arrays(arrow_integers(offsets).cast(pa.int32()), values)
    return files.append_column(LABELS_COLUMN, column.cast(kind))


def _used_contents(view: View) -> Ints:
    """The numbers of the contents that belong to files, in order."""
    content_F = view.content_F[view.is_live_F]
    return np.unique(content_F[content_F >= 0]).astype(np.int64)


def _keys(view: View, contents: Ints) -> NDArray[np.bytes_]:
    """The keys of contents that belong to files."""
    import pyarrow.compute as pc

    content_F = view.content_F[view.is_live_F]
    file_C = np.zeros(view.contents, np.int64)
    file_C[content_F[content_F >= 0]] = np.flatnonzero(content_F >= 0)
    hashes = view.live_facts.column("hash").take(arrow_integers(file_C[contents]))
    return np.array(pc.utf8_slice_codeunits(hashes, -_KEY).to_pylist(), f"S{_KEY}")


def _places(known: NDArray[np.bytes_], keys: NDArray[np.bytes_]) -> Ints:
    """For each key its place among the known ones; -1 for a new one."""
    if not len(known):
        return np.full(len(keys), -1)
    order = np.argsort(known, kind="stable")
    place = np.minimum(np.searchsorted(known, keys, sorter=order), len(known) - 1)
    found = order[place]
    return np.where(known[found] == keys, found, -1)


def _label(view: View, stored: StoredLabels, contents: Ints, labels_CM: NDArray[np.int16], rows: Ints) -> None:
    """Write the labels of some contents into rows of a table."""
    row_C = np.full(view.contents, -1)
    row_C[contents] = rows
    of_windows = [_label_windows(windows, stored, row_C) for windows in (view.stored, view.newer)]
    row_N, label_N = (np.concatenate(parts) for parts in zip(*of_windows, strict=True))
    pairs, counts = np.unique(row_N * len(stored.labels) + label_N, return_counts=True)
    row_P, label_P = np.divmod(pairs, len(stored.labels))
    order = np.lexsort((label_P, -counts, row_P))
    row_P, label_P = row_P[order], label_P[order]
    rank_P = np.arange(len(row_P)) - np.searchsorted(row_P, row_P)
    is_listed = rank_P < MOST
    labels_CM[row_P[is_listed], rank_P[is_listed]] = label_P[is_listed]


def _label_windows(windows: Windows, stored: StoredLabels, row_C: Ints) -> tuple[Ints, Ints]:
    """The rows and labels of the windows that have a label, without those of contents without a row."""
    vectors_PD = stored.vectors_PD.astype(np.float32)
    vectors_PD /= np.linalg.norm(vectors_PD, axis=1, keepdims=True)
    first_L = np.cumsum([0, *(len(label.texts) for label in stored.labels)])[:-1]
    rows, labels = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for first in range(0, len(windows), _BLOCK):
        row_N = row_C[windows.content_N[first : first + _BLOCK]]
        vector_ND = windows.vectors_ND[first : first + _BLOCK][row_N >= 0].astype(np.float32)
        row_N = row_N[row_N >= 0]
        if not len(row_N):
            continue
        vector_ND /= np.maximum(np.linalg.norm(vector_ND, axis=1, keepdims=True), 1e-12)
        cosine_NL = np.maximum.reduceat(vector_ND @ vectors_PD.T, first_L, axis=1)
        best_N = cosine_NL.argmax(axis=1)
        highest_N = cosine_NL[np.arange(len(best_N)), best_N]
        # The softmax of the largest: 1 / the sum of all exponentials relative to it.
        is_likely = np.exp(stored.scale * (cosine_NL - highest_N[:, None])).sum(axis=1) <= 1 / LEAST
        rows.append(row_N[is_likely])
        labels.append(best_N[is_likely])
    return np.concatenate(rows), np.concatenate(labels)


def write_labels(index: Index, stored: StoredLabels) -> None:
    """Store labels in place of those before. Raises DataError when they cannot be written."""
    facts = {
        "format": _FORMAT,
        "digest": index.identity.digest,
        "scale": stored.scale,
        "labels": [[label.name, label.texts] for label in stored.labels],
    }
    arrays = {"vectors_PD": stored.vectors_PD, "keys_C": stored.keys_C, "labels_CM": stored.labels_CM}
    write_archive(index.place, LABELS_NAME, facts, arrays, "openclap index label")
    _writes[index] = _writes.get(index, 0) + 1
