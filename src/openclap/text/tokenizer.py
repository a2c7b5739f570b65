"""Captions to token ids. B captions, L tokens."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer as FastTokenizer

from openclap.errors import CheckpointError, DataError, MissingTokenizerError
from openclap.types import TextBatch

FILE = "tokenizer.json"
VOCABULARY, MERGES = "vocab.json", "merges.txt"


class Tokenizer:
    """A `tokenizer.json` (Hugging Face tokenizers) with captions cut to `context` tokens.

    Special tokens are added as the file says; a batch is padded to its longest caption, or, where `padded`, to the
    whole context.
    """

    def __init__(self, definition: str, context: int, *, padded: bool = False) -> None:
        self.definition, self.context, self.padded = definition, context, padded
        self._fast: FastTokenizer = FastTokenizer.from_str(definition)
        pad_id, pad_token = _padding(self._fast)
        self._fast.enable_truncation(context)
        self._fast.enable_padding(pad_id=pad_id, pad_token=pad_token, length=context if padded else None)

    @classmethod
    def read(cls, path: Path, context: int, *, padded: bool = False) -> Tokenizer:
        """From a `tokenizer.json` file, or from a `vocab.json` with `merges.txt` and settings beside it.

        Raises CheckpointError when it is missing or damaged.
        """
        try:
            return cls(_definition(path), context, padded=padded)
        except FileNotFoundError as error:
            raise MissingTokenizerError(
                f"{error.filename}: no such file, and text cannot be embedded without its tokenizer."
            ) from None
        except Exception as error:  # tokenizers raises plain Exception for every kind of damage
            raise CheckpointError(f"{path}: is not a {path.name} that tokenizers can read ({error}).") from None

    @property
    def settled(self) -> str:
        """The definition with truncation and padding stated, for readers who know nothing of the context."""
        return str(self._fast.to_str(pretty=True))

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

    def too_long(self, captions: Sequence[str]) -> list[bool]:
        """Which captions have more tokens than the context, and are cut."""
        return [bool(encoding.overflowing) for encoding in self._fast.encode_batch(list(captions))]

    def __reduce__(self) -> tuple[Any, tuple[str, int]]:
        return partial(Tokenizer, padded=self.padded), (self.definition, self.context)


def _definition(path: Path) -> str:
    """The content of a `tokenizer.json`; of vocabulary and merges, what transformers makes of them."""
    if path.name != VOCABULARY:
        return path.read_text(encoding="utf-8")
    from transformers import AutoTokenizer

    path.with_name(MERGES).open("rb").close()  # or it would be taken for a vocabulary without merges
    tokenizer = AutoTokenizer.from_pretrained(path.parent, local_files_only=True, trust_remote_code=False)
    made: str = tokenizer.backend_tokenizer.to_str()
    return made


def _padding(fast: FastTokenizer) -> tuple[int, str]:
    """The padding that the file states; else its padding token: "[PAD]" of BERT, "<pad>" of RoBERTa and BART, and for
    CLIP, which has none, id 0 as OpenAI pads."""
    stated = fast.padding
    if stated:
        return int(stated["pad_id"]), str(stated["pad_token"])
    for token in PAD_TOKENS:
        found = fast.token_to_id(token)
        if found is not None:
            return found, token
    return 0, fast.id_to_token(0) or PAD_TOKENS[0]


PAD_TOKENS = ("[PAD]", "<pad>")
