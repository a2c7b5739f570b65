"""The HTML report: one page with tables, plots and sounds, for any suite and any number of models.

The page needs neither scripts nor network. Its template is `report.html` beside this file.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from openclap.arrays import Floats, Ints
from openclap.evals.bootstrap import Estimate, chance_recall
from openclap.evals.examples import (
    PLAYED_S,
    RANK_BANDS,
    ExampleQuery,
    PlayableHit,
    band_counts,
    hardest_queries,
    players,
    sampled_queries,
)
from openclap.evals.hard_text import ALL_KINDS, HardText
from openclap.evals.metrics import AUDIO_TO_TEXT, TEXT_TO_AUDIO
from openclap.evals.result_tables import (
    comparison_heading,
    comparison_table,
    difference,
    in_percent,
    published_lines,
    shown,
    span,
)
from openclap.evals.results import MetricRow, Results, TaskOutput
from openclap.evals.retrieval import Retrieval
from openclap.evals.tagging import Tagged, areas, average_precisions
from openclap.evals.zero_shot import Reliability
from openclap.pages.charts import Curve, confusion_chart, interval_bar, line_chart, most_frequent
from openclap.pages.render import markup, render, write
from openclap.pages.step_curves import LogRow, Panel, curve, is_number

PLAYERS_BYTES = 4_600_000
"""Bytes of the players of all tasks of one model, as base64: the page of one model stays below 6 MB."""
LEAST_PLAYERS_BYTES = 900_000
"""Bytes of players that each task of each model may have in any case."""
HARDEST = 3
CLASSES = 12
"""Classes at each end of a table of many."""
CURVE_POINTS = 60
MISTAKES = 8


def write_report(
    path: str | os.PathLike[str], results: Results, *, title: str, training_log: Sequence[LogRow] | None = None
) -> Path:
    """Write the page and return its path. Raises MissingExtraError without jinja2."""
    content = _content(results, title, training_log or [])
    return write(Path(path), render("openclap.evals", "report.html", "eval", **content))


def _content(results: Results, title: str, log: Sequence[LogRow]) -> dict[str, Any]:
    tasks = list(dict.fromkeys(row.task for row in results.rows))
    lead = "Training loss from {first:.2f} to {last:.2f} over {steps:,} steps."
    named = {task: [sentence for subject, sentence in results.notes if subject == task] for task in tasks}
    return {
        "title": title,
        "headline": headline(results),
        "facts": _facts(results, log),
        "ring": "baseline" if results.baseline else "the first published figure" if in_percent(results) else "",
        "has_chance": any(row.chance for row in results.rows),
        "scale": "0 to 100" if in_percent(results) else "0 to 1",
        "training": curve(log, "loss", "Training loss", lead=lead, y_label="loss"),
        "sections": [_section(results, task, named[task], len(tasks)) for task in tasks],
        "comparisons": comparison_table(results) if results.comparisons else [],
        "compared": comparison_heading(results),
        "notes": [
            *(f"{subject}: {sentence}" for subject, sentence in results.notes if subject not in named),
            *(f"{task} was left out: {reason}" for task, reason in results.skipped.items()),
        ],
        "methods": list(results.methods.items()),
        "data": results.data,
    }


def headline(results: Results) -> dict[str, str]:
    """The result as a sentence, and a second one with what to compare it with."""
    if not results.rows:
        return {"claim": "Nothing could be measured on this data.", "details": "The reasons are below."}
    if len(results.models) > 1 or not any(row.chance for row in results.rows):
        return _suite_headline(results)
    if row := results.row("text_to_audio_R@10"):
        retrieval = results.outputs[row.model, row.task].retrieval
        claim = f"{_percent(row)} of descriptions find their sound among the first 10 of {retrieval.ranks.clips:,}."  # type: ignore[union-attr]
    elif row := results.row(ALL_KINDS):
        claim = f"For {_percent(row)} of the pairs, the sound is closer to the right caption than to the wrong one."
    elif row := results.row("accuracy"):
        how = "without training on any label" if row.kind == "zero_shot" else "by a probe"
        claim = f"{_percent(row)} of sounds are classified right {how}."
    else:
        return _suite_headline(results)
    assert row.chance is not None
    verdict = {
        "yes": "The result is clearly above chance.",
        "touching": "The intervals of the result and of chance touch: it may be chance.",
        "no": "That is not above chance.",
        "–": "Whether that is above chance is undefined: all clips are one group, so there is no interval.",
    }[row.above_chance]
    before = f", the baseline {100 * row.baseline.value:.0f} %" if row.baseline else ""
    return {"claim": claim, "details": f"Chance would reach {100 * row.chance.value:.0f} %{before}. {verdict}"}


def _suite_headline(results: Results) -> dict[str, str]:
    tasks, models = len({row.task for row in results.rows}), len(results.models)
    claim = f"{tasks} task{'s' if tasks != 1 else ''} for {models} model{'s' if models != 1 else ''}"
    beside = sum(bool(row.published) for row in results.rows if row.is_shown)
    claim += f", {beside} figures beside published ones." if beside else "."
    unit = "in percent" if in_percent(results) else "of 1"
    return {"claim": claim, "details": f"Shares are {unit}, with 95 % intervals. Ranks count from 1, lower is better."}


def _facts(results: Results, log: Sequence[LogRow]) -> list[tuple[str, str]]:
    facts = []
    if len({row.data_hash for row in results.rows}) == 1:
        data = results.data[0]
        facts += [
            ("Clips", f"{data.clips:,}"),
            ("Captions", f"{data.captions:,}"),
            ("Recordings (groups)", f"{data.groups:,}"),
        ]
    seconds = results.seconds
    facts.append(("Measured in", f"{seconds:,.0f} s" if seconds >= 10 else f"{seconds:.1f} s"))
    speeds = [float(row["pairs_per_s"]) for row in log if is_number(row.get("pairs_per_s"))]
    if speeds:
        facts.append(("Trained at", f"{statistics.median(speeds):,.0f} pairs/s"))
    scales = [float(row["scale"]) for row in log if is_number(row.get("scale"))]
    if scales:
        facts.append(("Logit scale", f"{scales[0]:.1f} → {scales[-1]:.1f}"))
    return facts


# One task -------------------------------------------------------------------------------------------------------------


def _section(results: Results, task: str, notes: list[str], tasks: int) -> dict[str, Any]:
    rows = [row for row in results.rows if row.task == task and row.is_shown]
    published = published_lines(results, task)
    has_chance, has_baseline = any(row.chance for row in rows), any(row.baseline for row in rows)
    several = len(results.models) > 1
    has_queries = several or not has_chance  # beside chance there is no room for a column: groups state the number
    outputs = {model: output for (model, about), output in results.outputs.items() if about == task}
    # Sounds make the page large, so tasks and models share a budget.
    room = max(LEAST_PLAYERS_BYTES, PLAYERS_BYTES // (tasks * len(results.models)))
    return {
        "name": task[:1].upper() + task[1:],
        "caption": f"{rows[0].protocol.partition(';')[0]}.",
        "head": "Model" if several else "Figure",
        "columns": 3 + has_queries + 2 * has_chance + has_baseline + 2 * bool(published),
        "has_queries": has_queries,
        "has_chance": has_chance,
        "has_baseline": has_baseline,
        "groups": _groups(rows, several=several, percent=in_percent(results)),
        "protocols": list(dict.fromkeys(row.protocol for row in rows)),
        "data_hash": rows[0].data_hash,
        "published": published,
        "notes": notes,
        "parts": [
            _part(f", {model}" if several else "", output, results, room, sample=not several and has_chance)
            for model, output in outputs.items()
        ],
    }


def _groups(rows: Sequence[MetricRow], *, several: bool, percent: bool) -> list[dict[str, Any]]:
    """Of several models, a group per figure with the models as rows; of one, a group per direction of retrieval."""
    if several:
        return [
            {
                "name": metric.label,
                "rows": [_row(row, row.model, percent) for row in rows if row.metric == metric],
            }
            for metric in dict.fromkeys(row.metric for row in rows)
        ]
    names = {TEXT_TO_AUDIO: "Text → audio", AUDIO_TO_TEXT: "Audio → text", None: "All figures"}
    return [
        {
            "name": names[direction],
            "rows": [
                _row(row, _capital(row.metric.short_label), percent)
                for row in rows
                if row.metric.direction == direction
            ],
        }
        for direction in dict.fromkeys(row.metric.direction for row in rows)
    ]


def _capital(name: str) -> str:
    return name if name.startswith("mAP") else name[:1].upper() + name[1:]


def _row(row: MetricRow, name: str, percent: bool) -> dict[str, Any]:
    published = row.published[0] if row.published else None
    return {
        "name": name,
        "value": shown(row.estimate, row.metric, percent),
        "span": span(row.estimate, row.metric, percent),
        "bar": "" if row.metric.is_rank or np.isnan(row.estimate.value) else markup(_bar(row, percent)),
        "chance": shown(row.chance, row.metric, percent),
        "chance_span": span(row.chance, row.metric, percent),
        "baseline": shown(row.baseline, row.metric, percent),
        "baseline_span": span(row.baseline, row.metric, percent),
        "verdict": row.above_chance,
        "published": f"{published.value:.1f}" if published else "–",
        "system": published.system if published else "",
        "difference": difference(row),
        "n": f"{row.n:,}",
    }


def _bar(row: MetricRow, percent: bool) -> str:
    # One mark beside the bar: the baseline where there is one, else what a paper reports.
    ring = row.baseline.value if row.baseline else row.published[0].value / 100 if row.published else None
    chance = f", chance {shown(row.chance, row.metric, percent)}" if row.chance else ""
    value, interval = shown(row.estimate, row.metric, percent), span(row.estimate, row.metric, percent)
    return interval_bar(
        row.estimate.value,
        _bounds(row.estimate),
        alt=f"{row.metric.label} {value}, interval {interval}{chance}",
        chance=_bounds(row.chance) if row.chance else None,
        ring=ring,
    )


def _bounds(estimate: Estimate) -> tuple[float, float]:
    return estimate.low, estimate.high


def _part(suffix: str, output: TaskOutput, results: Results, room: int, *, sample: bool) -> dict[str, Any]:
    """Plots and sounds of one model. `sample`: whether retrieval shows sampled queries, not the hardest alone."""
    player = players(output.clips, room)
    retrieval = output.retrieval
    sampled = sampled_queries(retrieval, output.clips, player, seed=results.seed) if retrieval and sample else []
    hardest = hardest_queries(retrieval, output.clips, HARDEST, player) if retrieval and not sample else []
    return {
        "suffix": suffix,
        "charts": list(_charts(output)),
        "confusion": _confusion(output),
        "classes": _class_table(output.tagged, output.classes) if output.tagged else [],
        "sampled": [_shown_query(each, retrieval) for each in sampled if retrieval],
        "how_sampled": _how_sampled(retrieval, results.seed) if retrieval and sample else "",
        "hardest": [_shown_query(each, retrieval) for each in hardest if retrieval],
        "mistakes": list(_mistakes(output, player)),
        "pairs": _hard_pairs(output.hard_text) if output.hard_text else [],
    }


# Plots ----------------------------------------------------------------------------------------------------------------


def _charts(output: TaskOutput) -> Iterator[Panel]:
    if output.retrieval:
        yield _recall_panel(output.retrieval)
    if output.reliability:
        yield _reliability_panel(output.reliability)


def _recall_panel(retrieval: Retrieval) -> Panel:
    """Recall at every k in both directions, each beside its exact chance."""
    ranks, captions = retrieval.ranks, len(retrieval.captions)
    clips = ranks.clips
    last, ten = max(clips, 2), min(10, max(clips, 2))
    # Evenly spaced on the logarithmic axis; 10 is among them, because the text beside the plot states it.
    k = np.unique(np.append(np.geomspace(1, last, CURVE_POINTS).astype(np.int64), ten))
    at = k.astype(np.float64)
    right_T, right_Q = (
        np.unique(pairs, return_counts=True)[1] for pairs in (ranks.relevance.caption_P, ranks.relevance.clip_P)
    )
    curves = [
        Curve("text → audio, chance", at, chance_recall(right_T, clips, k), "line-a-chance"),
        Curve("audio → text, chance", at, chance_recall(right_Q, captions, k), "line-b-chance"),
        Curve("text → audio", at, _share_within(ranks.text_to_audio.best(), k), "line-a"),
        Curve("audio → text", at, _share_within(ranks.audio_to_text.best(), k), "line-b"),
    ]
    values = ", ".join(f"{each.name} {each.y[np.searchsorted(k, ten)]:.0%}" for each in curves)
    drawing = line_chart(
        curves,
        alt=f"Recall against k. At {ten}: {values}.",
        x_label="first k (log)",
        y_label="recall",
        log_x=True,
        shares=True,
    )
    return {
        "title": "Recall at k",
        "lead": "The share of queries with a right answer among the first k.",
        "svg": markup(drawing),
        "key": [(each.name, each.style) for each in curves[2:] + curves[:2]],
    }


def _share_within(rank_N: Ints, k: Ints) -> Floats:
    return np.asarray((rank_N[:, None] <= k).mean(0), np.float64)


def _reliability_panel(reliability: Reliability) -> Panel:
    filled = reliability.count_B > 0
    ends = np.array([0.0, 1.0])
    curves = [
        Curve("perfect calibration", ends, ends, "line-a-chance"),
        Curve("this model", reliability.confidence_B[filled], reliability.accuracy_B[filled], "line-a"),
    ]
    error = f"Calibration error {100 * reliability.error:.1f} points."
    return {
        "title": "Calibration",
        "lead": f"{error} Answers in {len(reliability.count_B)} equal bins of confidence.",
        "svg": markup(line_chart(curves, alt=error, x_label="confidence", y_label="accuracy", shares=True)),
        "key": [(each.name, each.style) for each in curves[::-1]],
    }


def _confusion(output: TaskOutput) -> dict[str, Any] | None:
    if output.classified is None:
        return None
    count_CC = output.classified.confusion()
    labels, part_CC = most_frequent(output.classes, count_CC)
    right = f"{np.trace(count_CC):,} of {count_CC.sum():,} clips are classified right"
    wrong_CC = count_CC - np.diag(np.diag(count_CC))
    worst = [int(flat) for flat in np.argsort(-wrong_CC, axis=None, kind="stable")[:MISTAKES]]
    pairs = [divmod(flat, len(output.classes)) for flat in worst if wrong_CC.flat[flat]]
    names = [label.replace("_", " ") for label in output.classes]
    is_cut = len(labels) < len(output.classes)
    return {
        "title": right,
        "note": f"The {len(labels)} most frequent of {len(output.classes)} labels." if is_cut else "",
        "many": len(labels) > 12,
        "svg": markup(confusion_chart(labels, part_CC, alt=f"Confusion of {len(labels)} labels. {right}.")),
        "mistakes": [
            f"{names[row]} classified as {names[column]}: {count_CC[row, column]} of {count_CC[row].sum()}"
            for row, column in pairs
        ],
    }


def _hard_pairs(hard: HardText) -> list[tuple[str, str, str, str, str]]:
    """(kind, right caption, wrong caption, cosine of each) of the worst pairs of every kind, one for equal captions."""
    rows = []
    for metric, position in hard.by_metric().items():
        if metric == ALL_KINDS:
            continue
        worst = position[np.argsort((hard.right_P - hard.wrong_P)[position], kind="stable")].tolist()
        first = {hard.pairs[p].right: p for p in reversed(worst)}
        for p in [p for p in worst if first[hard.pairs[p].right] == p][:HARDEST]:
            pair = hard.pairs[p]
            rows.append((pair.kind, pair.right, pair.wrong, f"{hard.right_P[p]:.3f}", f"{hard.wrong_P[p]:.3f}"))
    return rows


def _class_table(tagged: Tagged, classes: tuple[str, ...]) -> list[tuple[str, str, str, str]]:
    """(class, clips, average precision, AUC), best first, without the middle of many."""
    precision_C, area_C = average_precisions(tagged), areas(tagged)
    order = [int(c) for c in np.argsort(-precision_C, kind="stable") if not np.isnan(precision_C[c])]
    rows = [
        (classes[c], str(int(tagged.truth_NC[:, c].sum())), f"{100 * precision_C[c]:.1f}", f"{100 * area_C[c]:.1f}")
        for c in order
    ]
    return rows if len(rows) <= 2 * CLASSES else [*rows[:CLASSES], ("…", "", "", ""), *rows[-CLASSES:]]


# Sounds ---------------------------------------------------------------------------------------------------------------


def _mistakes(output: TaskOutput, player: Callable[[int], str | None]) -> Iterator[dict[str, Any]]:
    """The clips with the largest gap between the score of the answer and that of the right label."""
    if output.classified is None:
        return
    classified = output.classified
    row_N = np.arange(len(classified.label_N))
    # A class without training examples scores -inf, and the difference of two such scores would be NaN.
    score_NC = np.nan_to_num(classified.score_NC.astype(np.float64), neginf=-1e9)
    gap_N = score_NC[row_N, classified.predicted_N] - score_NC[row_N, classified.label_N]
    for item in np.argsort(-gap_N, kind="stable")[:HARDEST]:
        if classified.rank_N[item] > 1:
            position = int(output.classified_N[item])
            clip = output.clips.clips[position]
            yield {
                "clip": clip.title or clip.key,
                "label": output.classes[classified.label_N[item]],
                "predicted": output.classes[classified.predicted_N[item]],
                "ordinal": _ordinal(int(classified.rank_N[item])),
                "player": player(position),
            }


def _shown_query(query: ExampleQuery, retrieval: Retrieval) -> dict[str, Any]:
    return {
        "caption": query.caption,
        "ordinal": _ordinal(query.rank),
        "wanted": "own clip" if retrieval.ranks.relevance.is_of_owners else "best-placed right clip",
        "pool": retrieval.ranks.clips,
        "hits": [_shown_hit(hit) for hit in query.hits],
        "own": _shown_hit(query.own) if query.own else None,
    }


def _shown_hit(hit: PlayableHit) -> dict[str, Any]:
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
        # Links come from data: any other scheme, such as javascript:, would run here.
        "link": clip.link if clip.link.startswith(("https://", "http://")) else "",
    }


def _how_sampled(retrieval: Retrieval, seed: int) -> str:
    drawn = ", ".join(f"{count} {name}" for count, _, name in RANK_BANDS)
    shares = ", ".join(f"{count:,} {name}" for count, name in band_counts(retrieval))
    return (
        f"Queries drawn at random (seed {seed}) by the rank of their own clip: {drawn}; others stand in for "
        f"missing ones. The sample does not show their shares: of all {len(retrieval.captions):,} captions, {shares}. "
        "“Same words” is another clip with the same caption, which counts as wrong. Players hold the first "
        f"{PLAYED_S:.0f} seconds."
    )


def _percent(row: MetricRow) -> str:
    return f"{100 * row.estimate.value:.0f} %"


def _ordinal(number: int) -> str:
    suffix = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"
