"""Embeddings, zero-shot classification and CLAP scores over HTTP, in the forms that clients know.

`/v1/embeddings` is OpenAI's, with infinity's `modality`; `/embed` is text-embeddings-inference's.

N inputs, C labels, T texts, D embedding.
"""

from __future__ import annotations

import base64
import time
import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from openclap.embedder import Vectors, softmax
from openclap.server.batching import ModelTask
from openclap.server.errors import ApiError
from openclap.server.inputs import check_texts, is_sound, sound_of
from openclap.server.schemas import (
    DEFAULT_MODEL,
    ClassifyRequest,
    ClassifyResponse,
    EmbeddingsRequest,
    EmbeddingsResponse,
    EmbedRequest,
    InputItem,
    ModelObject,
    ModelsResponse,
    ModelStats,
    ScoreRequest,
    ScoreResponse,
)
from openclap.server.service import ServedModel, Service
from openclap.text.prompts import SOUND, prompts


def router(service: Service) -> APIRouter:
    """The routes of this module."""
    routes = APIRouter(tags=["Embeddings"])
    started = int(time.time())

    @routes.get("/v1/models", operation_id="list_models")
    @routes.get("/models", include_in_schema=False)
    async def list_models() -> ModelsResponse:
        """List the served models; the first is the default."""
        return ModelsResponse(data=[_model_object(model, started) for model in service.models.values()])

    @routes.post("/v1/embeddings", response_model=EmbeddingsResponse, operation_id="embeddings")
    @routes.post("/embeddings", include_in_schema=False)
    async def embeddings(body: EmbeddingsRequest, request: Request) -> JSONResponse:
        """Embed texts and sounds in one space."""
        model = service.model(body.model)
        items = _listed(body.input)
        size = _size(model, body.dimensions)
        sounds = [body.modality == "audio" or (body.modality is None and is_sound(item)) for item in items]
        sounds = [sound or not isinstance(item, str) for sound, item in zip(sounds, items, strict=True)]
        check_texts([str(item) for item, sound in zip(items, sounds, strict=True) if not sound], "input", service)
        vectors_ND = await service.run(
            request,
            "audio" if any(sounds) else "text",
            lambda task: cut(embed(model, items, sounds, task, service), size),
        )
        data = [
            {"object": "embedding", "index": index, "embedding": encoded(vector_D, body.encoding_format)}
            for index, vector_D in enumerate(vectors_ND)
        ]
        characters = sum(len(str(item)) for item, sound in zip(items, sounds, strict=True) if not sound)
        return JSONResponse({"object": "list", "data": data} | _about(model, characters))

    @routes.post("/embed", response_model=list[list[float]], operation_id="embed")
    async def embed_texts(body: EmbedRequest, request: Request) -> JSONResponse:
        """Embed texts, as text-embeddings-inference does."""
        model = service.model(DEFAULT_MODEL)
        texts = body.inputs if isinstance(body.inputs, list) else [body.inputs]
        check_texts(texts, "inputs", service)
        size = _size(model, body.dimensions)
        vectors_ND = await service.run(
            request, "text", lambda task: cut(model.embedder_of(task).embed_text(texts), size)
        )
        return JSONResponse(vectors_ND.tolist())

    @routes.post("/v1/classify", response_model=ClassifyResponse, operation_id="classify")
    @routes.post("/classify", include_in_schema=False)
    async def classify(body: ClassifyRequest, request: Request) -> JSONResponse:
        """Classify sounds by labels without training on them (zero-shot)."""
        model, items = service.model(body.model), _listed(body.input)
        check_texts(body.labels, "labels", service)
        sentences = prompts(body.labels, body.template or SOUND)

        def work(task: ModelTask) -> Vectors:
            text_CD = model.embedder_of(task).embed_text(sentences)
            cosine_NC = embed(model, items, [True] * len(items), task, service) @ text_CD.T
            return cosine_NC if body.raw_scores else softmax(cosine_NC * model.embedder.runtime.logit_scale)

        score_NC = await service.run(request, "audio", work)
        data = [
            [{"label": body.labels[place], "score": float(score_C[place])} for place in np.argsort(-score_C)]
            for score_C in score_NC
        ]
        return JSONResponse({"object": "classify", "data": data} | _about(model, sum(map(len, sentences))))

    @routes.post("/v1/score", response_model=ScoreResponse, operation_id="score")
    async def score(body: ScoreRequest, request: Request) -> JSONResponse:
        """Compute the CLAP score of each sound with each text: the cosine of their embeddings."""
        model, items = service.model(body.model), _listed(body.input)
        check_texts(body.texts, "texts", service)

        def work(task: ModelTask) -> Vectors:
            text_TD = model.embedder_of(task).embed_text(body.texts)
            cosine_NT: Vectors = embed(model, items, [True] * len(items), task, service) @ text_TD.T
            return cosine_NT

        scores_NT = await service.run(request, "audio", work)
        return JSONResponse({"scores": scores_NT.tolist(), "model": model.name})

    return routes


def embed(
    model: ServedModel, items: Sequence[InputItem], sounds: Sequence[bool], task: ModelTask, service: Service
) -> Vectors:
    """Embed texts and sounds, (N, D); `sounds` says which items are sounds. Raises ApiError and AudioError."""
    embedder = model.embedder_of(task, service.limits.audio_s)
    vectors_ND = np.zeros((len(items), embedder.embedding_size), np.float32)
    audio = [place for place, sound in enumerate(sounds) if sound]
    text = [place for place, sound in enumerate(sounds) if not sound]
    contents = [sound_of(items[place], f"input[{place}]", service) for place in audio]
    vectors_ND[text] = embedder.embed_text([str(items[place]) for place in text])
    vectors_ND[audio] = embedder.embed_audio(contents)
    return vectors_ND


def cut(vectors_ND: Vectors, size: int) -> Vectors:
    """The first `size` numbers of each vector, at length 1 again."""
    if size == vectors_ND.shape[1]:
        return vectors_ND
    short_ND = vectors_ND[:, :size]
    unit_ND: Vectors = short_ND / np.maximum(np.linalg.norm(short_ND, axis=1, keepdims=True), np.float32(1e-12))
    return unit_ND


def encoded(vector_D: Vectors, form: str) -> list[float] | str:
    """An embedding for JSON: numbers, or the base64 of little-endian float32."""
    if form == "base64":
        return base64.b64encode(vector_D.astype("<f4").tobytes()).decode("ascii")
    numbers: list[float] = vector_D.tolist()
    return numbers


def _size(model: ServedModel, dimensions: int | None) -> int:
    """The size of the embeddings to return. Raises ApiError for one that the model was not trained for."""
    whole = model.embedder.embedding_size
    if not dimensions or dimensions == whole or dimensions in model.sizes:
        return dimensions or whole
    sizes = " or ".join(str(size) for size in (*model.sizes, whole))
    raise ApiError(400, f"dimensions is {dimensions}, and {model.name} has {sizes}.", param="dimensions")


def _listed(items: InputItem | list[InputItem]) -> list[InputItem]:
    return items if isinstance(items, list) else [items]


def _about(model: ServedModel, characters: int) -> dict[str, Any]:
    """The fields of OpenAI's responses besides the data."""
    return {
        "model": model.name,
        "usage": {"prompt_tokens": characters, "total_tokens": characters},
        "id": f"openclap-{uuid.uuid4()}",
        "created": int(time.time()),
    }


def _model_object(model: ServedModel, created: int) -> ModelObject:
    return ModelObject(
        id=model.name,
        created=created,
        backend=model.embedder.runtime.name,
        capabilities=["embed", "classify"],
        dimensions=model.embedder.embedding_size,
        matryoshka=list(model.sizes),
        stats=ModelStats(queue_text=model.thread.waiting("text"), queue_audio=model.thread.waiting("audio")),
    )
