"""Where the sounds of records are, and the fetching of those that have an address."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from openclap.audio.io import Source
from openclap.data.fetch import Failed, Limits, Wanted, fetch
from openclap.data.layout import CHUNK, identity, records, work
from openclap.data.work import ALL, Share
from openclap.errors import AudioError, ConfigError, DataError, require
from openclap.storage import Place, append_line, place_of

WEB = ("http://", "https://")


def where(folder: Place, audio: str) -> Place:
    """The file of a record's sound: itself, or where it is fetched to."""
    if not audio.lower().startswith(WEB):
        return place_of(audio)
    name = hashlib.sha256(audio.encode()).hexdigest()[:32]
    suffix = PurePosixPath(urlsplit(audio).path).suffix.lower()
    return work(folder, "audio", name[:2], name + (suffix if suffix[1:].isalnum() and len(suffix) < 6 else ""))


def sound_of(folder: Place, audio: str | os.PathLike[str]) -> Source:
    """What to decode: a path, or what a file of another store holds. Raises AudioError where that is not there."""
    try:
        place = where(folder, os.fspath(audio))
        if isinstance(place, Path):
            return place
        content = io.BytesIO(place.read_bytes())
    except FileNotFoundError:
        raise AudioError(f"{PurePosixPath(audio).name}: no such file.") from None
    except (ConfigError, OSError, ValueError) as error:  # as many as there are stores
        raise AudioError(f"{audio}: cannot be opened ({error or type(error).__name__}).") from None
    content.name = place.name
    return content


Failure = tuple[str, str, bool]
"""The kind, the reason, and whether it is no use to try again."""


def failures(folder: Place) -> Mapping[str, Failure]:
    """Of each address that could not be fetched, why."""
    place = work(folder, "fetched")
    files = [(file, file.stat()) for file in place.glob("*.jsonl")] if place.is_dir() else []
    files.sort(key=lambda pair: (pair[1].st_mtime, pair[0].name))  # what was found last counts
    return _read(tuple((file, state.st_size) for file, state in files))


@lru_cache(maxsize=1)
def _read(files: tuple[tuple[Place, int], ...]) -> dict[str, Failure]:
    found: dict[str, Failure] = {}
    for file, _ in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            try:
                url, kind, reason, permanent = json.loads(line)
            except ValueError:  # the last line of a run that was killed
                continue
            found[url] = kind, reason, permanent
    return found


def fetch_all(
    folder: Place,
    chunks: Sequence[int],
    share: Share = ALL,
    *,
    limits: Limits = Limits(),
    again: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Fetch the sounds of these chunks of records that have an address; how many could not be had.

    What is there already is not fetched again. What failed for good is not tried again, unless `again` says so.
    `share` names the journal of failures: jobs side by side write one each.
    """
    pl = require("polars", "data")
    whole = records(folder, identity(folder)["digest"]).filter((pl.col("n") // CHUNK).is_in(list(chunks)))
    web = pl.any_horizontal(*(pl.col("audio").str.to_lowercase().str.starts_with(scheme) for scheme in WEB))
    wanted = whole.filter(pl.col("kind").is_null() & web)["audio"].unique(maintain_order=True).to_list()
    lost = {} if again else failures(folder)
    asked = [url for url in wanted if not where(folder, url).exists()]
    hopeless = sum(url in lost and lost[url][2] for url in asked)
    asked = [url for url in asked if not (url in lost and lost[url][2])]
    if not asked:
        return hopeless
    if not isinstance(folder, Path):
        raise DataError(f"{folder}: sounds are fetched to a folder of a file system alone. Build there, then copy.")
    journal, failed = work(folder, "fetched", f"{share}.jsonl"), hopeless
    journal.parent.mkdir(parents=True, exist_ok=True)
    sounds = fetch((Wanted(url, where(folder, url)) for url in asked), limits=limits, seed=share.number)
    for done, result in enumerate(sounds, start=1):
        if isinstance(result, Failed):
            failed += 1
            append_line(
                journal, json.dumps([result.wanted.url, result.reason, result.detail, result.permanent]).encode()
            )
        progress(done, len(asked))
    return failed
