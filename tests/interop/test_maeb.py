"""One task of every kind of MAEB, offline: mteb's own classes and evaluation, over bundled sounds.

Each data set is a folder as the hub has it, with the columns of the real one. Audio columns are stored with
`decode=False`: mteb looks at a row while it loads retrieval tasks, and datasets would decode it with torchcodec, which
is not installed here. Sounds of a class are copies of one sound with other noise, so that figures of classes and
clusters are known; those of retrieval, pairs, reranking and zero-shot are computed from the embedder beside.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from openclap import demo
from openclap.loading import load

os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
mteb = pytest.importorskip("mteb")
datasets = pytest.importorskip("datasets")

from openclap.interop.mteb import Encoder, encoder  # noqa: E402

SOUNDS = [Path(demo.__file__).parent / "sounds" / f"opensfx-{name}.ogg" for name in ("applause", "beep", "big-crash")]
TAKES = 6
CLASSES = [number for number in range(len(SOUNDS)) for _ in range(TAKES)]


def take(number: int, seed: int) -> dict[str, Any]:
    """Half a second of a bundled sound with a little noise, as datasets stores it."""
    wave, rate = soundfile.read(SOUNDS[number], dtype="float32", always_2d=True)
    mono = wave.mean(axis=1)[: rate // 2]
    noise = 1e-3 * np.random.default_rng([number, seed]).standard_normal(len(mono))
    out = io.BytesIO()
    soundfile.write(out, (mono + noise).astype(np.float32), rate, format="WAV")
    return {"bytes": out.getvalue(), "path": f"{number}-{seed}.wav"}


TAKEN = [take(number, seed) for seed, number in enumerate(CLASSES)]
Columns = Mapping[str, Sequence[Any]]


def write_repo(folder: Path, configs: Mapping[str, Mapping[str, Columns]]) -> Path:
    """A data set in the layout of the hub: {config: {split: columns}}, parquet files and a card that names them.

    The names of folders differ between tests, because datasets caches by name.
    """
    folder.mkdir(parents=True)
    lines = ["---", "configs:"]
    for config, splits in configs.items():
        lines += [f"- config_name: {config}", "  data_files:"]
        for split, columns in splits.items():
            audio = [name for name, values in columns.items() if isinstance(values[0], dict)]
            table = datasets.Dataset.from_dict(dict(columns))
            for name in audio:
                table = table.cast_column(name, datasets.Audio(decode=False))
            table.to_parquet(folder / f"{config}-{split}.parquet")
            lines += [f"  - split: {split}", f"    path: {config}-{split}.parquet"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]), encoding="utf-8")
    return folder


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
        yield


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Encoder:
    return encoder(tiny_model, device="cpu")


@pytest.fixture(scope="module")
def audio_ND(tiny_model: Path) -> np.ndarray:
    """The embeddings of all takes, by the embedder itself."""
    sounds = [io.BytesIO(each["bytes"]) for each in TAKEN]
    return load(tiny_model, device="cpu").embed_audio(sounds).astype(np.float64)


@pytest.fixture(scope="module")
def embed_text(tiny_model: Path) -> Any:
    return load(tiny_model, device="cpu").embed_text


def scores(model: Encoder, name: str, repo: Path, split: str, **options: Any) -> dict[str, Any]:
    task = mteb.get_task(name, **options)
    # Only the address of the data changes.
    task.metadata = task.metadata.model_copy(update={"dataset": {"path": str(repo), "revision": "main"}})
    result = mteb.evaluate(
        model, task, cache=mteb.ResultCache(repo.parent / "cache"), show_progress_bar=False, co2_tracker=False
    )
    assert not result.exceptions
    found: dict[str, Any] = result.task_results[0].scores[split][0]
    return found


# Words that the small tokenizer knows, or all captions would tie.
TEXTS = ["rain on the roof.the rain", "a bell.a high tone", "a low noise.the big dog"]


def clotho(folder: Path) -> Path:
    """One clip of each sound, with two captions in one text, as mteb's copy of Clotho has them."""
    columns = {"index": ["a", "b", "c"], "audio": TAKEN[::TAKES], "text": TEXTS}
    return write_repo(folder, {"default": {"test": columns}})


def test_retrieval_of_audio_by_text(model: Encoder, audio_ND: np.ndarray, embed_text: Any, tmp_path: Path) -> None:
    found = scores(model, "ClothoT2ARetrieval", clotho(tmp_path / "clotho_t2a"), "test")
    texts = [text for both in TEXTS for text in both.split(".")]
    similarity = embed_text(texts).astype(np.float64) @ audio_ND[::TAKES].T
    ranks = (similarity > similarity[np.arange(6), np.arange(6) // 2][:, None]).sum(1)
    assert found["hit_rate_at_1"] == pytest.approx((ranks < 1).mean(), abs=1e-4)
    assert found["mrr_at_10"] == pytest.approx((1 / (ranks + 1)).mean(), abs=1e-4)


def test_retrieval_of_text_by_audio(model: Encoder, audio_ND: np.ndarray, embed_text: Any, tmp_path: Path) -> None:
    found = scores(model, "ClothoA2TRetrieval", clotho(tmp_path / "clotho_a2t"), "test")
    texts = [text for both in TEXTS for text in both.split(".")]
    similarity = audio_ND[::TAKES] @ embed_text(texts).astype(np.float64).T
    best = [np.argsort(-row).tolist().index for row in similarity]
    ranks = np.array([min(best[clip](2 * clip), best[clip](2 * clip + 1)) for clip in range(3)])
    assert found["hit_rate_at_1"] == pytest.approx((ranks < 1).mean(), abs=1e-4)
    assert found["mrr_at_10"] == pytest.approx((1 / (ranks + 1)).mean(), abs=1e-4)


def test_classification(model: Encoder, tmp_path: Path) -> None:
    columns = {"audio": 4 * TAKEN, "label": 4 * CLASSES}  # enough for every class in every fold
    repo = write_repo(tmp_path / "opera", {"default": {"train": columns}})
    assert scores(model, "BeijingOpera", repo, "train")["accuracy"] == 1.0


def test_classification_of_a_column_with_another_name(model: Encoder, tmp_path: Path) -> None:
    labels = [f"bird {number}" for number in CLASSES]
    columns = {"recording": 4 * TAKEN, "primary_label": 4 * labels}
    repo = write_repo(tmp_path / "birds", {"default": {"train": columns}})
    assert scores(model, "BirdCLEF", repo, "train")["accuracy"] == 1.0


def test_clustering(model: Encoder, tmp_path: Path) -> None:
    repo = write_repo(tmp_path / "vehicles", {"default": {"test": {"audio": TAKEN, "label": CLASSES}}})
    assert scores(model, "VehicleSoundClustering", repo, "test")["v_measure"] == pytest.approx(1.0)


def test_pairs(model: Encoder, audio_ND: np.ndarray, tmp_path: Path) -> None:
    from sklearn.metrics import average_precision_score

    first, second = np.triu_indices(len(TAKEN), k=1)
    same = (np.array(CLASSES)[first] == np.array(CLASSES)[second]).astype(int)
    columns = {
        "audio1": [TAKEN[i] for i in first],
        "audio2": [TAKEN[i] for i in second],
        "label": same.tolist(),
    }
    repo = write_repo(tmp_path / "pairs", {"default": {"test": columns}})
    found = scores(model, "CREMADPairClassification", repo, "test")
    wanted = average_precision_score(same, (audio_ND[first] * audio_ND[second]).sum(1))
    assert found["cosine_ap"] == pytest.approx(wanted, abs=1e-3)


def test_reranking(model: Encoder, audio_ND: np.ndarray, tmp_path: Path) -> None:
    """Each query has candidates of its own: two takes of its sound, and one each of the other two."""
    from sklearn.metrics import average_precision_score

    names = [f"d{n}" for n in range(len(TAKEN))]
    queries = [number * TAKES for number in range(len(SOUNDS))]
    candidates = [[q + 1, q + 2, (q + TAKES) % len(TAKEN), (q + 2 * TAKES) % len(TAKEN)] for q in queries]
    right = [
        (f"q{q}", names[c], int(CLASSES[c] == CLASSES[q]))
        for q, cs in zip(queries, candidates, strict=True)
        for c in cs
    ]
    query, document, score = (list(column) for column in zip(*right, strict=True))
    repo = write_repo(
        tmp_path / "reranking",
        {
            "corpus": {"test": {"id": names, "audio": TAKEN}},
            "queries": {"test": {"id": [f"q{q}" for q in queries], "audio": [TAKEN[q] for q in queries]}},
            "qrels": {"test": {"query-id": query, "corpus-id": document, "score": score}},
            "top_ranked": {
                "test": {
                    "query-id": [f"q{q}" for q in queries],
                    "corpus-ids": [[names[c] for c in cs] for cs in candidates],
                }
            },
        },
    )
    found = scores(model, "GTZANAudioReranking", repo, "test")
    wanted = [
        average_precision_score([CLASSES[c] == CLASSES[q] for c in cs], audio_ND[cs] @ audio_ND[q])
        for q, cs in zip(queries, candidates, strict=True)
    ]
    assert found["map_at_1000"] == pytest.approx(np.mean(wanted), abs=1e-4)


def test_zero_shot(model: Encoder, audio_ND: np.ndarray, embed_text: Any, tmp_path: Path) -> None:
    task = mteb.get_task("RavdessZeroshot")
    labels = [number % 8 for number in range(len(TAKEN))]
    repo = write_repo(tmp_path / "zeroshot", {"default": {"train": {"audio": TAKEN, "labels": labels}}})
    found = scores(model, "RavdessZeroshot", repo, "train")
    answers = (audio_ND @ embed_text(task.get_candidate_labels()).astype(np.float64).T).argmax(1)
    assert found["accuracy"] == pytest.approx((answers == labels).mean(), abs=1e-4)


def test_multilabel(model: Encoder, audio_ND: np.ndarray, tmp_path: Path) -> None:
    """Training and test split are the same, so that the classifiers can be fitted here."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import label_ranking_average_precision_score
    from sklearn.multioutput import MultiOutputClassifier

    # Every sound has a label of its own, and a take of each one more: fewer takes than the 8 that mteb draws per label.
    truth_NC = np.column_stack([np.equal.outer(CLASSES, range(3)), np.arange(len(TAKEN)) % TAKES == 0]).astype(int)
    columns = {"audio": TAKEN, "sound": [[f"label {c}" for c in np.flatnonzero(row)] for row in truth_NC]}
    repo = write_repo(tmp_path / "multilabel", {"curated": {"train": columns, "test": columns}})
    found = scores(model, "FSD2019Kaggle", repo, "test", hf_subsets=["curated"])
    classifiers = MultiOutputClassifier(LogisticRegression()).fit(audio_ND, truth_NC)
    assert found["accuracy"] == pytest.approx(classifiers.score(audio_ND, truth_NC), abs=1e-4)
    odds_NC = np.stack([odds_N2[:, 1] for odds_N2 in classifiers.predict_proba(audio_ND)], axis=1)
    assert found["lrap"] == pytest.approx(label_ranking_average_precision_score(truth_NC, odds_NC), abs=1e-4)


def test_the_benchmark_has_the_kinds_that_are_tested_here() -> None:
    kinds = {task.metadata.type for task in mteb.get_benchmark("MAEB(beta)").tasks}
    assert kinds == {
        "Any2AnyRetrieval",
        "AudioClassification",
        "AudioClustering",
        "AudioPairClassification",
        "AudioReranking",
        "AudioZeroshotClassification",
        "AudioMultilabelClassification",
    }
