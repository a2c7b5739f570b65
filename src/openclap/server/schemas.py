"""The bodies of requests and responses: what all share, embeddings and models. See `index_schemas` for the others."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator

DEFAULT_MODEL = "default/not-specified"
"""The name of a model in requests that choose none; infinity's clients send it."""


def check_unicode(text: str) -> str:
    """Raise ValueError for half of a surrogate pair, which JSON can write and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("has half of a surrogate pair, which is no character. Send valid Unicode") from None
    return text


MOST_INPUTS = 2048
"""Texts and sounds in one request."""


def at_most(most: int) -> BeforeValidator:
    """Refuse a longer list or object before its items are looked at: a million wrong items would be a million errors,
    which take a minute and gigabytes."""

    def check(value: Any) -> Any:
        if isinstance(value, list | dict) and len(value) > most:
            raise ValueError(f"has {len(value):,} items, and the limit is {most:,}. Send them in parts")
        return value

    return BeforeValidator(check)


Text = Annotated[str, AfterValidator(check_unicode)]
Expression = Annotated[Text, Field(max_length=1000)]
"""A condition on a fact. Its length is bounded, since the time to read it may grow faster."""
Weight = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]


class Body(BaseModel):
    """A JSON object of a request. Unknown fields are ignored, as clients send some that have no meaning here; the types
    of known ones are not converted, or false would be the number 0."""

    model_config = ConfigDict(strict=True)


class ErrorDetails(BaseModel):
    """What was wrong with a request."""

    message: str = Field(description="One or more sentences: what happened, what was expected, what to do.")
    type: str
    param: str | None = Field(description="The field of the request.")
    code: str | None


class ErrorResponse(BaseModel):
    """An error, in OpenAI's form."""

    error: ErrorDetails


class InputAudio(Body):
    """Audio in base64."""

    data: Text
    format: Text | None = Field(None, description="wav, mp3 and the like; the file's bytes decide.")


class AudioPart(Body):
    """A sound, as OpenAI's chat messages have it."""

    type: Literal["input_audio"]
    input_audio: InputAudio


InputItem = Text | AudioPart
Inputs = Annotated[list[InputItem], Field(min_length=1, max_length=MOST_INPUTS)]
Texts = Annotated[list[Text], Field(min_length=1, max_length=MOST_INPUTS)]


def refuse_token_ids(value: Any) -> Any:
    """Raise ValueError for token ids, which OpenAI's interface also takes."""
    items = value if isinstance(value, list) else [value]
    if any(isinstance(item, int) or (isinstance(item, list) and item) for item in items):
        raise ValueError("is a list of token ids, which belong to one tokenizer. Send the text itself")
    return value


class EmbeddingsRequest(Body):
    """Texts and sounds to embed: OpenAI's request, with infinity's `modality`."""

    input: Annotated[InputItem | Inputs, at_most(MOST_INPUTS)] = Field(
        description="A text, a data URI of a sound, an `input_audio` part, or a list of these."
    )
    model: Text = DEFAULT_MODEL
    modality: Literal["text", "audio"] | None = Field(
        None, description="How strings are read. Without it, data URIs are sounds and other strings are texts."
    )
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=0)] | None = Field(
        None, description="A shorter size, where the model was trained with Matryoshka sizes; 0 for the whole."
    )
    user: str | None = Field(None, description="Ignored.")

    _token_ids = field_validator("input", mode="before")(refuse_token_ids)


class Usage(BaseModel):
    """The size of a request: characters of texts, as infinity counts them; sounds count nothing."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingObject(BaseModel):
    """An embedding of length 1: numbers, or the base64 of little-endian float32."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingsResponse(BaseModel):
    """Embeddings, in the order of the input."""

    object: Literal["list"] = "list"
    data: list[EmbeddingObject]
    model: str
    usage: Usage
    id: str
    created: int


class EmbedRequest(Body):
    """text-embeddings-inference's request."""

    inputs: Annotated[Text | Texts, at_most(MOST_INPUTS)]
    normalize: bool = True
    truncate: bool | None = None
    dimensions: Annotated[int, Field(ge=0)] | None = None

    _token_ids = field_validator("inputs", mode="before")(refuse_token_ids)

    @field_validator("normalize")
    @classmethod
    def _check_normalize(cls, value: bool) -> bool:
        if not value:
            raise ValueError("is false, but the model's embeddings have length 1. Leave it out")
        return value

    @field_validator("truncate")
    @classmethod
    def _check_truncate(cls, value: bool | None) -> bool | None:
        if value is False:
            raise ValueError("is false, but texts longer than the model reads are always cut. Leave it out")
        return value


class ClassifyRequest(Body):
    """Sounds and the labels to choose from."""

    input: Annotated[InputItem | Inputs, at_most(MOST_INPUTS)] = Field(
        description="A data URI of a sound, an `input_audio` part, or a list of these."
    )
    labels: Annotated[list[Text], at_most(MOST_INPUTS)] = Field(min_length=2, max_length=MOST_INPUTS)
    template: Text | None = Field(None, description="The prompt template; {} stands for the label.")
    model: Text = DEFAULT_MODEL
    raw_scores: bool = Field(False, description="Cosines in place of probabilities.")


class LabelScore(BaseModel):
    """A label and its probability, or its cosine with `raw_scores`."""

    label: str
    score: float


class ClassifyResponse(BaseModel):
    """For each sound, all labels, the most probable first."""

    object: Literal["classify"] = "classify"
    data: list[list[LabelScore]]
    model: str
    usage: Usage
    id: str
    created: int


class ScoreRequest(Body):
    """Sounds and texts to compare."""

    input: Annotated[InputItem | Inputs, at_most(MOST_INPUTS)] = Field(
        description="A data URI of a sound, an `input_audio` part, or a list of these."
    )
    texts: Annotated[Texts, at_most(MOST_INPUTS)]
    model: Text = DEFAULT_MODEL


class ScoreResponse(BaseModel):
    """CLAP scores: the cosine of each sound (rows) with each text (columns), from -1 to 1."""

    scores: list[list[float]]
    model: str


MOST_LOCATED = 100
"""Labels in one request to locate: each has a score at every moment."""


class LocateRequest(Body):
    """A recording, and descriptions of what to find in it."""

    input: InputItem = Field(description="A data URI of a sound, or an `input_audio` part.")
    labels: Annotated[list[Text], at_most(MOST_LOCATED)] = Field(min_length=1, max_length=MOST_LOCATED)
    present: bool = Field(False, description="The sounds are known to be there: find where each fits best.")
    threshold: Annotated[float, Field(allow_inf_nan=False)] | None = Field(
        None, description="The least score of a span, in place of the model's."
    )
    template: Text | None = Field(None, description="The prompt template; {} stands for the label.")
    model: Text = DEFAULT_MODEL


class SpanObject(BaseModel):
    """A stretch of time in which a label is heard, and its highest score."""

    label: str
    start_s: float
    end_s: float
    score: float


class LocateResponse(BaseModel):
    """The spans, by label, in the order of the labels, then by time."""

    object: Literal["locate"] = "locate"
    data: list[SpanObject]
    duration_s: float
    unit: str = Field(description="Of the scores: a probability only for models that were trained to tell when.")
    model: str


class ModelStats(BaseModel):
    """Work that waits for a model."""

    queue_text: int
    queue_audio: int


class ModelObject(BaseModel):
    """A served model. `owned_by` is what infinity's client requires."""

    id: str
    object: Literal["model"] = "model"
    owned_by: Literal["infinity"] = "infinity"
    created: int
    backend: str
    capabilities: list[str]
    dimensions: int
    matryoshka: list[int]
    stats: ModelStats


class ModelsResponse(BaseModel):
    """The served models; the first is the default."""

    object: Literal["list"] = "list"
    data: list[ModelObject]


class Health(BaseModel):
    """The server runs."""

    status: Literal["ok"] = "ok"
    unix: float


class SessionRequest(Body):
    """The token, to be exchanged for a cookie."""

    token: Text


class Status(BaseModel):
    """A change was made."""

    status: Literal["ok"] = "ok"
