"""The closed forms and the training of the bundled model's heads, on made features."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scripts.mini import heads
from scripts.mini.choose import Scores, best
from scripts.mini.heads import FollowerOptions, Head, Pairs, StudentOptions, Whitening, unit
from scripts.mini.recipe import Strengths, Trained, joined, whitened


def made_pairs(clips: int = 60, seed: int = 0) -> Pairs:
    """Features that are a linear map of the captions, with noise; two windows and one caption for each clip."""
    rng = np.random.default_rng(seed)
    caption_TD = unit(rng.standard_normal((clips, 8)).astype(np.float32))
    owner_W = np.repeat(np.arange(clips), 2)
    window_WF = np.abs(caption_TD @ rng.standard_normal((8, 520)).astype(np.float32))[owner_W]
    noise = 0.01 * rng.standard_normal(window_WF.shape).astype(np.float32)
    groups = np.array([f"g{clip // 2}" for clip in range(clips)])
    return Pairs(window_WF + noise, owner_W, caption_TD, np.arange(clips), groups, np.zeros_like(caption_TD))


def test_windows_of_a_clip_share_the_weight_of_its_group() -> None:
    pairs = made_pairs()
    assert np.isclose(pairs.weight_W.sum(), 1) and np.allclose(pairs.weight_N, 1 / np.sqrt(2))


def test_taken_pairs_are_numbered_anew() -> None:
    pairs = made_pairs()
    taken = pairs.take(np.array([5, 2]))
    assert taken.owner_W.tolist() == [0, 0, 1, 1] and taken.group_N.tolist() == ["g2", "g1"]
    np.testing.assert_array_equal(taken.caption_TD, pairs.caption_TD[[5, 2]])
    np.testing.assert_array_equal(taken.window_WF, pairs.window_WF[[10, 11, 4, 5]])


def test_whitening_flattens_the_variances() -> None:
    rng = np.random.default_rng(0)
    text_TD = (rng.standard_normal((4000, 4)) * [8, 4, 2, 1] + 3).astype(np.float32)
    whitening = Whitening.fit(text_TD, exponent=-0.5, floor=0.0)
    spread_D = ((text_TD - whitening.mean_D) @ whitening.matrix_DD).std(axis=0)
    np.testing.assert_allclose(spread_D / spread_D[0], 1, rtol=0.01)


def test_classes_pull_targets_by_their_weight() -> None:
    pairs, drawn = made_pairs(), np.random.default_rng(1).standard_normal((60, 8)).astype(np.float32)
    classes = replace(pairs, class_ND=np.where(np.arange(60)[:, None] < 30, drawn, 0).astype(np.float32))
    without, text = whitened(classes, 0.0, 0.0)
    half, _ = whitened(classes, 0.0, 0.5)
    np.testing.assert_allclose(without.target_ND, unit(text(pairs.caption_TD)), atol=1e-6)
    expected_ND = unit(without.target_ND + 0.5 * text(classes.class_ND))
    np.testing.assert_allclose(half.target_ND[:30], expected_ND[:30], atol=1e-6)
    np.testing.assert_allclose(half.target_ND[30:], without.target_ND[30:], atol=1e-6)


def test_the_choice_never_sees_the_block_that_is_left_out() -> None:
    """The best choice for a block follows the others alone, whatever its own figures are."""
    one, other = Strengths(ridge=1.0), Strengths(ridge=9.0)
    low, high = Scores(1, 1, 10), Scores(9, 9, 10)
    # (block left out, package asked): package "a" is block 0, "b" is block 1, "c" is block 2
    scores = {
        one: {(0, "b"): low, (0, "c"): low, (1, "a"): high, (1, "c"): low, (2, "a"): high, (2, "b"): low},
        other: {(0, "b"): high, (0, "c"): high, (1, "a"): low, (1, "c"): low, (2, "a"): low, (2, "b"): low},
    }
    assert [best(scores, block) for block in range(3)] == [other, one, one]


def test_ridge_equals_the_normal_equations() -> None:
    pairs = made_pairs()
    scaling = heads.Scaling.fit(pairs)
    x_WF, weight_W1 = scaling(pairs.window_WF).astype(np.float64), pairs.weight_W[:, None]
    y_WD = pairs.target_ND[pairs.owner_W] - (pairs.target_ND[pairs.owner_W] * weight_W1).sum(axis=0)
    gram = x_WF.T @ (x_WF * weight_W1)
    # Independently, by the dual form: X' (X X' w + strength)^-1.
    strength = 3.0 * np.trace(gram) / len(gram)
    root = np.sqrt(weight_W1)
    dual = (x_WF * root).T @ np.linalg.solve(
        (x_WF * root) @ (x_WF * root).T + strength * np.eye(len(x_WF)), y_WD * root
    )
    np.testing.assert_allclose(heads.ridges(pairs, [3.0])[0](pairs.window_WF), x_WF @ dual, atol=1e-4)


def test_alignment_in_order_is_the_best_of_all() -> None:
    from itertools import combinations

    fit_KC = np.random.default_rng(0).standard_normal((4, 7))
    best = max(combinations(range(7), 4), key=lambda columns: sum(fit_KC[row, c] for row, c in enumerate(columns)))
    assert heads._align_in_order(fit_KC) == list(best)


def test_a_head_after_a_linear_map_is_one_head() -> None:
    rng = np.random.default_rng(0)
    x_NC, matrix_CD, bias_D = (rng.standard_normal(shape).astype(np.float32) for shape in ((50, 6), (6, 5), (5,)))
    shapes = {"0.weight": (7, 5), "0.bias": (7,), "2.weight": (4, 7), "2.bias": (4,)}
    head = Head({name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()})
    np.testing.assert_allclose(head.after(matrix_CD, bias_D)(x_NC), head(x_NC @ matrix_CD + bias_D), atol=1e-4)


def test_a_student_follows_its_teacher() -> None:
    """Captions pull as well, so its embeddings are near those of the teacher and not equal to them."""
    pairs = made_pairs()
    teacher = heads.kernel(pairs, temperature=0.02)
    options = StudentOptions(steps=200, batch=64, teacher=30.0, dropout=(0.0, 0.0), mixed=0.0)

    def cosine(taught: StudentOptions) -> float:
        head, text_head, scale = heads.student(pairs, taught, teacher)
        assert text_head is None and scale > 1
        return float((unit(head(pairs.window_WF)) * unit(teacher(pairs.window_WF))).sum(axis=1).mean())

    assert cosine(options) > max(0.8, cosine(replace(options, teacher=0.0)) + 0.05)


def test_a_follower_learns_the_similarities_of_a_teacher_with_another_space() -> None:
    pairs = made_pairs()
    turned, _ = np.linalg.qr(np.random.default_rng(2).standard_normal((12, 12)))
    taught_W = np.pad(pairs.caption_TD[pairs.owner_W], ((0, 0), (0, 4))).astype(np.float32) @ turned.astype(np.float32)
    others = unit(np.random.default_rng(3).standard_normal((40, 8)).astype(np.float32))
    text_TD = np.concatenate([pairs.caption_TD, others])
    taught_T = np.pad(text_TD, ((0, 0), (0, 4))) @ turned.astype(np.float32)
    options = FollowerOptions(size=12, dropout=(0.0, 0.0), mixed=0.0)
    audio, text, _ = heads.follower(pairs, text_TD, (taught_W, taught_T), options)
    learned_WT = unit(audio(pairs.window_WF)) @ unit(text(text_TD)).T
    assert np.corrcoef(learned_WT.ravel(), (taught_W @ taught_T.T).ravel())[0, 1] > 0.8
    assert (learned_WT[:, :60].argmax(axis=1) == pairs.owner_W).mean() > 0.9


def test_joined_models_add_their_similarities() -> None:
    rng = np.random.default_rng(4)
    audio, text = rng.standard_normal((3, 8)).astype(np.float32), rng.standard_normal((5, 8)).astype(np.float32)
    both = joined([(2.0, Trained(lambda x: 3 * x, lambda x: x)), (0.5, Trained(lambda x: x[:, ::-1], lambda x: x))])
    expected = 2 * unit(audio) @ unit(text).T + 0.5 * unit(audio[:, ::-1]) @ unit(text).T
    np.testing.assert_allclose(both.audio(audio) @ both.text(text).T, expected, atol=1e-5)
