"""What `openclap eval --json` measured, for a model's card: a table, and the hub's `model-index`.

One model on packed shards gives figures beside chance; a suite gives them for each of several models, beside published
ones. Either lies in a model's folder as `evaluation.json`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openclap.errors import CheckpointError

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

Figure = Mapping[str, Any]
HUB_TASKS = {
    "text_to_audio": "text-to-audio-retrieval",
    "audio_to_text": "audio-to-text-retrieval",
    "zero_shot": "zero-shot-audio-classification",
    "tagging": "zero-shot-audio-classification",
    "probe": "audio-classification",
    "few_shot": "audio-classification",
}
"""What the hub calls our tasks; it has no names of its own for retrieval."""
MISTAKEN = "was not written by `openclap eval --json`. Remove it, or measure again."


@dataclass(frozen=True, slots=True)
class Measured:
    """Markdown for the card's body, and rows for its head."""

    text: str
    results: tuple[EvalResult, ...]


def read(record: Mapping[str, Any], folder: Path) -> Measured:
    """What a record says of the model in `folder`. Raises CheckpointError where that is nothing."""
    try:
        return _of_suite(record, folder) if "suite" in record else _of_shards(record)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, OverflowError):
        raise CheckpointError(f"evaluation.json: {MISTAKEN}") from None


def _of_shards(record: Mapping[str, Any]) -> Measured:
    figures, data = record["figures"], record["data"]
    rows = [
        [_spoken(each["task"]), _spoken(each["metric"]), *_estimate(each), _number(each, each["chance"]["value"])]
        for each in figures
    ]
    parts = [
        f"On {data['clips']} clips with {data['captions']} captions, split {data['split']!r}.",
        table(("task", "metric", "value", "95 %", "chance"), rows),
        "\n".join(f"- {name}: {sentence}" for name, sentence in record["protocol"].items()),
    ]
    name = f"split {data['split']}"
    results = tuple(_result(each, each["task"], each["metric"], name) for each in figures if each["value"] is not None)
    return Measured(_section(parts), results)


def _of_suite(record: Mapping[str, Any], folder: Path) -> Measured:
    figures = [each for each in _of_model(record["figures"], folder) if each["shown"]]
    rows = [
        [each["task"], _spoken(each["metric"]), *_estimate(each), _published(each), f"{each['n']:,}"]
        for each in figures
    ]
    protocols = dict.fromkeys((each["task"], each["protocol"]) for each in figures)
    parts = [
        f"The suite {record['suite']} of `openclap eval`.",
        table(("task", "metric", "value", "95 %", "published", "n"), rows),
        "\n".join(f"- {task}: {protocol}." for task, protocol in protocols),
    ]
    return Measured(_section(parts), tuple(_results_of_suite(figures)))


def _results_of_suite(figures: Sequence[Figure]) -> Iterator[EvalResult]:
    for each in figures:
        if each["value"] is None:
            continue
        data_set, _, how = each["task"].partition(", ")
        task, metric = _parted(each["metric"]) if each["kind"] == "retrieval" else (each["kind"], each["metric"])
        yield _result(each, task, metric, data_set, how)


def _of_model(figures: Sequence[Figure], folder: Path) -> list[Figure]:
    """The figures of the model in `folder`: of the only one, or of the one that was named by this folder."""
    names = list(dict.fromkeys(each["model"] for each in figures))
    if not names:
        raise CheckpointError("evaluation.json: holds no figure. Remove it, or measure again.")
    ours = [name for name in names if Path(name).expanduser().resolve() == folder.resolve()] or names
    if len(ours) != 1:
        raise CheckpointError(
            f"evaluation.json: measures {', '.join(names)}, none of which is {folder}. Measure this folder by its path."
        )
    return [each for each in figures if each["model"] == ours[0]]


def _result(figure: Figure, task: str, metric: str, data_set: str, how: str = "") -> EvalResult:
    from huggingface_hub import EvalResult

    return EvalResult(
        task_type=HUB_TASKS[task],
        dataset_type=re.sub(r"[^a-z0-9]+", "-", data_set.lower()).strip("-"),
        dataset_name=data_set,
        metric_type=metric,
        metric_value=round(figure["value"], 4),
        metric_name=f"{_spoken(metric)}, {how}" if how else _spoken(metric),
    )


def _parted(metric: str) -> tuple[str, str]:
    """ "text_to_audio_R@1" to ("text_to_audio", "R@1")."""
    task = metric[: len("text_to_audio")]
    return task, metric[len(task) + 1 :]


def _estimate(figure: Figure) -> tuple[str, str]:
    """The value and its interval."""
    value, low, high = (_number(figure, figure[name]) for name in ("value", "low", "high"))
    return value, f"{low} to {high}"


def _published(figure: Figure) -> str:
    if not figure["published"]:
        return "–"
    first = figure["published"][0]
    short = f"; here {figure['short']}" if figure.get("short") else ""
    return f"{_number(figure, first['value'])} ({first['system']}{short})"


def _number(figure: Figure, number: float | None) -> str:
    return "–" if number is None else f"{number:.{1 if figure['metric'].endswith('rank') else 3}f}"


def _spoken(name: str) -> str:
    return name.replace("_", " ")


def _section(parts: Sequence[str]) -> str:
    return "\n\n".join(["## Evaluation", *parts])


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows of words as a Markdown table."""
    lines = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in (heads, *rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [lines[0], ["---"] * len(heads), *lines[1:]])
