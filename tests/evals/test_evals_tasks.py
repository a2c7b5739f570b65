from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from evals_helpers import SOUNDS, BandEmbedder
from sklearn.linear_model import LogisticRegression

from openclap.errors import OpenClapError
from openclap.evals.answers import Answers, LeftOut, labelled, labels_of
from openclap.evals.bootstrap import Estimate
from openclap.evals.clips import EvalClips, embed_clips
from openclap.evals.evaluation import Evaluation, Figure, table
from openclap.evals.metrics import retrieval_measures
from openclap.evals.probe import STRENGTHS, choose_strength, group_folds, probe
from openclap.evals.ranks import TIE, rank_retrieval
from openclap.evals.retrieval import retrieve
from openclap.evals.suite import evaluate
from openclap.evals.zero_shot import name_labels


def with_labels(clips: EvalClips, label: dict[str, str | None]) -> EvalClips:
    """The same clips, labels exchanged as the table says."""
    renamed = [replace(c, label=label.get(str(c.label), c.label)) for c in clips.clips]
    return replace(clips, clips=tuple(renamed))


def test_sounds_are_embedded_once_a_model(
    embedder: BandEmbedder, test_clips: EvalClips, train_clips: EvalClips
) -> None:
    embedder.calls.clear()
    evaluate(embedder, test_clips, train_clips)
    assert sum(embedder.calls) == len(test_clips) + len(train_clips)


def test_progress_is_told(embedder: BandEmbedder, test_clips: EvalClips) -> None:
    told: list[tuple[str, int, int]] = []
    evaluate(embedder, test_clips, progress=lambda *what: told.append(what))
    assert told[-1] == ("Embedding test", 60, 60)


@pytest.mark.parametrize(("vectors", "says"), [(np.zeros((2, 3)), "expected"), (np.full((60, 3), np.nan), "NaN")])
def test_unusable_vectors_are_refused(test_clips: EvalClips, vectors: np.ndarray, says: str) -> None:
    class Broken(BandEmbedder):
        def embed_audio(self, sounds: list[object], batch_size: int = 16) -> np.ndarray:
            return vectors

    with pytest.raises(OpenClapError, match=says):
        embed_clips(Broken(), test_clips)


def test_retrieval_equals_the_bare_metrics(embedder: BandEmbedder, test_clips: EvalClips) -> None:
    audio_ND = embed_clips(embedder, test_clips)
    found = retrieve(embedder, test_clips, audio_ND)
    assert found is not None
    unique = sorted(set(found.captions))
    text_UD = embedder.embed_text(unique)
    similarity = (audio_ND @ text_UD.T)[:, [unique.index(caption) for caption in found.captions]]
    ranks = rank_retrieval(similarity.astype(np.float64), np.repeat(np.arange(60), 2), tie=TIE)
    wanted = {name: measure.value for name, measure in retrieval_measures(ranks).items()}
    ours = {name: measure.value for name, measure in found.measures().items()}
    assert ours == pytest.approx(wanted, abs=1e-12)


def test_hits_agree_with_ranks(embedder: BandEmbedder, test_clips: EvalClips) -> None:
    found = retrieve(embedder, test_clips, embed_clips(embedder, test_clips))
    assert found is not None
    for t, rank in enumerate(found.ranks.text_to_audio_T.tolist()):
        hits = found.hits_TK[t].tolist()
        assert (hits.index(found.ranks.owner_T[t]) + 1 if found.ranks.owner_T[t] in hits else 11) == min(rank, 11)
        assert (np.diff(found.scores_TK[t]) <= 0).all()


def test_clips_without_captions_take_no_part(embedder: BandEmbedder, test_clips: EvalClips) -> None:
    silent = [replace(c, captions=()) if i % 2 else c for i, c in enumerate(test_clips.clips)]
    result = evaluate(embedder, replace(test_clips, clips=tuple(silent)))
    assert result.retrieval is not None and result.retrieval.ranks.clips == 30
    assert any("30 clips have no caption" in note for note in result.notes)
    mute = replace(test_clips, clips=tuple(replace(c, captions=()) for c in test_clips.clips))
    result = evaluate(embedder, mute)
    assert result.left_out["retrieval"] == "no clip has a caption."
    assert {figure.task for figure in result.figures} == {"zero_shot"}


def test_zero_shot_reads_underscores_as_spaces(embedder: BandEmbedder, test_clips: EvalClips) -> None:
    heard: list[str] = []

    class Listening(BandEmbedder):
        def embed_text(self, texts: list[str]) -> np.ndarray:
            heard.extend(texts)
            return embedder.embed_text(texts)

    audio_ND = embed_clips(embedder, test_clips)
    answers = name_labels(Listening(), test_clips, audio_ND)
    assert "This is a sound of low hum." in heard and len(heard) == 6
    assert isinstance(answers, Answers)
    text_CD = embedder.embed_text([f"This is a sound of {label.replace('_', ' ')}." for label in answers.labels])
    predicted = (audio_ND @ text_CD.T).argmax(1)
    accuracy = np.mean([answers.labels[p] == c.label for p, c in zip(predicted, test_clips.clips, strict=True)])
    assert answers.measures()["accuracy"].value == pytest.approx(accuracy)


def test_the_probe_equals_scikit_learns_own(
    embedder: BandEmbedder, train_clips: EvalClips, test_clips: EvalClips
) -> None:
    train_ND, test_ND = embed_clips(embedder, train_clips), embed_clips(embedder, test_clips)
    noise = np.random.default_rng(0).standard_normal(test_ND.shape).astype(np.float32)
    test_ND = test_ND + 0.4 * noise  # hard enough to be wrong at times
    answers = probe(train_clips, train_ND, test_clips, test_ND)
    assert isinstance(answers, Answers)
    said = [clip.label for clip in train_clips.clips]
    strength = choose_strength(train_ND, labelled(train_clips, labels_of(train_clips))[1], np.array(train_clips.groups))
    own = LogisticRegression(C=strength, max_iter=2000).fit(train_ND.astype(np.float64), said)
    accuracy = own.score(test_ND.astype(np.float64), [clip.label for clip in test_clips.clips])
    assert 0.2 < accuracy < 1.0
    assert answers.measures()["accuracy"].value == pytest.approx(accuracy)
    assert f"C = {strength:g}" in answers.notes[0] and strength in STRENGTHS


def test_a_probe_of_two_labels(embedder: BandEmbedder, train_clips: EvalClips, test_clips: EvalClips) -> None:
    two = {"low_hum": "low", "thunder": "low"} | dict.fromkeys(["whistle", "alarm", "rain", "siren"], "other")
    train, test = with_labels(train_clips, two), with_labels(test_clips, two)
    answers = probe(train, embed_clips(embedder, train), test, embed_clips(embedder, test))
    assert isinstance(answers, Answers) and answers.labels == ("low", "other")
    assert answers.measures()["accuracy"].value > 0.9


def test_cross_validation_keeps_groups_whole() -> None:
    rng = np.random.default_rng(0)
    group = rng.permutation(np.repeat([f"g{i}" for i in range(24)], 6))
    label = np.array([int(name[1:]) % 3 for name in group])
    folds = group_folds(label, group, seed=0)
    assert len(folds) == 5
    assert sorted(np.concatenate([held for _, held in folds]).tolist()) == list(range(144))
    for seen, held in folds:
        assert not set(group[seen]) & set(group[held])
        assert set(label[seen]) == {0, 1, 2}


def test_one_group_allows_no_cross_validation() -> None:
    vector, label = np.eye(4, dtype=np.float32), np.array([0, 1, 0, 1])
    assert group_folds(label, np.full(4, "one"), seed=0) == []
    assert choose_strength(vector, label, np.full(4, "one")) == 1.0
    assert group_folds(label, np.array(["a", "b", "a", "b"]), seed=0) == []  # each fold would see one label


def test_labels_without_training_examples_are_left_out(
    embedder: BandEmbedder, train_clips: EvalClips, test_clips: EvalClips
) -> None:
    missing = with_labels(train_clips, {"rain": None})
    result = evaluate(embedder, test_clips, missing)
    accuracy = result.figure("probe", "accuracy")
    assert accuracy is not None and accuracy.n == 50
    assert any("10 clips were left out" in note and "rain" in note for note in result.notes)


@pytest.mark.parametrize(
    ("known", "asked", "says"),
    [
        (dict.fromkeys(SOUNDS), {}, "train has 0 labels"),
        (dict.fromkeys(SOUNDS, "one"), {}, "train has 1 labels"),
        ({}, dict.fromkeys(SOUNDS), "test has no labels"),
        ({}, dict.fromkeys(SOUNDS, "new"), "share fewer than two"),
    ],
)
def test_an_impossible_probe_is_left_out_with_its_reason(
    request: pytest.FixtureRequest, known: dict[str, str | None], asked: dict[str, str | None], says: str
) -> None:
    model, train, test = map(request.getfixturevalue, ("embedder", "train_clips", "test_clips"))
    result = evaluate(model, with_labels(test, asked), with_labels(train, known))
    assert says in result.left_out["probe"]
    assert ("zero_shot" in result.left_out) == bool(asked)


def test_a_probe_of_few_examples_is_done_with_fewer_folds(
    embedder: BandEmbedder, train_clips: EvalClips, test_clips: EvalClips
) -> None:
    few = train_clips.select(
        [
            train_clips.clips.index(next(c for c in train_clips.clips if c.label == label))
            for label in sorted({c.label for c in train_clips.clips if c.label})
        ]
    )
    answers = probe(few, embed_clips(embedder, few), test_clips, embed_clips(embedder, test_clips))
    assert isinstance(answers, Answers)


def test_one_label_is_no_zero_shot_task(embedder: BandEmbedder, test_clips: EvalClips) -> None:
    one = with_labels(test_clips, dict.fromkeys(SOUNDS, "sound"))
    left = name_labels(embedder, one, embed_clips(embedder, one))
    assert isinstance(left, LeftOut) and "at least two" in left.reason


def test_the_evaluation_is_whole(evaluation: Evaluation) -> None:
    counts = {task: sum(f.task == task for f in evaluation.figures) for task in ("text_to_audio", "zero_shot")}
    assert counts == {"text_to_audio": 6, "zero_shot": 3} and len(evaluation.figures) == 18
    for figure in evaluation.figures:
        assert figure.estimate.low <= figure.estimate.value <= figure.estimate.high
        assert figure.chance.low <= figure.chance.value <= figure.chance.high
        assert figure.untrained is not None and figure.n in (60, 120)
    accuracy, before = evaluation.figure("zero_shot", "accuracy"), evaluation.figure("text_to_audio", "R@10")
    assert accuracy is not None and accuracy.above_chance == "yes" and accuracy.estimate.value > 0.8
    assert before is not None and before.untrained is not None
    assert before.untrained.low < before.chance.high < before.estimate.low
    assert (evaluation.clips, evaluation.captions, evaluation.groups) == (60, 120, 30)
    assert evaluation.protocol["Clips"] == BandEmbedder.clip_policy


def test_the_same_seed_gives_the_same_json(
    embedder: BandEmbedder, train_clips: EvalClips, test_clips: EvalClips, evaluation: Evaluation
) -> None:
    again = evaluate(embedder, test_clips, train_clips, untrained=BandEmbedder())
    assert replace(again, seconds=0.0).to_json() == replace(evaluation, seconds=0.0).to_json()
    record = json.loads(evaluation.to_json())
    assert record["data"]["sha256"] == test_clips.digest
    assert record["figures"][0]["metric"] == "R@1" and record["figures"][0]["chance"]["low"] >= 0
    assert np.sum(record["zero_shot"]["confusion"]) == 60


def test_one_group_is_never_above_chance(embedder: BandEmbedder, test_clips: EvalClips) -> None:
    one = replace(test_clips, clips=tuple(replace(clip, group="one") for clip in test_clips.clips))
    result = evaluate(embedder, one)
    assert "yes" not in {figure.above_chance for figure in result.figures}
    assert json.loads(result.to_json())["figures"][0]["low"] is None
    assert any("All clips are one group" in note for note in result.notes)
    assert table(result)[1][3] == "–"


def test_groups_in_both_splits_are_told(embedder: BandEmbedder, test_clips: EvalClips) -> None:
    result = evaluate(embedder, test_clips, test_clips)
    assert any("30 groups stand in both splits" in note for note in result.notes)


@pytest.mark.parametrize(
    ("metric", "ours", "chance", "verdict"),
    [
        ("R@1", (0.5, 0.4, 0.6), (0.2, 0.1, 0.3), "yes"),
        ("R@1", (0.5, 0.2, 0.6), (0.2, 0.1, 0.3), "touching"),
        ("R@1", (0.25, 0.2, 0.6), (0.2, 0.1, 0.3), "no"),
        ("mean_rank", (5, 4, 6), (20, 10, 30), "yes"),
        ("mean_rank", (9, 4, 12), (20, 10, 30), "touching"),
        ("mean_rank", (35, 31, 40), (20, 10, 30), "no"),
    ],
)
def test_the_verdict_on_chance(metric: str, ours: tuple[float, ...], chance: tuple[float, ...], verdict: str) -> None:
    assert Figure("probe", metric, Estimate(*ours), Estimate(*chance), None, 9).above_chance == verdict


def test_the_table_is_rows_of_words(evaluation: Evaluation) -> None:
    rows = table(evaluation)
    assert len(rows) == 19 and {len(row) for row in rows} == {8}
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    assert sum(widths[:-1]) + len("  ") * 7 + len("above") < 80
    figures = tuple(replace(figure, untrained=None) for figure in evaluation.figures)
    assert table(replace(evaluation, figures=figures)) == [(*row[:6], row[7]) for row in rows]
    assert rows[1][:2] == ("text→audio", "R@1")
    assert "nan" not in " ".join(" ".join(row) for row in rows)
