"""Retrieval with several right clips per query: ranks, figures, DCASE's file, and captions that clips share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

import openclap
from openclap.errors import ConfigError, DataError
from openclap.evals.bootstrap import chance_retrieval, random_ranks
from openclap.evals.cached_embedder import embed_clips
from openclap.evals.dataset import Collection, EvalClips, clips_of_task
from openclap.evals.metrics import AUDIO_TO_TEXT, TEXT_TO_AUDIO, Metric, retrieval_metrics
from openclap.evals.ranks import Ranks, Relevance, rank_retrieval, rank_vectors
from openclap.evals.relevance import RelevantClips, check_names, read_relevance
from openclap.evals.retrieval import retrieve
from openclap.evals.runner import evaluate, run_suite
from openclap.evals.suites import PAPER, QUICK, read_suite
from openclap.evals.tasks import Task
from support import miniatures
from support.errors import raises_naming
from support.evals_helpers import BandEmbedder, cached

DCASE = next(task for task in PAPER if task.name == "Clotho, DCASE 2025")
WAYS = {TEXT_TO_AUDIO: 1, AUDIO_TO_TEXT: 0}
"""The axis of the queries in an (A, T) matrix."""


def problem(seed: int, clips: int = 30, captions: int = 40, share: float = 0.12) -> tuple[np.ndarray, np.ndarray]:
    """A random similarity without ties, and a random relevance: some captions have no clip, others many."""
    rng = np.random.default_rng(seed)
    right = rng.random((clips, captions)) < share * rng.random(captions) * 2
    right[0, 0] = True
    return rng.standard_normal((clips, captions)), right


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def count_by_hand(score_N: np.ndarray, right_N: np.ndarray, k: int) -> tuple[float, int]:
    """Average precision at k and the best rank of one query, by walking down its sorted candidates."""
    found, total, best = 0, 0.0, 0
    for place, candidate in enumerate(np.argsort(-score_N), start=1):
        if right_N[candidate]:
            found += 1
            best = best or place
            total += found / place if place <= k else 0.0
    return total / right_N.sum(), best


@pytest.mark.parametrize("k", [1, 3, 10, 16])
@pytest.mark.parametrize("direction", WAYS)
def test_figures_equal_a_count_query_by_query(direction: str, k: int) -> None:
    score_AT, right_AT = problem(k)
    axis = WAYS[direction]
    score_QN, right_QN = (np.moveaxis(table, axis, 0) for table in (score_AT, right_AT))
    answers = [count_by_hand(score, right, k) for score, right in zip(score_QN, right_QN, strict=True) if right.any()]
    figures = retrieval_metrics(score_AT, right_AT, map_at=[k])
    assert figures[f"{direction}_mAP@{k}"] == pytest.approx(np.mean([precision for precision, _ in answers]))
    ranks = np.array([best for _, best in answers])
    for recall in (1, 5, 10):
        assert figures[f"{direction}_R@{recall}"] == pytest.approx((ranks <= recall).mean())
    assert figures[f"{direction}_mean_rank"] == pytest.approx(ranks.mean())


def test_average_precision_without_a_cut_equals_scikit_learn() -> None:
    score_AT, right_AT = problem(5)
    figures = retrieval_metrics(score_AT, right_AT, map_at=[40])
    for direction, axis in WAYS.items():
        pairs = zip(np.moveaxis(right_AT, axis, 0), np.moveaxis(score_AT, axis, 0), strict=True)
        wanted = np.mean([average_precision_score(right, score) for right, score in pairs if right.any()])
        assert figures[f"{direction}_mAP@40"] == pytest.approx(wanted)


def test_map_at_16_by_hand() -> None:
    """One query, twenty clips in falling order; its four right ones rank 1, 4, 16 and 17."""
    right_A = np.isin(np.arange(1, 21), (1, 4, 16, 17))
    falling = -np.arange(20.0)[:, None]
    figures = retrieval_metrics(falling, right_A[:, None], map_at=(10, 16, 20))
    assert figures["text_to_audio_mAP@10"] == pytest.approx((1 / 1 + 2 / 4) / 4)
    assert figures["text_to_audio_mAP@16"] == pytest.approx((1 / 1 + 2 / 4 + 3 / 16) / 4)
    assert figures["text_to_audio_mAP@20"] == pytest.approx((1 / 1 + 2 / 4 + 3 / 16 + 4 / 17) / 4)
    # 17 right clips: no order finds more than 16 within the cut, and the sum is still divided by 17.
    all_first = retrieval_metrics(falling, (np.arange(20) < 17)[:, None], map_at=[16])
    assert all_first["text_to_audio_mAP@16"] == pytest.approx(16 / 17)


def test_owners_are_a_special_case_of_a_matrix() -> None:
    rng = np.random.default_rng(2)
    similarity, owner = rng.standard_normal((20, 60)), rng.integers(0, 20, 60)
    matrix = owner == np.arange(20)[:, None]
    for form in (matrix, matrix.astype(np.int8), scipy.sparse.csr_matrix(matrix), Relevance.of_owners(owner, 20)):
        ours, theirs = rank_retrieval(similarity, form), rank_retrieval(similarity, owner)
        np.testing.assert_array_equal(ours.text_to_audio_P, theirs.text_to_audio_P)
        np.testing.assert_array_equal(ours.audio_to_text_P, theirs.audio_to_text_P)


def test_sparse_relevance_equals_dense() -> None:
    score_AT, right_AT = problem(3)
    sparse = scipy.sparse.coo_array(right_AT.astype(np.int64))
    assert retrieval_metrics(score_AT, sparse) == retrieval_metrics(score_AT, right_AT)
    held_zero = scipy.sparse.coo_array((np.array([1, 0]), ([0, 1], [0, 1])), shape=(2, 2))
    assert Relevance.of(held_zero, 2, 2).clip_P.tolist() == [0]


@st.composite
def tied_problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors of few directions, so that many tie, and any relevance."""
    clips, captions = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    few = unit(rng.standard_normal((draw(st.integers(1, 5)), 8)))
    noise = draw(st.sampled_from([0.0, 1e-7, 1e-3]))
    audio, text = (
        unit(few[rng.integers(0, len(few), n)] + noise * rng.standard_normal((n, 8))) for n in (clips, captions)
    )
    right = rng.random((clips, captions)) < draw(st.sampled_from([0.1, 0.5, 1.0]))
    right[rng.integers(0, clips), rng.integers(0, captions)] = True
    return audio, text, right


def by_comparing(score_AT: np.ndarray, ranks: Ranks, axis: int, tie: float) -> np.ndarray:
    """(P,) ranks pair by pair: wrong candidates that are not clearly worse stand in front, and better right ones."""
    right_AT = np.zeros(score_AT.shape, bool)
    relevance = ranks.relevance
    right_AT[relevance.clip_P, relevance.caption_P] = True
    places = []
    for clip, caption in zip(relevance.clip_P, relevance.caption_P, strict=True):
        score_N, right_N = (score_AT[:, caption], right_AT[:, caption]) if axis else (score_AT[clip], right_AT[clip])
        own = score_AT[clip, caption]
        places.append(1 + (score_N[~right_N] >= own - tie).sum() + (score_N[right_N] > own).sum())
    return np.array(places)


@settings(max_examples=60, deadline=None)
@given(tied_problems(), st.integers(1, 4), st.integers(1, 5))
def test_blocks_of_any_size_equal_comparing_pair_by_pair(
    made: tuple[np.ndarray, np.ndarray, np.ndarray], rows: int, columns: int
) -> None:
    audio, text, right = made
    score_AT, tie = audio.astype(np.float64) @ text.T.astype(np.float64), 1e-5
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("openclap.evals.ranks.ROWS", rows)
        patch.setattr("openclap.evals.ranks.COLUMNS", columns)
        ranks = rank_vectors(audio, text, right, tie=tie)
    for axis, rank_P, query_P in (
        (1, ranks.text_to_audio_P, ranks.relevance.caption_P),
        (0, ranks.audio_to_text_P, ranks.relevance.clip_P),
    ):
        wanted = by_comparing(score_AT, ranks, axis, tie)
        for query in np.unique(query_P):
            # Right candidates of exactly equal scores share a place above, and have different ranks here.
            ours, theirs = np.sort(rank_P[query_P == query]), np.sort(wanted[query_P == query])
            assert (ours >= theirs).all() and len(set(ours.tolist())) == len(ours)
            different = np.isin(theirs, [place for place in theirs if (theirs == place).sum() == 1])
            assert (ours[different] == theirs[different]).all()


def test_thousands_of_right_clips_of_one_caption() -> None:
    rng = np.random.default_rng(0)
    audio, text = unit(rng.standard_normal((4_000, 8))), unit(rng.standard_normal((3, 8)))
    relevance = Relevance.of_pairs(np.append(np.arange(4_000), [5, 7]), np.repeat([0, 1, 2], [4_000, 1, 1]), 4_000, 3)
    ranks = rank_vectors(audio, text, relevance, tie=0.0)
    assert sorted(ranks.text_to_audio_P[:4_000].tolist()) == list(range(1, 4_001))
    assert sorted(random_ranks(relevance, rng).text_to_audio_P[:4_000].tolist()) == list(range(1, 4_001))


def test_chance_with_several_right_clips_equals_random_matrices() -> None:
    _, right_AT = problem(9, clips=20, captions=15)
    relevance, rng = Relevance.of(right_AT, *right_AT.shape), np.random.default_rng(0)
    chance = chance_retrieval(relevance, map_at=(10, 16), draws=150)
    drawn = [retrieval_metrics(rng.random(right_AT.shape), right_AT, map_at=(10, 16)) for _ in range(150)]
    for direction in WAYS:
        for name in ("R@1", "R@10", "mAP@10", "mAP@16", "mean_rank"):
            metric = Metric(name, direction)
            values = [figures[metric.key] for figures in drawn]
            error = 5 * np.std(values) * np.sqrt(2 / 150)
            assert chance[metric].value == pytest.approx(np.mean(values), abs=error)


@pytest.mark.parametrize(
    ("right", "values"),
    [
        (np.zeros((3, 4)), ["no pairs"]),
        (np.full((3, 4), 0.5), ["0 and 1"]),
        (np.ones((4, 3)), ["(4, 3)", "(3, 4)"]),
        (scipy.sparse.coo_array(np.ones((4, 3))), ["(4, 3)"]),
        (Relevance.of_owners([0, 1], 2), ["2 clips"]),
    ],
)
def test_an_invalid_relevance_is_refused(right: object, values: list[str]) -> None:
    with raises_naming(DataError, *values):
        rank_retrieval(np.zeros((3, 4)), right)


# Files --------------------------------------------------------------------------------------------------------------


def write(path: Path, rows: list[tuple[str, str]]) -> Path:
    miniatures.table(path, ["query", "audio_filenames"], rows)
    return path


def test_a_file_of_relevance_is_read_with_its_faults_named(tmp_path: Path) -> None:
    file = write(
        tmp_path / "metadata_eval.csv",
        [
            ("a dog barks", "['a.wav', \"it's.wav\"]"),
            ("rain", "[]"),
            ("wind", "['b.wav'"),
            ("a bell", "{'c.wav': 1}"),
            ("a wolf", "[1, 2]"),
            ("a cat", "__import__('os').system('touch run')"),
            ("a dog barks", "['c.wav', 'a.wav']"),
            ("a deep one", "[" * 60_000 + "]" * 60_000),
            ("a negative one", "[" + "-" * 100_000 + "1]"),
        ],
    )
    queries, notes = read_relevance(file)
    assert queries == (RelevantClips("a dog barks", ("a.wav", "it's.wav", "c.wav")),)
    assert notes == (
        "metadata_eval.csv: 6 queries were left out, whose audio_filenames is no list of names: 'wind', 'a bell', "
        "'a wolf', 'a cat', 'a deep one' and 1 more.",
        "metadata_eval.csv: 1 queries were left out, which name no clip: 'rain'.",
        "metadata_eval.csv: 1 rows repeat a query; the clips of all its rows are right: 'a dog barks'.",
    )
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("query,files\nrain,['a.wav']\n", ["audio_filenames"]),
        ("query,audio_filenames\nrain,[]\n", ["no query"]),
        ("", ["query"]),
        ("query,audio_filenames\nrain,\"['" + "a" * 200_000 + "']\"\n", ["field larger"]),
    ],
)
def test_a_file_without_queries_is_refused(tmp_path: Path, text: str, values: list[str]) -> None:
    (tmp_path / "metadata_eval.csv").write_text(text)
    with raises_naming(DataError, tmp_path / "metadata_eval.csv", *values):
        read_relevance(tmp_path / "metadata_eval.csv")


def test_names_that_are_not_there_are_counted(test_clips: EvalClips) -> None:
    here = test_clips.clips[0].key
    named = [RelevantClips("a", (here, "gone.wav")), RelevantClips("b", ("lost.wav",)), RelevantClips("c", (here,))]
    queries, notes = check_names(named, test_clips.clips, Path("x/metadata_eval.csv"))
    assert queries == (RelevantClips("a", (here,)), RelevantClips("c", (here,)))
    assert notes == (
        "metadata_eval.csv: 2 clips that it names are not among the 60 clips of the split: gone.wav, lost.wav. "
        "1 queries name no other clip and were left out.",
    )
    with raises_naming(DataError, "lost.wav", "No query is left"):
        check_names(named[1:2], test_clips.clips, Path("metadata_eval.csv"))


# Tasks --------------------------------------------------------------------------------------------------------------


def test_the_dcase_task_equals_a_count_over_the_model(tiny_model: Path, sets: Path, tmp_path: Path) -> None:
    result = run_suite("dcase", [DCASE], [cached(tiny_model, tmp_path)], sets)
    assert result.skipped == {}
    data = clips_of_task(DCASE, sets)
    assert data.relevant is not None and len(data.relevant) == 4 and len(data.test) == 6
    model = openclap.load(tiny_model)
    audio_AD = model.embed_audio([clip.path for clip in data.test.clips]).astype(np.float64)
    score_AT = audio_AD @ model.embed_text([each.query for each in data.relevant]).T
    right_AT = np.array([[clip.key in each.clips for each in data.relevant] for clip in data.test.clips])
    assert right_AT.sum() == 6
    for k in (10, 16):
        wanted = np.mean([count_by_hand(score_AT[:, t], right_AT[:, t], k)[0] for t in range(4)])
        row = result.row(f"text_to_audio_mAP@{k}")
        assert row is not None and row.estimate.value == pytest.approx(wanted) and row.n == 4
    shown = [(row.metric.name, row.published[0].value) for row in result.rows if row.is_shown and row.published]
    assert shown == [("mAP@16", 46.62), ("mAP@10", 38.01)]
    assert "4 queries with 1.5 right clips each, by the file of relevance" in result.rows[0].protocol
    assert result.rows[0].incomplete == "6 of 1,045 clips"
    assert "arXiv:2509.16649" in result.to_markdown()
    page = result.write_html(tmp_path / "page.html").read_text(encoding="utf-8")
    assert "mAP@16" in page and "AISTAT" in page


def test_a_missing_file_of_relevance_is_named_with_its_source(tiny_model: Path, tmp_path: Path) -> None:
    miniatures.clotho(tmp_path / "clotho")
    (tmp_path / "clotho" / "metadata_eval.csv").unlink()
    result = run_suite("dcase", [DCASE], [cached(tiny_model, tmp_path)], tmp_path)
    reason = result.skipped["Clotho, DCASE 2025"]
    assert str(tmp_path / "clotho" / "metadata_eval.csv") in reason and "dcase.community/challenge2025" in reason


def test_queries_of_lost_clips_are_left_out(tiny_model: Path, tmp_path: Path) -> None:
    miniatures.clotho(tmp_path / "clotho")
    (tmp_path / "clotho" / "evaluation" / "wolf evaluation 3.wav").write_bytes(b"no sound")
    result = run_suite("dcase", [DCASE], [cached(tiny_model, tmp_path)], tmp_path)
    assert any("1 queries were left out: none of their clips" in note for _, note in result.notes)
    assert result.rows[0].n == 3


def test_shared_captions_count_for_all_their_clips(embedder: BandEmbedder, test_clips: EvalClips) -> None:
    audio_AD = embed_clips(embedder, test_clips)
    own, shared = (retrieve(embedder, test_clips, audio_AD, share_captions=share) for share in (False, True))
    assert len(own.captions) == 120 and len(shared.captions) == 66  # six sentences that ten clips of a kind share
    assert {len(shared.right_clips(t)) for t in range(66)} == {10, 1}
    first = Metric("R@1", TEXT_TO_AUDIO)
    by_hand = []
    for caption in shared.captions:
        score_A = audio_AD.astype(np.float64) @ embedder.embed_text([caption])[0]
        best = test_clips.clips[int(score_A.argmax())]
        by_hand.append(caption in best.captions)
    assert shared.measures()[first].value == pytest.approx(np.mean(by_hand))
    tasks = [replace(QUICK[0], name="shared", share_captions=True), QUICK[0]]
    result = evaluate(embedder, Collection(test_clips), suite=tasks)
    protocols = {row.task: row.protocol for row in result.rows}
    assert "identical captions count for all their clips" in protocols["shared"]
    assert "identical captions" not in protocols["retrieval"]
    notes = [(task, note) for task, note in result.notes if "describe more than one clip" in note]
    assert [task for task, _ in notes] == ["retrieval"]


def test_a_suite_file_names_relevance_and_k(tiny_model: Path, sets: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        """
        [[task]]
        name = "several"
        kind = "retrieval"
        source = "clotho"
        folder = "clotho"
        split = "test"
        relevance = "mine.csv"
        map_at = [2, 16]
        chance = true
        """
    )
    write(tmp_path / "mine.csv", [("a dog or a wolf", "['dog evaluation 0.wav', 'wolf evaluation 3.wav']")])
    result = run_suite("mine", read_suite(tmp_path / "mine.toml"), [cached(tiny_model, tmp_path)], sets)
    assert result.skipped == {}
    row = result.row("text_to_audio_mAP@2")
    assert row is not None and row.n == 1 and row.is_shown and row.chance is not None
    assert not result.row("text_to_audio_mAP@10")


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("map_at = 16", ["map_at", "Write map_at = [16]"]),
        ("map_at = []", ["map_at", "[]"]),
        ("map_at = [0]", ["map_at", "0"]),
        ("map_at = [5, 5]", ["map_at", "[5, 5]"]),
        ('map_at = ["5"]', ["map_at", "'5'"]),
        ("share_captions = 1", ["share_captions", "true or false"]),
        ('share_captions = true\nrelevance = "a.csv"', ["share_captions", "relevance"]),
    ],
)
def test_invalid_options_of_retrieval_are_refused(tmp_path: Path, line: str, values: list[str]) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(f'[[task]]\nname = "a"\nkind = "retrieval"\nsource = "table"\n{line}\n', encoding="utf-8")
    with raises_naming(ConfigError, *values):
        read_suite(file)


def test_options_of_retrieval_belong_to_retrieval() -> None:
    with raises_naming(ConfigError, "share_captions", "zero_shot"):
        Task(name="a", kind="zero_shot", source="esc50", share_captions=True)
    with raises_naming(ConfigError, "relevance", "collection"):
        Task(name="a", kind="retrieval", source="collection", relevance=("a.csv",))
