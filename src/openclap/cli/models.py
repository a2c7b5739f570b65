"""`openclap models`: list published models, the bundled model and the models on this machine."""

from __future__ import annotations

from pathlib import Path
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any

from openclap.cli.console import note, print_json, print_table, results

if TYPE_CHECKING:
    from openclap.checkpoints.local_models import LocalModel
    from openclap.checkpoints.published import PublishedModel

PRESENT, ABSENT = "●", "·"
COLUMNS = {"ESC-50": "ESC-50", "GTZAN": "GTZAN", "Clotho": "Clotho R@1"}
"""Columns of scores: their headings, and the names of the scores."""


def models(*, json: bool = False) -> None:
    """List published models, the bundled model, and the models on this machine.

    Of the published models, one is recommended for each of several uses.

    Parameters
    ----------
    json
        Print one JSON array, with the sources of scores, instead of tables.
    """
    from openclap.checkpoints.local_models import bundled_model, local_models
    from openclap.checkpoints.published import PUBLISHED, RECOMMENDATIONS

    own = [bundled_model(), *local_models()]
    if json:
        print_json([*map(_published_record, PUBLISHED.values()), *map(_local_record, own)])
        return
    sources = list(dict.fromkeys(model.source for model in PUBLISHED.values() if _is_scored(model) and model.source))
    heads = ["  published", "good for", "GB", "licence", *COLUMNS]
    print_table(heads, [_published_row(model, sources) for model in PUBLISHED.values()], right=(2,))
    results.print()
    print_table(["  of openclap", "made of", "GB", "licence"], [_local_row(model) for model in own], right=(2,))
    results.print()
    print_table(["recommended for", ""], [[use, name] for use, name in RECOMMENDATIONS.items()])
    note(f"{PRESENT}: on this machine; the others are downloaded when first used.")
    note("?: could not be verified; read the page of the model first.")
    note("ESC-50, GTZAN: zero-shot accuracy; Clotho: R@1 from text to audio; in %, as published; protocols differ.")
    note("Sources of scores:")
    for letter, source in zip(ascii_lowercase, sources, strict=False):
        note(f"  {letter}: {source}")
    note("Choose a model by its name: openclap classify --model 630k-audioset-best …")


def _is_scored(model: PublishedModel) -> bool:
    return bool(set(COLUMNS.values()) & set(model.scores))


def _published_row(model: PublishedModel, sources: list[str]) -> list[str]:
    letter = ascii_lowercase[sources.index(model.source)] if model.source in sources else ""
    scores = [f"{100 * model.scores[name]:.4g}{letter}" if name in model.scores else "–" for name in COLUMNS.values()]
    size = f"{model.megabytes / 1000:.1f}" if model.megabytes else "?"
    return [_mark(model.name, is_present=model.cached), model.good_for, size, model.licence or "?", *scores]


def _local_row(model: LocalModel) -> list[str]:
    name = model.name.replace(str(Path.home()), "~", 1)
    made_of = model.made_of + (", the default" if model.is_default else "")
    return [_mark(name, is_present=True), made_of, f"{model.megabytes / 1000:.1f}", model.licence or "–"]


def _mark(name: str, *, is_present: bool) -> str:
    return f"{PRESENT if is_present else ABSENT} {name}"


def _published_record(model: PublishedModel) -> dict[str, Any]:
    from openclap.checkpoints.published import RECOMMENDATIONS

    return {
        "name": model.name,
        "kind": "published",
        "here": model.cached,
        "repo": model.repo,
        "file": model.file,
        "revision": model.revision,
        "format": model.format,
        "audio": model.audio,
        "fusion": model.fusion,
        "domain": model.domain,
        "good_for": model.good_for,
        "recommended_for": [use for use, name in RECOMMENDATIONS.items() if name == model.name],
        "licence": model.licence,
        "megabytes": model.megabytes,
        "scores": dict(model.scores),
        "source": model.source,
    }


def _local_record(model: LocalModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "kind": model.kind,
        "here": True,
        "default": model.is_default,
        "made_of": model.made_of,
        "licence": model.licence,
        "megabytes": model.megabytes,
    }
