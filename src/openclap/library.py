"""Searchable collections of sounds: a search index together with its model. D embedding."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import openclap.search.scan as scanning
from openclap import runtimes
from openclap.audio.inputs import Sound, blocks
from openclap.audio.io import decode_part, describe
from openclap.audio.metadata import read_metadata
from openclap.audio.mono import Channels, is_silent
from openclap.checkpoints.bundled import MINI
from openclap.collapse import warn_of_collapsed_audio
from openclap.embedder import Embedder, Vectors
from openclap.errors import AudioWarning, ConfigError, DataError, IndexMismatchError, IndexWarning, OpenClapError
from openclap.limits import check_count, check_path
from openclap.loading import RuntimeName, load
from openclap.paths import is_url
from openclap.recording_comparison import duplicates_of
from openclap.search.duplicates import DuplicateGroup
from openclap.search.filters import Where
from openclap.search.fit import update_background
from openclap.search.folder import check_precision, replaced_folder
from openclap.search.index import FileRow, Hits, Index, IndexIdentity
from openclap.search.labels import Label, default_labels, parse_labels, read_labels, update_labels
from openclap.search.paths import absolute
from openclap.search.queries import SearchQuery, count_facets, find
from openclap.search.rebuild import exchange, prepare
from openclap.search.scan import ScanReport
from openclap.sources.record import Record
from openclap.types import KeywordUse, Progress

if TYPE_CHECKING:
    import torch

    from openclap.data.parallel import Share

TOKENIZER = "tokenizer.json"
"""File in the index folder, for a model that has no tokenizer of its own."""


class Library:
    """A search index and its model, as used by `openclap index`, `search` and `similar`.

    Attributes:
        index: the stored embeddings.
        embedder: the model, loaded once.

    Examples:
        >>> library = openclap.Library.open("sounds.index")
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
        create: bool = True,
    ) -> Library:
        """Open an index with its model, or create an empty one.

        An index stores the name of its model and all options except `device`, `offline` and `runtime`. The defaults are
        the stored options, or, for a new index, those of `openclap.load`, except that `runtime` is "auto": without
        torch where onnxruntime can read the model. Without torch, an index of another precision than fp32 is opened in
        fp32. An index can be searched in another precision than its own if that is within a cosine of 0.999 of fp32
        (fp32, bf16 and auto are); sounds are added in its own.

        Args:
            model: anything that `openclap.load` reads; the default is the model of the index, or "mini" for a new one.
            tokenizer: a `tokenizer.json` for a model without one; it is copied into a new index.
            create: whether a missing index is created.

        Raises DataError when there is no index and none is to be created, CheckpointError when the model no longer
        exists or the tokenizer cannot be read, and IndexMismatchError when the index was built with another model or
        other options, or the precision is too coarse.

        Examples:
            >>> library = openclap.Library.open("sounds.index")
            >>> library.index.identity.model
            'mini'
        """
        place = check_path("folder", folder)
        # After a stopped rebuilding there is an index under another name, which a new one would hide: opening says so.
        is_kept = not create or Index.exists(place) or replaced_folder(Path(place)).exists()
        index = Index.open(place) if is_kept else None
        stored = index.identity if index else None
        if model is None and stored:
            model, revision = stored.model, revision or stored.revision
        model = MINI if model is None else model
        stored_tokenizer = index.place.local_copy(TOKENIZER) if index else None
        embedder = load(
            os.fspath(model),
            device=device,
            tokenizer=tokenizer or stored_tokenizer,
            precision=precision or (_precision_here(stored.precision) if stored else "fp32"),
            revision=revision,
            offline=offline,
            channels=channels or (stored.channels if stored else "mean"),
            trim_silence=(stored is not None and stored.trim_silence) if trim_silence is None else trim_silence,
            runtime=runtime,
        )
        identity = identity_of(embedder, _lasting_name(os.fspath(model)), revision)
        if index:
            index.check(identity)
        if tokenizer:
            embedder.check_tokenizer()  # before a folder is created
        if index is None:
            index = Index.open_or_create(place, identity)
            if tokenizer and index.place.read(TOKENIZER) is None:
                index.place.write(TOKENIZER, Path(tokenizer).read_bytes())
        return cls(index, embedder)

    @classmethod
    def rebuild(
        cls,
        folder: str | os.PathLike[str],
        model: str | os.PathLike[str],
        *,
        tokenizer: str | os.PathLike[str] | None = None,
        channels: Channels | None = None,
        trim_silence: bool | None = None,
        precision: str | None = None,
        device: str | torch.device | None = None,
        revision: str | None = None,
        offline: bool = False,
        progress: Callable[[int, int], None] | None = None,
        seconds: Callable[[float], None] | None = None,
    ) -> tuple[Library, ScanReport]:
        """Replace an index by one of another model: the new one is made beside it, and takes its place when complete.

        Until then the old one can be searched. After a stop, the same call resumes. Captions, tags and licences are
        copied, and sounds get labels of the same list. The options are those of `open`.

        Raises DataError when there is no index, a folder of it does not exist, or another process is writing to it.
        """
        place = Path(check_path("folder", folder))
        if not is_url(place):
            place = place.expanduser().absolute()
        old, new = prepare(place)
        options: dict[str, Any] = {"channels": channels, "trim_silence": trim_silence, "precision": precision}
        options |= {"tokenizer": tokenizer, "device": device, "revision": revision, "offline": offline}
        try:
            library = cls.open(new, model, **options)
            library._check_precision()
        except (IndexMismatchError, DataError):  # begun with another model or other options
            if not Index.exists(new):
                raise
            shutil.rmtree(new)
            library = cls.open(new, model, **options)
        rows = {path: row for path, row in old.files_by_path().items() if row.caption or row.tags or row.licence}
        header = old.header()
        report = scanning.add(
            library.index,
            [root.found(place) for root in header.roots],
            library._embed(seconds),
            describe,
            facts=lambda path: _facts_of_row(rows.get(str(path))),
            metadata=read_metadata,
            exclude=header.exclude,
            progress=progress,
        )
        labelled = read_labels(old)
        library._update_derived(labelled.labels if labelled else None)
        exchange(old, header, new)
        return cls(Index.open(place), library.embedder), report

    def add(
        self,
        roots: Sequence[str | os.PathLike[str]],
        *,
        records: Sequence[Record] = (),
        exclude: Sequence[str] = (),
        part: str | None = None,
        progress: Callable[[int, int], None] | None = None,
        seconds: Callable[[float], None] | None = None,
    ) -> ScanReport:
        """Bring the index up to date with folders and files; only new contents are embedded.

        Args:
            records: facts about the files: hits show their first caption, tags and licence.
            exclude: patterns of names (`*.tmp`) or of paths below a root (`Field/old`) that the index leaves out from
                now on; files of the index that match are removed from it.
            part: "3/100" adds the third of a hundred parts of the files. Processes that add the other parts may run at
                once, on any machine that sees the sounds. When all are done, `optimize` the index.
            progress: receives the number of files done and the number of files to read.
            seconds: receives the seconds of sound embedded since its last call.

        Raises DataError when there is nothing to index, or another process is writing to the index, and
        IndexMismatchError when the index was built in another precision.
        """
        self._check_precision()
        by_path = {absolute(record.audio): record for record in records}
        share = _share(part) if part else None
        if not self.index.count()[0]:
            warn_of_collapsed_audio(self.embedder)  # once: an index keeps its model
        report = scanning.add(
            self.index,
            [Path(root) for root in roots],
            self._embed(seconds),
            describe,
            facts=(lambda path: _facts(by_path, path)) if by_path else None,
            metadata=read_metadata,
            exclude=exclude,
            part=share,
            progress=progress,
        )
        if share is None:
            self._update_derived()
        return report

    def update(
        self,
        changed: Sequence[str] | None = None,
        *,
        exclude: Sequence[str] = (),
        progress: Callable[[int, int], None] | None = None,
        seconds: Callable[[float], None] | None = None,
    ) -> ScanReport:
        """Bring the index up to date with all folders and files that were added to it, or with changed paths alone.

        Args:
            changed: files and folders that were added, changed or removed; nothing else is looked at.
            exclude, progress, seconds: as in `add`.

        Raises DataError when nothing was added to the index yet, or as `add`.
        """
        self._check_precision()
        if changed is not None:
            report = scanning.add_changed(self.index, changed, self._embed(seconds), describe, metadata=read_metadata)
            self._update_derived()
            return report
        roots = [root.found(self.index.place.own_folder) for root in self.index.header().roots]
        if not roots:
            raise DataError(f"{self.index.place} knows no folders. Add them once with 'openclap index add FOLDER'.")
        return self.add(roots, exclude=exclude, progress=progress, seconds=seconds)

    def search(
        self,
        text: str | Mapping[str, float],
        k: int = 10,
        *,
        where: Where | None = None,
        keywords: KeywordUse = "auto",
        every_window: bool = False,
        offset: int = 0,
        exact: bool = False,
    ) -> Hits:
        """The k sounds that fit `text` best, best first.

        `info.fit` of the result is the part of a background of queries that have no better hit in this index, and
        `info.probably_nothing` whether it is so low that there is probably no such sound. Texts are embedded as they
        are, without a prompt template.

        Args:
            text: a description; or descriptions with weights, below 0 for "not like this". Of several, the unit vectors
                are multiplied by their weights and added, and the sum is normalised.
            where: conditions on facts, see `openclap.search.filters`: {"duration_s": (1, 10), "tags": "rain"}.
            keywords: "fused" ranks by embeddings and by words of names and facts, and adds 1 / (60 + rank) of both
                (reciprocal rank fusion, Cormack et al. 2009); "auto" does so with the words that are in names or facts
                of at most 0.5 % of the files, if there are any, and `info.keywords` lists them; "off" ranks by
                embeddings alone, and "only" by words alone.
            every_window: return every window that fits instead of the best of each file. A window that overlaps a
                better hit in its file counts as part of that hit.
            offset: number of hits to skip, for pages.
            exact: search a large index without its sketch, slowly. The `info` of the result says how it was found.

        Raises ConfigError for k < 1, a condition that cannot be read, or weights that cancel each other, and
        IndexMismatchError when the index was rebuilt with another model since it was opened.
        """
        weights = {text: 1.0} if isinstance(text, str) else dict(text)
        words = " ".join(each for each, weight in weights.items() if weight > 0)
        query = SearchQuery(
            vector=None if keywords == "only" else combined_vector(self.embedder.embed_text(list(weights)), weights),
            words=words,
            where=where or (),
            keywords=keywords,
            every_window=every_window,
        )
        return find(self.index, query, check_count("k", k), check_count("offset", offset, least=0), exact=exact)

    def duplicates(
        self, *, progress: Progress = lambda done, total: None
    ) -> tuple[list[DuplicateGroup], list[tuple[str, str]]]:
        """Groups of files that are the same recording, the surest first, and pairs that could not be compared.

        Files of identical bytes come first, then those of identical samples, then the same recording in another
        format, at another level or rate, or cut. Takes of one session are no duplicates. Files are only read; the
        comparisons are cached, so that the next call takes seconds, and a stopped one resumes.

        Args:
            progress: receives the number of compared pairs and of all pairs; (0, 0) while the pairs are being found.
        """
        return duplicates_of(self.index, progress=progress)

    def similar(
        self,
        file: str | os.PathLike[str] | Mapping[str, float],
        k: int = 10,
        *,
        from_s: float = 0.0,
        to_s: float | None = None,
        where: Where | None = None,
        every_window: bool = False,
        offset: int = 0,
        exact: bool = False,
    ) -> Hits:
        """The k sounds most similar to `file`, best first, without the file itself. Warns when the file is silent.

        Args:
            file: a sound, which need not be in the index; or sounds with weights, combined as in `search`.
            from_s, to_s: the part to compare with, in seconds, of a single file; by default all of it.
            where, every_window, offset, exact: as in `search`.

        Raises AudioError when a file cannot be decoded or ends before the part, and ConfigError as `search`.
        """
        weights = dict(file) if isinstance(file, Mapping) else {os.fspath(file): 1.0}
        paths = [os.path.realpath(path) for path in weights]
        is_part = from_s != 0.0 or to_s is not None
        if is_part and len(paths) != 1:
            raise ConfigError(
                f"A part is of one sound, and there are {len(paths)}. Give one file with from_s and to_s."
            )
        sounds: list[Sound] = [decode_part(paths[0], from_s, to_s)] if is_part else list(paths)
        vectors_ND = self.embedder.embed_audio(sounds)
        for path, sound in zip(paths, sounds, strict=True):
            self._warn_if_silent(path, sound)
        query = SearchQuery(
            vector=combined_vector(vectors_ND, weights),
            where=where or (),
            every_window=every_window,
            without=frozenset(paths),
        )
        return find(self.index, query, check_count("k", k), check_count("offset", offset, least=0), exact=exact)

    def facets(self, fact: str, where: Where | None = None) -> list[tuple[Any, int]]:
        """The values of a fact, each with its number of files, the most frequent first; of the files that fulfil
        `where`, or of all. Raises ConfigError for a fact that does not exist."""
        return count_facets(self.index, fact, where or ())

    def _check_precision(self) -> None:
        check_precision(self.index.place, self.index.identity, self.embedder.precision)

    def _embed(self, seconds: Callable[[float], None] | None) -> scanning.EmbedRecordings:
        return lambda sounds: self.embedder.recordings_each(sounds, keep_truncated=True, progress=seconds)

    def label(self, labels: str | None = None) -> tuple[Label, ...]:
        """Label all sounds by zero-shot classification, for the condition `labels=Rain`; new sounds are labelled when
        they are added. See `openclap.search.labels` for how.

        Args:
            labels: one a line: a name, or a name with descriptions, "Rain: rain falling; heavy rain". By default
                the labels that the index has, or those of `openclap.search.label_list`.

        Returns the labels.

        Raises ConfigError for labels that cannot be read, and DataError when the index cannot be written.
        """
        before = read_labels(self.index)
        chosen = parse_labels(labels) if labels is not None else before.labels if before else default_labels()
        self._update_labels(chosen)
        return chosen

    def _update_labels(self, labels: tuple[Label, ...] | None = None) -> None:
        update_labels(self.index, self.embedder.embed_text, self.embedder.runtime.logit_scale, labels)

    def _update_derived(self, labels: tuple[Label, ...] | None = None) -> None:
        """Update the background for the fit of queries, and the labels, each whether or not the other succeeds.

        The index is complete without them: a model without a tokenizer, a full disk or another writer only means that
        searches show no fit, or that new sounds have no labels. Warns with IndexWarning then.
        """
        for update, missing in (
            (partial(update_background, self.index, self.embedder.embed_text), "searches may show no fit"),
            (partial(self._update_labels, labels), "new sounds have no labels"),
        ):
            try:
                update()
            except OpenClapError as error:
                warnings.warn(f"The index is complete, but {missing}: {error}", IndexWarning, stacklevel=3)

    def _warn_if_silent(self, path: str, sound: Sound) -> None:
        if all(is_silent(wave) for wave in blocks(sound, self.embedder.sample_rate, path, self.embedder.mono)):
            name = Path(path).name
            warnings.warn(f"{name}: is silent (below -80 dBFS), so its hits mean little.", AudioWarning, stacklevel=3)


def identity_of(embedder: Embedder, name: str, revision: str | None = None) -> IndexIdentity:
    """The identity of an embedder that an index stores, so that embeddings of two models never mix."""
    return IndexIdentity(
        digest=embedder.digest(),
        model=name,
        dim=embedder.embedding_size,
        length_s=embedder.window_s,
        hop_s=embedder.window_s,
        channels=embedder.mono.channels,
        trim_silence=embedder.mono.trim_silence,
        precision=embedder.precision,
        revision=revision,
    )


def _precision_here(stored: str) -> str:
    """The precision of an index, or fp32 without torch: the onnx runtime has no other."""
    return stored if runtimes.has("torch") else "fp32"


def _share(part: str) -> Share:
    from openclap.data.parallel import Share

    return Share.parse(part)


def _lasting_name(model: str) -> str:
    """The name of a model that is valid in any working directory: a path is made absolute."""
    # The bundled model's name comes before a folder of that name, as in `load`.
    return str(Path(model).absolute()) if model != MINI and Path(model).exists() else model


def _facts(by_path: Mapping[str, Record], path: Path) -> tuple[str | None, tuple[str, ...], str | None] | None:
    record = by_path.get(str(path))
    if record is None:
        return None
    return (record.captions[0] if record.captions else None), record.tags, record.licence


def _facts_of_row(row: FileRow | None) -> tuple[str | None, tuple[str, ...], str | None] | None:
    return None if row is None else (row.caption, row.tags, row.licence)


def combined_vector(vectors_ND: Vectors, weights: Mapping[str, float]) -> Vectors:
    """The normalised sum of unit vectors with weights, (D,). Raises ConfigError when there is none, or it is zero."""
    if not weights or not all(np.isfinite(weight) for weight in weights.values()):
        raise ConfigError(
            f"The weights of the queries are {list(weights.values())}, expected one finite number for each."
        )
    sum_D = np.array(list(weights.values()), np.float64) @ vectors_ND
    length = float(np.linalg.norm(sum_D))
    if length < 1e-6:
        raise ConfigError("The weights of the queries cancel each other, so nothing is left to search for.")
    combined_D: Vectors = (sum_D / length).astype(np.float32)
    return combined_D
