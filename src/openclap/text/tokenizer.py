"""Tokenize captions to torch tensors. B captions, L tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from openclap.text.numpy_tokenizer import FILE, NumpyTokenizer
from openclap.types import TextBatch

__all__ = ["FILE", "MERGES", "VOCABULARY", "Tokenizer"]

VOCABULARY, MERGES = "vocab.json", "merges.txt"


class Tokenizer(NumpyTokenizer):
    """A tokenizer that returns the input of a text tower. It reads a `tokenizer.json`, or a `vocab.json` with
    `merges.txt` and settings in the same folder."""

    def __call__(self, captions: Sequence[str]) -> TextBatch:
        """Tokenize: (B, L) ids and mask, where L is the length of the longest caption."""
        ids_BL, mask_BL = self.encode(captions)
        return TextBatch(torch.from_numpy(ids_BL), torch.from_numpy(mask_BL))

    @staticmethod
    def _definition(path: Path) -> str:
        """The text of a `tokenizer.json`; vocabulary and merges are converted by transformers."""
        if path.name != VOCABULARY:
            return path.read_text(encoding="utf-8")
        from transformers import AutoTokenizer

        path.with_name(MERGES).open("rb").close()  # raises if missing; transformers would silently do without merges
        tokenizer = AutoTokenizer.from_pretrained(path.parent, local_files_only=True, trust_remote_code=False)
        made: str = tokenizer.backend_tokenizer.to_str()
        return made
