"""Evaluations with cached embeddings: resuming, workers, other models, and damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from openclap.evals.dataset import clips_of_task
from openclap.evals.result_tables import table_of
from openclap.evals.results import Results
from openclap.evals.runner import run_suite
from openclap.evals.suites import PAPER
from support.evals_helpers import RefusingEmbedder, cached

TASKS = {task.name: task for task in PAPER}


def cells(results: Results) -> list[tuple[str, ...]]:
    """The table without its last column, the seconds."""
    return [row[:-1] for row in table_of(results)]


def test_a_second_run_embeds_nothing_and_gives_the_same_table(tiny_model: Path, sets: Path, tmp_path: Path) -> None:
    tasks = [TASKS["ESC-50"], TASKS["Clotho"], TASKS["FSD50K, linear probe"]]
    first = run_suite("three", tasks, [cached(tiny_model, tmp_path, batch_size=1)], sets)
    again = cached(tiny_model, tmp_path, batch_size=64)
    again.embedder = RefusingEmbedder(again.embedder)
    assert cells(run_suite("three", tasks, [again], sets)) == cells(first)
    fresh = run_suite("three", tasks, [cached(tiny_model, tmp_path / "other", batch_size=64)], sets)
    assert cells(fresh) == cells(first)


@pytest.mark.long
def test_two_processes_give_the_same_table(tiny_model: Path, sets: Path, tmp_path: Path) -> None:
    tasks = [TASKS["UrbanSound8K"]]
    one = run_suite("one", tasks, [cached(tiny_model, tmp_path / "1")], sets)
    two = run_suite("one", tasks, [cached(tiny_model, tmp_path / "2", processes=2)], sets)
    assert cells(one) == cells(two)


def test_a_stopped_run_resumes_without_embedding_again(
    tiny_model: Path, sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openclap.evals.cached_embedder.CHUNK", 4)

    def stop(what: str, done: int, total: int) -> None:
        if done >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_suite("one", [TASKS["ESC-50"]], [cached(tiny_model, tmp_path, progress=stop)], sets)
    progress: list[int] = []
    resumed = cached(tiny_model, tmp_path, progress=lambda what, done, total: progress.append(done))
    run_suite("one", [TASKS["ESC-50"]], [resumed], sets)
    assert progress[0] == 12 and progress[-1] == 20


def test_embeddings_of_another_model_are_never_used(
    tiny_model: Path, other_model: Path, sets: Path, tmp_path: Path
) -> None:
    ours, theirs = cached(tiny_model, tmp_path / "both"), cached(other_model, tmp_path / "both")
    clips = clips_of_task(TASKS["GTZAN"], sets).test
    wanted = cached(other_model, tmp_path / "alone").embed_clips(clips).embedding_ND
    ours.embed_clips(clips)
    np.testing.assert_array_equal(theirs.embed_clips(clips).embedding_ND, wanted)


def test_a_damaged_cache_changes_no_figure(
    tiny_model: Path, sets: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clips, first = clips_of_task(TASKS["GTZAN"], sets).test, cached(tiny_model, tmp_path)
    wanted = first.embed_clips(clips)
    [file] = tmp_path.glob("*.sqlite")
    file.write_bytes(b"no database" * 1000)
    found = cached(tiny_model, tmp_path).embed_clips(clips)
    np.testing.assert_allclose(found.embedding_ND, wanted.embedding_ND, atol=1e-5)
    assert found.clips.digest == wanted.clips.digest and not found.lost
    assert "is damaged" in caplog.text
