"""`openclap cache`: show and clear the cache of embeddings."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING

from openclap.cli.console import counted, note, print_json, print_table

if TYPE_CHECKING:
    from openclap.embedding_cache import CachedSpace


def show(*, json: bool = False) -> None:
    """Show the cached embeddings by model and options: their number, size, and when they were last used.

    `embed`, `eval` and the search for near-duplicates of `dataset` share the cache in $OPENCLAP_HOME/embeddings. It
    keeps up to 10 GB, or $OPENCLAP_CACHE_SIZE (such as "50 GB"; 0 turns it off); beyond that, the embeddings that were
    not used for the longest time are deleted. Indexes have vectors of their own.

    Parameters
    ----------
    json
        Print one JSON object instead of a table.
    """
    from openclap.embedding_cache import CacheFile, cache_folder

    file = CacheFile(cache_folder())
    spaces = file.spaces()
    size = sum(space.size_bytes for space in spaces)
    if json:
        print_json(
            {"folder": str(file.folder), "limit_bytes": file.limit, "size_bytes": size}
            | {"spaces": [asdict(space) for space in spaces]}
        )
        return
    print_table(
        ["model", "digest", "runtime", "of", "number", "MB", "last used"],
        [_row(space) for space in spaces],
        right=(4, 5),
    )
    note(f"{_megabytes(size)} of {_megabytes(file.limit)} MB in {file.folder}")


def clear(*, model: str | None = None) -> None:
    """Delete cached embeddings. Indexes, models and sounds are not touched.

    Parameters
    ----------
    model
        The name of a model, or the beginning of its digest, as `openclap cache` shows them: delete only its embeddings.
        Default: all.
    """
    from openclap.embedding_cache import CacheFile, cache_folder
    from openclap.errors import ConfigError

    count = CacheFile(cache_folder()).clear(lambda space: model is None or _is_of(space, model))
    if model is not None and not count:
        raise ConfigError(f"--model is {model!r}, and no embedding of it is cached. `openclap cache` lists the models.")
    note(f"Deleted {counted(count, 'cached item')}.")


def _is_of(space: CachedSpace, model: str) -> bool:
    return space.model == model or space.made_by.get("digest", "").startswith(model or " ")


def _row(space: CachedSpace) -> list[str]:
    made_by = space.made_by
    used = datetime.fromtimestamp(space.last_used).strftime("%Y-%m-%d")
    facts = [made_by.get("digest", "")[:12] or "–", made_by.get("runtime", "–"), made_by.get("vectors", "–")]
    return [space.model or "–", *facts, f"{space.entries:,}", _megabytes(space.size_bytes), used]


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f}"
