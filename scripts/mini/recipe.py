"""The ways to train that were compared, and the one that mini is trained by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scripts.mini import heads
from scripts.mini.heads import (
    INFONCE,
    Array,
    FollowerOptions,
    Map,
    Pairs,
    StudentOptions,
    Whitening,
    unit,
    without_categories,
)

from openclap import presets

CATEGORIES = heads.category_phrases(Path(__file__).with_name("categories.csv"))
UNUSED = tuple(place for place, name in enumerate(CATEGORIES) if name == "ARCHIVED")
PHRASES = [phrase for phrases in CATEGORIES.values() for phrase in phrases]
SIZES = presets.MINI.audio.categories  # type: ignore[union-attr]
"""Outputs of the category heads."""


@dataclass(frozen=True)
class Strengths:
    """What a closed form is made with; `scripts.mini.choose` measured which.

    Attributes:
        exponent: of the whitening of captions, from 0 (centred alone) to 0.5 (all variances equal).
        ridge: strength of the regression, in mean variances of the features.
        temperature: of the similarities to training clips.
        parts: weights of ridge regression, of the captions of similar clips, and of the names of categories.
        classes: weight of a clip's class beside its captions.
    """

    exponent: float = 0.4
    ridge: float = 1.0
    temperature: float = 0.05
    parts: tuple[float, float, float] = (1.0, 0.5, 1.0)
    classes: float = 0.5


CHOSEN = Strengths()
"""Those of mini."""
CLASS_COPIES = 60
"""Times that each class stands among the texts of `following`, since captions are three hundred times as many."""


@dataclass(frozen=True)
class Trained:
    """Maps of features (W, F) and of MiniLM's embeddings (T, D) into one space."""

    audio: Map
    text: Map


Method = Callable[[Pairs, Array], Trained]
"""Trains on pairs; the second argument holds MiniLM's embeddings of PHRASES."""


def whitened(pairs: Pairs, exponent: float, classes: float) -> tuple[Pairs, Whitening]:
    """Pairs with captions, and classes of that weight, whitened by the captions."""
    text = Whitening.fit(pairs.caption_TD, exponent=-exponent)
    known_N1 = np.abs(pairs.class_ND).max(axis=1, keepdims=True) > 0
    class_ND = np.where(known_N1, classes * text(pairs.class_ND), 0).astype(np.float32)
    return replace(pairs, caption_TD=text(pairs.caption_TD), class_ND=class_ND), text


def names_of_outputs(pairs: Pairs, phrase_PD: Array) -> Array:
    """(K, D) embeddings of the names of the category heads' outputs, which are aligned by the pairs' captions."""
    ends = np.cumsum([len(phrases) for phrases in CATEGORIES.values()])
    category_CD = unit(np.stack([part.mean(axis=0) for part in np.split(phrase_PD, ends[:-1])]))
    return category_CD[heads.align_categories(pairs, SIZES, category_CD, UNUSED)]


def teacher(pairs: Pairs, phrase_PD: Array, strengths: Strengths) -> Map:
    """The sum of ridge regression, nearest captions and names of categories, on captions that are whitened already."""
    ridge, kernel, names = strengths.parts
    parts: list[tuple[float, Map]] = []
    if ridge:
        parts.append((ridge, heads.ridges(pairs, [strengths.ridge])[0]))
    if kernel:
        parts.append((kernel, heads.kernel(pairs, strengths.temperature)))
    if names:
        parts.append((names, heads.category_map(pairs, names_of_outputs(pairs, phrase_PD))))
    return heads.weighted(*parts)


def closed_form(pairs: Pairs, phrase_PD: Array, *, strengths: Strengths = CHOSEN, **changes: Any) -> Trained:
    """A teacher alone."""
    strengths = replace(strengths, **changes)
    pairs, text = whitened(pairs, strengths.exponent, strengths.classes)
    return Trained(teacher(pairs, text(phrase_PD), strengths), text)


def contrastive(pairs: Pairs, phrase_PD: Array, *, options: StudentOptions = INFONCE, exponent: float = 0.0) -> Trained:
    """Heads by gradient descent without a teacher."""
    pairs, text = whitened(pairs, exponent, 0.0)
    audio, text_head, _ = heads.student(pairs, options)
    return Trained(audio, text if text_head is None else lambda text_TD: text_head(text(text_TD)))


def distilled(
    pairs: Pairs, phrase_PD: Array, *, options: StudentOptions, strengths: Strengths = CHOSEN, **changes: Any
) -> Trained:
    """A head by gradient descent that also follows a teacher."""
    strengths = replace(strengths, **changes)
    pairs, text = whitened(pairs, strengths.exponent, strengths.classes)
    audio, _, _ = heads.student(pairs, options, teacher(pairs, text(phrase_PD), strengths))
    return Trained(audio, text)


def joined(parts: Sequence[tuple[float, Trained]]) -> Trained:
    """Several models whose similarities are added, each with its weight: their embeddings side by side."""

    def embed(maps: Sequence[Map], x: Array) -> Array:
        return np.concatenate(
            [np.sqrt(weight) * unit(part(x)) for (weight, _), part in zip(parts, maps, strict=True)], 1
        )

    return Trained(
        partial(embed, [trained.audio for _, trained in parts]), partial(embed, [trained.text for _, trained in parts])
    )


def following(
    pairs: Pairs, phrase_PD: Array, *, options: FollowerOptions, strengths: Strengths = CHOSEN, closed: float = 2.0
) -> Trained:
    """Heads that follow the closed form, with weight `closed`, and three pairs of InfoNCE heads together.

    They learn the similarities on captions, names of categories and classes.
    """
    form = closed_form(pairs, phrase_PD, strengths=strengths)
    heads_of = [contrastive(pairs, phrase_PD, options=replace(INFONCE, steps=100, seed=seed)) for seed in range(3)]
    teacher = joined([(closed, form), *((1 / 3, each) for each in heads_of)])
    classes_CD = np.unique(pairs.class_ND[np.abs(pairs.class_ND).max(axis=1) > 0], axis=0)
    text_TD = np.concatenate([pairs.caption_TD, phrase_PD, *[classes_CD] * CLASS_COPIES])
    taught = teacher.audio(pairs.window_WF), teacher.text(text_TD)
    audio, text = heads.follower(pairs, form.text(text_TD), taught, options)
    return Trained(audio, lambda wanted_TD: text(form.text(wanted_TD)))


def plain(method: Method) -> Method:
    """A method on aiSFX's pooled values alone, without category probabilities."""
    return lambda pairs, phrase_PD: _plain(method(without_categories(pairs), phrase_PD))


def _plain(trained: Trained) -> Trained:
    return Trained(lambda window_WF: trained.audio(window_WF[:, : heads.POOLED]), trained.text)


MINI = StudentOptions(teacher=10.0)
RIDGE, KERNEL, NAMES = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
"""Each part of the teacher alone."""
BASELINES: Mapping[str, Method] = {
    "InfoNCE heads": plain(contrastive),
    "ridge": plain(partial(closed_form, exponent=0.0, parts=RIDGE, classes=0.0)),
    "kernel": plain(partial(closed_form, exponent=0.0, parts=KERNEL, classes=0.0)),
}
METHODS: Mapping[str, Method] = {
    **BASELINES,
    "ridge, categories": partial(closed_form, exponent=0.0, parts=RIDGE),
    "kernel, categories": partial(closed_form, exponent=0.0, parts=KERNEL),
    "InfoNCE heads, categories": contrastive,
    "ridge, categories, whitened": partial(closed_form, parts=RIDGE),
    "kernel, categories, whitened": partial(closed_form, parts=KERNEL),
    "names of categories alone": partial(closed_form, parts=NAMES),
    "ridge + names": partial(closed_form, parts=(1.0, 0.0, 1.0)),
    "ridge + kernel": partial(closed_form, parts=(1.0, 1.0, 0.0)),
    "ridge + kernel + names": closed_form,
    "soft targets": partial(contrastive, options=StudentOptions(), exponent=0.4),
    "following closed form and InfoNCE": partial(following, options=FollowerOptions()),
    "mini": partial(distilled, options=MINI),
    "mini without classes": partial(distilled, options=MINI, classes=0.0),
    "mini without mixtures": partial(distilled, options=replace(MINI, mixed=0.0)),
    "mini with one-hot targets": partial(distilled, options=replace(MINI, soft=0.0)),
}
