"""Tokenize captions to numpy arrays, without torch. B captions, L tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as FastTokenizer

from openclap.errors import CheckpointError, DataError, MissingTokenizerError
from openclap.formatting import first_line

FILE = "tokenizer.json"
PAD_TOKENS = ("[PAD]", "<pad>")


class TokenIds(NamedTuple):
    """(B, L) ids and a mask that is 1 on tokens and 0 on padding, both int64."""

    ids_BL: NDArray[np.int64]
    mask_BL: NDArray[np.int64]


class NumpyTokenizer:
    """A tokenizer from a `tokenizer.json` (Hugging Face tokenizers), which cuts captions to `context` tokens.

    Special tokens are added as the file specifies. A batch is padded to its longest caption, or, if `padded`, to the
    whole context.

    Attributes:
        definition: the text of the `tokenizer.json`.
    """

    def __init__(self, definition: str, context: int, *, padded: bool = False) -> None:
        self.definition, self.context, self.padded = definition, context, padded
        self._fast: FastTokenizer = FastTokenizer.from_str(definition)
        pad_id, pad_token = _padding(self._fast)
        self._fast.enable_truncation(context)
        self._fast.enable_padding(pad_id=pad_id, pad_token=pad_token, length=context if padded else None)

    @classmethod
    def read(cls, path: Path, context: int, *, padded: bool = False) -> Self:
        """Read a tokenizer file.

        Raises MissingTokenizerError when it is missing and CheckpointError when it is damaged.
        """
        try:
            return cls(cls._definition(path), context, padded=padded)
        except FileNotFoundError as error:
            raise MissingTokenizerError(
                f"{error.filename}: no such file, and text cannot be embedded without a tokenizer."
            ) from None
        except Exception as error:  # tokenizers raises plain Exception for every kind of damage
            raise CheckpointError(
                f"{path}: is not a {path.name} that tokenizers can read ({first_line(error)})."
            ) from None

    @staticmethod
    def _definition(path: Path) -> str:
        """The text of a `tokenizer.json`."""
        return path.read_text(encoding="utf-8")

    @property
    def settled(self) -> str:
        """The definition including truncation and padding, for programs that do not know the preset."""
        return str(self._fast.to_str(pretty=True))

    def encode(self, captions: Sequence[str]) -> TokenIds:
        """Tokenize captions; L is the longest caption of the batch. Raises DataError for text that is not UTF-8."""
        try:
            encodings = self._fast.encode_batch(list(captions))
        except TypeError:
            raise DataError("A text is not valid UTF-8, so it cannot be tokenized.") from None
        return TokenIds(
            np.array([encoding.ids for encoding in encodings], np.int64),
            np.array([encoding.attention_mask for encoding in encodings], np.int64),
        )

    def batches(self, captions: Sequence[str], batch_size: int) -> Iterator[tuple[NDArray[np.int64], TokenIds]]:
        """Tokenize captions and yield batches with their row numbers, captions of similar length together.

        Sorting by length keeps the padding small, since the network computes padding like any other token.
        """
        if not captions:
            return
        ids_BL, mask_BL = self.encode(captions)
        lengths = mask_BL.sum(axis=1)
        order = lengths.argsort(kind="stable")
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            longest = ids_BL.shape[1] if self.padded else int(lengths[rows].max())
            yield rows, TokenIds(ids_BL[rows, :longest], mask_BL[rows, :longest])

    def too_long(self, captions: Sequence[str]) -> list[bool]:
        """Whether each caption has more tokens than the context, and is cut."""
        return [bool(encoding.overflowing) for encoding in self._fast.encode_batch(list(captions))]

    def __reduce__(self) -> tuple[Any, tuple[str, int]]:
        return partial(type(self), padded=self.padded), (self.definition, self.context)


def _padding(fast: FastTokenizer) -> tuple[int, str]:
    """(id, token) of the padding: as stated in the file, otherwise "[PAD]" (BERT) or "<pad>" (RoBERTa, BART). For CLIP,
    which has no padding token, id 0, as in OpenAI's code."""
    stated = fast.padding
    if stated:
        return int(stated["pad_id"]), str(stated["pad_token"])
    for token in PAD_TOKENS:
        number = fast.token_to_id(token)
        if number is not None:
            return number, token
    return 0, fast.id_to_token(0) or PAD_TOKENS[0]
