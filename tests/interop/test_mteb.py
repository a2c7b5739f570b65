"""mteb's own evaluation, offline, over sounds that come with openclap."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import openclap
from openclap import demo
from openclap.errors import AudioError, ConfigError
from openclap.loading import load
from support.errors import raises_naming
from support.foreign import perception, write_perception

os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
mteb = pytest.importorskip("mteb")
datasets = pytest.importorskip("datasets")

from mteb.abstasks.retrieval import AbsTaskRetrieval  # noqa: E402
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData  # noqa: E402
from mteb.abstasks.task_metadata import TaskMetadata  # noqa: E402
from mteb.abstasks.zeroshot_classification import AbsTaskZeroShotClassification  # noqa: E402

from openclap.interop.mteb import Encoder, encoder  # noqa: E402

FILES = sorted((Path(demo.__file__).parent / "sounds").glob("opensfx-*.ogg"))[:12]
LABELS = ["the sound of rain", "a dog", "a low noise", "a high bell"]


def about(name: str, kind: str, category: str, score: str) -> TaskMetadata:
    return TaskMetadata(
        name=name,
        description="Sounds of openclap's demo.",
        reference="https://example.org",
        dataset={"path": "local/openclap-demo", "revision": "1"},
        type=kind,
        category=category,
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score=score,
        date=("2020-01-01", "2020-12-31"),
        domains=["AudioScene"],
        task_subtypes=[],
        license="cc0-1.0",
        annotations_creators="derived",
        dialect=[],
        modalities=["audio", "text"],
        sample_creation="found",
        bibtex_citation="",
    )


def recordings() -> datasets.Dataset:
    table = {"audio": [str(file) for file in FILES], "label": [place % len(LABELS) for place in range(len(FILES))]}
    return datasets.Dataset.from_dict(table).cast_column("audio", datasets.Audio())


class ZeroShot(AbsTaskZeroShotClassification):
    metadata = about("OpenclapZeroShot", "AudioZeroshotClassification", "a2t", "accuracy")
    input_column_name = "audio"

    def load_data(self, **kwargs: Any) -> None:
        self.dataset = datasets.DatasetDict(test=recordings())
        self.data_loaded = True

    def get_candidate_labels(self) -> list[str]:
        return LABELS


class Retrieval(AbsTaskRetrieval):
    metadata = about("OpenclapRetrieval", "Any2AnyRetrieval", "t2a", "ndcg_at_10")

    def load_data(self, **kwargs: Any) -> None:
        sounds = recordings().select_columns(["audio"]).add_column("id", [file.stem for file in FILES])
        names = [file.stem.removeprefix("opensfx-") for file in FILES]
        queries = datasets.Dataset.from_dict({"id": names, "text": [name.replace("-", " ") for name in names]})
        owners = {name: {file.stem: 1} for name, file in zip(names, FILES, strict=True)}
        split = RetrievalSplitData(corpus=sounds, queries=queries, relevant_docs=owners, top_ranked=None)
        self.dataset = {"default": {"test": split}}
        self.data_loaded = True


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Encoder:
    return encoder(tiny_model, device="cpu")


def scores(model: Encoder, task: Any, place: Path) -> dict[str, Any]:
    cache = mteb.ResultCache(place / "cache")
    result = mteb.evaluate(
        model, task, cache=cache, prediction_folder=place, show_progress_bar=False, co2_tracker=False
    )
    found: dict[str, Any] = result.task_results[0].scores["test"][0]
    return found


def test_mteb_zero_shot_equals_the_embedder(model: Encoder, tiny_model: Path, tmp_path: Path) -> None:
    embedder = load(tiny_model, device="cpu")
    similarity = embedder.embed_audio(FILES) @ embedder.embed_text(LABELS).T
    right = similarity.argmax(axis=1) == np.arange(len(FILES)) % len(LABELS)
    assert scores(model, ZeroShot(), tmp_path)["accuracy"] == pytest.approx(right.mean())
    predicted = json.loads((tmp_path / "OpenclapZeroShot_predictions.json").read_text())["default"]["test"]
    np.testing.assert_allclose(predicted, similarity, atol=1e-5)


def test_mteb_retrieval_equals_the_embedder(model: Encoder, tiny_model: Path, tmp_path: Path) -> None:
    embedder = load(tiny_model, device="cpu")
    texts = [file.stem.removeprefix("opensfx-").replace("-", " ") for file in FILES]
    similarity = embedder.embed_text(texts) @ embedder.embed_audio(FILES).T
    ranks = (similarity > similarity.diagonal()[:, None]).sum(axis=1)
    found = scores(model, Retrieval(), tmp_path)
    assert found["recall_at_5"] == pytest.approx(np.mean(ranks < 5), abs=1e-4)


def test_model_meta_reloads_the_model(model: Encoder) -> None:
    """mteb's own `load_model` first asks for torchaudio, whose place openclap's decoding takes."""
    facts = model.mteb_model_meta
    assert facts.name == "openclap/model" and facts.modalities == ["audio", "text"]
    again = facts.loader(facts.name, revision=facts.revision, device="cpu", **facts.loader_kwargs)
    assert isinstance(again, mteb.EncoderProtocol) and again.model.digest() == facts.revision
    assert facts.embed_dim == 16 and facts.n_parameters > 0


def loader(**columns: list[Any]) -> Any:
    """Batches as mteb's loaders give them, from columns that are decoded already."""
    from mteb._create_dataloaders import _custom_collate_fn
    from torch.utils.data import DataLoader

    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return DataLoader(rows, batch_size=2, collate_fn=_custom_collate_fn)


def test_decoded_audio_is_embedded(model: Encoder, tiny_model: Path) -> None:
    rng = np.random.default_rng(0)
    waves = [rng.uniform(-0.5, 0.5, (2, length)).astype(np.float32) for length in (5000, 9000, 20000)]
    rows = [{"array": wave, "sampling_rate": 22050} for wave in waves]
    embedder = load(tiny_model, device="cpu")
    audio_embeddings = embedder.embed_audio([(wave.T, 22050) for wave in waves])
    np.testing.assert_allclose(model.encode(loader(audio=rows)), audio_embeddings, atol=1e-6)
    np.testing.assert_allclose(model.encode(iter([{"audio": rows}])), audio_embeddings, atol=1e-6)
    texts = ["rain", "a dog", "a bell"]
    both = audio_embeddings + embedder.embed_text(texts)
    both /= np.linalg.norm(both, axis=1, keepdims=True)
    np.testing.assert_allclose(model.encode(loader(audio=rows, text=texts)), both, atol=1e-6)


def test_invalid_inputs_are_refused(model: Encoder, tiny_model: Path) -> None:
    with raises_naming(AudioError, "NaN"):
        model.encode(loader(audio=[{"array": np.full(100, np.nan), "sampling_rate": 16000}]))
    with raises_naming(ConfigError, "image"):
        model.encode(loader(image=[1]))
    with raises_naming(ConfigError, "'mine'", "organization/model"):
        encoder(tiny_model, name="mine")


def test_a_model_that_transformers_computes_is_evaluated_too(tmp_path: Path) -> None:
    folder = write_perception(tmp_path / "pe")
    embedder, loaded = openclap.load(folder, device="cpu"), encoder(folder)
    meta = loaded.mteb_model_meta
    assert meta.n_parameters == sum(weight.numel() for weight in perception().parameters())
    assert meta.embed_dim == embedder.embedding_size and meta.revision == embedder.digest()
    np.testing.assert_allclose(loaded.encode(loader(text=LABELS)), embedder.embed_text(LABELS), atol=1e-6)
