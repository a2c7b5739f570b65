"""Embeddings over HTTP, by the clients that people use, against `Embedder` itself."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import infinity_client
import numpy as np
import openai
import pytest
from infinity_client.api.default import classify, embeddings, health, models
from infinity_client.models import (
    ClassifyInput,
    EmbeddingEncodingFormat,
    OpenAIEmbeddingInputAudio,
    OpenAIEmbeddingInputText,
)
from infinity_client.models.open_ai_embedding_input_audio_modality import OpenAIEmbeddingInputAudioModality

from openclap.library import Library
from support.http_server import Exchange, HttpServer
from support.serving import LiveServer, Served

TEXTS = ["a low tone", "noise", "the sound of a high tone in noise", ""]


def data_uri(path: Path) -> str:
    return f"data:audio/wav;base64,{base64.b64encode(path.read_bytes()).decode()}"


@pytest.fixture(scope="module")
def files(library: Library) -> list[Path]:
    return sorted((library.index.folder.parent / "sounds").glob("*.wav"))


def floats(embedding: Any) -> np.ndarray:
    """The numbers of an embedding in either encoding."""
    return np.frombuffer(base64.b64decode(embedding), "<f4") if isinstance(embedding, str) else np.array(embedding)


def vectors(response: Any) -> np.ndarray:
    assert response.status_code == 200, response.text
    return np.array([item["embedding"] for item in response.json()["data"]], np.float32)


def test_the_openai_client_gets_embeddings_of_texts_and_sounds(
    live: LiveServer, library: Library, files: list[Path]
) -> None:
    client = openai.OpenAI(base_url=f"{live.url}/v1", api_key="none")
    assert [model.id for model in client.models.list()] == ["tiny"]
    for form in ("float", "base64", None):  # the client asks for base64 by itself
        options: dict[str, Any] = {"encoding_format": form} if form else {}
        answer = client.embeddings.create(model="tiny", input=TEXTS[:3], **options)
        found = [floats(item.embedding) for item in answer.data]
        np.testing.assert_allclose(found, library.embedder.embed_text(TEXTS[:3]), atol=1e-5)
        answer = client.embeddings.create(model="tiny", input=[data_uri(file) for file in files], **options)
        found = [floats(item.embedding) for item in answer.data]
        np.testing.assert_allclose(found, library.embedder.embed_audio(files), atol=1e-5)
        assert answer.usage.total_tokens == 0
    alone = client.embeddings.create(model="tiny", input=data_uri(files[0]), dimensions=16)
    np.testing.assert_allclose(floats(alone.data[0].embedding), library.embedder.embed_audio(files[:1])[0], atol=1e-5)
    with pytest.raises(openai.BadRequestError) as refused:
        client.embeddings.create(model="tiny", input="rain", dimensions=4)
    assert refused.value.param == "dimensions" and refused.value.type == "invalid_request_error"
    with pytest.raises(openai.NotFoundError) as missing:
        client.embeddings.create(model="gpt", input="rain")
    assert missing.value.code == "model_not_found" and missing.value.param == "model"
    with pytest.raises(openai.BadRequestError, match="token ids"):
        client.embeddings.create(model="tiny", input=[1, 2, 3])


def test_infinity_client_gets_embeddings_of_texts_and_sounds(
    live: LiveServer, library: Library, files: list[Path]
) -> None:
    with infinity_client.Client(base_url=live.url) as client:
        assert health.sync(client=client) is not None
        listed = models.sync(client=client)
        assert listed is not None and [model.id for model in listed.data] == ["tiny"]
        texts = embeddings.sync(client=client, body=OpenAIEmbeddingInputText(input_=TEXTS[:3]))
        short = OpenAIEmbeddingInputText(input_=TEXTS[0], dimensions=5)
        refused = embeddings.sync_detailed(client=client, body=short)
        packed = OpenAIEmbeddingInputAudio(
            input_=data_uri(files[0]),
            modality=OpenAIEmbeddingInputAudioModality.AUDIO,
            encoding_format=EmbeddingEncodingFormat.BASE64,
        )
        # The client writes this request, but reads only lists of numbers from its answer.
        base64s = httpx.post(f"{live.url}/embeddings", json=packed.to_dict()).json()
        audio = embeddings.sync(
            client=client,
            body=OpenAIEmbeddingInputAudio(
                input_=[data_uri(file) for file in files],
                model="tiny",
                modality=OpenAIEmbeddingInputAudioModality.AUDIO,
            ),
        )
        body = ClassifyInput(input_=[data_uri(files[0])])
        body.additional_properties = {"labels": ["low tone", "noise"]}
        classified = classify.sync(client=client, body=body)
    found = np.array([item.embedding for item in texts.data])  # type: ignore[union-attr]
    np.testing.assert_allclose(found, library.embedder.embed_text(TEXTS[:3]), atol=1e-5)
    found = np.array([item.embedding for item in audio.data])  # type: ignore[union-attr]
    np.testing.assert_allclose(found, library.embedder.embed_audio(files), atol=1e-5)
    assert refused.status_code == 400 and json.loads(refused.content)["error"]["param"] == "dimensions"
    np.testing.assert_allclose(
        floats(base64s["data"][0]["embedding"]), library.embedder.embed_audio(files[:1])[0], atol=1e-5
    )
    scores = {item.label: item.score for item in classified.data[0]}  # type: ignore[union-attr]
    expected = library.embedder.classify([files[0]], ["low tone", "noise"])[0]
    np.testing.assert_allclose([scores["low tone"], scores["noise"]], expected, atol=1e-5)


def test_texts_and_sounds_in_one_request_keep_their_order(client: Any, library: Library, files: list[Path]) -> None:
    part = {"type": "input_audio", "input_audio": {"data": data_uri(files[1]).partition(",")[2], "format": "wav"}}
    found = vectors(client.post("/v1/embeddings", json={"input": ["noise", data_uri(files[0]), part, "a low tone"]}))
    np.testing.assert_allclose(found[[0, 3]], library.embedder.embed_text(["noise", "a low tone"]), atol=1e-5)
    np.testing.assert_allclose(found[[1, 2]], library.embedder.embed_audio(files[:2]), atol=1e-5)
    text = vectors(client.post("/v1/embeddings", json={"input": data_uri(files[0])[:30], "modality": "text"}))
    np.testing.assert_allclose(text, library.embedder.embed_text([data_uri(files[0])[:30]]), atol=1e-5)


def test_embed_of_text_embeddings_inference(client: Any, library: Library) -> None:
    found = client.post("/embed", json={"inputs": TEXTS, "normalize": True, "truncate": True}).json()
    np.testing.assert_allclose(found, library.embedder.embed_text(TEXTS), atol=1e-5)
    assert client.post("/embed", json={"inputs": "noise", "normalize": False}).status_code == 400
    assert client.post("/embed", json={"inputs": "noise", "truncate": False}).status_code == 400


def test_shorter_embeddings_have_length_1_again(client: Any, library: Library) -> None:
    whole = library.embedder.embed_text(TEXTS)
    for size in (4, 8, 16, 0, None):
        found = vectors(client.post("/v1/embeddings", json={"input": TEXTS, "dimensions": size}))
        short = whole[:, : size or 16]
        np.testing.assert_allclose(found, short / np.linalg.norm(short, axis=1, keepdims=True), atol=1e-6)
    answer = client.post("/v1/embeddings", json={"input": TEXTS, "dimensions": 5})
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "dimensions"


def test_scores_are_cosines(client: Any, library: Library, files: list[Path]) -> None:
    body = {"input": [data_uri(file) for file in files[:2]], "texts": TEXTS}
    found = client.post("/v1/score", json=body).json()["scores"]
    expected = library.embedder.embed_audio(files[:2]) @ library.embedder.embed_text(TEXTS).T
    np.testing.assert_allclose(found, expected, atol=1e-5)
    body = {"input": data_uri(files[0]), "labels": ["noise", "low tone"], "template": "{}", "raw_scores": True}
    [raw] = client.post("/v1/classify", json=body).json()["data"]
    cosines = library.embedder.embed_text(["noise", "low tone"]) @ library.embedder.embed_audio(files[:1])[0]
    assert {item["label"]: item["score"] for item in raw} == pytest.approx(
        dict(zip(["noise", "low tone"], cosines, strict=True)), abs=1e-5
    )
    assert [item["score"] for item in raw] == sorted((item["score"] for item in raw), reverse=True)


class SoundServer(HttpServer):
    """Serves one sound at /a.wav and a page elsewhere."""

    content = b""

    def handle(self, exchange: Exchange) -> None:
        if exchange.request_.path == "/a.wav":
            exchange.send(200, self.content, {"Content-Type": "audio/wav"})
        else:
            exchange.send(200, b"<html>no sound</html>", {"Content-Type": "text/html"})


def test_urls_are_fetched_from_allowed_hosts_only(
    serve: Callable[..., Served], library: Library, files: list[Path]
) -> None:
    with SoundServer() as other:
        other.content = files[0].read_bytes()
        allowed = serve(url_hosts=frozenset(["127.0.0.1"])).client
        body = {"input": [f"{other.root}/a.wav"], "modality": "audio"}
        found = vectors(allowed.post("/v1/embeddings", json=body))
        np.testing.assert_allclose(found, library.embedder.embed_audio(files[:1]), atol=1e-5)
        page = allowed.post("/v1/embeddings", json=body | {"input": f"{other.root}/page"})
        assert page.status_code == 400 and "not audio" in page.json()["error"]["message"]
        refused = allowed.post("/v1/embeddings", json=body | {"input": other.root.replace("127.0.0.1", "localhost")})
        assert refused.status_code == 400 and "--fetch-from" in refused.json()["error"]["message"]
        seen = len(other.requests)
        assert serve().client.post("/v1/embeddings", json=body).status_code == 400 and len(other.requests) == seen


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"input": []}, 400),
        ({"input": [1, 2]}, 400),
        ({"input": [[1, 2]]}, 400),
        ({"input": 3}, 400),
        ({}, 400),
        ({"input": "x", "model": "other"}, 404),
        ({"input": "x", "encoding_format": "int8"}, 400),
        ({"input": "x", "modality": "image"}, 400),
        ({"input": "x", "modality": "audio"}, 400),
        ({"input": "data:audio/wav;base64,!!!"}, 400),
        ({"input": "data:audio/wav,abc"}, 400),
        ({"input": "data:audio/wav;base64,"}, 400),
        ({"input": "data:audio/wav;base64,bm8gc291bmQ="}, 400),
        ({"input": "http://127.0.0.1:1/a.wav", "modality": "audio"}, 400),
        ({"input": "file:///etc/passwd", "modality": "audio"}, 400),
        ({"input": "x" * 40_000}, 400),
        ({"input": ["x"] * 2049}, 400),
        ({"input": "\ud800"}, 400),
        ({"input": "x", "dimensions": -1}, 400),
    ],
    ids=lambda value: str(value)[:60],
)
def test_mistakes_are_sentences(client: Any, body: dict[str, Any], status: int) -> None:
    answer = client.post("/v1/embeddings", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["type"] == "invalid_request_error"
    assert error["message"].endswith((".", "?")) and "Traceback" not in error["message"]
    assert vectors(client.post("/v1/embeddings", json={"input": "noise"})).shape == (1, 16)


def test_a_bad_input_fails_alone(live: LiveServer, library: Library, files: list[Path]) -> None:
    """Requests share batches, but not failures."""
    bodies = [
        data_uri(files[number % 6]) if number % 3 else "data:audio/wav;base64,bm8gc291bmQ=" for number in range(24)
    ]
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda uri: httpx.post(f"{live.url}/v1/embeddings", json={"input": uri}), bodies))
    assert [answer.status_code for answer in answers] == [200 if number % 3 else 400 for number in range(24)]
    expected = library.embedder.embed_audio(files)
    for number, answer in enumerate(answers):
        if number % 3:
            np.testing.assert_allclose(vectors(answer)[0], expected[number % 6], atol=1e-5)
