"""Locate the sounds of records, and download those that have a URL."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from openclap.audio.io import AudioSource
from openclap.data.layout import CHUNK, identity, records, work
from openclap.data.parallel import ALL, Share
from openclap.download import FailedFetch, FetchLimits, FileRequest, fetch
from openclap.errors import AudioError, ConfigError, DataError, require
from openclap.storage import Place, append_line, place_of

WEB = ("http://", "https://")


def path_of_sound(folder: Place, audio: str) -> Place:
    """The file of a record's sound: `audio` itself, or the place of its download."""
    if not audio.lower().startswith(WEB):
        return place_of(audio)
    # By hash: URLs are longer than file names may be. The suffix helps decoders that rely on it.
    name = hashlib.sha256(audio.encode()).hexdigest()[:32]
    suffix = PurePosixPath(urlsplit(audio).path).suffix.lower()
    return work(folder, "audio", name[:2], name + (suffix if suffix[1:].isalnum() and len(suffix) < 6 else ""))


def sound_of(folder: Place, audio: str | os.PathLike[str]) -> AudioSource:
    """The sound of a record, to be decoded: a path, or the bytes of a file in object storage.

    Raises AudioError where it does not exist.
    """
    try:
        place = path_of_sound(folder, os.fspath(audio))
        if isinstance(place, Path):
            return place
        content = io.BytesIO(place.read_bytes())
    except FileNotFoundError:
        raise AudioError(f"{PurePosixPath(audio).name}: no such file.") from None
    except (ConfigError, OSError, ValueError) as error:  # each kind of store raises others of these
        raise AudioError(f"{audio}: cannot be opened ({error or type(error).__name__}).") from None
    content.name = place.name
    return content


FailedRow = tuple[str, str, bool]
"""Kind and reason of a failed download, and whether it is permanent."""


def failures(folder: Place) -> Mapping[str, FailedRow]:
    """The failed downloads of a data set, by URL."""
    place = work(folder, "fetched")
    files = [(file, file.stat()) for file in place.glob("*.jsonl")] if place.is_dir() else []
    files.sort(key=lambda pair: (pair[1].st_mtime, pair[0].name))  # a later failure replaces an earlier one
    return _read_failures(tuple((file, status.st_size) for file, status in files))


@lru_cache(maxsize=1)
def _read_failures(files: tuple[tuple[Place, int], ...]) -> dict[str, FailedRow]:
    rows: dict[str, FailedRow] = {}
    for file, _ in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            try:
                url, kind, reason, permanent = json.loads(line)
            except ValueError:  # the last line of a run that was killed
                continue
            rows[url] = kind, reason, permanent
    return rows


def download_sounds(
    folder: Place,
    chunks: Sequence[int],
    share: Share = ALL,
    *,
    limits: FetchLimits = FetchLimits(),
    retry_failed: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Download the sounds of these chunks of records that have a URL; return the number of failures.

    Existing files are not downloaded again, nor, without `retry_failed`, files that failed permanently. `share` names
    the journal of failures: each of several jobs writes its own.
    """
    pl = require("polars", "data")
    whole = records(folder, identity(folder)["digest"]).filter((pl.col("n") // CHUNK).is_in(list(chunks)))
    # Schemes are case-insensitive (RFC 3986, 3.1).
    web = pl.any_horizontal(*(pl.col("audio").str.to_lowercase().str.starts_with(scheme) for scheme in WEB))
    urls = whole.filter(pl.col("kind").is_null() & web)["audio"].unique(maintain_order=True).to_list()
    failed = {} if retry_failed else failures(folder)
    missing = [url for url in urls if not path_of_sound(folder, url).exists()]
    # Failures such as a time-out may pass, so these are tried again.
    requested = [url for url in missing if not (url in failed and failed[url][2])]
    count = len(missing) - len(requested)
    if not requested:
        return count
    if not isinstance(folder, Path):
        raise DataError(f"{folder}: sounds can only be downloaded to a file system. Build there, then copy the set.")
    journal = work(folder, "fetched", f"{share}.jsonl")
    journal.parent.mkdir(parents=True, exist_ok=True)
    requests = (FileRequest(url, path_of_sound(folder, url)) for url in requested)
    # A different seed in each job, so that jobs refused at the same time do not all retry at the same time.
    for done, outcome in enumerate(fetch(requests, limits=limits, seed=share.number), start=1):
        if isinstance(outcome, FailedFetch):
            count += 1
            row = [outcome.request.url, outcome.kind, outcome.detail, outcome.permanent]
            # At once, so that a kill forgets no failure.
            append_line(journal, json.dumps(row).encode())
        progress(done, len(requested))
    return count
