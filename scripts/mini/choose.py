"""Choose strengths without the sounds that are asked: an inner evaluation inside the one that leaves a package out.

    python -m scripts.mini.choose DIR [--only-shipped] [--json FILE]

Packages form blocks of three. For each package that is left out, every baseline and mini's teacher get those strengths
that do best when the model is trained without its block and without another one, and is asked on that other one, for
every other block in turn. (A model without two blocks serves both orders, for it has seen neither.) Best is the largest
sum of R@10 and zero-shot accuracy over all clips that are asked. With them, a model is trained on all other packages
and asked on the package that was left out. Mini's way to join its teachers is chosen with the default strengths of its
closed form, and mini is trained with those that were chosen for that package.

W windows, N clips, D dimensions.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from scripts.mini import heads
from scripts.mini.evaluate import Answers, Data, ask_package, compare, embed, join
from scripts.mini.heads import INFONCE, Array, Map, Pairs, StudentOptions, unit
from scripts.mini.recipe import (
    CHOSEN,
    KERNEL,
    MINI,
    RIDGE,
    Joint,
    Method,
    Strengths,
    Teachers,
    Trained,
    closed_form,
    contrastive,
    mini,
    names_of_outputs,
    plain,
    whitened,
)

RIDGES = (1.0, 3.0)
TEMPERATURES = (0.05, 0.1)
EXPONENTS = (0.4, 0.5)
CLASSES = (0.0, 0.5, 1.0)
PARTS = ((1.0, 1.0, 1.0), (1.0, 1.0, 0.5), (1.0, 0.5, 1.0), (1.0, 2.0, 1.0))
INFONCES = tuple(replace(INFONCE, steps=steps) for steps in (100, 300))
JOINTS = tuple(Joint(closed, copies) for closed, copies in itertools.product((1.0, 2.0, 4.0), (20, 60)))

BLOCK = 3
"""Packages that are left out together in the inner loop."""

Choice = Strengths | StudentOptions | Joint


@dataclass(frozen=True)
class Family:
    """Models that differ by a choice: all of them for the inner loop, and the way to train one by what was chosen."""

    candidates: Callable[[Pairs, Array], Iterator[tuple[Choice, Trained]]]
    train: Callable[[Mapping[str, Any]], Method]


def alone(part: tuple[float, float, float], pairs: Pairs, phrase_PD: Array) -> Iterator[tuple[Choice, Trained]]:
    """Ridge regression or the captions of similar clips alone, as in the baselines."""
    for classes in CLASSES:
        spaced, text = whitened(pairs, 0.0, classes)
        if part == RIDGE:
            for strength, mapped in zip(RIDGES, heads.ridges(spaced, RIDGES), strict=True):
                yield Strengths(0.0, ridge=strength, parts=part, classes=classes), Trained(mapped, text)
        else:
            for temperature in TEMPERATURES:
                strengths = Strengths(0.0, temperature=temperature, parts=part, classes=classes)
                yield strengths, Trained(heads.kernel(spaced, temperature), text)


def contrasted(pairs: Pairs, phrase_PD: Array) -> Iterator[tuple[Choice, Trained]]:
    for options in INFONCES:
        yield options, contrastive(pairs, phrase_PD, options=options)


def followers(pairs: Pairs, phrase_PD: Array) -> Iterator[tuple[Choice, Trained]]:
    """Mini's heads along its teachers, joined in every way."""
    teachers = Teachers.train(pairs, phrase_PD, CHOSEN)
    for joint in JOINTS:
        yield joint, teachers.follow(pairs, phrase_PD, joint, MINI)


def closed_forms(pairs: Pairs, phrase_PD: Array) -> Iterator[tuple[Choice, Trained]]:
    """Every sum of the three parts."""
    for exponent, classes in itertools.product(EXPONENTS, CLASSES):
        spaced, text = whitened(pairs, exponent, classes)
        known = remembered(text)
        ridges = [remembered(part) for part in heads.ridges(spaced, RIDGES)]
        kernels = [remembered(heads.kernel(spaced, temperature)) for temperature in TEMPERATURES]
        names = remembered(heads.category_map(spaced, names_of_outputs(spaced, text(phrase_PD))))
        for (strength, ridge), (temperature, kernel), parts in itertools.product(
            zip(RIDGES, ridges, strict=True), zip(TEMPERATURES, kernels, strict=True), PARTS
        ):
            mapped = heads.weighted(*zip(parts, (ridge, kernel, names), strict=True))
            yield Strengths(exponent, strength, temperature, parts, classes), Trained(mapped, known)


def remembered(part: Map) -> Map:
    """A map that keeps the unit vectors of each array that it was given."""
    kept: dict[int, tuple[Array, Array]] = {}

    def embed(x: Array) -> Array:
        if id(x) not in kept:
            kept[id(x)] = x, unit(part(x))
        return kept[id(x)][1]

    return embed


def without_categories(family: Callable[[Pairs, Array], Iterator[tuple[Choice, Trained]]]) -> Any:
    """Candidates on aiSFX's pooled values alone."""

    def candidates(pairs: Pairs, phrase_PD: Array) -> Iterator[tuple[Choice, Trained]]:
        for choice, trained in family(heads.without_categories(pairs), phrase_PD):
            yield choice, Trained(partial(_pooled, trained.audio), trained.text)

    return candidates


def _pooled(audio: Map, window_WF: Array) -> Array:
    return audio(window_WF[:, : heads.POOLED])


FAMILIES: Mapping[str, Family] = {
    "InfoNCE heads": Family(
        without_categories(contrasted), lambda chosen: plain(partial(contrastive, options=chosen["InfoNCE heads"]))
    ),
    "ridge": Family(
        without_categories(partial(alone, RIDGE)),
        lambda chosen: plain(partial(closed_form, strengths=chosen["ridge"])),
    ),
    "kernel": Family(
        without_categories(partial(alone, KERNEL)),
        lambda chosen: plain(partial(closed_form, strengths=chosen["kernel"])),
    ),
    "closed form": Family(closed_forms, lambda chosen: partial(closed_form, strengths=chosen["closed form"])),
    "mini": Family(
        followers, lambda chosen: partial(mini, joint=chosen["mini"], strengths=chosen.get("closed form", CHOSEN))
    ),
}


@dataclass(frozen=True)
class Scores:
    """Sums over the clips of one package that candidates were asked on: hits among ten, right labels, clips."""

    hits: float
    right: float
    clips: int

    @classmethod
    def of(cls, data: Data, package: str, asked: tuple[NDArray, Pairs], trained: Trained) -> Scores:
        fields = ask_package(data, package, asked[0], embed(data, trained, asked[1]))
        rank_N, score_NC, label_N = fields[3], fields[4], fields[-1]
        return cls(float((rank_N <= 10).sum()), float((score_NC.argmax(axis=1) == label_N).sum()), len(rank_N))


Tables = dict[str, dict[Choice, dict[tuple[int, str], Scores]]]
"""By family and choice: the scores of a package that was asked, where the block of that number was left out as well."""


def inner_scores(data: Data, blocks: list[list[str]], names: list[str], *, only_shipped: bool) -> Tables:
    """Train and ask the candidates of all families without every two blocks."""
    packages = itertools.chain(*blocks)
    asked = {package: (data.asked(package), data.pairs.take(data.asked(package))) for package in packages}
    found: Tables = {name: {} for name in names}
    for one, other in itertools.combinations(range(len(blocks)), 2):
        pairs = data.pairs.take(data.training({*blocks[one], *blocks[other]}, only_shipped=only_shipped))
        for name in names:
            for choice, trained in FAMILIES[name].candidates(pairs, data.phrase_PD):
                scores = found[name].setdefault(choice, {})
                for left_out, block in ((one, blocks[other]), (other, blocks[one])):
                    for package in block:
                        scores[left_out, package] = Scores.of(data, package, asked[package], trained)
        print(f"without {', '.join([*blocks[one], *blocks[other]])}", file=sys.stderr, flush=True)
    return found


def best(scores: Mapping[Choice, Mapping[tuple[int, str], Scores]], outer: int) -> Choice:
    """The choice with the largest sum of both figures without the block `outer`, asked on others."""

    def figure(choice: Choice) -> float:
        inner = [score for (left_out, _), score in scores[choice].items() if left_out == outer]
        return sum(score.hits + score.right for score in inner) / sum(score.clips for score in inner)

    return max(scores, key=figure)


def nested(
    data: Data, names: list[str], *, only_shipped: bool
) -> tuple[dict[str, Answers], dict[str, dict[str, Choice]]]:
    """Choose, train and ask for every package; return the answers and the choices by family and package."""
    packages = [package for package, _, _ in data.folds(only_shipped=only_shipped)]
    blocks = [packages[start : start + BLOCK] for start in range(0, len(packages), BLOCK)]
    scores = inner_scores(data, blocks, names, only_shipped=only_shipped)
    chosen = {
        name: {package: best(scores[name], number) for number, block in enumerate(blocks) for package in block}
        for name in names
    }
    answers = {}
    for name in names:
        parts: list[tuple[NDArray, ...]] = []
        for package, training, asked in data.folds(only_shipped=only_shipped):
            choices = {family: chosen[family][package] for family in names}
            trained = FAMILIES[name].train(choices)(data.pairs.take(training), data.phrase_PD)
            parts.append(ask_package(data, package, asked, embed(data, trained, data.pairs.take(asked))))
        answers[name] = join(parts)
    return answers, chosen


def differences(choice: Choice) -> str:
    """The fields of a choice that are not the default's."""
    default = asdict(type(choice)())
    return ", ".join(f"{key} {value}" for key, value in asdict(choice).items() if value != default[key]) or "default"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--families", nargs="*", default=[*FAMILIES], choices=[*FAMILIES], metavar="NAME")
    parser.add_argument("--only-shipped", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    answers, chosen = nested(Data.read(options.folder), options.families, only_shipped=options.only_shipped)
    print(compare(answers))
    for name, choices in chosen.items():
        print(f"\n{name}:")
        for choice, count in Counter(map(differences, choices.values())).most_common():
            print(f"- {count} of {len(choices)} packages: {choice}")
    if options.json:
        figures = {name: {key: m.value for key, m in answer.measures().items()} for name, answer in answers.items()}
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
