"""Read `evaluation.json`, a result of `openclap eval --json`, for a model's card: a table, and the hub's `model-index`.

An evaluation on packed shards gives one model's scores beside chance; a suite gives those of several models beside
published ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openclap.errors import CheckpointError
from openclap.formatting import markdown_table

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

ScoreRecord = Mapping[str, Any]
"""A score as JSON holds it."""
HUB_TASKS = {
    "text_to_audio": "text-to-audio-retrieval",
    "audio_to_text": "audio-to-text-retrieval",
    "zero_shot": "zero-shot-audio-classification",
    "tagging": "zero-shot-audio-classification",
    "probe": "audio-classification",
    "few_shot": "audio-classification",
}
"""The hub's names of our tasks; it has none of its own for retrieval."""
NOT_AN_EVALUATION = "was not written by `openclap eval --json`. Remove it, or measure again."


@dataclass(frozen=True, slots=True)
class MeasuredScores:
    """Scores as Markdown for the card's body, and as results for its head."""

    text: str
    results: tuple[EvalResult, ...]


def read(record: Mapping[str, Any], folder: Path) -> MeasuredScores:
    """Read the scores of the model in `folder`. Raises CheckpointError where `record` has none."""
    try:
        return _read_suite(record, folder) if "suite" in record else _read_shards(record)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, OverflowError):
        raise CheckpointError(f"evaluation.json: {NOT_AN_EVALUATION}") from None


def _read_shards(record: Mapping[str, Any]) -> MeasuredScores:
    scores, data = record["figures"], record["data"]
    rows = [
        [_spoken(score["task"]), _spoken(score["metric"]), *_estimate(score), _number(score, score["chance"]["value"])]
        for score in scores
    ]
    parts = [
        f"On {data['clips']} clips with {data['captions']} captions, split {data['split']!r}.",
        markdown_table([("task", "metric", "value", "95 %", "chance"), *rows]),
        "\n".join(f"- {name}: {sentence}" for name, sentence in record["protocol"].items()),
    ]
    name = f"split {data['split']}"
    results = tuple(
        _result(score, score["task"], score["metric"], name) for score in scores if score["value"] is not None
    )
    return MeasuredScores(_section(parts), results)


def _read_suite(record: Mapping[str, Any], folder: Path) -> MeasuredScores:
    scores = [score for score in _scores_of_model(record["figures"], folder) if score["shown"]]
    rows = [
        [score["task"], _spoken(score["metric"]), *_estimate(score), _published(score), f"{score['n']:,}"]
        for score in scores
    ]
    protocols = dict.fromkeys((score["task"], score["protocol"]) for score in scores)
    parts = [
        f"The suite {record['suite']} of `openclap eval`.",
        markdown_table([("task", "metric", "value", "95 %", "published", "n"), *rows]),
        "\n".join(f"- {task}: {protocol}." for task, protocol in protocols),
    ]
    return MeasuredScores(_section(parts), tuple(_suite_results(scores)))


def _suite_results(scores: Sequence[ScoreRecord]) -> Iterator[EvalResult]:
    for score in scores:
        if score["value"] is None:
            continue
        data_set, _, how = score["task"].partition(", ")
        task, metric = (
            _split_direction(score["metric"]) if score["kind"] == "retrieval" else (score["kind"], score["metric"])
        )
        yield _result(score, task, metric, data_set, how)


def _scores_of_model(scores: Sequence[ScoreRecord], folder: Path) -> list[ScoreRecord]:
    """Return the scores of the only model, or of the one that was measured under the path of `folder`."""
    names = list(dict.fromkeys(score["model"] for score in scores))
    if not names:
        raise CheckpointError("evaluation.json: holds no score. Remove it, or measure again.")
    ours = [name for name in names if Path(name).expanduser().resolve() == folder.resolve()] or names
    if len(ours) != 1:
        raise CheckpointError(
            f"evaluation.json: measures {', '.join(names)}, none of which is {folder}. Measure this folder by its path."
        )
    return [score for score in scores if score["model"] == ours[0]]


def _result(score: ScoreRecord, task: str, metric: str, data_set: str, how: str = "") -> EvalResult:
    from huggingface_hub import EvalResult

    return EvalResult(
        task_type=HUB_TASKS[task],
        dataset_type=re.sub(r"[^a-z0-9]+", "-", data_set.lower()).strip("-"),
        dataset_name=data_set,
        metric_type=metric,
        metric_value=round(score["value"], 4),
        metric_name=f"{_spoken(metric)}, {how}" if how else _spoken(metric),
    )


def _split_direction(metric: str) -> tuple[str, str]:
    """Split "text_to_audio_R@1" into ("text_to_audio", "R@1"); both directions have names of this length."""
    task = metric[: len("text_to_audio")]
    return task, metric[len(task) + 1 :]


def _estimate(score: ScoreRecord) -> tuple[str, str]:
    """Format the value and its interval."""
    value, low, high = (_number(score, score[name]) for name in ("value", "low", "high"))
    return value, f"{low} to {high}"


def _published(score: ScoreRecord) -> str:
    if not score["published"]:
        return "–"
    first = score["published"][0]
    short = f"; here {score['short']}" if score.get("short") else ""
    return f"{_number(score, first['value'])} ({first['system']}{short})"


def _number(score: ScoreRecord, number: float | None) -> str:
    return "–" if number is None else f"{number:.{1 if score['metric'].endswith('rank') else 3}f}"


def _spoken(name: str) -> str:
    return name.replace("_", " ")


def _section(parts: Sequence[str]) -> str:
    return "\n\n".join(["## Evaluation", *parts])
