"""Collections of sound that words and sounds can search: an index, and the model it was built with."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import openclap.search.scan as scanning
from openclap.audio.io import describe
from openclap.audio.mono import Channels
from openclap.embedder import Embedder, load
from openclap.search.index import Index, IndexIdentity
from openclap.search.paths import absolute
from openclap.search.scan import ScanReport
from openclap.sources.record import Record
from openclap.types import Hit

TOKENIZER = "tokenizer.json"
"""In an index, for a model that has none of its own."""


class Library:
    """What `openclap index`, `search` and `similar` work on.

    Attributes:
        index: the stored vectors.
        embedder: the model, loaded once.
    """

    def __init__(self, index: Index, embedder: Embedder) -> None:
        self.index, self.embedder = index, embedder

    @classmethod
    def open(cls, folder: str | os.PathLike[str], *, tokenizer: Path | None = None) -> Library:
        """Open an index together with the model it names.

        Args:
            tokenizer: a `tokenizer.json` for a model that has none; the one in the index without it.

        Raises DataError when there is no index, CheckpointError when its model is gone, and
        IndexMismatchError when that model has changed since.
        """
        stored, own = Index.open(Path(folder)).identity, Path(folder) / TOKENIZER
        embedder = load(
            stored.model,
            tokenizer=tokenizer or (own if own.is_file() else None),
            channels=stored.channels,
            trim_silence=stored.trim_silence,
        )
        return cls(Index.open(Path(folder), identity_of(embedder, stored.model)), embedder)

    @classmethod
    def open_or_create(
        cls,
        folder: str | os.PathLike[str],
        model: str,
        *,
        tokenizer: Path | None = None,
        channels: Channels = "mean",
        trim_silence: bool = False,
    ) -> Library:
        """Open an index built with `model` and these choices (see `openclap.load`), or make an empty one; a `tokenizer`
        is copied into it, for searches.

        Raises IndexMismatchError for an index built with another model or other choices, CheckpointError for a
        tokenizer that cannot be read.
        """
        embedder = load(model, tokenizer=tokenizer, channels=channels, trim_silence=trim_silence)
        if tokenizer:
            embedder.check_tokenizer()
        named = str(Path(model).absolute()) if Path(model).is_dir() else model
        index = Index.open_or_create(Path(folder), identity_of(embedder, named))
        if tokenizer and not (Path(folder) / TOKENIZER).exists():
            shutil.copyfile(tokenizer, Path(folder) / TOKENIZER)
        return cls(index, embedder)

    def add(
        self,
        roots: Sequence[Path],
        *,
        records: Sequence[Record] = (),
        progress: Callable[[int, int], None] | None = None,
    ) -> ScanReport:
        """Bring the index up to date with folders and files; only what is new is embedded.

        Args:
            records: what is known of the files; hits show their first caption, tags and licence.

        Raises DataError when there is nothing to index.
        """
        known = {absolute(record.audio): record for record in records}
        return scanning.add(
            self.index,
            roots,
            self.embedder.windows_of,
            describe,
            facts=lambda path: _facts(known, path),
            progress=progress,
        )

    def search(self, words: str, k: int) -> list[Hit]:
        """The k sounds that fit `words` best, best first."""
        return self.index.search(self.embedder.embed_text([words])[0], k)

    def similar(self, file: str | os.PathLike[str], k: int) -> list[Hit]:
        """The k sounds most like `file`, best first; the file itself is left out. Raises AudioError."""
        own = os.path.realpath(file)
        vector = self.embedder.embed_audio([own])[0]
        return self.index.search(vector, k, keep=lambda row: os.path.realpath(row.path) != own)


def identity_of(embedder: Embedder, name: str) -> IndexIdentity:
    """What an index remembers of its model, so that vectors of two models never mix."""
    return IndexIdentity(
        digest=embedder.digest(),
        model=name,
        dim=embedder.preset.embedding_size,
        length_s=embedder.window_s,
        hop_s=embedder.window_s,
        channels=embedder.mono.channels,
        trim_silence=embedder.mono.trim_silence,
    )


def _facts(known: Mapping[str, Record], path: Path) -> tuple[str | None, tuple[str, ...], str | None] | None:
    record = known.get(str(path))
    if record is None:
        return None
    return (record.captions[0] if record.captions else None), record.tags, record.licence
