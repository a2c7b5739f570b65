"""Retrieval of one model: figures, hits, and clips or captions that take no part."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from openclap.evals.cached_embedder import embed_clips
from openclap.evals.dataset import Collection, EvalClips, load_clips
from openclap.evals.metrics import retrieval_measures
from openclap.evals.ranks import TIE, rank_retrieval
from openclap.evals.retrieval import retrieve
from openclap.evals.runner import evaluate, run_suite
from openclap.evals.suites import PAPER
from support import miniatures
from support.evals_helpers import BandEmbedder, cached, facts, flac, make_wave, write_shard

CLOTHO = next(task for task in PAPER if task.name == "Clotho")


def test_figures_equal_ranks_of_full_matrix(embedder: BandEmbedder, test_clips: EvalClips) -> None:
    audio_ND = embed_clips(embedder, test_clips)
    found = retrieve(embedder, test_clips, audio_ND)
    unique = sorted(set(found.captions))
    text_UD = embedder.embed_text(unique)
    similarity = (audio_ND @ text_UD.T)[:, [unique.index(caption) for caption in found.captions]]
    ranks = rank_retrieval(similarity.astype(np.float64), np.repeat(np.arange(60), 2), tie=TIE)
    wanted = {metric: measure.value for metric, measure in retrieval_measures(ranks).items()}
    ours = {metric: measure.value for metric, measure in found.measures().items()}
    assert ours == pytest.approx(wanted, abs=1e-12)


def test_hits_agree_with_ranks(embedder: BandEmbedder, test_clips: EvalClips) -> None:
    found = retrieve(embedder, test_clips, embed_clips(embedder, test_clips))
    for t, rank in enumerate(found.ranks.text_to_audio_P.tolist()):
        hits = found.hits_TK[t].tolist()
        assert (hits.index(found.right_T[t]) + 1 if found.right_T[t] in hits else 11) == min(rank, 11)
        assert (np.diff(found.score_TK[t]) <= 0).all()


def test_clips_without_captions_are_left_out(embedder: BandEmbedder, test_clips: EvalClips) -> None:
    silent = [replace(c, captions=()) if i % 2 else c for i, c in enumerate(test_clips.clips)]
    result = evaluate({"model": embedder}, Collection(replace(test_clips, clips=tuple(silent))))
    retrieval = result.outputs["model", "retrieval"].retrieval
    assert retrieval is not None and retrieval.ranks.clips == 30
    assert any("30 clips have no caption" in note for _, note in result.notes)
    mute = replace(test_clips, clips=tuple(replace(c, captions=()) for c in test_clips.clips))
    result = evaluate(embedder, Collection(mute))
    assert "no clip has a caption" in result.skipped["retrieval"]
    assert {row.task for row in result.rows} == {"zero-shot"}


def test_a_single_captioned_clip_is_no_retrieval_task(tmp_path: Path) -> None:
    samples = [
        ("0", flac(make_wave("rain", 0)), facts("rain", "a", ["rain on a roof"])),
        ("1", flac(make_wave("whistle", 1)), facts("whistle", "b", ["a whistle"])),
    ]
    both = load_clips(write_shard(tmp_path / "test", samples))
    embedder = BandEmbedder().fit([both.audio(0), both.audio(1)], ["rain", "a whistle"])
    one_caption = replace(both, clips=(both.clips[0], replace(both.clips[1], captions=())))
    found = evaluate(embedder, Collection(one_caption))
    assert found.skipped["retrieval"] == "test: 1 clip has a caption; retrieval needs at least two."
    assert {row.task for row in found.rows} == {"zero-shot"}


def test_truncated_and_missing_captions_are_counted(tiny_model: Path, tmp_path: Path) -> None:
    root = tmp_path / "sets" / "clotho"
    miniatures.clotho(root)
    table = root / "clotho_captions_evaluation.csv"
    head, first, second, *rest = table.read_text().splitlines()
    long = second.split(",")
    long[1] = "a dog and " * 30
    table.write_text("\n".join([head, first.split(",")[0] + ",,,,,", ",".join(long), *rest]) + "\n")
    result = run_suite("one", [CLOTHO], [cached(tiny_model, tmp_path)], tmp_path / "sets")
    notes = [sentence for _, sentence in result.notes]
    assert notes == [
        "1 clips have no caption and were left out of retrieval.",
        "1 of 25 captions are longer than the text context and were cut.",
        "6 of 25 captions describe more than one clip. Only a caption's own clip counts as right, so retrieval figures "
        "are too low. (share_captions in a suite file counts all.)",
        "text→audio R@5, text→audio R@10: 100 % for any model, with 5 clips and 25 captions.",
        "Only 6 groups: the intervals are rough.",
    ]
