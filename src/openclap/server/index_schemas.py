"""The bodies of requests and responses about indexes, their sounds and their jobs."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from openclap.search.filters import Where
from openclap.server.schemas import (
    Body,
    Expression,
    Seconds,
    Text,
    Weight,
    at_most,
)
from openclap.types import KeywordUse


class Page(Body):
    """The part of a ranking that is wanted."""

    k: int = Field(10, ge=1, le=1000, description="The number of hits.")
    offset: int = Field(0, ge=0, le=9000, description="The number of hits to skip.")


class Range(Body):
    """Numbers from `low` to `high`, both included; null for no bound. An unknown bound would leave all files in."""

    model_config = ConfigDict(strict=True, extra="forbid")

    low: float | None = Field(None, allow_inf_nan=False)
    high: float | None = Field(None, allow_inf_nan=False)


class Contains(Body):
    """Texts with this part, whatever its case."""

    model_config = ConfigDict(strict=True, extra="forbid")

    contains: Text


FactValue = Text | int | Annotated[float, Field(allow_inf_nan=False)] | None
WhereBody = Annotated[
    Annotated[list[Expression], Field(max_length=100)]
    | Annotated[
        dict[Text, FactValue | Annotated[list[FactValue], at_most(1000), Field(max_length=1000)] | Range | Contains],
        Field(max_length=100),
    ],
    at_most(100),
]
"""Conditions on facts: expressions, or values by fact; see `openclap.search.filters`."""


def where_of(conditions: WhereBody | None) -> Where | None:
    """Conditions of a request for the library."""
    if not isinstance(conditions, dict):
        return conditions
    return {fact: _condition(value) for fact, value in conditions.items()}


def _condition(value: object) -> object:
    if isinstance(value, Range):
        return value.low, value.high
    return {"contains": value.contains} if isinstance(value, Contains) else value


class SearchRequest(Page):
    """A query: a text, or an indexed sound or a part of it."""

    index: Text | None = Field(None, description="The name of an index; the first without one.")
    text: Annotated[Text | Annotated[dict[Text, Weight], Field(min_length=1, max_length=100)] | None, at_most(100)] = (
        Field(
            None, description="A description in plain words; or descriptions with weights, below 0 for 'not like this'."
        )
    )
    path: Text | None = Field(None, description="The path of an indexed sound, as hits have it.")
    start_s: Seconds | None = Field(None, description="The start of the part of the sound.")
    end_s: Seconds | None = Field(None, description="The end of the part of the sound.")

    where: WhereBody | None = Field(
        None,
        description='Conditions on facts: expressions such as ["duration_s<10", "tags=rain|wind"], or values by fact: '
        '{"duration_s": {"low": 1, "high": 10}, "tags": ["rain", "wind"]}.',
    )
    keywords: KeywordUse = Field(
        "auto",
        description="Words of names and facts: fused with the embeddings; auto, those that few files have; off; or "
        "only these. For texts.",
    )
    every_window: bool = Field(False, description="Every window that fits, in place of the best of each file.")
    exact: bool = Field(False, description="Compare every window, also in a large index, which takes longer.")

    @property
    def texts(self) -> list[str]:
        """The descriptions."""
        return [self.text] if isinstance(self.text, str) else list(self.text or ())

    @model_validator(mode="after")
    def _check_query(self) -> SearchRequest:
        if (self.text is None) == (self.path is None):
            raise ValueError("Give either text or path")
        if any(not text.strip() for text in self.texts):
            raise ValueError("The text is empty, expected a few words such as 'rain on a tin roof'")
        if self.path is not None and self.keywords in ("fused", "only"):
            raise ValueError("keywords goes with text")
        check_part(self.start_s, self.end_s)
        return self


def check_part(start_s: float | None, end_s: float | None) -> None:
    """Raise ValueError unless the start of a part lies before its end."""
    if (start_s or 0.0) >= (math.inf if end_s is None else end_s):
        raise ValueError(f"The part goes from {start_s or 0:g} s to {end_s:g} s, expected start_s below end_s")


class HitObject(BaseModel):
    """A window of a sound."""

    path: str
    start_s: float
    end_s: float
    score: float
    duration_s: float
    caption: str | None
    tags: list[str]
    licence: str | None
    rate: int
    channels: int
    size: int
    modified: str
    title: str | None
    artist: str | None
    album: str | None
    comment: str | None
    copyright: str | None
    date: str | None
    category: str | None
    subcategory: str | None
    keywords: list[str]


class SearchInfoObject(BaseModel):
    """How a search was done."""

    method: Annotated[str, Field(description="sketch, windows, tables or keywords")]
    windows: Annotated[int, Field(description="Windows that were searched.")]
    scored: Annotated[int, Field(description="Windows that were scored exactly.")]
    newer: Annotated[int, Field(description="Windows that came later than the snapshot.")]
    note: Annotated[str, Field(description="A sentence when the snapshot was of no use.")]
    fit: float | None = Field(
        description="Of a text: the part of a background of queries that have no better hit in this index, from 0 to "
        "1; null where the index has no background.",
    )
    probably_nothing: bool = Field(description="Whether the fit is so low that the index probably has no such sound.")
    keywords: list[str] = Field(description="Words of the text by which files were ranked too.")
    summary: str


class SearchResponse(BaseModel):
    """Hits, best first."""

    index: str
    hits: list[HitObject]
    info: SearchInfoObject
    warning: str | None = Field(None, description="Why the hits of an uploaded sound mean little, if they do.")


class FacetValue(BaseModel):
    """A value of a fact, and the number of files with it."""

    value: str | int | float
    count: int


class Facets(BaseModel):
    """The values of a fact, the most frequent first."""

    fact: str
    values: list[FacetValue]


class IndexObject(BaseModel):
    """A served index."""

    name: str
    model: str
    files: int
    windows: int
    precision: str
    channels: str
    trim_silence: bool
    folders: list[str]


class IndexesResponse(BaseModel):
    """The served indexes; the first is the default."""

    data: list[IndexObject]


class IndexedFileFacts(BaseModel):
    """The facts of an indexed file."""

    path: str
    hash: str
    size: int
    duration_s: float
    rate: int
    channels: int
    caption: str | None
    tags: list[str]
    licence: str | None
    title: str | None
    artist: str | None
    album: str | None
    comment: str | None
    copyright: str | None
    date: str | None
    category: str | None
    subcategory: str | None
    keywords: list[str]


class SoundFacts(IndexedFileFacts):
    """The facts of an indexed sound, and its labels."""

    index: str
    modified: Annotated[str, Field(description="UTC, as 2021-05-03T10:20:30Z.")]
    labels: list[str] = Field(description="Labels that the model gave and that can be wrong.")


class Peaks(BaseModel):
    """The waveform of a sound: the lowest and the highest sample of each stretch of equal length, from -127 to 127."""

    duration_s: float
    low: list[int]
    high: list[int]


class JobState(BaseModel):
    """The progress of work that takes minutes. `message` says why it failed or was stopped."""

    index: str
    state: Literal["idle", "running", "done", "failed", "stopped"]
    done: int = 0
    total: int = 0
    message: str | None = None


class IndexingState(JobState):
    """The progress of indexing, in files. `message` may also be the first file that was skipped, and why."""

    seconds: Annotated[float, Field(description="Seconds of sound that were embedded.")] = 0.0
    added: int = 0
    unchanged: int = 0
    moved: int = 0
    removed: int = 0
    skipped: int = 0


class DuplicatesState(JobState):
    """The progress of the search for duplicates, in pairs of sounds; `total` is 0 until the pairs are known."""


class DuplicateFile(IndexedFileFacts):
    """A file of a group, and its comparison with the group's first file, or with the one that joins it to the group."""

    kind: Annotated[str, Field(description="identical bytes, identical samples or same recording; empty for the first")]
    similarity: Annotated[float, Field(description="From 0 to 1.")]
    offset_s: Annotated[float, Field(description="Where this sound begins, in seconds of the other.")]


class DuplicateGroupObject(BaseModel):
    """Files that are the same recording, the longest first. The id is of their contents, whatever their names."""

    id: str
    kind: str
    files: list[DuplicateFile]
    judged: bool


class SkippedPair(BaseModel):
    """Two files that could not be compared, and why."""

    path: str
    reason: str


class DuplicatesResponse(BaseModel):
    """A page of the groups that the latest run found, and the state of the run."""

    state: DuplicatesState
    groups: Annotated[int, Field(description="The number of groups that are not judged.")]
    judged: Annotated[int, Field(description="The number of judged groups.")]
    page: int
    page_size: int
    listed: list[DuplicateGroupObject]
    skipped: list[SkippedPair]


class GroupJudgement(Body):
    """A judgement of a group: true removes it from the list, until another recording joins it; false brings it back."""

    index: Text | None = None
    id: Text = Field(max_length=100)
    judged: bool = True
