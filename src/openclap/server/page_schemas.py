"""The bodies of requests and responses that the page sends and reads, beside those of `schemas`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, model_validator

from openclap.server.index_schemas import (
    FacetValue,
    HitObject,
    SearchInfoObject,
    WhereBody,
    check_part,
)
from openclap.server.schemas import (
    Body,
    Seconds,
    Text,
    Weight,
    at_most,
)
from openclap.types import KeywordUse

MOST_TERMS = 32
MOST_NUMBERS = 8192
"""Numbers of the longest embedding."""
Number = Annotated[float, Field(allow_inf_nan=False)]


class Term(Body):
    """A part of a query: a text, an indexed sound or a part of it, or the embedding of any other sound."""

    text: Text | None = None
    path: Text | None = Field(None, description="The path of an indexed sound, as hits have it.")
    start_s: Seconds | None = None
    end_s: Seconds | None = None
    vector: Annotated[list[Number] | None, at_most(MOST_NUMBERS)] = Field(
        None, description="An embedding of the index's model, from `POST /v1/sounds/embedding`; of any length."
    )
    weight: Weight = Field(1.0, description="Below 0 for 'not like this'.")

    @model_validator(mode="after")
    def _check_one(self) -> Term:
        if sum(each is not None for each in (self.text, self.path, self.vector)) != 1:
            raise ValueError("A term has one of text, path and vector")
        if self.text is not None and not self.text.strip():
            raise ValueError("The text is empty, expected a few words such as 'rain on a tin roof'")
        check_part(self.start_s, self.end_s)
        return self


class CombinedRequest(Body):
    """A query of several terms; without any, all sounds that fulfil the conditions, in the order of their paths."""

    index: Text | None = None
    terms: Annotated[list[Term], at_most(MOST_TERMS)] = Field(default_factory=list, max_length=MOST_TERMS)
    where: WhereBody | None = Field(None, max_length=100)
    keywords: KeywordUse = "off"
    k: int = Field(50, ge=1, le=200)
    offset: int = Field(0, ge=0, le=10_000_000)

    @property
    def texts(self) -> list[str]:
        """The texts."""
        return [term.text for term in self.terms if term.text is not None]

    @property
    def words(self) -> str:
        """The texts for the keywords: those of which more is wanted, and not less."""
        return " ".join(term.text for term in self.terms if term.text is not None and term.weight > 0)

    @model_validator(mode="after")
    def _check_keywords(self) -> CombinedRequest:
        if self.keywords == "only" and (not self.terms or len(self.texts) < len(self.terms)):
            raise ValueError("keywords=only goes with texts alone")
        return self


class CombinedHit(HitObject):
    """A hit, how well it fits, where it has words of the query, and its labels."""

    fit: float | None = Field(
        description="Of a query of texts: the part of a background of queries that have no better hit in this index."
    )
    words: list[str] = Field(description="Words of the hit's name and facts that the query has, too.")
    labels: list[str] = Field(description="Labels of the whole sound, which the model gave and which can be wrong.")


class CombinedResponse(BaseModel):
    """A page of hits, best first."""

    index: str
    total: int = Field(description="The number of hits on all pages.")
    hits: list[CombinedHit]
    info: SearchInfoObject


class SoundEmbedding(BaseModel):
    """The embedding of an uploaded sound, for terms of a query."""

    vector: list[float]
    duration_s: float
    low: list[int] = Field(description="Its waveform, as `GET /v1/sounds/peaks` has it.")
    high: list[int]
    warning: str | None


class OverviewRequest(Body):
    """The conditions of a search."""

    index: Text | None = None
    where: WhereBody | None = Field(None, max_length=100)


class DurationRange(BaseModel):
    """Sounds from `low` to `high` seconds, both included; null for no bound."""

    low: float | None
    high: float | None
    count: int


class Overview(BaseModel):
    """Files that fulfil the conditions, by fact. The values of a fact are counted without the conditions on it, so that
    others can be chosen."""

    total: int
    facets: dict[str, list[FacetValue]]
    durations: list[DurationRange]


class Suggestion(BaseModel):
    """A query with good hits, and where it comes from."""

    text: str
    kind: Literal["caption", "tag", "category", "description"]
    count: int = Field(description="The files with it; 0 for a description, which was found by a search.")


class Suggestions(BaseModel):
    """Queries, the best first."""

    values: list[Suggestion]


class Spectrogram(BaseModel):
    """Levels of a part of a sound: for each of `bands` frequencies, the lowest first, `columns` bytes, in base64. 255
    is 0 dB of full scale, and 0 is -100 dB or less."""

    start_s: float
    end_s: float
    low_hz: float
    high_hz: float
    columns: int
    bands: int
    levels: str


class SkippedSound(BaseModel):
    """A file that could not be indexed, and why."""

    path: str
    reason: str


class SkippedFiles(BaseModel):
    """The files that the latest run skipped: the first ones, and their number."""

    count: int
    files: list[SkippedSound]


class RevealRequest(Body):
    """An indexed sound."""

    index: Text | None = None
    path: Text


class LinksRequest(Body):
    """Where the collection is, and whether its folder opens in the file manager."""

    index: Text | None = None
    reveal: bool = False


class CollectionLinks(BaseModel):
    """The folder with a link to each sound of a collection."""

    folder: str
    links: int
    missing: list[str] = Field(description="Sounds that are no longer there.")


class PageSettings(BaseModel):
    """Settings that the page needs before its first search."""

    version: str
    can_reveal: bool = Field(description="Whether the server can show a file in this machine's file manager.")
    clip_s: float = Field(description="The longest part that can be downloaded as WAV, in seconds.")
    upload_bytes: int
    upload_s: float


class SoundMap(BaseModel):
    """Sounds on a plane: coordinates from 0 to 10,000, and the number of each one's group; -1 for none."""

    total: int = Field(description="The sounds of the index, of which the map may show a part.")
    paths: list[str]
    x: list[int]
    y: list[int]
    group: list[int]
    groups: list[str]


class CollectionNames(BaseModel):
    """The names of collections."""

    names: list[str]


SoundPaths = Annotated[list[Text], at_most(100_000), Field(max_length=100_000)]


class CollectionPaths(Body):
    """Indexed sounds."""

    paths: SoundPaths


class CollectionChange(Body):
    """Sounds to remove, and indexed sounds to add at the end."""

    add: SoundPaths = Field(default=[])
    remove: SoundPaths = Field(default=[])


class SoundCollection(BaseModel):
    """Sounds that a person has put together, in their order."""

    name: str
    paths: list[str]


class Judgement(BaseModel):
    """Whether a hit fits its query."""

    query: str
    path: str
    start_s: float
    end_s: float
    relevant: bool


class JudgementRequest(Body):
    """A judgement of a hit; null deletes it."""

    index: Text | None = None
    query: Text = Field(min_length=1, max_length=10_000)
    path: Text
    start_s: Seconds = 0.0
    end_s: Seconds
    relevant: bool | None


class Judgements(BaseModel):
    """Judgements of hits."""

    data: list[Judgement]
