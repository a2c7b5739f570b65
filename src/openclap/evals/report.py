"""An evaluation as one HTML page that needs nothing else: no script, no network, sounds and charts inside."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from openclap.evals.charts import interval_bar
from openclap.evals.clips import EvalClips
from openclap.evals.evaluation import METRIC_NAMES, TASK_NAMES, Evaluation, Figure, shown, span
from openclap.evals.examples import KINDS, PLAYED_S, Hit, kind_counts, queries
from openclap.evals.panels import confusion_panels, loss_panels, recall_panel
from openclap.evals.retrieval import Retrieval
from openclap.pages.curves import LogRow, is_number
from openclap.pages.render import markup, render, write


def write_report(
    path: str | os.PathLike[str],
    evaluation: Evaluation,
    *,
    title: str,
    training_log: Sequence[LogRow] | None,
    clips: EvalClips,
) -> Path:
    """Write the page and return its path.

    Args:
        training_log: rows with `step` and `loss`, and where known `scale`, `pairs_per_s`, `lr`; None leaves
        the
            loss curve out.
        clips: the split that was evaluated: its sounds are played on the page.

    The page stays below 6 MB: players are left out, and say so, once there is no room. Raises
    MissingExtraError without jinja2.
    """
    content = _content(evaluation, title, training_log, clips)
    return write(Path(path), render("openclap.evals", "report.html", "eval", **content))


def _content(evaluation: Evaluation, title: str, log: Sequence[LogRow] | None, clips: EvalClips) -> dict[str, Any]:
    found = evaluation.retrieval
    return {
        "title": title,
        "headline": headline(evaluation),
        "facts": _facts(evaluation, log or []),
        "tasks": _tasks(evaluation),
        "has_untrained": any(figure.untrained for figure in evaluation.figures),
        "notes": [
            *evaluation.notes,
            *(f"{_task(name)}: left out, {why}" for name, why in evaluation.left_out.items()),
        ],
        "charts": ([recall_panel(found)] if found else []) + loss_panels(log or []),
        "queries": [shown_query(query) for query in queries(found, clips, seed=evaluation.seed)] if found else [],
        "chosen": _how_chosen(found, evaluation.seed) if found else "",
        "pool": found.ranks.clips if found else 0,
        "matrices": confusion_panels(evaluation),
        "protocol": list(evaluation.protocol.items()),
        "data_hash": evaluation.data_hash,
        "train_hash": evaluation.train_hash,
        "split": evaluation.split,
    }


def headline(evaluation: Evaluation) -> dict[str, str]:
    """The result in a sentence, and what it stands against in another."""
    if figure := evaluation.figure("text_to_audio", "R@10") if evaluation.retrieval else None:
        pool = evaluation.retrieval.ranks.clips if evaluation.retrieval else 0
        claim = f"{_percent(figure)} of descriptions find their sound among the first 10 of {pool:,}."
    elif figure := evaluation.figure("zero_shot", "accuracy"):
        claim = f"{_percent(figure)} of sounds are named right without training on any label."
    else:
        return {"claim": "Nothing could be measured on this split.", "against": "The reasons are below."}
    verdict = {
        "yes": "The result is clearly above chance.",
        "touching": "The intervals of the result and of chance touch: it may be chance.",
        "no": "That is not above chance.",
        "–": "Whether that is above chance cannot be said: all clips are one group, so there is no interval.",
    }[figure.above_chance]
    before = f", this model before training {100 * figure.untrained.value:.0f} %" if figure.untrained else ""
    return {
        "claim": claim,
        "against": f"Chance would reach {100 * figure.chance.value:.0f} %{before}. {verdict}",
    }


def _facts(evaluation: Evaluation, log: Sequence[LogRow]) -> list[tuple[str, str]]:
    facts = [
        ("Clips", f"{evaluation.clips:,}"),
        ("Captions", f"{evaluation.captions:,}"),
        ("Recordings (groups)", f"{evaluation.groups:,}"),
        (
            "Measured in",
            f"{evaluation.seconds:,.0f} s" if evaluation.seconds >= 10 else f"{evaluation.seconds:.1f} s",
        ),
    ]
    speeds = [float(row["pairs_per_s"]) for row in log if is_number(row.get("pairs_per_s"))]
    if speeds:
        facts.append(("Trained at", f"{statistics.median(speeds):,.0f} pairs/s"))
    scales = [float(row["scale"]) for row in log if is_number(row.get("scale"))]
    if scales:
        facts.append(("Logit scale", f"{scales[0]:.1f} → {scales[-1]:.1f}"))
    return facts


def _tasks(evaluation: Evaluation) -> list[dict[str, Any]]:
    by_task: dict[str, list[dict[str, Any]]] = {}
    for figure in evaluation.figures:
        by_task.setdefault(figure.task, []).append(_row(figure))
    asked = {figure.task: figure.n for figure in evaluation.figures}
    return [
        {
            "name": TASK_NAMES[task],
            "asked": f"{asked[task]:,} {'captions' if task == 'text_to_audio' else 'clips'} asked",
            "rows": rows,
        }
        for task, rows in by_task.items()
    ]


def _row(figure: Figure) -> dict[str, Any]:
    metric, rank = METRIC_NAMES.get(figure.metric, figure.metric), figure.is_rank
    value, chance = shown(figure.estimate.value, rank), shown(figure.chance.value, rank)
    told = f"{metric} {value}, interval {span(figure.estimate, rank)}, chance {chance}"
    return {
        "metric": metric[:1].upper() + metric[1:] if not metric.startswith("mAP") else metric,
        "value": value,
        "span": span(figure.estimate, rank),
        "bar": "" if rank else markup(interval_bar(figure.estimate, figure.chance, figure.untrained, told)),
        "chance": chance,
        "chance_span": span(figure.chance, rank),
        "untrained": shown(figure.untrained.value, rank) if figure.untrained else "–",
        "untrained_span": span(figure.untrained, rank) if figure.untrained else "",
        "verdict": figure.above_chance,
    }


def shown_query(query: Any) -> dict[str, Any]:
    """What a page shows of an `examples.Query`."""
    return {
        "caption": query.caption,
        "rank": query.rank,
        "hits": [_shown_hit(hit) for hit in query.hits],
        "wanted": _shown_hit(query.wanted) if query.wanted else None,
    }


def _shown_hit(hit: Hit) -> dict[str, Any]:
    clip = hit.clip
    source = (clip.title or clip.key, f"by {clip.author}" if clip.author else "", clip.licence, clip.source)
    return {
        "rank": hit.rank,
        "score": f"{hit.score:.2f}",
        "words": clip.captions[0] if clip.captions else clip.key,
        "right": hit.right,
        "same_words": hit.same_words,
        "player": hit.player,
        "credit": " · ".join(part for part in source if part),
        "link": clip.link if clip.link.startswith(("https://", "http://")) else "",
    }


def _how_chosen(found: Retrieval, seed: int) -> str:
    drawn = ", ".join(f"{count} whose own clip was {name}" for count, _, name in KINDS)
    shares = ", ".join(f"{count:,} were {name}" for count, name in kind_counts(found))
    return (
        f"Queries drawn at random (seed {seed}) within each kind: {drawn}; where a kind has too few, others "
        f"stand in. They show each kind, not its share: of all {len(found.captions):,} captions, {shares}. "
        "“Same words” is another clip with the same caption, which counts as wrong. Players hold the first "
        f"{PLAYED_S:.0f} seconds."
    )


def _percent(figure: Figure) -> str:
    return f"{100 * figure.estimate.value:.0f} %"


def _task(name: str) -> str:
    return TASK_NAMES.get(name, name.capitalize())
