"""Cross-entropies from local anchors over global candidates: targets, weights, and excluded negatives.

B clips, T captions, A anchors, C candidates, D embedding; `own` features are those of this process and `everyone` the
gathered ones of all processes, see `objectives`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from openclap.types import Features


class CaptionWeights(NamedTuple):
    """The weights of the pairs of this process's captions, and of those of all captions."""

    own_T: Tensor
    everyone_T: Tensor


class PairWeights(Protocol):
    """Weighs the pair of each caption with its clip, by the clip or by the caption."""

    def by_audio(self, own: Features, everyone: Features) -> CaptionWeights: ...

    def by_text(self, own: Features, everyone: Features) -> CaptionWeights: ...


class EqualWeights:
    """All pairs have weight 1."""

    def by_audio(self, own: Features, everyone: Features) -> CaptionWeights:
        return CaptionWeights(torch.ones_like(own.text_TD[:, 0]), torch.ones_like(everyone.text_TD[:, 0]))

    by_text = by_audio


class SimilarityWeights:
    """A pair weighs exp(mean similarity to the batch / κ), so pairs with many neighbours in the batch count more.

    LAION-CLAP's class weights (`weight_loss_kappa`): no gradient flows through them.
    """

    def __init__(self, kappa: float) -> None:
        self.kappa = kappa

    def by_audio(self, own: Features, everyone: Features) -> CaptionWeights:
        weight_B = self.weigh(everyone.audio_BD, everyone.audio_BD)
        return CaptionWeights(weight_B[own.owner_T], weight_B[everyone.owner_T])

    def by_text(self, own: Features, everyone: Features) -> CaptionWeights:
        return CaptionWeights(self.weigh(own.text_TD, everyone.text_TD), self.weigh(everyone.text_TD, everyone.text_TD))

    @torch.no_grad()
    def weigh(self, own_ND: Tensor, everyone_ND: Tensor) -> Tensor:
        # The mean of similarities is the similarity to the mean, so no matrix of all pairs is needed.
        return (own_ND @ everyone_ND.mean(dim=0) / self.kappa).exp()


class NegativeFilter(Protocol):
    """Masks (A, C) that are true where a candidate must not be a negative of an anchor."""

    def of_clips(self, own: Features, everyone: Features) -> Tensor: ...

    def of_captions(self, own: Features, everyone: Features) -> Tensor: ...


class AllNegatives:
    """Every candidate of another clip is a negative, as in LAION-CLAP."""

    def of_clips(self, own: Features, everyone: Features) -> Tensor:
        return own.clip_B.new_zeros((len(own.clip_B), len(everyone.owner_T)), dtype=torch.bool)

    def of_captions(self, own: Features, everyone: Features) -> Tensor:
        return own.clip_B.new_zeros((len(own.owner_T), len(everyone.clip_B)), dtype=torch.bool)


class ExcludeEqualCaptions:
    """Two clips that share a caption are not each other's negatives through it: excluded are, for a clip, captions of
    other clips that equal one of its own, and for a caption, other clips that have an equal caption."""

    def of_clips(self, own: Features, everyone: Features) -> Tensor:
        equal_TT = (own.caption_id_T[:, None] == everyone.caption_id_T).float()
        # For each clip, how many of its captions equal each candidate. Clip numbers are global, so rows of other
        # processes' clips stay 0, and only own rows are read.
        equal_BT = equal_TT.new_zeros(len(everyone.clip_B), len(everyone.owner_T)).index_add(0, own.owner_T, equal_TT)
        return (equal_BT[own.clip_B] > 0) & (own.clip_B[:, None] != everyone.owner_T)

    def of_captions(self, own: Features, everyone: Features) -> Tensor:
        equal_TT = (own.caption_id_T[:, None] == everyone.caption_id_T).float()
        equal_TB = equal_TT.new_zeros(len(own.owner_T), len(everyone.clip_B)).index_add(1, everyone.owner_T, equal_TT)
        return (equal_TB > 0) & (own.owner_T[:, None] != everyone.clip_B)


@dataclass(frozen=True, slots=True)
class SoftTargets:
    """Targets that are partly a teacher's softmax over the candidates (Hinton et al. 2015, arXiv:1503.02531).

    In text-audio retrieval: Primus et al. 2024, arXiv:2408.11641, "Estimated Audio-Caption Correspondences Improve
    Language-Based Audio Retrieval".

    Attributes:
        share: of each anchor's target; the rest is its own pair.
        temperature: divides the teacher's logits.
    """

    share: float
    temperature: float

    def mix(self, target_AC: Tensor, teacher_AC: Tensor, allowed_AC: Tensor) -> Tensor:
        """Replace a share of each anchor's weight by the teacher's, which is as large.

        NaN marks what the teacher has no vector of: such a candidate gets nothing, and such an anchor keeps its target.
        """
        known_AC = allowed_AC & ~teacher_AC.isnan()
        lowest = torch.finfo(teacher_AC.dtype).min
        soft_AC = (teacher_AC / self.temperature).masked_fill(~known_AC, lowest).softmax(1) * known_AC
        mixed_AC = torch.lerp(target_AC, target_AC.sum(1, keepdim=True) * soft_AC, self.share)
        return torch.where(known_AC.any(1, keepdim=True), mixed_AC, target_AC)


class Contrast:
    """Cross-entropies from local clips to all captions and from local captions to all clips."""

    def __init__(
        self, label_smoothing: float, negatives: NegativeFilter, soft_targets: SoftTargets | None = None
    ) -> None:
        self.label_smoothing, self.negatives, self.soft_targets = label_smoothing, negatives, soft_targets

    def __call__(self, own: Features, everyone: Features, clips: CaptionWeights, captions: CaptionWeights) -> Tensor:
        """The mean of the two directions; `clips` are the weights of the first and `captions` of the second."""
        return (self.from_clips(own, everyone, clips) + self.from_captions(own, everyone, captions)) / 2

    def from_clips(self, own: Features, everyone: Features, weights: CaptionWeights) -> Tensor:
        """The weighted mean over clips, a clip's weight being its captions' mean."""
        logits_BT = own.scale * own.audio_BD @ everyone.text_TD.T
        # A clip with many captions counts no more than one with a single caption: its weight is spread over them.
        captions_B = torch.bincount(everyone.owner_T, minlength=len(everyone.clip_B))
        weight_T = weights.everyone_T / captions_B[everyone.owner_T]
        weight_BT = (own.clip_B[:, None] == everyone.owner_T) * weight_T
        excluded_BT = self.negatives.of_clips(own, everyone)
        teacher_BT = _products(own.teacher_audio_BE, everyone.teacher_text_TE)
        return self.cross_entropy(logits_BT, weight_BT, excluded_BT, teacher_BT) / _total(weight_T)

    def from_captions(self, own: Features, everyone: Features, weights: CaptionWeights) -> Tensor:
        """The weighted mean over captions."""
        # Not the transposed logits of `from_clips`: with several processes, own captions meet clips that are not own.
        logits_TB = own.scale * own.text_TD @ everyone.audio_BD.T
        weight_TB = (own.owner_T[:, None] == everyone.clip_B) * weights.own_T[:, None]
        excluded_TB = self.negatives.of_captions(own, everyone)
        teacher_TB = _products(own.teacher_text_TE, everyone.teacher_audio_BE)
        return self.cross_entropy(logits_TB, weight_TB, excluded_TB, teacher_TB) / _total(weights.everyone_T)

    def cross_entropy(
        self, logits_AC: Tensor, weight_AC: Tensor, excluded_AC: Tensor, teacher_AC: Tensor | None = None
    ) -> Tensor:
        """Σ −weight · log softmax over the candidates that are not excluded, with smoothed weights.

        With a teacher's logits and `soft_targets`, the divergence (KL) from the mixed targets.
        """
        allowed_AC = ~excluded_AC
        # Smoothing spreads a share of an anchor's weight over its candidates; excluded ones must get none of it, or
        # their masked logits would dominate the loss.
        even_AC = weight_AC.sum(1, keepdim=True) * allowed_AC / allowed_AC.sum(1, keepdim=True)
        target_AC = torch.lerp(weight_AC, even_AC, self.label_smoothing)
        lowest = torch.finfo(logits_AC.dtype).min  # not -inf, because 0 · -inf is NaN
        # A sum and not a mean: callers divide by the weights of the global batch, so that shares of processes add up.
        log_AC = F.log_softmax(logits_AC.masked_fill(excluded_AC, lowest), dim=1)
        if teacher_AC is None or self.soft_targets is None:
            return -(target_AC * log_AC).sum()
        target_AC = self.soft_targets.mix(target_AC, teacher_AC, allowed_AC)
        # Minus the targets' entropy, which has no gradient: a student that equals its teacher then has the loss 0, and
        # a loss near chance still means that nothing is learnt, however even the targets are.
        weight_A1 = target_AC.sum(1, keepdim=True).clamp_min(torch.finfo(target_AC.dtype).tiny)
        entropy_AC: Tensor = torch.special.entr(target_AC / weight_A1)
        return -(target_AC * log_AC).sum() - (weight_A1 * entropy_AC).sum()


def _products(anchor_AE: Tensor | None, candidate_CE: Tensor | None) -> Tensor | None:
    return None if anchor_AE is None or candidate_CE is None else anchor_AE @ candidate_CE.T


def _total(weight_T: Tensor) -> Tensor:
    return weight_T.sum().clamp_min(torch.finfo(weight_T.dtype).tiny)  # without captions the loss is 0, not NaN
