"""The frame loss against a loop over every pair, and as a part of an objective."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from openclap.errors import ConfigError
from openclap.models.config import ObjectiveConfig
from openclap.models.frame_loss import FrameLoss, WithFrames
from openclap.models.objectives import InfoNCE, build_objective
from openclap.types import Features, Moments
from support.tiny_models import tiny_clap


def moments(seed: int = 0, clips: int = 3, count: int = 5, phrases: int = 4) -> Moments:
    generator = torch.Generator().manual_seed(seed)
    valid = torch.tensor([[True] * count, [True] * (count - 2) + [False] * 2, [False] * count])[:clips]
    active = torch.zeros(clips, count, phrases, dtype=torch.bool)
    active[0, 1:3, 0] = active[0, 4, 1] = active[1, 0, 2] = active[1, 1:3, 0] = True
    return Moments(
        F.normalize(torch.randn(clips, count, 8, generator=generator), dim=-1),
        F.normalize(torch.randn(phrases, 8, generator=generator), dim=-1),
        active,
        valid,
    )


def by_hand(given: Moments, scale: float, bias: float) -> float:
    """Every pair in turn, with logarithms of the standard library."""
    groups: dict[str, list[float]] = {"active": [], "own": [], "bank": []}
    for clip in range(len(given.audio_BMD)):
        for moment in range(given.active_BMP.shape[1]):
            if not given.valid_BM[clip, moment]:
                continue
            for phrase in range(len(given.phrase_PD)):
                logit = scale * float(given.audio_BMD[clip, moment] @ given.phrase_PD[phrase]) + bias
                probability = 1 / (1 + math.exp(-logit))
                if given.active_BMP[clip, moment, phrase]:
                    groups["active"].append(-math.log(probability))
                else:
                    own = bool(given.active_BMP[clip, :, phrase].any())
                    groups["own" if own else "bank"].append(-math.log(1 - probability))
    mean = {name: sum(losses) / max(len(losses), 1) for name, losses in groups.items()}
    return mean["active"] / 2 + mean["own"] / 4 + mean["bank"] / 4


def test_the_loss_is_that_of_every_pair_in_turn() -> None:
    loss = FrameLoss()
    assert loss(moments()).item() == pytest.approx(by_hand(moments(), 10.0, -2.0), rel=1e-5)
    with torch.no_grad():
        loss.scale.fill_(0.5)
        loss.bias.fill_(0.3)
    assert loss(moments(1)).item() == pytest.approx(by_hand(moments(1), math.exp(0.5), 0.3), rel=1e-5)


def test_moments_beyond_the_targets_and_targets_beyond_the_moments_do_not_count() -> None:
    given, loss = moments(), FrameLoss()
    more = torch.cat([given.audio_BMD, torch.ones(3, 2, 8)], dim=1)
    longer = Moments(more, given.phrase_PD, given.active_BMP, given.valid_BM)
    torch.testing.assert_close(loss(longer), loss(given))
    shorter = Moments(given.audio_BMD[:, :4], given.phrase_PD, given.active_BMP, given.valid_BM)
    cut = Moments(given.audio_BMD[:, :4], given.phrase_PD, given.active_BMP[:, :4], given.valid_BM[:, :4])
    torch.testing.assert_close(loss(shorter), loss(cut))


def test_without_active_pairs_the_loss_has_a_gradient_and_is_finite() -> None:
    given, loss = moments(), FrameLoss()
    loss(Moments(given.audio_BMD, given.phrase_PD, torch.zeros_like(given.active_BMP), given.valid_BM)).backward()
    assert loss.bias.grad is not None and torch.isfinite(loss.bias.grad)


def test_training_separates_active_moments_from_all_others() -> None:
    torch.manual_seed(0)
    given, loss = moments(), FrameLoss()
    audio = given.audio_BMD.clone().requires_grad_()
    optimizer = torch.optim.Adam([audio, *loss.parameters()], lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        loss(Moments(F.normalize(audio, dim=-1), given.phrase_PD, given.active_BMP, given.valid_BM)).backward()
        optimizer.step()
    logits = loss.scale.exp() * F.normalize(audio.detach(), dim=-1) @ given.phrase_PD.T + loss.bias
    valid = given.valid_BM[..., None].expand_as(given.active_BMP)
    assert ((logits > 0) == given.active_BMP)[valid].all()


def features(clips: int, with_moments: bool = True) -> Features:
    generator = torch.Generator().manual_seed(clips)
    vectors = F.normalize(torch.randn(2 * clips, 8, generator=generator), dim=-1)
    place = torch.arange(clips)
    return Features(
        vectors[:clips],
        vectors[clips:],
        place,
        place,
        place,
        torch.tensor(10.0),
        moments=moments() if with_moments else None,
    )


def test_the_frame_loss_is_added_with_its_weight() -> None:
    inner = InfoNCE(ObjectiveConfig())
    objective = WithFrames(inner, 0.5, {})
    own = features(3)
    expected = inner(own, own) + 0.5 * FrameLoss()(own.moments)  # type: ignore[arg-type]
    torch.testing.assert_close(objective(own, own), expected)
    without = features(3, with_moments=False)
    torch.testing.assert_close(objective(without, without), inner(without, without))
    objective(without, without).backward()
    assert all(parameter.grad is not None for parameter in objective.parameters())


def test_shares_of_processes_weigh_frames_by_their_clips() -> None:
    objective, own, everyone = WithFrames(InfoNCE(ObjectiveConfig()), 1.0, {}), features(3), features(6, False)
    frames = objective(own, everyone) - objective.inner(own, everyone)
    torch.testing.assert_close(frames, FrameLoss()(own.moments) / 2)


@pytest.mark.parametrize("kind", ["infonce", "siglip"])
def test_what_the_frame_loss_learned_is_kept_beside_the_objective(kind: str) -> None:
    config = ObjectiveConfig(kind=kind, frames=1.0)
    objective = build_objective(config, tiny_clap())
    with torch.no_grad():
        for parameter in objective.parameters():
            parameter.fill_(0.25)
    learned = objective.learned()
    assert {"frames.scale", "frames.bias"} <= set(learned)
    again = build_objective(config, tiny_clap(), learned).learned()
    assert all(torch.equal(again[name], learned[name]) for name in learned)
    # A run without frames changes the moments, so what was learned for them is dropped.
    plain = build_objective(ObjectiveConfig(kind=kind), tiny_clap(), learned).learned()
    assert set(plain) == set(learned) - {"frames.scale", "frames.bias"}
    assert all(torch.equal(plain[name], learned[name]) for name in plain)


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_the_weight_is_a_number_from_0_on(weight: float) -> None:
    with pytest.raises(ConfigError):
        ObjectiveConfig(frames=weight)
