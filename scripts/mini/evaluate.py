"""Leave one package out: train on all others, ask on that one.

    python -m scripts.mini.evaluate DIR [--methods NAME ...] [--packages NAME ...] [--fewest N] [--only-shipped]
        [--model FOLDER] [--json FILE]

DIR holds pairs.csv (`scripts.mini.build_pairs`) and gets the cache of features. Groups are sounds of one recording
session, also across packages: a group with a sound in the left-out package is not trained on. Each package is asked
once for every different caption, of one of its clips:

- retrieval: among these clips, in galleries of about 170 where there are more
- zero-shot: the label of the clip among all labels; the text of a label is the mean of three prompts. "By
  alternatives", a label such as "horn, trumpet or whistle" counts as the best of what it names

Intervals resample groups, over the clips of all packages; differences are paired (`openclap.evals.bootstrap`).
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scripts.mini.features import AudioFeatures, MiniLM, Row, as_pairs, read_rows
from scripts.mini.heads import Array, Head, Pairs, pool, unit
from scripts.mini.recipe import BASELINES, METHODS, PHRASES, Method, Trained

import openclap
from openclap.evals.bootstrap import measure_interval, paired_difference
from openclap.evals.metrics import (
    ACCURACY,
    BALANCED_ACCURACY,
    TEXT_TO_AUDIO,
    Measure,
    Metric,
    classification_measures,
    classify,
    retrieval_measures,
)
from openclap.evals.ranks import Ranks, Relevance, rank_retrieval
from openclap.formatting import markdown_table
from openclap.text.prompts import alternatives

GALLERY = 170
FEWEST = 50
"""Different captions that a package must have to be left out and asked; others are only trained on (`--fewest`)."""
PROMPTS = ("the sound of {}", "a recording of {}", "{}")
R10 = Metric("R@10", TEXT_TO_AUDIO)
SPEECH = "asterisk-core-sounds-en-wav"
"""Its captions are transcripts, which nobody could match to a voice by its sound: it is only trained on."""


@dataclass(frozen=True)
class Data:
    """All pairs, with MiniLM's embeddings of captions, of prompts with labels and with the alternatives that labels
    name, and of names of categories."""

    rows: Sequence[Row]
    pairs: Pairs
    labels: tuple[str, ...]
    label_LD: Array
    name_LD: Array
    phrase_PD: Array
    fewest: int = FEWEST

    @classmethod
    def read(cls, folder: Path, fewest: int = FEWEST) -> Data:
        """Read pairs.csv and compute what is not cached."""
        rows = read_rows(folder / "pairs.csv")
        windows = AudioFeatures(folder)([row.path for row in rows], lambda line: print(line, file=sys.stderr))
        labels = tuple(sorted({row.label for row in rows} - {""}))
        captions = [caption for row in rows for caption in row.captions]
        prompts = [prompt.format(label) for label in labels for prompt in PROMPTS]
        names = [prompt.format(name) for label in labels for name in alternatives(label) for prompt in PROMPTS]
        parts = [captions, prompts, names, PHRASES, labels]
        vectors = MiniLM(folder)([text for part in parts for text in part])
        caption_TD, label_LD, name_LD, phrase_PD, class_CD = np.split(
            vectors, np.cumsum([len(part) for part in parts[:-1]])
        )
        class_of = {"": np.zeros_like(class_CD[0])} | dict(zip(labels, class_CD, strict=True))
        pairs = as_pairs(rows, windows, caption_TD, np.stack([class_of[row.label] for row in rows]))
        return cls(rows, pairs, labels, label_LD, name_LD, phrase_PD, fewest)

    def folds(self, packages: Sequence[str] = (), *, only_shipped: bool) -> Iterator[tuple[str, NDArray, NDArray]]:
        """Yield each package with the clips to train on and those to ask."""
        for package in packages or sorted({row.package for row in self.rows}):
            asked = self.asked(package)
            rendered = any(self.rows[clip].caption_from == "rendered" for clip in asked)
            if package != SPEECH and len(asked) >= self.fewest and not rendered:
                yield package, self.training({package}, only_shipped=only_shipped), asked

    def asked(self, package: str) -> NDArray[np.int64]:
        """The first clip of each different caption of a package."""
        first = {row.captions[0]: number for number, row in reversed([*enumerate(self.rows)]) if row.package == package}
        return np.array(sorted(first.values()), np.int64)

    def training(self, without: Set[str], *, only_shipped: bool) -> NDArray[np.int64]:
        """The clips of other packages than these, and of other groups than those of their clips."""
        out = {row.group for row in self.rows if row.package in without}
        return np.array(
            [
                number
                for number, row in enumerate(self.rows)
                if row.package not in without and row.group not in out and (row.ship or not only_shipped)
            ],
            np.int64,
        )


@dataclass(frozen=True)
class Answers:
    """What one method answered for all packages: ranks of captions, and the rank of the right label."""

    package_N: NDArray
    group_N: NDArray
    gallery_N: NDArray
    rank_N: NDArray
    label_score_NC: Array
    name_score_NC: Array
    label_N: NDArray

    def measures(self, only: str | None = None) -> dict[str, Measure]:
        """R@10, zero-shot accuracy and the mean recall of classes, over all packages or one."""
        kept = self.package_N == only if only else np.ones(len(self.rank_N), bool)
        count = int(kept.sum())
        ranks = Ranks(Relevance.of_owners(np.arange(count), count), self.rank_N[kept], np.ones(count, np.int64))
        whole, named = (
            classification_measures(classify(score_NC[kept], self.label_N[kept]))
            for score_NC in (self.label_score_NC, self.name_score_NC)
        )
        return {
            "R@10": retrieval_measures(ranks)[R10],
            "zero-shot": whole[ACCURACY],
            "mean of classes": whole[BALANCED_ACCURACY],
            "zero-shot by alternatives": named[ACCURACY],
        }

    @property
    def chance(self) -> float:
        """R@10 of a random order."""
        return float(np.minimum(1, 10 / self.gallery_N).mean())


def ask(data: Data, method: Method, packages: Sequence[str], *, only_shipped: bool) -> Answers:
    """Train a method for every package, and ask it."""
    parts = []
    for package, training, asked in data.folds(packages, only_shipped=only_shipped):
        trained = method(data.pairs.take(training), data.phrase_PD)
        parts.append(ask_package(data, package, asked, embed(data, trained, data.pairs.take(asked))))
    return join(parts)


def ask_model(data: Data, folder: Path, packages: Sequence[str]) -> Answers:
    """Ask a finished model, with its own text tower, on packages of which it has seen no sound."""
    model = openclap.load(folder, device="cpu", runtime="torch")
    names = [name for label in data.labels for name in alternatives(label)]
    label_CD, name_AD = (
        mean_of_prompts(model.embed_text([prompt.format(text) for text in texts for prompt in PROMPTS]))
        for texts in (data.labels, names)
    )
    parts = []
    for package, _, asked in data.folds(packages, only_shipped=True):
        pairs = data.pairs.take(asked)
        audio_ND = embed_windows(model, pairs.window_WF, pairs.owner_W)
        text_ND = model.embed_text([data.rows[clip].captions[0] for clip in asked])
        parts.append(ask_package(data, package, asked, (audio_ND, text_ND, label_CD, name_AD)))
    return join(parts)


def embed_windows(model: openclap.Embedder, window_WF: Array, owner_W: NDArray[np.int64]) -> Array:
    """Embeddings of clips by the head of a model with mini's audio tower."""
    weights = {name: tensor.numpy() for name, tensor in model.clap.audio_head.state_dict().items()}
    return pool(Head(weights)(window_WF), owner_W)


def join(parts: Sequence[tuple[NDArray, ...]]) -> Answers:
    """The answers of several packages."""
    return Answers(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def unseen_packages(data: Data, folder: Path) -> list[str]:
    """The packages without a sound, or a group of a sound, that a model's `sounds.csv` lists."""
    with (folder / "sounds.csv").open(encoding="utf-8", newline="") as stream:
        seen = {row["group"] for row in csv.DictReader(stream)}
    learned = {row.package for row in data.rows if row.group in seen}
    return sorted({row.package for row in data.rows} - learned)


def ask_package(
    data: Data, package: str, asked: NDArray, embeddings: tuple[Array, Array, Array, Array]
) -> tuple[NDArray, ...]:
    """The fields of `Answers` for one package, from the embeddings that `embed` returns."""
    audio_ND, text_ND, label_CD, name_AD = embeddings
    rank_N, gallery_N = np.zeros(len(asked), np.int64), np.zeros(len(asked), np.int64)
    order = np.random.default_rng(0).permutation(len(asked))
    for gallery in np.array_split(order, max(1, round(len(asked) / GALLERY))):
        similarity = audio_ND[gallery] @ text_ND[gallery].T
        rank_N[gallery] = rank_retrieval(similarity, np.arange(len(gallery))).text_to_audio_P
        gallery_N[gallery] = len(gallery)
    label_N = np.array([data.labels.index(data.rows[clip].label) for clip in asked])
    names_N = np.full(len(asked), package)
    first_C = np.cumsum([0, *(len(alternatives(label)) for label in data.labels[:-1])])
    best_NC = np.maximum.reduceat(audio_ND @ name_AD.T, first_C, axis=1)
    return names_N, data.pairs.group_N[asked], gallery_N, rank_N, audio_ND @ label_CD.T, best_NC, label_N


def embed(data: Data, trained: Trained, asked: Pairs) -> tuple[Array, Array, Array, Array]:
    """Embeddings of clips, of their first captions, of labels and of their alternatives."""
    first_N = np.searchsorted(asked.owner_T, np.arange(len(asked.group_N)))
    return (
        pool(trained.audio(asked.window_WF), asked.owner_W),
        unit(trained.text(asked.caption_TD))[first_N],
        mean_of_prompts(unit(trained.text(data.label_LD))),
        mean_of_prompts(unit(trained.text(data.name_LD))),
    )


def mean_of_prompts(prompt_LD: Array) -> Array:
    """The mean directions of names, each in all of PROMPTS."""
    return unit(prompt_LD.reshape(-1, len(PROMPTS), prompt_LD.shape[1]).mean(axis=1))


def compare(answers: dict[str, Answers]) -> str:
    """A table of all methods with intervals and with means over packages, and the differences of the last one to the
    baselines."""
    rows = []
    for name, answer in answers.items():
        cells = [name]
        for measure in answer.measures().values():
            estimate = measure_interval(measure, answer.group_N)
            cells.append(f"{estimate.value:.3f} ({estimate.low:.3f}–{estimate.high:.3f})")
        packages = [answer.measures(package) for package in np.unique(answer.package_N)]
        cells += [f"{np.mean([part[key].value for part in packages]):.3f}" for key in ("R@10", "zero-shot")]
        rows.append(cells)
    heading = ["method", *next(iter(answers.values())).measures(), "R@10 of packages", "zero-shot of packages"]
    table = markdown_table([heading, *rows])
    last, best = list(answers.items())[-1]
    lines = [table, ""]
    for name in BASELINES:
        if name in answers and name != last:
            for key in best.measures():
                gap = paired_difference(best.measures()[key], answers[name].measures()[key], best.group_N).estimate
                lines.append(f"{last} − {name}, {key}: {gap.value:+.3f} ({gap.low:+.3f} to {gap.high:+.3f})")
    return "\n".join(lines)


def by_package(answers: dict[str, Answers]) -> str:
    """A row for each package."""
    some = next(iter(answers.values()))
    rows = []
    for package in np.unique(some.package_N):
        kept = some.package_N == package
        cells = [str(package), str(int(kept.sum())), f"{np.minimum(1, 10 / some.gallery_N[kept]).mean():.2f}"]
        for answer in answers.values():
            measures = answer.measures(str(package))
            cells.append(f"{measures['R@10'].value:.2f} / {measures['zero-shot'].value:.2f}")
        rows.append(cells)
    return markdown_table([["package", "captions", "chance R@10", *answers], *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--methods", nargs="*", default=[*BASELINES, "mini"], choices=[*METHODS], metavar="NAME")
    parser.add_argument("--packages", nargs="*", default=[])
    parser.add_argument("--fewest", type=int, default=FEWEST, help="different captions of a package that is asked")
    parser.add_argument(
        "--only-shipped", action="store_true", help="train on sounds that shipped weights may learn from"
    )
    parser.add_argument("--model", type=Path, help="ask this finished model as well, on packages that it has not seen")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    data = Data.read(options.folder, options.fewest)
    packages = options.packages or (unseen_packages(data, options.model) if options.model else [])
    answers = {}
    for name in options.methods:
        answers[name] = ask(data, METHODS[name], packages, only_shipped=options.only_shipped or bool(options.model))
        print(
            name, {key: round(m.value, 3) for key, m in answers[name].measures().items()}, file=sys.stderr, flush=True
        )
    if options.model:
        answers[str(options.model)] = ask_model(data, options.model, packages)
    some = next(iter(answers.values()))
    print(
        f"{len(some.rank_N)} captions of {len(set(some.package_N))} packages; chance R@10 {some.chance:.3f}, "
        f"zero-shot {1 / len(data.labels):.3f} of {len(data.labels)} classes\n"
    )
    print(compare(answers), by_package(answers), sep="\n\n")
    if options.json:
        figures = {name: {key: m.value for key, m in answer.measures().items()} for name, answer in answers.items()}
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
