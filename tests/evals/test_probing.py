"""Linear and MLP probes against scikit-learn, and the rules for choosing their settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

from openclap.evals.cached_embedder import embed_clips
from openclap.evals.dataset import Collection, EvalClips, load_clips
from openclap.evals.probing import DEFAULT_STRENGTH, STRENGTHS, LabelledClips, ProbeInput, folds_over_groups
from openclap.evals.runner import evaluate
from openclap.evals.suites import QUICK
from openclap.evals.tasks import PROBES
from support.evals_helpers import SOUNDS, BandEmbedder, separable_embeddings, with_labels

PROBE = next(task for task in QUICK if task.kind == "probe")


def labelled(clips: EvalClips, embedding_PD: np.ndarray) -> LabelledClips:
    truth = np.array([[clip.label == label for label in clips.labels] for clip in clips.clips])
    return LabelledClips(clips, embedding_PD.astype(np.float32), truth)


def numbered(label: np.ndarray, group: np.ndarray) -> LabelledClips:
    """Clips with these labels and groups, and embeddings of no meaning."""
    part = separable_embeddings(0, len(label), False)
    clips = tuple(replace(clip, group=str(name)) for clip, name in zip(part.clips.clips, group, strict=True))
    return replace(part, clips=replace(part.clips, clips=clips), truth_PC=np.eye(label.max() + 1, dtype=bool)[label])


def test_cross_validated_probe_equals_scikit_learn(
    embedder: BandEmbedder, train_clips: EvalClips, test_clips: EvalClips
) -> None:
    train_ND, test_ND = embed_clips(embedder, train_clips), embed_clips(embedder, test_clips)
    noise = np.random.default_rng(0).standard_normal(test_ND.shape).astype(np.float32)
    test_ND = test_ND + 0.4 * noise  # hard enough to be wrong at times
    train = labelled(train_clips, train_ND)
    scorer, note = PROBES["linear"].fit(ProbeInput(train))
    label = train.truth_PC.argmax(1)

    def right(strength: float) -> int:
        """Right answers on held-out folds."""
        return sum(
            int((fit(strength, train_ND[seen], label[seen]).predict(train_ND[held_out]) == label[held_out]).sum())
            for seen, held_out in folds_over_groups(train, seed=0)
        )

    def fit(strength: float, embedding: np.ndarray, target: np.ndarray) -> LogisticRegression:
        return LogisticRegression(C=strength, max_iter=2000).fit(embedding.astype(np.float64), target)

    strength = STRENGTHS[int(np.argmax([right(each) for each in STRENGTHS]))]
    assert note == f"Logistic regression with C = {strength:g}, chosen by 5-fold cross-validation over groups of train."
    wanted = fit(strength, train_ND, label).predict(test_ND)
    predicted = scorer(test_clips, test_ND).argmax(1)
    np.testing.assert_array_equal(predicted, wanted)
    accuracy = np.mean(
        [train_clips.labels[p] == clip.label for p, clip in zip(predicted, test_clips.clips, strict=True)]
    )
    assert 0.2 < accuracy < 1.0


def test_a_probe_of_two_labels(embedder: BandEmbedder, train_clips: EvalClips, test_clips: EvalClips) -> None:
    two = {"low_hum": "low", "thunder": "low"} | dict.fromkeys(["whistle", "alarm", "rain", "siren"], "other")
    train, test = with_labels(train_clips, two), with_labels(test_clips, two)
    results = evaluate({"model": embedder}, Collection(test, train), suite=[PROBE])
    assert results.outputs["model", "probe"].classes == ("low", "other")
    row = results.row("accuracy")
    assert row is not None and row.estimate.value > 0.9
    assert row.protocol.startswith("linear probe, 5-fold cross-validation over groups; split test")


def test_cross_validation_keeps_groups_whole() -> None:
    rng = np.random.default_rng(0)
    group = rng.permutation(np.repeat([f"g{i}" for i in range(24)], 6))
    label = np.array([int(name[1:]) % 3 for name in group])
    folds = folds_over_groups(numbered(label, group), seed=0)
    assert len(folds) == 5
    assert sorted(np.concatenate([held_out for _, held_out in folds]).tolist()) == list(range(144))
    for seen, held_out in folds:
        assert not set(group[seen]) & set(group[held_out])
        assert set(label[seen]) == {0, 1, 2}


def test_one_group_allows_no_cross_validation() -> None:
    label = np.array([0, 1, 0, 1])
    one_group = numbered(label, np.full(4, "one"))
    assert folds_over_groups(one_group, seed=0) == []
    assert f"C = {DEFAULT_STRENGTH:g}, not chosen" in PROBES["linear"].fit(ProbeInput(one_group))[1]
    assert folds_over_groups(numbered(label, np.array(["a", "b", "a", "b"])), seed=0) == []  # one label in each fold


def test_labels_without_training_examples_are_left_out(
    embedder: BandEmbedder, train_clips: EvalClips, test_clips: EvalClips
) -> None:
    missing = with_labels(train_clips, {"rain": None})
    result = evaluate(embedder, Collection(test_clips, missing))
    accuracy = result.row("accuracy", task="probe")
    assert accuracy is not None and accuracy.n == 50
    assert any("10 clips were left out" in note and "rain" in note for _, note in result.notes)


@pytest.mark.parametrize(
    ("known", "wanted", "message"),
    [
        (dict.fromkeys(SOUNDS), {}, "train has 0 labels"),
        (dict.fromkeys(SOUNDS, "one"), {}, "train has 1 labels"),
        ({}, dict.fromkeys(SOUNDS), "no clip has a label"),
        ({}, dict.fromkeys(SOUNDS, "new"), "share fewer than two"),
    ],
)
def test_an_impossible_probe_is_skipped_with_its_reason(
    request: pytest.FixtureRequest, known: dict[str, str | None], wanted: dict[str, str | None], message: str
) -> None:
    model, train, test = map(request.getfixturevalue, ("embedder", "train_clips", "test_clips"))
    result = evaluate(model, Collection(with_labels(test, wanted), with_labels(train, known)))
    assert message in result.skipped["probe"]
    assert ("zero-shot" in result.skipped) == bool(wanted)


def test_few_examples_are_probed_with_fewer_folds(
    embedder: BandEmbedder, train_clips: EvalClips, test_clips: EvalClips
) -> None:
    few = train_clips.select(
        [
            train_clips.clips.index(next(c for c in train_clips.clips if c.label == label))
            for label in sorted({c.label for c in train_clips.clips if c.label})
        ]
    )
    results = evaluate(embedder, Collection(test_clips, few), suite=[PROBE])
    assert results.row("accuracy") is not None


def test_the_note_states_how_the_strength_was_chosen(one_group: Path) -> None:
    clips = load_clips(one_group)
    results = evaluate(BandEmbedder(), Collection(clips, clips), suite=[PROBE])
    assert ("probe", "Logistic regression with C = 1, not chosen: no fold can be made of the groups of test.") in (
        results.notes
    )


@pytest.mark.parametrize("multilabel", [False, True])
def test_linear_probe_with_validation_split_equals_scikit_learn(multilabel: bool) -> None:
    train, valid, test = (
        separable_embeddings(0, 120, multilabel),
        separable_embeddings(1, 40, multilabel),
        separable_embeddings(2, 60, multilabel),
    )
    scorer, note = PROBES["linear"].fit(ProbeInput(train, valid, multilabel=multilabel))
    ours = scorer(test.clips, test.embedding_PD)
    strength = float(note.split("C = ")[1].split(",")[0])
    vectors = np.concatenate([train.embedding_PD, valid.embedding_PD]).astype(np.float64)
    truth = np.concatenate([train.truth_PC, valid.truth_PC])
    if multilabel:
        own = [LogisticRegression(C=strength, max_iter=2000).fit(vectors, truth[:, c]) for c in range(4)]
        wanted = np.stack([model.decision_function(test.embedding_PD.astype(np.float64)) for model in own], axis=1)
    else:
        own = LogisticRegression(C=strength, max_iter=2000).fit(vectors, truth.argmax(1))
        wanted = own.decision_function(test.embedding_PD.astype(np.float64))
    np.testing.assert_allclose(ours, wanted, atol=1e-6)


@pytest.mark.parametrize("multilabel", [False, True])
def test_mlp_probe_learns(multilabel: bool) -> None:
    train, valid, test = (
        separable_embeddings(0, 120, multilabel),
        separable_embeddings(1, 40, multilabel),
        separable_embeddings(2, 60, multilabel),
    )
    scorer, note = PROBES["mlp"].fit(ProbeInput(train, valid, multilabel=multilabel, epochs=25))
    score = scorer(test.clips, test.embedding_PD)
    assert "chosen on part 1" in note and score.shape == (60, 4)
    if multilabel:
        assert average_precision_score(test.truth_PC, score, average="macro") > 0.6
    else:
        assert (score.argmax(1) == test.truth_PC.argmax(1)).mean() > 0.6


def test_a_class_without_examples_scores_lowest() -> None:
    train, test = separable_embeddings(0, 60, False), separable_embeddings(2, 20, False)
    train = train.at(train.truth_PC.argmax(1) != 3)
    scorer, _ = PROBES["linear"].fit(ProbeInput(train, None, multilabel=False))
    assert (scorer(test.clips, test.embedding_PD)[:, 3] == -np.inf).all()
