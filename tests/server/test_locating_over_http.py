"""`POST /v1/locate`, against `openclap.locate` itself."""

from __future__ import annotations

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

import openclap
from openclap.library import Library
from openclap.location import PRESENT, UNTRAINED, Location
from openclap.server.app import create_app
from openclap.server.batching import ModelThread
from openclap.server.security import Access
from openclap.server.service import Limits, ServedModel, Service, TorchModel
from support.numpy_runtime import NumpyRuntime
from support.serving import Served

LABELS = ["a low tone", "noise"]


def data_uri(path: Path) -> str:
    return f"data:audio/wav;base64,{base64.b64encode(path.read_bytes()).decode()}"


@pytest.fixture(scope="module")
def files(library: Library) -> list[Path]:
    return sorted((library.index.folder.parent / "sounds").glob("*.wav"))


def check(answer: dict[str, Any], expected: Location) -> None:
    found = [(span["label"], span["start_s"], span["end_s"]) for span in answer["data"]]
    assert found == [(span.label, span.start_s, span.end_s) for span in expected.spans]
    np.testing.assert_allclose(
        [span["score"] for span in answer["data"]], [span.score for span in expected.spans], atol=1e-3
    )
    assert answer["duration_s"] == expected.timeline.duration_s and answer["unit"] == expected.unit


@pytest.mark.parametrize("options", [{"present": True}, {"threshold": -100.0}, {}], ids=str)
def test_spans_are_those_of_the_library(
    client: TestClient, library: Library, files: list[Path], options: dict[str, Any]
) -> None:
    rule = PRESENT if "present" in options else UNTRAINED
    if "threshold" in options:
        rule = replace(rule, threshold=-100.0)
    expected = openclap.locate(library.embedder, files[5], LABELS, rule=rule)
    body = {"input": data_uri(files[5]), "labels": LABELS, **options}
    answer = client.post("/v1/locate", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["model"] == "tiny" and (not options or expected.spans)
    check(answer.json(), expected)


def test_requests_at_once_have_the_spans_of_each(client: TestClient, library: Library, files: list[Path]) -> None:
    def ask(file: Path) -> dict[str, Any]:
        body = {"input": data_uri(file), "labels": LABELS, "present": True}
        answer: dict[str, Any] = client.post("/v1/locate", json=body).json()
        return answer

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(ask, files))
    for file, answer in zip(files, answers, strict=True):
        check(answer, openclap.locate(library.embedder, file, LABELS, rule=PRESENT))


@pytest.mark.parametrize(
    "change",
    [
        {"labels": []},
        {"labels": [""]},
        {"labels": ["noise", "noise"]},
        {"labels": [f"sound {number}" for number in range(101)]},
        {"labels": ["x" * 40_000]},
        {"labels": "noise"},
        {"labels": None},
        {"input": "no sound"},
        {"input": "data:audio/wav;base64,bm8gc291bmQ="},
        {"input": "data:audio/wav;base64,"},
        {"input": []},
        {"template": "no place"},
        {"threshold": "high"},
        {"threshold": float("nan")},
        {"present": 1},
    ],
    ids=lambda change: str(change)[:50],
)
def test_mistakes_are_sentences(client: TestClient, files: list[Path], change: dict[str, Any]) -> None:
    body = json.dumps({"input": data_uri(files[0]), "labels": LABELS} | change)
    answer = client.post("/v1/locate", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["message"].endswith((".", "?"))


def test_a_long_recording_is_refused(serve: Any, files: list[Path]) -> None:
    served: Served = serve(limits=Limits(audio_s=0.5))
    answer = served.client.post("/v1/locate", json={"input": data_uri(files[5]), "labels": LABELS})
    assert answer.status_code == 400 and "0.5" in answer.json()["error"]["message"]


def test_a_model_in_another_runtime_is_loaded_in_torch_once(library: Library, files: list[Path]) -> None:
    loads: list[None] = []

    def load() -> openclap.Embedder:
        loads.append(None)
        return library.embedder

    runtime = NumpyRuntime()
    embedder, thread = openclap.Embedder(runtime), ModelThread(runtime)
    body = {"input": data_uri(files[5]), "labels": LABELS, "present": True}
    service = Service([ServedModel("plain", embedder, thread, in_torch=TorchModel(load, lambda *_: None))])
    with TestClient(create_app(service, Access()), base_url="http://127.0.0.1:7007") as client:
        assert not loads
        for _ in range(2):
            check(
                client.post("/v1/locate", json=body).json(),
                openclap.locate(library.embedder, files[5], LABELS, rule=PRESENT),
            )
        assert len(loads) == 1
    alone = Service([ServedModel("plain", embedder, ModelThread(runtime))])
    with TestClient(create_app(alone, Access()), base_url="http://127.0.0.1:7007") as client:
        answer = client.post("/v1/locate", json=body)
        assert answer.status_code == 400 and "torch" in answer.json()["error"]["message"]
