"""Ways to map aiSFX's features to the space of captions with few pairs, in closed form or by gradient descent.

N clips, W windows (a clip has one or more), F features of a window (512 pooled values and the category probabilities),
T captions, D dimensions of a text embedding, C categories.

All methods are trained on windows and return a function from features (W, F) to embeddings (W, D); the embedding of a
clip is the normalised mean of the unit vectors of its windows, as `openclap.Embedder` computes it.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from openclap.models.clap import mlp_relu

Array = NDArray[np.float32]
Map = Callable[[Array], Array]
POOLED = 512
"""Features that aiSFX's network pools; category probabilities follow."""


@dataclass(frozen=True)
class Pairs:
    """Clips with their windows and captions.

    Attributes:
        window_WF: features of all windows; `owner_W` is the clip of each, in ascending order.
        caption_TD: MiniLM's unit embeddings of all captions; `owner_T` is the clip of each.
        group_N: equal for sounds of one recording session, also across packages.
        class_ND: MiniLM's embeddings of the clips' classes, zeros for clips without one.
    """

    window_WF: Array
    owner_W: NDArray[np.int64]
    caption_TD: Array
    owner_T: NDArray[np.int64]
    group_N: NDArray[np.str_]
    class_ND: Array

    def take(self, chosen: NDArray[np.int64]) -> Pairs:
        """The pairs of some clips, numbered anew."""
        number_N = np.full(len(self.group_N), -1)
        number_N[chosen] = np.arange(len(chosen))
        windows, captions = number_N[self.owner_W] >= 0, number_N[self.owner_T] >= 0
        order_W = np.argsort(number_N[self.owner_W[windows]], kind="stable")
        order_T = np.argsort(number_N[self.owner_T[captions]], kind="stable")
        return Pairs(
            self.window_WF[windows][order_W],
            number_N[self.owner_W[windows]][order_W],
            self.caption_TD[captions][order_T],
            number_N[self.owner_T[captions]][order_T],
            self.group_N[chosen],
            self.class_ND[chosen],
        )

    @property
    def weight_N(self) -> Array:
        """Weights of clips: a group of n takes counts √n times as much as one sound."""
        _, group_N, takes_G = np.unique(self.group_N, return_inverse=True, return_counts=True)
        return (1 / np.sqrt(takes_G[group_N])).astype(np.float32)

    @property
    def weight_W(self) -> Array:
        """Weights of windows: those of a clip share its weight."""
        share_W: Array = (self.weight_N / np.bincount(self.owner_W))[self.owner_W]
        return share_W / share_W.sum()

    @property
    def target_ND(self) -> Array:
        """The mean direction of each clip's captions, and its class."""
        sum_ND = np.zeros((len(self.group_N), self.caption_TD.shape[1]), np.float32)
        np.add.at(sum_ND, self.owner_T, self.caption_TD)
        return unit(unit(sum_ND) + self.class_ND)


def unit(x: Array) -> Array:
    """Rows of length 1; rows of zeros stay."""
    scaled: Array = (x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-9)).astype(np.float32)
    return scaled


def pool(vector_WD: Array, owner_W: NDArray[np.int64]) -> Array:
    """Embeddings of clips from those of their windows."""
    sum_ND = np.zeros((owner_W.max() + 1, vector_WD.shape[1]), np.float32)
    np.add.at(sum_ND, owner_W, unit(vector_WD))
    return unit(sum_ND)


@dataclass(frozen=True)
class Whitening:
    """Centre and whiten text embeddings: differences along which captions rarely vary count more.

    The exponent is half of what whitens fully at -0.5, and `floor` bounds the amplification of directions that hold
    little but noise.
    """

    mean_D: Array
    matrix_DD: Array

    @classmethod
    def fit(cls, caption_TD: Array, exponent: float = -0.4, floor: float = 0.02) -> Whitening:
        mean_D = caption_TD.mean(axis=0)
        variance_D, axes_DD = np.linalg.eigh(np.cov((caption_TD - mean_D).T))
        gain_D = (np.maximum(variance_D, 0) / variance_D.max() + floor) ** exponent
        return cls(mean_D, ((axes_DD * gain_D) @ axes_DD.T).astype(np.float32))

    def __call__(self, text_TD: Array) -> Array:
        return unit((text_TD - self.mean_D) @ self.matrix_DD)


@dataclass(frozen=True)
class Scaling:
    """Standardise pooled values one by one, and category probabilities by one common factor: rare categories must not
    weigh more than frequent ones."""

    mean_F: Array
    scale_F: Array

    @classmethod
    def fit(cls, pairs: Pairs) -> Scaling:
        weight_W1 = pairs.weight_W[:, None]
        mean_F = (pairs.window_WF * weight_W1).sum(axis=0)
        scale_F = np.sqrt(((pairs.window_WF - mean_F) ** 2 * weight_W1).sum(axis=0)) + 1e-3
        scale_F[POOLED:] = np.sqrt((scale_F[POOLED:] ** 2).mean()) if len(scale_F) > POOLED else 1
        return cls(mean_F.astype(np.float32), scale_F.astype(np.float32))

    def __call__(self, window_WF: Array) -> Array:
        return (window_WF - self.mean_F) / self.scale_F


def ridges(pairs: Pairs, strengths: Sequence[float]) -> list[Map]:
    """Linear regressions from features to the mean caption of the clip, one of each strength."""
    scaling = Scaling.fit(pairs)
    x_WF, y_WD, weight_W1 = scaling(pairs.window_WF), pairs.target_ND[pairs.owner_W], pairs.weight_W[:, None]
    values_F, axes_FF = np.linalg.eigh((x_WF * weight_W1).T @ x_WF)
    moment_FD = axes_FF.T @ ((x_WF * weight_W1).T @ (y_WD - (y_WD * weight_W1).sum(axis=0)))

    def regression(strength: float) -> Map:
        matrix_FD = axes_FF @ (moment_FD / (np.maximum(values_F, 0) + strength * values_F.mean())[:, None])
        return lambda window_WF: (scaling(window_WF) @ matrix_FD).astype(np.float32)

    return [regression(strength) for strength in strengths]


def kernel(pairs: Pairs, temperature: float = 0.1) -> Map:
    """The captions of the training clips, weighted by their similarity, less the mean caption."""
    scaling = Scaling.fit(pairs)
    known_NF, weight_N, target_ND = pool(scaling(pairs.window_WF), pairs.owner_W), pairs.weight_N, pairs.target_ND
    mean_D = weight_N @ target_ND / weight_N.sum()

    def embed(window_WF: Array) -> Array:
        similarity_WN = unit(scaling(window_WF)) @ known_NF.T
        share_WN = np.exp((similarity_WN - similarity_WN.max(axis=1, keepdims=True)) / temperature) * weight_N
        near: Array = share_WN / share_WN.sum(axis=1, keepdims=True) @ target_ND - mean_D
        return near

    return embed


def category_phrases(file: Path) -> dict[str, list[str]]:
    """The phrases of each category of the Universal Category System, in alphabetical order."""
    with file.open(encoding="utf-8", newline="") as stream:
        return {row["category"]: row["phrases"].split(" | ") for row in csv.DictReader(stream)}


def align_categories(pairs: Pairs, sizes: tuple[int, ...], category_CD: Array, unused: tuple[int, ...]) -> list[int]:
    """Name the outputs of category heads: the C categories are in alphabetical order in each, and some are left out.

    Each output's captions are those of the clips with a high probability of it. The alignment is the one that keeps the
    order and has the largest sum of similarities between captions and names.

    Args:
        unused: categories that no sound has.
    """
    probability_WK, target_WD = pairs.window_WF[:, POOLED:], pairs.target_ND[pairs.owner_W]
    similarity_WC = target_WD @ category_CD.T
    similarity_WC -= similarity_WC.mean(axis=0)
    similarity_WC = np.sign(similarity_WC) * np.maximum(np.abs(similarity_WC) - 0.05, 0)
    weight_WK = probability_WK * (pairs.weight_W * len(pairs.group_N))[:, None]
    # Outputs that few clips reach have little weight, by the constant.
    fit_KC = (weight_WK / (weight_WK.sum(axis=0) + 2.0)).T @ similarity_WC
    fit_KC /= fit_KC.std(axis=1, keepdims=True) + 0.01
    fit_KC[:, list(unused)] -= 5
    names, start = [], 0
    for size in sizes:
        names += _align_in_order(fit_KC[start : start + size])
        start += size
    return names


def _align_in_order(fit_KC: Array) -> list[int]:
    """For each row a column, in ascending order, with the largest sum (dynamic programming)."""
    rows, columns = fit_KC.shape
    best = np.full((rows + 1, columns + 1), -np.inf)
    best[0] = 0
    for row in range(1, rows + 1):
        for column in range(row, columns + 1):
            best[row, column] = max(best[row, column - 1], best[row - 1, column - 1] + fit_KC[row - 1, column - 1])
    chosen, column = [], columns
    for row in range(rows, 0, -1):
        while best[row, column] == best[row, column - 1]:
            column -= 1
        column -= 1
        chosen.append(column)
    return chosen[::-1]


def category_map(pairs: Pairs, category_KD: Array) -> Map:
    """The names of the likely categories, less their mean: needs no caption."""
    mean_K = pairs.weight_W @ pairs.window_WF[:, POOLED : POOLED + len(category_KD)]

    def embed(window_WF: Array) -> Array:
        probability_WK = window_WF[:, POOLED : POOLED + len(category_KD)]
        named: Array = (probability_WK - mean_K) @ category_KD
        return named

    return embed


def weighted(*parts: tuple[float, Map]) -> Map:
    """The weighted sum of the unit vectors of several maps; those of weight 0 are left out."""
    used = [(weight, part) for weight, part in parts if weight]
    return lambda window_WF: sum(weight * unit(part(window_WF)) for weight, part in used)  # type: ignore[return-value]


@dataclass(frozen=True)
class Head:
    """The weights of a projection head, under the names of `openclap.models.clap.mlp_relu`."""

    weights: dict[str, Array]

    def __call__(self, x_NC: Array) -> Array:
        hidden_NH = np.maximum(x_NC @ self.weights["0.weight"].T + self.weights["0.bias"], 0)
        vector_ND: Array = (hidden_NH @ self.weights["2.weight"].T + self.weights["2.bias"]).astype(np.float32)
        return vector_ND

    @classmethod
    def of(cls, head: torch.nn.Module, scaling: Scaling | None = None) -> Head:
        """A trained head; `scaling` of its inputs becomes part of its first layer."""
        weights = {name: tensor.detach().numpy() for name, tensor in head.state_dict().items()}
        if scaling is not None:
            weights["0.weight"] = weights["0.weight"] / scaling.scale_F
            weights["0.bias"] = weights["0.bias"] - weights["0.weight"] @ scaling.mean_F
        return cls(weights)

    def after(self, matrix_CD: Array, bias_D: Array) -> Head:
        """The head that reads x in place of x · matrix + bias."""
        first = self.weights["0.weight"]
        inner = {"0.weight": first @ matrix_CD.T, "0.bias": self.weights["0.bias"] + first @ bias_D}
        return Head(self.weights | {name: np.ascontiguousarray(weight) for name, weight in inner.items()})


@dataclass(frozen=True)
class StudentOptions:
    """How a student is trained.

    Attributes:
        teacher: weight of the distance to the teacher's embeddings.
        soft: temperature of the targets: similarities of captions in place of one-hot ones; 0 for one-hot ones.
        mixed: share of a batch that is interpolated with other windows, as are their captions.
        average: decay of the moving average of the weights over steps, which is kept; 0 keeps the last weights.
    """

    steps: int = 300
    batch: int = 128
    learning_rate: float = 2e-3
    decay: float = 0.01
    dropout: tuple[float, float] = (0.1, 0.2)
    teacher: float = 0.0
    soft: float = 0.1
    mixed: float = 0.5
    text_head: bool = False
    average: float = 0.0
    seed: int = 0


INFONCE = StudentOptions(steps=100, dropout=(0.0, 0.0), soft=0.0, mixed=0.0, text_head=True)
"""Two heads on frozen features and CLIP's loss, which retrieve best when they stop early."""


def student(pairs: Pairs, options: StudentOptions, teacher: Map | None = None) -> tuple[Head, Head | None, float]:
    """Train a projection head on batches of windows, each with one of its captions.

    Returns the head of windows, that of texts if there is one, and the factor of similarities.
    """
    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    scaling, size = Scaling.fit(pairs), pairs.caption_TD.shape[1]
    x_WF, text_TD = torch.from_numpy(scaling(pairs.window_WF)), torch.from_numpy(pairs.caption_TD)
    taught_WD = None if teacher is None else torch.from_numpy(unit(teacher(pairs.window_WF)))
    audio_head = mlp_relu(x_WF.shape[1], size)
    text_head = mlp_relu(size, size) if options.text_head else torch.nn.Identity()
    scale = torch.nn.Parameter(torch.tensor(np.log(1 / 0.07), dtype=torch.float32))
    optimizer, schedule = _optimizer([*audio_head.parameters(), *text_head.parameters()], scale, options)
    draw = Draw(pairs, rng)
    averaged = AveragedModel(audio_head, multi_avg_fn=get_ema_multi_avg_fn(options.average))
    for _ in range(options.steps):
        rows, captions = draw(options.batch)
        x, text = x_WF[rows], text_TD[captions]
        taught = None if taught_WD is None else taught_WD[rows]
        if options.mixed:
            share_B1, other = draw.mixture(options.batch, options.mixed)
            x = share_B1 * x + (1 - share_B1) * x[other]
            text = F.normalize(share_B1 * text + (1 - share_B1) * text[other], dim=1)
            taught = None if taught is None else F.normalize(share_B1 * taught + (1 - share_B1) * taught[other], dim=1)
        audio_BD = F.normalize(_with_dropout(audio_head, x, options.dropout), dim=1)
        text_BD = F.normalize(text_head(text), dim=1)
        logits_BB = scale.exp().clamp(1, 100) * audio_BD @ text_BD.T
        target_BB = torch.eye(len(rows)) if not options.soft else (text @ text.T / options.soft).softmax(dim=1)
        loss = (F.cross_entropy(logits_BB, target_BB) + F.cross_entropy(logits_BB.T, target_BB)) / 2
        if taught is not None:
            loss = loss + options.teacher * (1 - (audio_BD * taught).sum(dim=1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if options.average:
            averaged.update_parameters(audio_head)
    return (
        Head.of(averaged.module if options.average else audio_head, scaling),
        Head.of(text_head) if options.text_head else None,
        float(scale.detach().exp()),
    )


@dataclass(frozen=True)
class FollowerOptions:
    """How heads of windows and of texts learn the similarities of a teacher.

    Attributes:
        texts: drawn for each batch from all texts, beside a caption of each window.
        temperature: of the teacher's similarities.
        regression: weight of the distances of both heads' outputs to the teacher's embeddings, projected to `size`.
        mixed: as in `StudentOptions`.
    """

    steps: int = 400
    batch: int = 128
    texts: int = 128
    learning_rate: float = 2e-3
    decay: float = 0.01
    dropout: tuple[float, float] = (0.1, 0.2)
    temperature: float = 0.1
    regression: float = 10.0
    mixed: float = 0.5
    size: int = 384
    seed: int = 0


def follower(
    pairs: Pairs, input_TC: Array, taught: tuple[Array, Array], options: FollowerOptions
) -> tuple[Head, Head, float]:
    """Train a head of windows and one of texts to the similarities between both that a teacher has.

    The teacher may have any space: several models whose similarities are added have all of theirs side by side. Its
    embeddings are projected to the directions in which those of texts differ most, and both heads learn these, too.

    Returns the head of windows, that of texts, and the factor of similarities.

    Args:
        input_TC: inputs of the text head: the pairs' captions in their order, then any other texts.
        taught: the teacher's embeddings of the windows and of these texts, of `options.size` dimensions or more.
    """
    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    scaling = Scaling.fit(pairs)
    x_WF, text = torch.from_numpy(scaling(pairs.window_WF)), torch.from_numpy(input_TC)
    taught_W, taught_T = map(torch.from_numpy, taught)
    projection = torch.linalg.eigh(taught_T.T @ taught_T).eigenvectors[:, -options.size :]
    near_W, near_T = taught_W @ projection, F.normalize(taught_T @ projection, dim=1)
    audio_head, text_head = mlp_relu(x_WF.shape[1], options.size), mlp_relu(input_TC.shape[1], options.size)
    scale = torch.nn.Parameter(torch.tensor(np.log(10.0), dtype=torch.float32))
    optimizer, schedule = _optimizer([*audio_head.parameters(), *text_head.parameters()], scale, options)
    draw = Draw(pairs, rng)
    for _ in range(options.steps):
        windows, captions = draw(options.batch)
        rows = np.concatenate([captions, rng.integers(0, len(input_TC), options.texts)])
        x, follows, near = x_WF[windows], taught_W[windows], near_W[windows]
        if options.mixed:
            share_B1, other = draw.mixture(options.batch, options.mixed)
            x, follows, near = (share_B1 * each + (1 - share_B1) * each[other] for each in (x, follows, near))
        audio_BD = F.normalize(_with_dropout(audio_head, x, options.dropout), dim=1)
        text_TD = F.normalize(text_head(text[rows]), dim=1)
        logits_BT = scale.exp() * audio_BD @ text_TD.T
        target_BT = follows @ taught_T[rows].T / options.temperature
        loss = F.cross_entropy(logits_BT, target_BT.softmax(dim=1))
        loss = (loss + F.cross_entropy(logits_BT.T, target_BT.T.softmax(dim=1))) / 2
        distance = 2 - F.cosine_similarity(audio_BD, near).mean() - F.cosine_similarity(text_TD, near_T[rows]).mean()
        loss = loss + options.regression * distance
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return Head.of(audio_head, scaling), Head.of(text_head), float(scale.detach().exp())


def _optimizer(
    weights: list[torch.nn.Parameter], scale: torch.nn.Parameter, options: StudentOptions | FollowerOptions
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW without decay of the scale, and one cycle of the learning rate."""
    groups = [{"params": weights, "weight_decay": options.decay}, {"params": [scale], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=options.learning_rate)
    rates = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, options.learning_rate, total_steps=options.steps, pct_start=0.1
    )
    return optimizer, rates


class Draw:
    """Draws windows by their weights, and one caption of each."""

    def __init__(self, pairs: Pairs, rng: np.random.Generator) -> None:
        self.pairs, self.rng = pairs, rng
        self.chance_W = pairs.weight_W.astype(np.float64) / pairs.weight_W.sum(dtype=np.float64)
        self.first_N = np.searchsorted(pairs.owner_T, np.arange(len(pairs.group_N)))
        self.count_N = np.bincount(pairs.owner_T)

    def __call__(self, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The numbers of windows and of captions."""
        rows = self.rng.choice(len(self.chance_W), count, p=self.chance_W)
        owner = self.pairs.owner_W[rows]
        return rows, self.first_N[owner] + self.rng.integers(0, 1 << 30, count) % self.count_N[owner]

    def mixture(self, count: int, part: float) -> tuple[torch.Tensor, NDArray[np.int64]]:
        """The shares (B, 1) that rows keep, a `part` of them less than 1, and the rows that give the rest."""
        share = np.where(self.rng.random(count) < part, self.rng.uniform(0.5, 1, count), 1)
        return torch.from_numpy(share).float()[:, None], self.rng.permutation(count)


def _with_dropout(head: torch.nn.Sequential, x: torch.Tensor, shares: tuple[float, float]) -> torch.Tensor:
    """A projection head with dropout before each linear layer."""
    first, relu, second = head
    return second(F.dropout(relu(first(F.dropout(x, shares[0]))), shares[1]))  # type: ignore[no-any-return]


def without_categories(pairs: Pairs) -> Pairs:
    """Pairs with aiSFX's pooled values alone."""
    return replace(pairs, window_WF=np.ascontiguousarray(pairs.window_WF[:, :POOLED]))
