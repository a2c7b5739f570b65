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
    Head,
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

CONTRASTED = 3
"""Pairs of InfoNCE heads."""


@dataclass(frozen=True)
class Joint:
    """How the similarities of `Teachers` are joined and learned; docs/LOG.md compares weights.

    Attributes:
        closed: weight of the closed form, beside 1 of all InfoNCE heads.
        copies: times that each class stands among the texts they are learned on; captions are three hundred times as
            many.
    """

    closed: float = 2.0
    copies: int = 60


JOINT, MINI = Joint(), FollowerOptions()


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
        scaled = [weight**0.5 * unit(part(x)) for (weight, _), part in zip(parts, maps, strict=True)]
        return np.concatenate(scaled, axis=1)

    return Trained(
        partial(embed, [trained.audio for _, trained in parts]), partial(embed, [trained.text for _, trained in parts])
    )


def mini(
    pairs: Pairs,
    phrase_PD: Array,
    *,
    options: FollowerOptions = MINI,
    joint: Joint = JOINT,
    strengths: Strengths = CHOSEN,
    **changes: Any,
) -> Trained:
    """Heads that learn the similarities of a closed form and of InfoNCE heads together."""
    teachers = Teachers.train(pairs, phrase_PD, replace(strengths, **changes))
    return teachers.follow(pairs, phrase_PD, joint, options)


@dataclass(frozen=True)
class Teachers:
    """The models whose similarities mini's heads learn: a closed form, and several pairs of InfoNCE heads."""

    closed: Trained
    contrasted: Sequence[Trained]

    @classmethod
    def train(cls, pairs: Pairs, phrase_PD: Array, strengths: Strengths) -> Teachers:
        seeds = range(CONTRASTED)
        contrasted = [contrastive(pairs, phrase_PD, options=replace(INFONCE, seed=seed)) for seed in seeds]
        return cls(closed_form(pairs, phrase_PD, strengths=strengths), contrasted)

    def joined(self, joint: Joint) -> Trained:
        share = 1 / len(self.contrasted)
        return joined([(joint.closed, self.closed), *((share, each) for each in self.contrasted)])

    def follow(self, pairs: Pairs, phrase_PD: Array, joint: Joint, options: FollowerOptions) -> Trained:
        """Heads of features and of the closed form's text embeddings."""
        text_TD = np.concatenate([pairs.caption_TD, phrase_PD, *[classes_of(pairs)] * joint.copies])
        audio, text, _ = self.learned(pairs, text_TD, self.closed.text(text_TD), joint, options)
        return Trained(audio, lambda wanted_TD: text(self.closed.text(wanted_TD)))

    def learned(
        self, pairs: Pairs, text_TD: Array, input_TC: Array, joint: Joint, options: FollowerOptions
    ) -> tuple[Head, Head, float]:
        """`heads.follower` on texts with MiniLM's embeddings `text_TD`, which are `input_TC` to the text head."""
        both = self.joined(joint)
        return heads.follower(pairs, input_TC, (both.audio(pairs.window_WF), both.text(text_TD)), options)


def classes_of(pairs: Pairs) -> Array:
    """(C, D) different classes of the clips."""
    known = np.abs(pairs.class_ND).max(axis=1) > 0
    class_CD: Array = np.unique(pairs.class_ND[known], axis=0)
    return class_CD


def plain(method: Method) -> Method:
    """A method on aiSFX's pooled values alone, without category probabilities."""
    return lambda pairs, phrase_PD: _plain(method(without_categories(pairs), phrase_PD))


def _plain(trained: Trained) -> Trained:
    return Trained(lambda window_WF: trained.audio(window_WF[:, : heads.POOLED]), trained.text)


STUDENT = StudentOptions(teacher=10.0)
"""One head along the closed form, in the space of captions."""
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
    "one head along the closed form": partial(distilled, options=STUDENT),
    "mini": mini,
}
