"""Choose files by their facts, and count the values of a fact.

    where = {"duration_s": (1, 10), "tags": "rain", "category": ["AMB", "WATR"], "folder": "Field/2021"}
    where = ["duration_s<10", "tags=rain", "category=AMB|WATR", "title~tin roof"]

All conditions must hold. Facts are columns of `rows.files_schema`, a few that are derived from them, and the labels
that a model gave (`labels.with_labels` adds their column). F files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from openclap.errors import ConfigError
from openclap.search.paths import is_storable
from openclap.search.ranking import Bools

Where = Mapping[str, Any] | Sequence[str]
"""Conditions by fact: a value; a list of values, of which one must match; a tuple (low, high), with None for no bound;
{"contains": PART}; or None, for files without the fact. Or expressions: a fact, an operator (`= != < <= > >=`, or `~`
for "contains"), and values separated by `|`."""

LABELS_COLUMN = "labels"
"""The column of the labels of `labels.py`, which the stored table of files does not have."""

_EXPRESSION = re.compile(r"\s*(\w+)\s*(!=|<=|>=|=|<|>|~)\s*(.*?)\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Fact:
    """A fact that filters can use.

    Attributes:
        kind: numbers are compared as numbers, texts whatever their case, times by the part that is given ("2021-05"),
            folders by the names of consecutive folders; of a list, one value must match.
        column: computes its Arrow column from the table of files.
    """

    kind: Literal["number", "text", "time", "list", "folder"]
    column: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class _Condition:
    fact: str
    operator: str
    values: tuple[Any, ...]


def mask_of(files: Any, where: Where, present: Any = None) -> Bools:
    """Which files of an Arrow table fulfil all conditions: (F,) booleans.

    Args:
        present: the same table with the paths that the files have now; of path and folder, either may fulfil a
            condition.

    Raises ConfigError for a fact that does not exist, and for a condition that cannot be read.
    """
    mask_F = np.ones(len(files), bool)
    has_moved = present is not None and present is not files
    for condition in _conditions(where):
        is_of_place = condition.fact in ("path", "folder")
        mask_F &= _holds((files, present) if has_moved and is_of_place else (files,), condition)
    return mask_F


def facets(files: Any, fact: str, mask_F: Bools | None = None) -> list[tuple[Any, int]]:
    """The values of a fact among the files (all, or those of the mask), and the number of files with each; the most
    frequent first. Raises ConfigError for a fact that does not exist."""
    chosen = files if mask_F is None else files.filter(mask_F)
    name = _fact_name(fact)
    column = FACTS[name].column(chosen)
    if FACTS[name].kind == "list":
        column = _each_once(column)
    counts = [(pair["values"], pair["counts"]) for pair in column.value_counts().to_pylist()]
    return sorted(
        ((value, count) for value, count in counts if value is not None), key=lambda pair: (-pair[1], pair[0])
    )


def is_labels(fact: str) -> bool:
    """Whether this is a name of the labels."""
    return ALIASES.get(fact, fact) == LABELS_COLUMN


def asks_for_labels(where: Where) -> bool:
    """Whether a condition is about labels. Raises as `mask_of`."""
    return any(condition.fact == LABELS_COLUMN for condition in _conditions(where))


def _conditions(where: Where) -> Iterator[_Condition]:
    if isinstance(where, str) or not isinstance(where, Mapping | Sequence):
        raise ConfigError(
            "where must be a mapping of facts to values, or a list of expressions such as ['rate=48000']."
        )
    if isinstance(where, Mapping):
        for fact, value in where.items():
            yield from _from_mapping(_fact_name(fact), value)
        return
    for expression in where:
        match = _EXPRESSION.fullmatch(str(expression))
        if match is None:
            raise ConfigError(
                f"The condition {expression!r} cannot be read. Write a fact, one of = != < <= > >= ~, and a value: "
                "'duration_s<10' or 'tags=rain|wind'."
            )
        fact, operator, values = match.groups()
        yield _Condition(_fact_name(fact), operator, tuple(part.strip() for part in values.split("|")))


def _from_mapping(fact: str, value: Any) -> Iterator[_Condition]:
    if isinstance(value, tuple):
        if len(value) != 2:
            raise ConfigError(f"The range of {fact} is {value!r}, expected (low, high), with None for no bound.")
        for operator, bound in zip((">=", "<="), value, strict=True):
            if bound is not None:
                yield _Condition(fact, operator, (bound,))
    elif isinstance(value, Mapping):
        if set(value) != {"contains"}:
            raise ConfigError(f"The condition on {fact} is {dict(value)!r}, expected {{'contains': 'part'}}.")
        yield _Condition(fact, "~", (value["contains"],))
    elif isinstance(value, list | set | frozenset):
        yield _Condition(fact, "=", tuple(value))
    else:
        yield _Condition(fact, "=", (value,))


def _fact_name(name: str) -> str:
    fact = ALIASES.get(name, name)
    if fact not in FACTS:
        raise ConfigError(f"The fact {name!r} does not exist. Facts are {', '.join(sorted(FACTS))}.")
    return fact


def _holds(tables: Sequence[Any], condition: _Condition) -> Bools:
    """Which files fulfil one condition in one of the tables. A file without the fact fulfils only `!=` and the value
    None."""
    fact = FACTS[condition.fact]
    positive = replace(condition, operator="=") if condition.operator == "!=" else condition
    mask_F: Bools = np.any([_any_of(fact.column(files), fact, positive) for files in tables], axis=0)
    return ~mask_F if condition.operator == "!=" else mask_F


def _any_of(column: Any, fact: Fact, condition: _Condition) -> Bools:
    mask_F = np.zeros(len(column), bool)
    for value in condition.values:
        if value is None or (value == "" and condition.operator == "="):
            mask_F |= _is_missing(column, fact)
        else:
            mask_F |= _compare(column, fact, condition, value)
    return mask_F


def _is_missing(column: Any, fact: Fact) -> Bools:
    import pyarrow.compute as pc

    missing = pc.is_null(column)
    if fact.kind == "list":
        missing = pc.fill_null(pc.equal(pc.list_value_length(column), 0), True)
    return _as_mask(missing)


def _compare(column: Any, fact: Fact, condition: _Condition, value: Any) -> Bools:
    import pyarrow.compute as pc

    if fact.kind == "list":
        parent = pc.list_parent_indices(column).to_numpy()
        of_values = _compare(pc.list_flatten(column), _TEXT, condition, value)
        mask_F = np.zeros(len(column), bool)
        mask_F[parent[of_values]] = True
        return mask_F
    if fact.kind == "number" and condition.operator != "~":
        return _as_mask(_OPERATORS[condition.operator](pc, column, _number(condition.fact, value)))
    text = str(value).lower()
    if not is_storable(text):  # the index has no such text, and Arrow takes none
        return np.zeros(len(column), bool)
    lowered = pc.utf8_lower(column if fact.kind != "number" else column.cast("string"))
    if condition.operator == "~":
        return _as_mask(pc.match_substring(lowered, text))
    if fact.kind == "folder":
        return _in_folder(lowered, condition.operator, text)
    if fact.kind == "time":  # "2021" is compared with the year, "2021-05" with the month
        lowered = pc.utf8_slice_codeunits(lowered, 0, len(text))
    return _as_mask(_OPERATORS[condition.operator](pc, lowered, text))


_OPERATORS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "=": lambda pc, column, value: pc.equal(column, value),
    "<": lambda pc, column, value: pc.less(column, value),
    "<=": lambda pc, column, value: pc.less_equal(column, value),
    ">": lambda pc, column, value: pc.greater(column, value),
    ">=": lambda pc, column, value: pc.greater_equal(column, value),
}


def _in_folder(folders: Any, operator: str, folder: str) -> Bools:
    """Files in a folder or below: an absolute path, or the names of consecutive folders anywhere ("Field/2021")."""
    import pyarrow.compute as pc

    if operator != "=":
        raise ConfigError("The fact folder has no order. Write folder=NAME, folder!=NAME or folder~PART.")
    slashed = pc.binary_join_element_wise(folders, "", "/")
    wanted = folder.replace(os.sep, "/").strip("/") + "/"
    if folder.startswith("/"):
        return _as_mask(pc.starts_with(slashed, f"/{wanted}".replace("//", "/")))
    return _as_mask(pc.match_substring(slashed, f"/{wanted}"))


def _number(fact: str, value: Any) -> float | int:
    text = str(value)
    try:
        # Columns have 64 bits at most. A larger number is compared as a float, and one beyond those as infinity.
        return int(text) if text.lstrip("+-").isdigit() and abs(int(text)) < 2**63 else float(text)
    except (TypeError, ValueError):
        raise ConfigError(f"The fact {fact} is a number, and {value!r} is not. Write {fact}>10, for example.") from None


def _as_mask(booleans: Any) -> Bools:
    import pyarrow.compute as pc

    mask_F: Bools = np.asarray(pc.fill_null(booleans, False).to_numpy(zero_copy_only=False), bool)
    return mask_F


def _each_once(lists: Any) -> Any:
    """The values of lists, each once for a list."""
    import pyarrow as pa
    import pyarrow.compute as pc

    values = pa.chunked_array([pc.list_flatten(lists)]) if not hasattr(lists, "chunks") else pc.list_flatten(lists)
    parents = pc.list_parent_indices(lists)
    pairs = pa.table({"parent": parents, "value": values}).group_by(["parent", "value"]).aggregate([])
    return pairs.column("value")


def _stored(name: str) -> Callable[[Any], Any]:
    """The column as it is stored; all null in an index of an older format, which lacks some."""

    def column(files: Any) -> Any:
        if name in files.schema.names:
            return files.column(name).combine_chunks()
        import pyarrow as pa

        from openclap.search.rows import files_schema

        return pa.nulls(len(files), files_schema().field(name).type)

    return column


def _of_path(part: Callable[[str], str]) -> Callable[[Any], Any]:
    def column(files: Any) -> Any:
        import pyarrow as pa

        return pa.array(list(map(part, files.column("path").to_pylist())), pa.string())

    return column


def _modified(files: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    seconds = pc.divide(files.column("mtime_ns").combine_chunks(), 1_000_000_000)
    return pc.strftime(seconds.cast(pa.timestamp("s")), format="%Y-%m-%dT%H:%M:%SZ", locale="C")


def _all_tags(files: Any) -> Any:
    """Tags of the table that was given with the sounds, and keywords of the files' own metadata."""
    import pyarrow as pa

    of_table, own = (_stored(name)(files).to_pylist() for name in ("tags", "keywords"))
    return pa.array([[*(a or ()), *(b or ())] for a, b in zip(of_table, own, strict=True)], pa.list_(pa.string()))


def _stored_facts(kind: Literal["number", "text", "time"], names: Iterable[str]) -> dict[str, Fact]:
    return {name: Fact(kind, _stored(name)) for name in names}


def _labels(files: Any) -> Any:
    """The column that `labels.with_labels` adds; all null without it."""
    import pyarrow as pa

    if LABELS_COLUMN in files.schema.names:
        return files.column(LABELS_COLUMN).combine_chunks()
    return pa.nulls(len(files), pa.list_(pa.string()))


_TEXT = Fact("text", lambda column: column)
FACTS: dict[str, Fact] = {
    **_stored_facts("number", ("duration_s", "rate", "channels", "size")),
    **_stored_facts("text", ("path", "hash", "caption", "licence", "title", "artist", "album", "comment", "copyright")),
    **_stored_facts("text", ("category", "subcategory", "damage")),
    **_stored_facts("time", ("date",)),
    "modified": Fact("time", _modified),
    "name": Fact("text", _of_path(os.path.basename)),
    "format": Fact("text", _of_path(lambda path: os.path.splitext(path)[1][1:].lower())),  # noqa: PTH122
    "folder": Fact("folder", _of_path(os.path.dirname)),
    "tags": Fact("list", _all_tags),
    "labels": Fact("list", _labels),
}
"""Every fact that filters can use, by name."""
ALIASES = {"duration": "duration_s", "tag": "tags", "label": "labels", "license": "licence"}
