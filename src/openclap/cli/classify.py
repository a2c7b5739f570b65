"""`openclap classify`: sound files to labels."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from openclap.cli.console import SkippedFile, list_skipped, print_json, print_table, progress, shown, skipped_facts
from openclap.cli.model_options import ModelOptions
from openclap.text.prompts import SOUND, prompts

if TYPE_CHECKING:
    from openclap.embedder import Embedder, Vectors
    from openclap.search.walk import Stamp


def classify(
    files: list[Path],
    *,
    labels: str | None = None,
    labels_file: Path | None = None,
    template: str = SOUND,
    top: int = 3,
    model_options: ModelOptions = ModelOptions(),
    batch_size: int = 16,
    json: bool = False,
) -> None:
    """Classify sounds by labels without training on them (zero-shot).

    The probabilities of a sound add up to 1 over the given labels, whether or not one of them is right.

    Parameters
    ----------
    files
        Sound files, or folders of them. A file that is named twice is read once.
    labels
        Two or more labels, separated by commas as in a line of CSV: 'dog,car horn,"wind, rain"'.
    labels_file
        A text file with one label per line, instead of --labels.
    template
        The prompt template; {} stands for the label.
    top
        The number of labels to show for each sound, the most probable first.
    batch_size
        The number of sounds per forward pass.
    json
        Print one JSON array instead of a table. A skipped file has an `error` and no labels.
    """
    from openclap.errors import AudioError
    from openclap.limits import check_count

    check_count("--top", top)
    check_count("--batch-size", batch_size)
    # Options and sounds are checked before the model is loaded, which takes seconds.
    names = _labels(labels, labels_file)
    sentences = prompts(names, template)
    sounds, skipped = find_sounds(files)
    embedder = model_options.load()
    text_CD, scale = embedder.embed_text(sentences), embedder.runtime.logit_scale
    vectors = embed_files(embedder, list(sounds), skipped, batch_size, "Classifying")
    # Cosines are multiplied by the logit scale, as in training; otherwise the softmax would be nearly even.
    best_labels = {path: _best(scale * (text_CD @ vector_D), names, top) for path, vector_D in vectors}
    list_skipped(skipped)
    if not best_labels:
        raise AudioError("None of the sounds could be decoded, so there is nothing to classify.")
    if json:
        print_json(
            [
                {"path": path, "labels": [{"label": name, "probability": share} for name, share in best]}
                for path, best in best_labels.items()
            ]
            + [{"path": file["path"], "labels": [], "error": file["reason"]} for file in skipped_facts(skipped)]
        )
        return
    rows = [
        ["" if place else shown(path), name, f"{share:.3f}"]
        for path, best in best_labels.items()
        for place, (name, share) in enumerate(best)
    ]
    print_table(["file", "label", "probability"], rows, right=[2])


URL_REASON = "is a URL, expected a file or a folder. Download it first"


def find_sounds(roots: Sequence[Path]) -> tuple[dict[str, Stamp], list[SkippedFile]]:
    """List the sound files under folders, by absolute path, and the skipped paths with reasons.

    Raises AudioError when there is no sound file.
    """
    from openclap.errors import AudioError
    from openclap.paths import is_url
    from openclap.search.walk import walk

    urls = [root for root in roots if is_url(root) and not root.exists()]
    listing = walk(root for root in roots if root not in urls)
    skipped = [*((str(url), URL_REASON) for url in urls), *listing.skipped]
    skipped += [(path, "no such file or folder") for path in listing.missing]
    skipped += [(path, "there is no sound in this folder") for path in listing.empty]
    if not listing.files:
        path, reason = skipped[0]
        raise AudioError(f"{shown(path)}: {reason.rstrip('.')}. Give sound files, or folders of them.")
    return listing.files, skipped


def embed_files(
    embedder: Embedder, paths: Sequence[str], skipped: list[SkippedFile], batch_size: int, task: str
) -> Iterator[tuple[str, Vectors]]:
    """Yield each path with its embedding (D,), and show progress; files without one are added to `skipped`."""
    from openclap.errors import AudioError

    with progress(task) as advance:
        results = zip(paths, embedder.embed_each(paths, batch_size, progress=advance.add_seconds), strict=True)
        for done, (path, result) in enumerate(results, start=1):
            if isinstance(result, AudioError):
                skipped.append((path, str(result)))
            else:
                yield path, result
            advance(done, len(paths))


def _labels(labels: str | None, file: Path | None) -> list[str]:
    """Read the labels of --labels or --labels-file, without repetitions. Raises ConfigError for fewer than two."""
    from openclap.errors import ConfigError
    from openclap.sources.text_encoding import read_text

    if (labels is None) == (file is None):
        raise ConfigError("Give the labels with either --labels dog,rain or --labels-file FILE.")
    try:
        words = (
            next(csv.reader([labels], skipinitialspace=True), [])
            if labels is not None
            else read_text(Path(file or ""))[0].split("\n")
        )
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such file, expected a text file with one label per line.") from None
    except csv.Error as error:
        raise ConfigError(f"--labels cannot be read as a line of CSV ({error}). Try --labels-file.") from None
    except ValueError:
        raise ConfigError(
            f"{file}: is not valid text in its encoding, expected a text file with one label per line."
        ) from None
    names = list(dict.fromkeys(word.strip() for word in words if word.strip()))
    if not names:
        raise ConfigError(f"{file or '--labels'} holds no labels, expected two or more.")
    if len(names) == 1:
        raise ConfigError(
            f"{names[0]!r} is the only label, and its probability would always be 1. Give two or more, or compute "
            "how well a text fits a sound: openclap score FILE TEXT."
        )
    return names


def _best(logit_C: Vectors, names: Sequence[str], top: int) -> list[tuple[str, float]]:
    """The `top` labels and their probabilities (softmax over all C), the most probable first."""
    import numpy as np

    # The largest is subtracted, or exp could overflow.
    weight_C = np.exp(logit_C - logit_C.max(), dtype=np.float64)
    return [(names[place], float(weight_C[place] / weight_C.sum())) for place in np.argsort(-weight_C)[:top]]
