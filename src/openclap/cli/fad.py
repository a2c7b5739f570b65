"""`openclap fad`: the Fréchet audio distance of two folders of sounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openclap.cli.classify import find_sounds
from openclap.cli.console import (
    SkippedFile,
    counted,
    list_skipped,
    note,
    print_json,
    print_table,
    progress,
    results,
    shown,
    skipped_facts,
)
from openclap.cli.model_options import ModelOptions

if TYPE_CHECKING:
    from openclap.embedder import Embedder, Vectors
    from openclap.evals.fad import Extrapolation


def fad(
    dir_a: Path,
    dir_b: Path,
    *,
    seed: int = 0,
    model_options: ModelOptions = ModelOptions(),
    batch_size: int = 16,
    json: bool = False,
) -> None:
    """Compute the Fréchet audio distance of two folders of sounds.

    FAD is the distance between Gaussians fitted to the unit vectors of all windows of each folder (Kilgour et al. 2019,
    arXiv:1812.08466); few sounds make it too large. FAD∞ is its extrapolation to infinitely many sounds in DIR-B: a
    line fitted to random subsets over 1/n (Gui et al. 2024, arXiv:2311.01616), with R² as the quality of the fit.
    Compare only figures of the same model, precision and DIR-A.

    Parameters
    ----------
    dir_a
        The reference: a folder of real sounds.
    dir_b
        The folder to evaluate, such as generated sounds.
    seed
        The seed of the random subsets.
    batch_size
        The number of windows per forward pass.
    json
        Print one JSON object instead of a table.
    """
    from openclap.evals.fad import FEWEST, frechet_distance, frechet_distance_infinity
    from openclap.limits import check_count

    check_count("--seed", seed, least=0)
    check_count("--batch-size", batch_size)
    (sounds_a, skipped_a), (sounds_b, skipped_b) = find_sounds([dir_a]), find_sounds([dir_b])
    skipped = skipped_a + skipped_b
    embedder = model_options.load()
    a = _side(embedder, dir_a, list(sounds_a), skipped, batch_size)
    b = _side(embedder, dir_b, list(sounds_b), skipped, batch_size)
    list_skipped(skipped)
    if warning := _warning(a, b):
        note(warning)
    result = FadResult(
        frechet_distance(a.vectors_ND, b.vectors_ND),
        frechet_distance_infinity(a.vectors_ND, b.vectors_ND, seed=seed) if b.windows >= FEWEST else None,
        a,
        b,
    )
    facts = model_options.facts(embedder) | {"window_s": embedder.window_s, "seed": seed}
    if json:
        print_json(
            result.facts() | facts | ({"warning": warning} if warning else {}) | {"skipped": skipped_facts(skipped)}
        )
    else:
        result.show()
        made_by = f"windows of {embedder.window_s:.2f} s, {embedder.precision}, model {model_options.name}"
        results.print(". ".join(filter(None, (made_by, str(embedder.mono)))), style="dim", markup=False)


@dataclass(frozen=True, slots=True)
class FadSide:
    """A folder, the number of its files that were read, and the embeddings of their N windows."""

    folder: Path
    files: int
    vectors_ND: Vectors

    @property
    def windows(self) -> int:
        return len(self.vectors_ND)

    @property
    def is_small(self) -> bool:
        """Whether there are fewer windows than dimensions: too few for a covariance of full rank."""
        return self.windows < int(self.vectors_ND.shape[1])

    def facts(self) -> dict[str, Any]:
        return {"folder": str(self.folder), "files": self.files, "windows": self.windows}


@dataclass(frozen=True, slots=True)
class FadResult:
    """The two figures and their inputs; `extrapolation` is None where b has too few windows for it."""

    distance: float
    extrapolation: Extrapolation | None
    a: FadSide
    b: FadSide

    def facts(self) -> dict[str, Any]:
        figures = {
            "fad": self.distance,
            "fad_infinity": self.extrapolation.value if self.extrapolation else None,
            "r_squared": self.extrapolation.r_squared if self.extrapolation else None,
        }
        return figures | {"a": self.a.facts(), "b": self.b.facts(), "dimension": self.a.vectors_ND.shape[1]}

    def show(self) -> None:
        """Print the figures, and below them the folders."""
        value, fit = ("–", "too few windows in B")
        if self.extrapolation:
            few = ", few windows" if self.b.is_small else ""
            value, fit = f"{self.extrapolation.value:.4f}", f"R² {self.extrapolation.r_squared:.3f}{few}"
        print_table(["", "", ""], [["FAD", f"{self.distance:.4f}", ""], ["FAD∞", value, fit]], right=[1])
        sides = [
            [name, str(side.windows), str(side.files), shown(side.folder)]
            for name, side in (("A", self.a), ("B", self.b))
        ]
        print_table(["", "windows", "files", "folder"], sides, right=[1, 2])


def _warning(a: FadSide, b: FadSide) -> str | None:
    """A sentence on the folders with too few windows for reliable figures, or None."""
    small = [f"{name} has {counted(side.windows, 'window')}" for name, side in (("A", a), ("B", b)) if side.is_small]
    if not small:
        return None
    return (
        f"{' and '.join(small)}, fewer than the {a.vectors_ND.shape[1]} dimensions of an embedding: FAD between "
        "different sounds comes out too large, and FAD∞ is unreliable, whatever its R²."
    )


def _side(
    embedder: Embedder, folder: Path, paths: Sequence[str], skipped: list[SkippedFile], batch_size: int
) -> FadSide:
    """Embed a folder's windows. Raises AudioError for fewer than 2."""
    import numpy as np

    from openclap.errors import AudioError

    vectors: list[Vectors] = []
    files = 0
    with progress("Embedding") as advance:
        results_each = embedder.windows_each(paths, batch_size=batch_size, progress=advance.add_seconds)
        for done, (path, result) in enumerate(zip(paths, results_each, strict=True), start=1):
            if isinstance(result, AudioError):
                skipped.append((path, str(result)))
            else:
                # Windows and not files: a Gaussian needs many vectors, and a mean over a file would narrow their
                # spread.
                vectors += [window.vector for window in result]
                files += 1
            advance(done, len(paths))
    if len(vectors) < 2:
        list_skipped(skipped)
        raise AudioError(f"{shown(folder)}: {len(vectors)} of the 2 windows that a distance needs could be embedded.")
    return FadSide(folder, files, np.stack(vectors))
