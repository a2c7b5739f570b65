"""Find near-duplicates: clips that sound like an earlier one though their samples differ (another encoding, level or
cut); an optional step.

Cosines decide, without the comparison of samples that `openclap duplicates` makes: a take that sounds the same is to be
left out as well.

Each clip that may be included is embedded. In the order of the records, a clip is left out when its cosine to an
included one reaches the threshold. work/near/<model>/0.npy … contain the embeddings, CHUNK records a file;
work/near.parquet lists the pairs for `select`.

N clips, B of them in a block, D embedding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclap.audio.inputs import Sound
from openclap.data.config import DataConfig
from openclap.data.decode import chunk_numbers, segment
from openclap.data.download import sound_of
from openclap.data.filters import EMBEDDINGS, NEAR_DUPLICATES, excluded_ids, join_facts, judge_sounds, judged
from openclap.data.layout import CHUNK, identity, read_table, records, work, write_table
from openclap.data.overlap import SplitIds
from openclap.data.parallel import ALL, Share
from openclap.errors import AudioError, ConfigError, DataError, require
from openclap.storage import Place, new_file

EmbedClips = Callable[[Iterable[Sound]], Iterator[NDArray[np.float32] | AudioError]]
"""Yields the unit-norm embedding of each sound in order, or an error: `openclap.Embedder.embed_each`."""


@dataclass(frozen=True, slots=True)
class NearDuplicates:
    """How to recognise near-duplicates.

    Attributes:
        threshold: the least cosine of two near-duplicates.
        model: identifies weights and settings; embeddings of another model are computed again.
        embed: computes the embeddings.
    """

    threshold: float
    model: str
    embed: EmbedClips

    def __post_init__(self) -> None:
        check_threshold(self.threshold)


def check_threshold(threshold: float) -> None:
    """Raise ConfigError for a number outside (0, 1]."""
    if not 0 < threshold <= 1:
        raise ConfigError(f"--near-duplicates is {threshold}, expected a cosine above 0 and up to 1, such as 0.98.")


def find_near_duplicates(
    folder: Place, near: NearDuplicates, share: Share = ALL, *, progress: Callable[[int], None] = lambda done: None
) -> int | None:
    """Embed a share of the records; once all are embedded, compare them and return the number of near-duplicates.

    Returns None while other shares are still to be embedded. Raises DataError while records of the share are still to
    be fetched and decoded.
    """
    pl = require("polars", "data")
    place = work(folder, EMBEDDINGS, hashlib.sha256(near.model.encode()).hexdigest()[:16])
    place.mkdir(parents=True, exist_ok=True)
    config, excluded = DataConfig(**identity(folder)["config"]), excluded_ids(folder)
    done = 0
    for chunk in chunk_numbers(folder, share):
        done += _embed_chunk(folder, place, near, _usable(folder, chunk, config, excluded), chunk)
        progress(done)
    files = [place / f"{chunk}.npy" for chunk in chunk_numbers(folder)]
    if not all(file.exists() for file in files):
        return None
    tables = [rows for rows in map(_read, files) if rows.dtype != _row_type(EMPTY)]
    rows = np.concatenate(tables) if tables else np.zeros(0, _row_type(EMPTY))
    # Duplicates are known only over all chunks; their embeddings must not exclude others.
    included = judged(folder, config).filter(pl.col("kind").is_null())["n"].to_numpy()
    rows = rows[np.isin(rows["n"], included)]
    first_N, cosine_N = nearest_included(rows["vector"], near.threshold)
    near_N = first_N >= 0
    pairs = {"n": rows["n"][near_N], "twin": rows["n"][first_N[near_N]], "cosine": cosine_N[near_N]}
    write_table(
        work(folder, NEAR_DUPLICATES),
        pl.DataFrame(pairs, schema={"n": pl.UInt32, "twin": pl.UInt32, "cosine": pl.Float32}),
    )
    return int(near_N.sum())


def _usable(folder: Place, chunk: int, config: DataConfig, excluded: list[SplitIds]) -> list[int]:
    """The records of a chunk that may be included by their own properties, duplicates among them."""
    pl = require("polars", "data")
    place = work(folder, "examined", f"{chunk}.parquet")
    if not place.exists():
        raise DataError(f"{folder}: part of the records is still to be fetched. Run 'openclap dataset fetch'.")
    whole = records(folder, identity(folder)["digest"]).slice(chunk * CHUNK, CHUNK)
    facts = judge_sounds(join_facts(whole, read_table(place)), replace(config, drop_duplicates=False), excluded)
    numbers: list[int] = facts.filter(pl.col("kind").is_null())["n"].to_list()
    return numbers


def _embed_chunk(folder: Place, place: Place, near: NearDuplicates, numbers: list[int], chunk: int) -> int:
    """Write the embeddings of a chunk unless they are there; return their number."""
    path = place / f"{chunk}.npy"
    if path.exists() and _read(path)["n"].tolist() == numbers:
        return len(numbers)
    vectors = [None if isinstance(each, AudioError) else each for each in near.embed(_sounds(folder, numbers))]
    # float16 halves the file; its rounding is far below any useful threshold.
    rows = np.zeros(len(numbers), _row_type(next((len(each) for each in vectors if each is not None), EMPTY)))
    rows["n"] = numbers
    for row, vector_D in enumerate(vectors):
        if vector_D is not None:  # a zero vector has no near-duplicates
            rows["vector"][row] = vector_D
    with new_file(path) as file:
        np.save(file, rows)
    return len(numbers)


EMPTY = 0
"""Length of the embeddings in a file without any."""


def _row_type(size: int) -> np.dtype[np.void]:
    return np.dtype([("n", np.uint32), ("vector", np.float16, (size,))])


def _read(path: Place) -> NDArray[np.void]:
    try:
        with path.open("rb") as file:
            rows: NDArray[np.void] = np.load(file)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: is damaged ({error}). Delete it and run again.") from None
    return rows


def _sounds(folder: Place, numbers: list[int]) -> Iterator[Sound]:
    """Yield the sound of each record; empty bytes where it cannot be read any more."""
    rows = records(folder, identity(folder)["digest"])[numbers].select("audio", "start_s", "length_s")
    for audio, start_s, length_s in rows.iter_rows():
        try:
            sound = sound_of(folder, audio)
            if start_s is not None:
                pieces = list(segment(sound, start_s, length_s))
                yield np.concatenate([wave_NC for wave_NC, _ in pieces]), pieces[0][1]
            else:
                yield sound
        except AudioError:
            yield b""


BLOCK, SLAB = 2048, 8192
"""Embeddings compared at a time, and with how many: 64 MB of cosines."""
ROUNDING = 1e-5
"""Tolerance for rounding: identical clips may have a cosine a little below 1."""


def nearest_included(
    embeddings_ND: NDArray[np.floating[Any]], threshold: float
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """For each row, the first earlier included row to which its cosine is at least `threshold`, and that cosine.

    A row without one is included itself: it gets -1 and 0. Rows need not have unit length; a zero row matches nothing.
    Beside `embeddings_ND`, memory does not grow with N.
    """
    first_N, cosine_N = np.full(len(embeddings_ND), -1, np.int64), np.zeros(len(embeddings_ND), np.float32)
    included = np.zeros(0, np.int64)
    for start in range(0, len(embeddings_ND), BLOCK):
        block_BD = _unit(embeddings_ND[start : start + BLOCK])
        open_rows = np.arange(len(block_BD))  # of the block, without a match so far
        for first in range(0, len(included), SLAB):
            earlier = included[first : first + SLAB]
            cosine_BK = block_BD[open_rows] @ _unit(embeddings_ND[earlier]).T
            column_B, match_B = _first_match(cosine_BK >= threshold - ROUNDING)
            rows = start + open_rows[match_B]
            first_N[rows], cosine_N[rows] = earlier[column_B[match_B]], cosine_BK[match_B, column_B[match_B]]
            open_rows = open_rows[~match_B]
        # Then within the block, where which rows are included depends on the rows before them.
        cosine_BB = block_BD[open_rows] @ block_BD[open_rows].T
        column_B, match_B = _first_match(_to_included(np.tril(cosine_BB >= threshold - ROUNDING, -1)))
        rows = start + open_rows[match_B]
        first_N[rows], cosine_N[rows] = start + open_rows[column_B[match_B]], cosine_BB[match_B, column_B[match_B]]
        included = np.concatenate([included, start + open_rows[~match_B]])
    return first_N, cosine_N


def _first_match(near_BK: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The first column that is true in each row, and whether there is one."""
    match_B = np.asarray(near_BK.any(axis=1))
    column_B = near_BK.argmax(axis=1) if near_BK.size else np.zeros(len(near_BK), np.int64)
    return column_B, match_B


def _to_included(near_BB: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Drop matches with rows that are left out themselves, because they match an earlier row."""
    included = np.ones(len(near_BB), bool)
    for row in np.flatnonzero(near_BB.any(axis=1)):
        included[row] = not (near_BB[row] & included).any()
    return near_BB & included


def _unit(embeddings_BD: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    single_BD = embeddings_BD.astype(np.float32)
    length_B1 = np.linalg.norm(single_BD, axis=1, keepdims=True)
    unit_BD: NDArray[np.float32] = single_BD / np.maximum(length_B1, np.float32(1e-12))
    return unit_BD
