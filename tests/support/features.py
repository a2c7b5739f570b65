"""Features of made-up batches, whole or dealt out to processes."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F

from openclap.models.config import ObjectiveConfig
from openclap.types import Features

CONFIGS = {
    "infonce": ObjectiveConfig(),
    "smoothed": ObjectiveConfig(label_smoothing=0.1),
    "spared": ObjectiveConfig(spare_equal_captions=True),
    "weighted": ObjectiveConfig(kappa=0.5),
    "nested": ObjectiveConfig(matryoshka=(3, 5)),
    "infonce with everything": ObjectiveConfig("infonce", 0.7, 0.2, (4,), True),
    "mlp": ObjectiveConfig("mlp"),
    "mlp weighted": ObjectiveConfig("mlp", kappa=0.5),
    "mlp with everything": ObjectiveConfig("mlp", 0.7, 0.2, (), True),
    "siglip": ObjectiveConfig("siglip"),
    "siglip with everything": ObjectiveConfig("siglip", matryoshka=(2, 6), spare_equal_captions=True),
}
"""Every kind, with each option alone and with all that go together."""

TAUGHT_CONFIGS = {
    "taught": ObjectiveConfig(),
    "taught alone": ObjectiveConfig(teacher_share=1.0, teacher_temperature=2.0),
    "taught with everything": ObjectiveConfig("infonce", 0.7, 0.2, (4,), True, teacher_share=0.3),
    "taught mlp": ObjectiveConfig("mlp", kappa=0.5),
}
"""For features with a teacher's vectors."""

CAPTIONS = (1, 3, 1, 2, 1, 2)
"""How many captions each of six clips has."""


def make_features(captions: tuple[int, ...] = CAPTIONS, *, seed: int = 0, dtype: torch.dtype) -> Features:
    """Clips with so many captions each, some captions equal across clips, as leaves of size 8."""
    generator = torch.Generator().manual_seed(seed)
    clips, total = len(captions), sum(captions)

    def rows(count: int) -> torch.Tensor:
        return torch.randn(count, 8, generator=generator, dtype=torch.float64)

    def leaf(x: torch.Tensor) -> torch.Tensor:
        return x.to(dtype).requires_grad_()

    return Features(
        audio_BD=leaf(F.normalize(rows(clips), dim=1)),
        text_TD=leaf(F.normalize(rows(total), dim=1)),
        clip_B=torch.arange(clips),
        owner_T=torch.repeat_interleave(torch.arange(clips), torch.tensor(captions, dtype=torch.long)),
        caption_id_T=2**62 + torch.randint(4, (total,), generator=generator),
        scale=leaf(torch.tensor(7.0)),
        scale_text=leaf(torch.tensor(4.0)),
        audio_mlp_BD=leaf(rows(clips) / 3),
        text_mlp_TD=leaf(rows(total) / 3),
    )


def make_taught_features(*, dtype: torch.dtype) -> Features:
    """The same features with a teacher's vectors of size 5; it has none of the fourth clip."""
    features = make_features(dtype=dtype)
    generator = torch.Generator().manual_seed(1)
    audio_BE, text_TE = (
        torch.randn(count, 5, generator=generator, dtype=torch.float64).to(dtype)
        for count in (len(features.clip_B), len(features.owner_T))
    )
    audio_BE[3] = torch.nan
    return replace(features, teacher_audio_BE=audio_BE, teacher_text_TE=text_TE)


def deal(whole: Features, clips: list[int], rank: int) -> Features:
    """The features of process `rank` where the processes hold so many `clips` each; leaves again, numbered from 0."""
    first, last = sum(clips[:rank]), sum(clips[: rank + 1])
    mine_T = (whole.owner_T >= first) & (whole.owner_T < last)

    def leaf(x: torch.Tensor | None) -> torch.Tensor:
        assert x is not None
        return x.detach().clone().requires_grad_()

    assert whole.audio_mlp_BD is not None and whole.text_mlp_TD is not None
    return Features(
        audio_BD=leaf(whole.audio_BD[first:last]),
        text_TD=leaf(whole.text_TD[mine_T]),
        clip_B=torch.arange(last - first),
        owner_T=whole.owner_T[mine_T] - first,
        caption_id_T=whole.caption_id_T[mine_T],
        scale=leaf(whole.scale),
        scale_text=leaf(whole.scale_text),
        audio_mlp_BD=leaf(whole.audio_mlp_BD[first:last]),
        text_mlp_TD=leaf(whole.text_mlp_TD[mine_T]),
        teacher_audio_BE=None if whole.teacher_audio_BE is None else whole.teacher_audio_BE[first:last],
        teacher_text_TE=None if whole.teacher_text_TE is None else whole.teacher_text_TE[mine_T],
    )
