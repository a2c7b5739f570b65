"""The ways to train that were compared, and the one that mini is trained by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from scripts.mini import heads
from scripts.mini.heads import INFONCE, Array, Map, Pairs, StudentOptions, Whitening, unit, without_categories

from openclap import presets

CATEGORIES = heads.category_phrases(Path(__file__).with_name("categories.csv"))
UNUSED = tuple(place for place, name in enumerate(CATEGORIES) if name == "ARCHIVED")
PHRASES = [phrase for phrases in CATEGORIES.values() for phrase in phrases]
SIZES = presets.MINI.audio.categories  # type: ignore[union-attr]
"""Outputs of the category heads."""
PRIOR, KERNEL, RIDGE = 1.0, 1.0, 1.0
"""Weights of the teacher's three parts."""


@dataclass(frozen=True)
class Trained:
    """Maps of features (W, F) and of MiniLM's embeddings (T, D) into one space."""

    audio: Map
    text: Map


Method = Callable[[Pairs, Array], Trained]
"""Trains on pairs; the second argument holds MiniLM's embeddings of PHRASES."""


def centred(pairs: Pairs) -> tuple[Pairs, Whitening]:
    """Pairs with centred captions, not whitened."""
    text = Whitening.fit(pairs.caption_TD, exponent=0.0)
    return replace(pairs, caption_TD=text(pairs.caption_TD)), text


def whitened(pairs: Pairs) -> tuple[Pairs, Whitening]:
    """Pairs with whitened captions."""
    text = Whitening.fit(pairs.caption_TD)
    return replace(pairs, caption_TD=text(pairs.caption_TD)), text


def names_of_outputs(pairs: Pairs, phrase_PD: Array) -> Array:
    """(K, D) embeddings of the names of the category heads' outputs, which are aligned by the pairs' captions."""
    ends = np.cumsum([len(phrases) for phrases in CATEGORIES.values()])
    category_CD = unit(np.stack([part.mean(axis=0) for part in np.split(phrase_PD, ends[:-1])]))
    return category_CD[heads.align_categories(pairs, SIZES, category_CD, UNUSED)]


def teacher(
    pairs: Pairs, phrase_PD: Array, *, ridge: float = RIDGE, kernel: float = KERNEL, prior: float = PRIOR
) -> Map:
    """The sum of ridge regression, nearest captions and names of categories; a part of weight 0 is left out."""
    parts: list[tuple[float, Map]] = []
    if ridge:
        parts.append((ridge, heads.ridge(pairs)))
    if kernel:
        parts.append((kernel, heads.kernel(pairs)))
    if prior:
        parts.append((prior, heads.category_map(pairs, names_of_outputs(pairs, phrase_PD))))
    return heads.weighted(*parts)


def closed_form(pairs: Pairs, phrase_PD: Array, *, whiten: bool = True, **weights: float) -> Trained:
    """A teacher alone."""
    pairs, text = (whitened if whiten else centred)(pairs)
    return Trained(teacher(pairs, text(phrase_PD), **weights), text)


def contrastive(pairs: Pairs, phrase_PD: Array, *, options: StudentOptions = INFONCE, whiten: bool = False) -> Trained:
    """Heads by gradient descent without a teacher."""
    pairs, text = (whitened if whiten else centred)(pairs)
    audio, text_head, _ = heads.student(pairs, options)
    return Trained(audio, text if text_head is None else lambda text_TD: text_head(text(text_TD)))


def distilled(pairs: Pairs, phrase_PD: Array, *, options: StudentOptions, **weights: float) -> Trained:
    """A head by gradient descent that also follows a teacher."""
    pairs, text = whitened(pairs)
    audio, _, _ = heads.student(pairs, options, teacher(pairs, text(phrase_PD), **weights))
    return Trained(audio, text)


def plain(method: Method) -> Method:
    """A method on aiSFX's pooled values alone, without category probabilities."""
    return lambda pairs, phrase_PD: _plain(method(without_categories(pairs), phrase_PD))


def _plain(trained: Trained) -> Trained:
    return Trained(lambda window_WF: trained.audio(window_WF[:, : heads.POOLED]), trained.text)


MINI = StudentOptions(teacher=10.0)
BASELINES: Mapping[str, Method] = {
    "InfoNCE heads": plain(contrastive),
    "ridge": plain(partial(closed_form, whiten=False, kernel=0, prior=0)),
    "kernel": plain(partial(closed_form, whiten=False, ridge=0, prior=0)),
}
METHODS: Mapping[str, Method] = {
    **BASELINES,
    "ridge, categories": partial(closed_form, whiten=False, kernel=0, prior=0),
    "kernel, categories": partial(closed_form, whiten=False, ridge=0, prior=0),
    "InfoNCE heads, categories": contrastive,
    "ridge, categories, whitened": partial(closed_form, kernel=0, prior=0),
    "kernel, categories, whitened": partial(closed_form, ridge=0, prior=0),
    "names of categories alone": partial(closed_form, ridge=0, kernel=0),
    "ridge + names": partial(closed_form, kernel=0),
    "ridge + kernel": partial(closed_form, prior=0),
    "ridge + kernel + names": closed_form,
    "soft targets": partial(contrastive, options=StudentOptions(), whiten=True),
    "mini": partial(distilled, options=MINI),
    "mini without mixtures": partial(distilled, options=replace(MINI, mixed=0.0)),
    "mini with one-hot targets": partial(distilled, options=replace(MINI, soft=0.0)),
}
