"""Captions to token ids. B captions, L tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer as FastTokenizer

from openclap.errors import CheckpointError, DataError
from openclap.types import TextBatch

FILE = "tokenizer.json"


class Tokenizer:
    """A `tokenizer.json` (Hugging Face tokenizers) with captions cut to `context` tokens.

    Special tokens are added as the file says; a batch is padded to its longest caption.
    """

    def __init__(self, definition: str, context: int) -> None:
        self.definition, self.context = definition, context
        self._fast: FastTokenizer = FastTokenizer.from_str(definition)
        pad = dict(self._fast.padding or {})
        self._fast.enable_truncation(context)
        self._fast.enable_padding(pad_id=int(pad.get("pad_id", 0)), pad_token=str(pad.get("pad_token", "[PAD]")))

    @classmethod
    def read(cls, path: Path, context: int) -> Tokenizer:
        """From a `tokenizer.json` file. Raises CheckpointError when it is missing or damaged."""
        try:
            return cls(path.read_text(encoding="utf-8"), context)
        except FileNotFoundError:
            raise CheckpointError(
                f"{path}: no such file; text cannot be embedded without its tokenizer. Put it there, or pass tokenizer="
            ) from None
        except Exception as error:  # tokenizers raises plain Exception for every kind of damage
            raise CheckpointError(f"{path}: is not a tokenizer.json that tokenizers can read ({error}).") from None

    def __call__(self, captions: Sequence[str]) -> TextBatch:
        """(B, L) ids and mask, L the longest caption of this batch."""
        try:
            encodings = self._fast.encode_batch(list(captions))
        except TypeError:
            raise DataError("A text that is not valid UTF-8 was given; it cannot be tokenized.") from None
        return TextBatch(
            torch.tensor([encoding.ids for encoding in encodings]),
            torch.tensor([encoding.attention_mask for encoding in encodings]),
        )

    def __reduce__(self) -> tuple[type[Tokenizer], tuple[str, int]]:
        return Tokenizer, (self.definition, self.context)
