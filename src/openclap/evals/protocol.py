"""How the figures were made, in sentences that stand beside them."""

from __future__ import annotations

from collections.abc import Mapping

from openclap.evals.bootstrap import DRAWS, RESAMPLES
from openclap.evals.clips import SoundEmbedder
from openclap.evals.probe import FOLDS, STRENGTHS
from openclap.text.prompts import SOUND

UNKNOWN_POLICY = "Every clip is handed to the model whole; this model states no rule for clips longer than its input."

RETRIEVAL = (
    "Cosine of unit vectors, all captions against all clips. Text → audio asks with every caption: R@k "
    "is the share whose own clip ranks within k, mAP@10 the mean of 1/rank within 10. Audio → text asks "
    "with every clip: R@k and ranks take its best-placed caption, mAP@10 is the sum of i/rank over its "
    "captions within 10, best first, divided by their count."
)
ZERO_SHOT = f"One sentence a label, “{SOUND}”, over all labels of the split; _ in labels reads as a space."
PROBE = (
    "Logistic regression on the frozen unit vectors of the training split; its C is one of "
    f"{', '.join(f'{strength:g}' for strength in STRENGTHS)}, chosen by cross-validation of up to {FOLDS} folds "
    "over groups of the training split alone; the held-out split is used once."
)
TIES = "Broken against the model: what is wrong and scores the same stands first."
INTERVALS = (
    f"95 % percentile intervals of {RESAMPLES:,} bootstrap resamples of groups (takes of one recording "
    "are one group); the pool that is searched stays whole."
)
CHANCE = (
    f"Retrieval: mean and 95 % interval of {DRAWS} random similarities of the same shape and owners. "
    "Labels: the best fixed answer (accuracy: the most frequent label; balanced accuracy: 1 / labels), "
    f"with the 95 % interval of these answers against {DRAWS} permutations of the labels by group. “Above "
    "chance” is yes when the two intervals do not meet, no when the figure lies within chance’s, and "
    "touching in between."
)
SPLIT = "By group: no recording is in both the training and the held-out split, unless a note says otherwise."


def protocol(embedder: SoundEmbedder, seed: int) -> Mapping[str, str]:
    """Sentences by heading. The clip policy is the embedder's own `clip_policy`, where it states one."""
    return {
        "Clips": getattr(embedder, "clip_policy", None) or UNKNOWN_POLICY,
        "Retrieval": RETRIEVAL,
        "Zero-shot": ZERO_SHOT,
        "Linear probe": PROBE,
        "Ties": TIES,
        "Intervals": INTERVALS,
        "Chance": CHANCE,
        "Split": SPLIT,
        "Seed": str(seed),
    }
