"""Objectives against the reference's numbers, cases worked by hand, and sums written out pair by pair."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from openclap import presets
from openclap.errors import ConfigError
from openclap.models.build import build_clap
from openclap.models.clap import CLAP
from openclap.models.config import ObjectiveConfig
from openclap.models.loss import contrastive_loss
from openclap.models.objectives import Objective, SigLIP, build_objective
from openclap.types import Features
from support.errors import raises_naming
from support.features import CONFIGS, make_features
from support.reference import GOLDEN
from support.tiny_models import TINY_PRESET

LAION = replace(TINY_PRESET, embedding_size=8, temperatures=2, transforms=True)


def small(preset: presets.Preset = LAION) -> CLAP:
    return build_clap(preset)


def objective(config: ObjectiveConfig) -> Objective:
    return build_objective(config, small())


def pairs(audio: Iterable[Iterable[float]], text: Iterable[Iterable[float]], scale: float, **given: Tensor) -> Features:
    """Features of these vectors; without `owner_T`, one caption a clip."""
    audio_BD, text_TD = torch.tensor(audio, dtype=torch.float64), torch.tensor(text, dtype=torch.float64)
    one_each = torch.arange(len(text_TD))
    ids = {"owner_T": one_each, "caption_id_T": one_each} | given
    return Features(audio_BD, text_TD, torch.arange(len(audio_BD)), scale=torch.tensor(scale), **ids)


def golden() -> tuple[dict[str, np.ndarray], Features]:
    """The reference's results, and what they were computed from."""
    file = dict(np.load(GOLDEN / "loss.npz"))
    audio, text, audio_mlp, text_mlp = (torch.from_numpy(row).requires_grad_() for row in file["inputs"])
    number = torch.arange(len(audio))
    scales = torch.tensor(14.2857), torch.tensor(20.0)
    return file, Features(audio, text, number, number, number, *scales, audio_mlp, text_mlp)


def test_the_plain_loss_is_the_references() -> None:
    file, features = golden()
    loss = objective(ObjectiveConfig())(features, features)
    loss.backward()
    np.testing.assert_allclose(loss.item(), file["plain"], rtol=1e-6)
    np.testing.assert_allclose(features.audio_BD.grad, file["plain_gradA"], rtol=1e-4, atol=1e-7)
    simplest = contrastive_loss(features.audio_BD, features.text_TD, features.scale)
    torch.testing.assert_close(loss, simplest, rtol=1e-6, atol=0)


def test_the_four_terms_are_the_references() -> None:
    file, features = golden()
    loss = objective(ObjectiveConfig("mlp"))(features, features)
    loss.backward()
    np.testing.assert_allclose(loss.item(), file["mlp"], rtol=1e-6)
    np.testing.assert_allclose(features.audio_BD.grad, file["mlp_gradA"], rtol=1e-4, atol=1e-7)
    assert features.text_mlp_TD is not None
    np.testing.assert_allclose(features.text_mlp_TD.grad, file["mlp_gradBM"], rtol=1e-4, atol=1e-7)


def test_the_weighted_four_terms_are_the_references() -> None:
    file, features = golden()
    loss = objective(ObjectiveConfig("mlp", kappa=10.0))(features, features)
    np.testing.assert_allclose(loss.item(), file["mlp_weighted_kappa10"], rtol=1e-6)
    assert abs(file["mlp_weighted_kappa10"] - file["mlp"]) > 1e-5 * file["mlp"]  # the weights can be seen in it


def test_two_clips_by_hand() -> None:
    features = pairs(np.eye(2), np.eye(2), 3.0)  # each row: scores 3 and 0
    assert_loss(features, ObjectiveConfig(), math.log1p(math.exp(-3)))
    assert_loss(features, ObjectiveConfig(label_smoothing=0.2), math.log1p(math.exp(-3)) + 0.1 * 3)


def test_several_captions_by_hand() -> None:
    """Three clips, four captions: the first clip has two, which both point where it does."""
    features = pairs(np.eye(3), np.eye(3)[[0, 0, 1, 2]], 2.0, owner_T=torch.tensor([0, 0, 1, 2]))
    e = math.exp(2)
    clips = [math.log(2 * e + 2) - 2, math.log(e + 3) - 2, math.log(e + 3) - 2]
    captions = 4 * [math.log(e + 2) - 2]
    assert_loss(features, ObjectiveConfig(), (np.mean(clips) + np.mean(captions)) / 2)


def test_equal_captions_by_hand() -> None:
    """Of three clips with four captions, the first two share one: neither is the other's negative through it."""
    given = {"owner_T": torch.tensor([0, 0, 1, 2]), "caption_id_T": torch.tensor([5, 6, 6, 7])}
    features = pairs(np.eye(3), np.eye(3)[[0, 1, 1, 2]], 2.0, **given)
    e = math.exp(2)
    both = math.log(e + 1 + 1)  # the first clip reads its own two (2, 0) and the third's (0), not the second's (0)
    clips = [
        both - 1,
        math.log(e + 2) - 2,
        math.log(e + 3) - 2,
    ]  # the second leaves out the caption that equals its own
    # The first clip's own caption has all clips; the shared ones leave out each other's clip.
    captions = [math.log(e + 2) - 2, math.log(1 + 1) - 0, math.log(e + 1) - 2, math.log(e + 2) - 2]
    assert_loss(features, ObjectiveConfig(spare_equal_captions=True), (np.mean(clips) + np.mean(captions)) / 2)
    same = pairs(np.eye(2), np.ones((2, 2)), 2.0, caption_id_T=torch.tensor([9, 9]))
    assert_loss(same, ObjectiveConfig(spare_equal_captions=True), 0.0)


def test_siglip_by_hand() -> None:
    features = pairs(np.eye(2), np.eye(2), 10.0)  # with the bias of -10: 0 on the pairs, -10 elsewhere
    assert_loss(features, ObjectiveConfig("siglip"), math.log(2) + math.log1p(math.exp(-10)))
    equal = replace(features, caption_id_T=torch.tensor([1, 1]))
    assert_loss(equal, ObjectiveConfig("siglip", spare_equal_captions=True), math.log(2))


@pytest.mark.parametrize("learned", [{"bias": torch.zeros(3)}, {"margin": torch.tensor(1.0)}])
def test_parameters_of_another_objective_are_not_loaded(learned: dict[str, Tensor]) -> None:
    made = build_objective(ObjectiveConfig("siglip"), small(), learned)
    assert made.learned()["bias"].item() == -10.0


def test_matryoshka_by_hand() -> None:
    vectors = [[0.6, 0.8, 0, 0, 0, 0, 0, 0], [-0.6, 0.8, 0, 0, 0, 0, 0, 0]]
    first, whole = math.log1p(math.exp(-4)), math.log1p(math.exp(-2 * 0.72))  # scores 2 and -2; 2 and 2 * 0.28
    assert_loss(pairs(vectors, vectors, 2.0), ObjectiveConfig(matryoshka=(1,)), (first + whole) / 2)
    assert_loss(pairs(vectors, vectors, 2.0), ObjectiveConfig(matryoshka=(1, 8)), (first + whole) / 2)


def assert_loss(features: Features, config: ObjectiveConfig, expected: float) -> None:
    assert objective(config)(features, features).item() == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", CONFIGS)
def test_losses_and_gradients_are_those_of_sums_written_out(name: str) -> None:
    config, features = CONFIGS[name], make_features(dtype=torch.float64)
    module = objective(config).double()
    bias = next(module.parameters(), None)
    leaves = [x for x in (*_leaves(features), bias) if x is not None]
    loss = module(features, features)
    expected = written_out(config, features, torch.tensor(-10.0) if bias is None else bias)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-12)
    ours, theirs = (torch.autograd.grad(x, leaves, allow_unused=True) for x in (loss, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)
    assert sum(gradient is not None for gradient in ours) >= 3


def _leaves(features: Features) -> list[Tensor | None]:
    vectors = [features.audio_BD, features.text_TD, features.audio_mlp_BD, features.text_mlp_TD]
    return [*vectors, features.scale, features.scale_text]


def written_out(config: ObjectiveConfig, f: Features, bias: Tensor) -> Tensor:
    """The global loss, one pair after another."""
    if config.matryoshka:
        sizes = {*config.matryoshka, f.audio_BD.shape[1]}
        whole = replace(config, matryoshka=())
        return sum(written_out(whole, _cut(f, size), bias) for size in sizes) / len(sizes)  # type: ignore[return-value]
    if config.kind == "siglip":
        return _siglip(config, f, bias)
    assert f.audio_mlp_BD is not None and f.text_mlp_TD is not None and f.scale_text is not None
    by_audio, by_text = _weights(config, f)
    if config.kind == "mlp":
        one, other = replace(f, text_TD=f.text_mlp_TD), replace(f, audio_BD=f.audio_mlp_BD, scale=f.scale_text)
        return (_both_ways(config, one, by_audio, by_audio) + _both_ways(config, other, by_text, by_text)) / 2
    return _both_ways(config, f, by_audio, by_text)


def _cut(f: Features, size: int) -> Features:
    audio, text = f.audio_BD[:, :size], f.text_TD[:, :size]
    audio_BD, text_TD = audio / audio.norm(dim=1, keepdim=True), text / text.norm(dim=1, keepdim=True)
    return replace(f, audio_BD=audio_BD, text_TD=text_TD)


def _siglip(config: ObjectiveConfig, f: Features, bias: Tensor) -> Tensor:
    total = torch.zeros((), dtype=f.audio_BD.dtype)
    for c, owner in enumerate(f.owner_T.tolist()):
        for i in range(len(f.audio_BD)):
            logit = f.scale * f.text_TD[c].dot(f.audio_BD[i]) + bias
            if i == owner:
                total = total + torch.log(1 + torch.exp(-logit))
            elif not (config.spare_equal_captions and _has_equal(f, i, c)):
                total = total + torch.log(1 + torch.exp(logit))
    return total / len(f.owner_T)


def _both_ways(config: ObjectiveConfig, f: Features, w: list[float], v: list[float]) -> Tensor:
    """The mean of the weighted means over clips (captions weigh `w`) and over captions (they weigh `v`)."""
    audio, text, scale = f.audio_BD, f.text_TD, f.scale
    owners, clips = f.owner_T.tolist(), range(len(audio))
    captions = {i: [c for c, owner in enumerate(owners) if owner == i] for i in clips}
    of_clips, of_captions, total = [], [], 0.0
    for i in clips:
        spared = {c for c in range(len(owners)) if config.spare_equal_captions and _has_equal(f, i, c)} - {*captions[i]}
        logits = {c: scale * audio[i].dot(text[c]) for c in range(len(owners)) if c not in spared}
        of_clips.append(sum(w[c] * _smoothed(config, logits, c) for c in captions[i]) / len(captions[i]))
        total += sum(w[c] for c in captions[i]) / len(captions[i])
    for c, owner in enumerate(owners):
        spared = {i for i in clips if config.spare_equal_captions and _has_equal(f, i, c)} - {owner}
        logits = {i: scale * audio[i].dot(text[c]) for i in clips if i not in spared}
        of_captions.append(v[c] * _smoothed(config, logits, owner))
    return (sum(of_clips) / total + sum(of_captions) / sum(v)) / 2  # type: ignore[return-value]


def _smoothed(config: ObjectiveConfig, logits: dict[int, Tensor], positive: int) -> Tensor:
    bottom = torch.log(torch.stack([logit.exp() for logit in logits.values()]).sum())
    even = torch.stack([bottom - logit for logit in logits.values()]).mean()
    return (1 - config.label_smoothing) * (bottom - logits[positive]) + config.label_smoothing * even


def _has_equal(f: Features, clip: int, caption: int) -> bool:
    ids = f.caption_id_T.tolist()
    return any(owner == clip and ids[c] == ids[caption] for c, owner in enumerate(f.owner_T.tolist()))


def _weights(config: ObjectiveConfig, f: Features) -> tuple[list[float], list[float]]:
    """exp(Σ_j f_i·f_j / (κN)) of each caption's clip, and of each caption."""
    if not config.kappa:
        return [1.0] * len(f.owner_T), [1.0] * len(f.owner_T)
    audio, text = ((x.detach() @ x.detach().T).sum(1) / (config.kappa * len(x)) for x in (f.audio_BD, f.text_TD))
    return [math.exp(audio[owner]) for owner in f.owner_T.tolist()], [math.exp(x) for x in text.tolist()]


@pytest.mark.parametrize("name", CONFIGS)
def test_shares_of_any_division_sum_to_the_loss(name: str) -> None:
    """Own anchors against everyone's candidates, without processes: rows of the same features."""
    whole, module = make_features(dtype=torch.float64), objective(CONFIGS[name]).double()
    shares = torch.zeros((), dtype=torch.float64)
    for clips in (torch.tensor([0, 1, 2]), torch.tensor([3]), torch.tensor([], dtype=torch.long), torch.tensor([4, 5])):
        mine_T = torch.isin(whole.owner_T, clips)
        assert whole.audio_mlp_BD is not None and whole.text_mlp_TD is not None
        part = replace(
            whole,
            audio_BD=whole.audio_BD[clips],
            audio_mlp_BD=whole.audio_mlp_BD[clips],
            clip_B=clips,
            text_TD=whole.text_TD[mine_T],
            text_mlp_TD=whole.text_mlp_TD[mine_T],
            owner_T=whole.owner_T[mine_T],
            caption_id_T=whole.caption_id_T[mine_T],
        )
        shares = shares + module(part, whole)
    torch.testing.assert_close(shares, module(whole, whole), rtol=1e-12, atol=0)


def test_batch_without_captions_has_zero_loss() -> None:
    empty = make_features((), dtype=torch.float32)
    for config in CONFIGS.values():
        loss = objective(config)(empty, empty)
        loss.backward()
        assert loss.item() == 0


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"kind": "sigclip"}, ["'sigclip'", "'siglip'"]),
        ({"kind": "?"}, ["infonce", "mlp", "siglip"]),
        ({"kappa": -1.0}, ["objective.kappa", -1.0]),
        ({"kappa": 0.01}, ["objective.kappa", 0.01, 0.02]),
        ({"label_smoothing": 1.0}, ["objective.label_smoothing", 1.0]),
        ({"matryoshka": (0,)}, ["objective.matryoshka", "(0,)"]),
        ({"matryoshka": (4, 4)}, ["objective.matryoshka", "(4, 4)"]),
        ({"initial_scale": 0.5}, ["objective.initial_scale", 0.5]),
        ({"kind": "siglip", "kappa": 1.0}, ["objective.kappa", "siglip"]),
        ({"kind": "siglip", "label_smoothing": 0.1}, ["objective.label_smoothing", "siglip"]),
        ({"kind": "mlp", "matryoshka": (4,)}, ["objective.matryoshka", "mlp"]),
    ],
)
def test_choices_that_cannot_be_are_refused(values: dict[str, object], named: list[object]) -> None:
    with raises_naming(ConfigError, *named):
        ObjectiveConfig(**values)  # type: ignore[arg-type]


def test_model_without_parts_of_the_objective_is_refused() -> None:
    with raises_naming(ConfigError, "objective.kind", "mlp"):
        build_objective(ObjectiveConfig("mlp"), small(TINY_PRESET))
    with raises_naming(ConfigError, "objective.matryoshka", 9, 8):
        build_objective(ObjectiveConfig(matryoshka=(9,)), small())


def test_parts_that_the_objective_does_not_read_are_frozen() -> None:
    for kind, learns in (("infonce", False), ("siglip", False), ("mlp", True)):
        clap = small()
        build_objective(ObjectiveConfig(kind), clap)
        extras = ("audio_transform.", "text_transform.", "logit_scale_text")
        assert {p.requires_grad for name, p in clap.named_parameters() if name.startswith(extras)} == {learns}
        assert all(p.requires_grad for name, p in clap.named_parameters() if not name.startswith(extras))


def test_scale_starts_at_its_configured_value() -> None:
    clap = small()
    module = build_objective(ObjectiveConfig("siglip", initial_scale=10.0), clap)
    assert isinstance(module, SigLIP) and module.bias.item() == -10.0
    assert clap.scale.item() == pytest.approx(10.0) and clap.logit_scale.item() == pytest.approx(math.log(10))
    clap = small()
    build_objective(ObjectiveConfig("siglip"), clap)
    assert clap.scale.item() == pytest.approx(1 / 0.07)


@pytest.mark.parametrize("name", ["clip", "clip_bias", "siglip", "siglip_chunk5"])
def test_losses_and_gradients_are_open_clips(name: str) -> None:
    """A constant bias changes no softmax, so `clip_bias` is the loss without it."""
    file = dict(np.load(GOLDEN / "openclip" / "loss.npz"))
    audio_BD, text_TD = (torch.from_numpy(file[side]).requires_grad_() for side in "AB")
    number, is_siglip = torch.arange(len(audio_BD)), name.startswith("siglip")
    scale = torch.tensor(10.0 if is_siglip else 14.2857, requires_grad=True)
    features = Features(audio_BD, text_TD, number, number, number, scale)
    kind = objective(ObjectiveConfig("siglip" if is_siglip else "infonce"))
    loss = kind(features, features)
    loss.backward()
    np.testing.assert_allclose(loss.item(), file[name], rtol=1e-5)
    for found, gradient in ((audio_BD, "gradA"), (text_TD, "gradB"), (scale, "gradS")):
        np.testing.assert_allclose(found.grad, file[f"{name}_{gradient}"], rtol=1e-5, atol=1e-6)
    if is_siglip:
        np.testing.assert_allclose(kind.bias.grad, file[f"{name}_gradBias"], rtol=1e-5)
