"""What is said of a sound: rules from titles and tags to sentences, and models that write them from keywords.

captions_of(record)             the captions a record gives, and those the rules of its source make
augment(records, maker)         one sentence more for each, from its keywords
load("bundled")                 a maker: the model that comes along, one of the hub's, a folder's
Endpoint.from_environment()     another: any server that speaks OpenAI's chat protocol
"""

from openclap.captions.endpoint import Endpoint
from openclap.captions.keyword_to_caption import BUNDLED, PUBLISHED, Form, Writer, load
from openclap.captions.makers import Counts, Maker, augment, with_made
from openclap.captions.rules import RULES, Caption, captions_of, labels_of

__all__ = [
    "BUNDLED",
    "PUBLISHED",
    "RULES",
    "Caption",
    "Counts",
    "Endpoint",
    "Form",
    "Maker",
    "Writer",
    "augment",
    "captions_of",
    "labels_of",
    "load",
    "with_made",
]
