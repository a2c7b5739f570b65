"""Searchable collections of sounds: a search index together with its model."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import openclap.search.scan as scanning
from openclap.audio.io import describe
from openclap.audio.mono import Channels
from openclap.embedder import Embedder
from openclap.limits import check_path
from openclap.loading import RuntimeName, load
from openclap.recording_comparison import duplicates_of
from openclap.search.duplicates import DuplicateGroup
from openclap.search.index import Index, IndexIdentity
from openclap.search.paths import absolute
from openclap.search.scan import ScanReport
from openclap.sources.record import Record
from openclap.types import Hit, Progress

if TYPE_CHECKING:
    import torch

TOKENIZER = "tokenizer.json"
"""File in the index folder, for a model that has no tokenizer of its own."""


class Library:
    """A search index and its model, as used by `openclap index`, `search` and `similar`.

    Attributes:
        index: the stored embeddings.
        embedder: the model, loaded once.

    Examples:
        >>> library = openclap.Library.open("sounds.index", "demo-start")
        >>> library.add(["sounds"]).added
        3
        >>> [hit] = library.search("a dog barking", k=1)
        >>> 0 <= hit.start_s < hit.end_s <= hit.duration_s
        True
        >>> len(library.similar("dog.ogg", k=2))
        2
    """

    def __init__(self, index: Index, embedder: Embedder) -> None:
        self.index, self.embedder = index, embedder

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike[str],
        model: str | os.PathLike[str] | None = None,
        *,
        tokenizer: str | os.PathLike[str] | None = None,
        channels: Channels | None = None,
        trim_silence: bool | None = None,
        precision: str | None = None,
        device: str | torch.device | None = None,
        revision: str | None = None,
        offline: bool = False,
        runtime: RuntimeName | None = "auto",
    ) -> Library:
        """Open an index with its model. Given a `model`, create an empty index if there is none.

        An index stores the name of its model and all options except `device`, `offline` and `runtime`. The defaults are
        the stored options, or, for a new index, those of `openclap.load`, except that `runtime` is "auto": without
        torch where the model was converted for onnxruntime.

        Args:
            model: anything that `openclap.load` reads; the default is the model of the index.
            tokenizer: a `tokenizer.json` for a model without one; it is copied into a new index.

        Raises DataError when there is neither an index nor a model, CheckpointError when the model no longer exists or
        the tokenizer cannot be read, and IndexMismatchError when the index was built with another model or other
        options.

        Examples:
            >>> library = openclap.Library.open("sounds.index", "demo-start")
            >>> library.index.identity.model
            'demo-start'
        """
        place = Path(check_path("folder", folder))
        index = Index.open(place) if model is None or Index.exists(place) else None
        stored = index.identity if index else None
        if model is None and stored:
            model, revision = stored.model, revision or stored.revision
        stored_tokenizer = place / TOKENIZER
        embedder = load(
            os.fspath(model or ""),
            device=device,
            tokenizer=tokenizer or (stored_tokenizer if index and stored_tokenizer.is_file() else None),
            precision=precision or (stored.precision if stored else "fp32"),
            revision=revision,
            offline=offline,
            channels=channels or (stored.channels if stored else "mean"),
            trim_silence=(stored is not None and stored.trim_silence) if trim_silence is None else trim_silence,
            runtime=runtime,
        )
        identity = identity_of(embedder, _lasting_name(os.fspath(model or "")), revision)
        if index:
            index.check(identity)
        if tokenizer:
            embedder.check_tokenizer()  # before a folder is created
        if index is None:
            index = Index.open_or_create(place, identity)
            if tokenizer and not stored_tokenizer.exists():
                shutil.copyfile(tokenizer, stored_tokenizer)
        return cls(index, embedder)

    def add(
        self,
        roots: Sequence[str | os.PathLike[str]],
        *,
        records: Sequence[Record] = (),
        progress: Callable[[int, int], None] | None = None,
        seconds: Callable[[float], None] | None = None,
    ) -> ScanReport:
        """Bring the index up to date with folders and files; only new contents are embedded.

        Args:
            records: facts about the files: hits show their first caption, tags and licence.
            progress: receives the number of files done and the number of files to read.
            seconds: receives the seconds of sound embedded since its last call.

        Raises DataError when there is nothing to index, or another process is writing to the index.
        """
        by_path = {absolute(record.audio): record for record in records}
        return scanning.add(
            self.index,
            [Path(root) for root in roots],
            lambda sounds: self.embedder.recordings_each(sounds, progress=seconds),
            describe,
            facts=lambda path: _facts(by_path, path),
            progress=progress,
        )

    def search(self, text: str, k: int = 10) -> list[Hit]:
        """The k sounds that fit `text` best, best first. Raises ConfigError for k < 1."""
        return self.index.search(self.embedder.embed_text([text])[0], k)

    def duplicates(
        self, *, progress: Progress = lambda done, total: None
    ) -> tuple[list[DuplicateGroup], list[tuple[str, str]]]:
        """Groups of files that are the same recording, the surest first, and pairs that could not be compared.

        Files of identical bytes come first, then those of identical samples, then the same recording in another
        format, at another level or rate, or cut. Takes of one session are no duplicates. Files are only read; the
        comparisons are cached, so that the next call takes seconds, and a stopped one resumes.

        Args:
            progress: receives the number of compared pairs and of all pairs.
        """
        return duplicates_of(self.index, progress=progress)

    def similar(self, file: str | os.PathLike[str], k: int = 10) -> list[Hit]:
        """The k sounds most similar to `file`, best first, without the file itself.

        Raises AudioError when the file cannot be decoded, ConfigError for k < 1.
        """
        own = os.path.realpath(file)
        vector = self.embedder.embed_audio([own])[0]
        return self.index.search(vector, k, include=lambda row: os.path.realpath(row.path) != own)


def identity_of(embedder: Embedder, name: str, revision: str | None = None) -> IndexIdentity:
    """The identity of an embedder that an index stores, so that embeddings of two models never mix."""
    digest = embedder.digest()
    if embedder.precision != "fp32":  # fp32 adds nothing, so that digests of older indexes stay valid
        digest = hashlib.sha256(f"{digest} {embedder.precision}".encode()).hexdigest()
    return IndexIdentity(
        digest=digest,
        model=name,
        dim=embedder.preset.embedding_size,
        length_s=embedder.window_s,
        hop_s=embedder.window_s,
        channels=embedder.mono.channels,
        trim_silence=embedder.mono.trim_silence,
        precision=embedder.precision,
        revision=revision,
    )


def _lasting_name(model: str) -> str:
    """The name of a model that is valid in any working directory: a path is made absolute."""
    return str(Path(model).absolute()) if Path(model).exists() else model


def _facts(by_path: Mapping[str, Record], path: Path) -> tuple[str | None, tuple[str, ...], str | None] | None:
    record = by_path.get(str(path))
    if record is None:
        return None
    return (record.captions[0] if record.captions else None), record.tags, record.licence
