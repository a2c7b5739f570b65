"""Zero-shot: name a sound's label by comparing it with one sentence a label, without training on any label.

N clips, C labels, D embedding. Protocol: LAION-CLAP (Wu et al. 2023, arXiv:2211.06687), section 4.
"""

from __future__ import annotations

from openclap.evals.answers import Answers, LeftOut, labelled, labels_of
from openclap.evals.clips import EvalClips, SoundEmbedder, Vectors, embed_sentences
from openclap.evals.metrics import classify
from openclap.text.prompts import SOUND, prompts


def name_labels(
    embedder: SoundEmbedder, clips: EvalClips, audio_ND: Vectors, *, template: str = SOUND
) -> Answers | LeftOut:
    """Score every labelled clip against all labels of its split; `_` in labels reads as a space.

    Left out with a reason when fewer than two labels occur.
    """
    labels = labels_of(clips)
    if len(labels) < 2:
        return LeftOut(f"{clips.name} has {len(labels)} labels; naming a sound needs at least two.")
    clip_N, label_N = labelled(clips, labels)
    sentence_UD, which_C = embed_sentences(embedder, prompts(labels, template))
    score_NC = audio_ND[clip_N] @ sentence_UD[which_C].T
    missing = len(clips) - len(clip_N)
    notes = (f"Zero-shot: {missing} of {len(clips)} clips have no label and were not asked.",) if missing else ()
    return Answers(labels, clip_N, classify(score_NC, label_N), notes)
