"""Captions: rules that make them from titles and tags, and models that write them from keywords.

captions_of(record)             the captions of a record, and those that its source's rules make
augment(records, maker)         one more caption per record, written from its keywords
load("bundled")                 a caption maker: the bundled model, one on the hub, or a folder
Endpoint.from_environment()     another one: any server with OpenAI's chat protocol
"""

from openclap.captions.endpoint import Endpoint
from openclap.captions.keyword_to_caption import BUNDLED, COMMON_GEN, GenerationSettings, KeywordCaptioner, load
from openclap.captions.makers import CaptioningCounts, CaptionMaker, augment, with_generated
from openclap.captions.rules import RULES, Caption, captions_of, labels_of

__all__ = [
    "BUNDLED",
    "COMMON_GEN",
    "RULES",
    "Caption",
    "CaptionMaker",
    "CaptioningCounts",
    "Endpoint",
    "GenerationSettings",
    "KeywordCaptioner",
    "augment",
    "captions_of",
    "labels_of",
    "load",
    "with_generated",
]
