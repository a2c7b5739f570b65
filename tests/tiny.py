"""Names under which some tests still know `tiny_models`."""

from tiny_models import TINY_PRESET as PRESET
from tiny_models import tiny_tokenizer as make_tokenizer

__all__ = ["PRESET", "make_tokenizer"]
