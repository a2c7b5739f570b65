"""`openclap models`: which models there are, and which of them are on this machine."""

from __future__ import annotations

from json import loads
from pathlib import Path
from string import ascii_lowercase
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from openclap.cli.console import note, print_json, print_table, results

if TYPE_CHECKING:
    from openclap.checkpoints.published import PublishedModel

HERE = "●"
CONFIG = "config.json"


def models(*, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """List published models, what training can start from, and the models on this machine.

    Parameters
    ----------
    json
        Print one JSON array, with the sources of scores, instead of tables.
    """
    from openclap.checkpoints.published import PUBLISHED

    own = [*_starts(), *_local()]
    if json:
        print_json([*map(_record, PUBLISHED.values()), *own])
        return
    sources = list(dict.fromkeys(one.source for one in PUBLISHED.values() if _scored(one) and one.source))
    heads = ["  published", "for", "HTSAT", "GB", "licence", "ESC-50", "GTZAN"]
    print_table(heads, [_row(one, sources) for one in PUBLISHED.values()], right=(3,))
    results.print()
    print_table(["  of openclap", "made of", "GB", "licence"], [_own_row(one) for one in own], right=(2,))
    note(f"{HERE} is on this machine; the others are fetched when first used.")
    note("ESC-50, GTZAN: zero-shot accuracy in % as published; protocols differ. By:")
    for letter, source in zip(ascii_lowercase, sources, strict=False):
        note(f"  {letter}: {source}")
    note("Use one by its name: openclap classify --model 630k-audioset-best …")


def _scored(one: PublishedModel) -> bool:
    return bool({"ESC-50", "GTZAN"} & set(one.scores))


def _row(one: PublishedModel, sources: list[str]) -> list[str]:
    letter = ascii_lowercase[sources.index(one.source)] if one.source in sources else ""
    scores = [f"{100 * one.scores[name]:.4g}{letter}" if name in one.scores else "–" for name in ("ESC-50", "GTZAN")]
    tower = one.audio.removeprefix("htsat-") + (" fused" if one.fusion else "")
    return [_marked(one.name, one.cached), one.domain, tower, f"{one.megabytes / 1000:.1f}", one.licence, *scores]


def _own_row(one: dict[str, Any]) -> list[str]:
    name = one["name"].replace(str(Path.home()), "~", 1)
    made_of = one["made_of"] + (", the default" if one.get("default") else "")
    return [_marked(name, one["here"]), made_of, f"{one['megabytes'] / 1000:.1f}", one["licence"] or "–"]


def _marked(name: str, here: bool) -> str:
    return f"{HERE if here else '·'} {name}"


def _record(one: PublishedModel) -> dict[str, Any]:
    return {
        "name": one.name,
        "kind": "published",
        "here": one.cached,
        "repo": one.repo,
        "file": one.file,
        "revision": one.revision,
        "format": one.format,
        "audio": one.audio,
        "fusion": one.fusion,
        "domain": one.domain,
        "licence": one.licence,
        "megabytes": one.megabytes,
        "scores": dict(one.scores),
        "source": one.source,
    }


def _starts() -> list[dict[str, Any]]:
    """Pretrained towers that a training run can start from."""
    from openclap import paths
    from openclap.checkpoints.starts import AISFX, MINILM

    starts = {"demo-start": (AISFX, MINILM)}
    return [
        {
            "name": name,
            "kind": "start",
            "here": (paths.home() / "starts" / name / CONFIG).is_file(),
            "made_of": " + ".join(package.name for package in packages),
            "licence": ", ".join(package.licence for package in packages),
            "megabytes": sum(package.megabytes for package in packages),
        }
        for name, packages in starts.items()
    ]


def _local() -> list[dict[str, Any]]:
    """Models that were published to this machine; the default is the one used without --model."""
    from openclap import paths

    folder = paths.home() / "models"
    default = folder / "default.txt"
    chosen = default.read_text(encoding="utf-8") if default.is_file() else None
    return [
        {
            "name": str(one),
            "kind": "local",
            "here": True,
            "default": one.name == chosen,
            "made_of": _preset(one),
            "licence": None,
            "megabytes": round(sum(file.stat().st_size for file in one.iterdir() if file.is_file()) / 1e6),
        }
        for one in sorted(folder.glob("*"))
        if (one / CONFIG).is_file()
    ]


def _preset(folder: Path) -> str:
    try:
        return str(loads((folder / CONFIG).read_text(encoding="utf-8"))["preset"]["name"])
    except (OSError, ValueError, KeyError, TypeError):
        return "damaged"
