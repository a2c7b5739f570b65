"""`openclap classify`: sound files to labels."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from openclap.cli.console import list_skipped, print_json, print_table, progress, shown, skipped_facts
from openclap.cli.model_options import ModelOptions
from openclap.text.prompts import SOUND, prompts

if TYPE_CHECKING:
    from openclap.embedder import Embedder, Vectors
    from openclap.search.walk import Stamp

SkippedRecord = list[tuple[str, str]]


def classify(
    files: Annotated[list[Path], Parameter(negative="")],
    *,
    labels: str | None = None,
    labels_file: Path | None = None,
    template: str = SOUND,
    top: int = 3,
    model_options: ModelOptions = ModelOptions(),
    batch_size: int = 16,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Classify sounds by labels without training on them (zero-shot).

    The probabilities of a sound add up to 1 over the given labels, whether or not one of them is right.

    Parameters
    ----------
    files
        Sound files, or folders of them; each file once, however often and in whatever spelling it is named.
    labels
        Two labels or more with commas between, as in a line of CSV: 'dog,car horn,"wind, rain"'.
    labels_file
        A text file with a label a line, in place of --labels.
    template
        The prompt template, with {} in place of the label.
    top
        How many labels of each sound to show, the most probable first.
    batch_size
        Sounds in one forward pass.
    json
        Print one JSON array instead of a table; a file that was left out has an `error` and no labels.
    """
    from openclap.errors import AudioError
    from openclap.limits import check_count

    check_count("--top", top)
    names = _labels(labels, labels_file)
    sentences = prompts(names, template)
    sounds, skipped = find_sounds(files)
    embedder = model_options.load()
    text_CD, scale = embedder.embed_text(sentences), embedder.runtime.logit_scale
    vectors = vectors_each(embedder, list(sounds), skipped, batch_size, "Classifying")
    found = {path: _best(scale * (text_CD @ vector), names, top) for path, vector in vectors}
    list_skipped(skipped)
    if not found:
        raise AudioError("None of the sounds could be decoded, so none has labels.")
    if json:
        print_json(
            [
                {"path": path, "labels": [{"label": name, "probability": chance} for name, chance in best]}
                for path, best in found.items()
            ]
            + [{"path": each["path"], "labels": [], "error": each["reason"]} for each in skipped_facts(skipped)]
        )
        return
    rows = [
        ["" if place else shown(path), name, f"{chance:.3f}"]
        for path, best in found.items()
        for place, (name, chance) in enumerate(best)
    ]
    print_table(["file", "label", "probability"], rows, right=[2])


ADDRESS = "is a URL, expected a file or a folder. Download it first"


def find_sounds(roots: Sequence[Path]) -> tuple[dict[str, Stamp], SkippedRecord]:
    """The sounds under folders and files by path, and the skipped paths with reasons. Raises AudioError for none."""
    from openclap.errors import AudioError
    from openclap.paths import is_url
    from openclap.search.walk import walk

    roots = list(roots)
    addresses = [(str(root), ADDRESS) for root in roots if is_url(root) and not root.exists()]
    found = walk(root for root in roots if (str(root), ADDRESS) not in addresses)
    left_out = [*addresses, *found.skipped, *((path, "no such file or folder") for path in found.missing)]
    left_out += [(path, "there is no sound in this folder") for path in found.empty]
    if not found.files:
        path, reason = left_out[0]
        raise AudioError(f"{shown(path)}: {reason}. Give sound files, or folders of them.")
    return found.files, left_out


def vectors_each(
    embedder: Embedder, paths: Sequence[str], skipped: SkippedRecord, batch_size: int, task: str
) -> Iterator[tuple[str, Vectors]]:
    """Each file that can be embedded with its vector (D,), with a progress bar; the others are added to `skipped`."""
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
    """The labels of --labels or --labels-file, each once. Raises ConfigError for fewer than two."""
    from openclap.errors import ConfigError
    from openclap.sources.text_encoding import read_text

    if (labels is None) == (file is None):
        raise ConfigError("Give the labels with --labels dog,rain or with --labels-file FILE: one of the two.")
    try:
        words = (
            next(csv.reader([labels], skipinitialspace=True), [])
            if labels is not None
            else read_text(Path(file or ""))[0].split("\n")
        )
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such file, expected a text file with a label a line.") from None
    except csv.Error as error:
        raise ConfigError(f"--labels cannot be read as a line of CSV ({error}). Try --labels-file.") from None
    except ValueError:
        raise ConfigError(
            f"{file}: is not text in the encoding that it begins with, expected a label a line."
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

    weight_C = np.exp(logit_C - logit_C.max(), dtype=np.float64)
    return [(names[place], float(weight_C[place] / weight_C.sum())) for place in np.argsort(-weight_C)[:top]]
