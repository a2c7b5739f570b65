"""The figures of `openclap eval --json` for a model's card: a table, and the hub's `model-index`.

The record is read from `evaluation.json` in a model's folder. It can be of any suite, and of several models.
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

FigureRecord = Mapping[str, Any]
HUB_TASKS = {
    "text_to_audio": "text-to-audio-retrieval",
    "audio_to_text": "audio-to-text-retrieval",
    "zero_shot": "zero-shot-audio-classification",
    "tagging": "zero-shot-audio-classification",
    "probe": "audio-classification",
    "few_shot": "audio-classification",
}
"""The hub's names of our directions of retrieval and kinds of task; it has none of its own for retrieval."""
NOT_AN_EVALUATION = "was not written by `openclap eval --json`. Remove it, or measure again."


@dataclass(frozen=True, slots=True)
class CardFigures:
    """Markdown for the card's body, and results for its head."""

    text: str
    results: tuple[EvalResult, ...]


def read(record: Mapping[str, Any], folder: Path) -> CardFigures:
    """The figures of the model in `folder`. Raises CheckpointError for a record without any, and for other content."""
    try:
        return _read(record, folder)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, OverflowError):
        raise CheckpointError(f"evaluation.json: {NOT_AN_EVALUATION}") from None


def _read(record: Mapping[str, Any], folder: Path) -> CardFigures:
    figures = [figure for figure in _figures_of_model(record["figures"], folder) if figure["shown"]]
    has_chance, has_published = (any(figure[name] for figure in figures) for name in ("chance", "published"))
    heading = ["task", "metric", "value", "95 %"]
    heading += ["chance"] * has_chance + ["published"] * has_published + ["n"]
    rows = [
        [figure["task"], _label(figure), *_interval(figure)]
        + ([_chance(figure)] if has_chance else [])
        + ([_published(figure)] if has_published else [])
        + [f"{figure['n']:,}"]
        for figure in figures
    ]
    protocols = dict.fromkeys((figure["task"], figure["protocol"]) for figure in figures)
    parts = [
        "## Evaluation",
        f"The suite {record['suite']} of `openclap eval`.",
        *_sentences_on_data(record),
        markdown_table([heading, *rows]),
        "\n".join(f"- {task}: {protocol}." for task, protocol in protocols),
    ]
    return CardFigures("\n\n".join(parts), tuple(_hub_results(figures)))


def _sentences_on_data(record: Mapping[str, Any]) -> Iterator[str]:
    """The counts of a collection, which has no name by which a reader could look them up."""
    if record["suite"] == "quick" and record["data"]:
        data = record["data"][0]
        yield f"On {data['clips']} clips with {data['captions']} captions, split {data['name']!r}."


def _hub_results(figures: Sequence[FigureRecord]) -> Iterator[EvalResult]:
    from huggingface_hub import EvalResult

    for figure in figures:
        if figure["value"] is None:  # undefined, and the hub takes numbers alone
            continue
        dataset = figure["dataset"]
        _, _, protocol = figure["task"].partition(", ")
        yield EvalResult(
            task_type=HUB_TASKS[figure["direction"] or figure["kind"]],
            dataset_type=re.sub(r"[^a-z0-9]+", "-", dataset.lower()).strip("-"),
            dataset_name=dataset,
            metric_type=figure["metric"],
            metric_value=round(figure["value"], 4),
            metric_name=", ".join(filter(None, (_words(figure["metric"]), protocol))),
        )


def _figures_of_model(figures: Sequence[FigureRecord], folder: Path) -> list[FigureRecord]:
    """The figures of the only model, or of the one that was named by this folder."""
    names = list(dict.fromkeys(figure["model"] for figure in figures))
    if not names:
        raise CheckpointError("evaluation.json: holds no figure. Remove it, or measure again.")
    # A record names models as they were typed, so paths are compared after resolving; a single model needs no match.
    ours = [name for name in names if Path(name).expanduser().resolve() == folder.resolve()] or names
    if len(ours) != 1:
        raise CheckpointError(
            f"evaluation.json: measures {', '.join(names)}, none of which is {folder}. Measure this folder by its path."
        )
    return [figure for figure in figures if figure["model"] == ours[0]]


def _label(figure: FigureRecord) -> str:
    """The metric, such as "text to audio R@1"."""
    return " ".join(_words(name) for name in (figure["direction"], figure["metric"]) if name)


def _interval(figure: FigureRecord) -> tuple[str, str]:
    """The value and its interval."""
    value, low, high = (_number(figure, figure[name]) for name in ("value", "low", "high"))
    return value, f"{low} to {high}"


def _chance(figure: FigureRecord) -> str:
    return _number(figure, figure["chance"]["value"]) if figure["chance"] else "–"


def _published(figure: FigureRecord) -> str:
    if not figure["published"]:
        return "–"
    first = figure["published"][0]
    incomplete = f"; here {figure['incomplete']}" if figure.get("incomplete") else ""
    return f"{_number(figure, first['value'])} ({first['system']}{incomplete})"


def _number(figure: FigureRecord, number: float | None) -> str:
    return "–" if number is None else f"{number:.{1 if figure['is_rank'] else 3}f}"


def _words(name: str) -> str:
    return name.replace("_", " ")
