"""The step that finds clips which sound alike though their samples differ: another encoding, level or cut. It may be
left out.

A model makes a vector of each clip that may stay; in the order of the records, a clip goes when its cosine to one that
stays reaches the threshold. work/near/<model>/0.npy … hold the vectors, CHUNK records a file; work/near.parquet says
what is near what, and `select` follows it.

N clips, B of them in a block, D embedding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclap.audio.io import Source, Wave
from openclap.data.clean import stretch
from openclap.data.config import DataConfig
from openclap.data.decode import chunks
from openclap.data.fetched import sound_of
from openclap.data.held import Held
from openclap.data.layout import CHUNK, identity, read_table, records, work, write_table
from openclap.data.plan import held_apart
from openclap.data.select import NEAR, VECTORS, facts_of_each, judge_sounds, judged
from openclap.data.work import ALL, Share
from openclap.errors import AudioError, ConfigError, DataError, require
from openclap.storage import Place, new_file

Sound = Source | tuple[Wave, int]
Embed = Callable[[Iterable[Sound]], Iterator[NDArray[np.float32] | AudioError]]
"""For each sound, in order, its unit vector, or why it has none: `openclap.Embedder.embed_each`."""
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Near:
    """How alike is too alike.

    Attributes:
        threshold: the cosine from which on two clips are taken for one.
        model: names weights and settings: vectors of another are made anew.
        embed: makes the vectors.
    """

    threshold: float
    model: str
    embed: Embed

    def __post_init__(self) -> None:
        check_threshold(self.threshold)


def check_threshold(threshold: float) -> None:
    """Raise ConfigError for what is no cosine to go by."""
    if not 0 < threshold <= 1:
        raise ConfigError(f"--near is {threshold}, expected a cosine above 0 and up to 1, such as 0.98.")


def mark(
    folder: Place, near: Near, share: Share = ALL, *, progress: Callable[[int], None] = lambda done: None
) -> int | None:
    """Make the vectors of a share of the records; once those of all are there, compare them, and give the number of
    near duplicates. None while other parts are still to make theirs.

    Raises DataError while records of the share are still to be fetched and decoded.
    """
    pl = require("polars", "data")
    place = work(folder, VECTORS, hashlib.sha256(near.model.encode()).hexdigest()[:16])
    place.mkdir(parents=True, exist_ok=True)
    config, apart = DataConfig(**identity(folder)["config"]), held_apart(folder)
    done = 0
    for chunk in chunks(folder, share):
        done += _embed_chunk(folder, place, near, _usable(folder, chunk, config, apart), chunk)
        progress(done)
    files = [place / f"{chunk}.npy" for chunk in chunks(folder)]
    if not all(file.exists() for file in files):
        return None
    tables = [rows for rows in map(_read, files) if rows.dtype != _rows_of(NOTHING)]
    rows = np.concatenate(tables) if tables else np.zeros(0, _rows_of(NOTHING))
    stays = judged(folder, config).filter(pl.col("kind").is_null())["n"].to_numpy()
    rows = rows[np.isin(rows["n"], stays)]
    twin_N, cosine_N = twins(rows["vector"], near.threshold)
    alike = twin_N >= 0
    found = {"n": rows["n"][alike], "twin": rows["n"][twin_N[alike]], "cosine": cosine_N[alike]}
    write_table(
        work(folder, NEAR), pl.DataFrame(found, schema={"n": pl.UInt32, "twin": pl.UInt32, "cosine": pl.Float32})
    )
    return int(alike.sum())


def _usable(folder: Place, chunk: int, config: DataConfig, apart: list[Held]) -> list[int]:
    """The records of a chunk that may stay by what they are themselves; twins are not looked for yet."""
    pl = require("polars", "data")
    place = work(folder, "examined", f"{chunk}.parquet")
    if not place.exists():
        raise DataError(f"{folder}: part of the records is still to be fetched. Run: openclap dataset fetch")
    whole = records(folder, identity(folder)["digest"]).slice(chunk * CHUNK, CHUNK)
    facts = judge_sounds(facts_of_each(whole, read_table(place)), replace(config, drop_duplicates=False), apart)
    found: list[int] = facts.filter(pl.col("kind").is_null())["n"].to_list()
    return found


def _embed_chunk(folder: Place, place: Place, near: Near, wanted: list[int], chunk: int) -> int:
    """Write the vectors of a chunk, unless they are there; how many there are."""
    path = place / f"{chunk}.npy"
    if path.exists() and _read(path)["n"].tolist() == wanted:
        return len(wanted)
    made = [None if isinstance(each, AudioError) else each for each in near.embed(_sounds(folder, wanted))]
    rows = np.zeros(len(wanted), _rows_of(next((len(each) for each in made if each is not None), NOTHING)))
    rows["n"] = wanted
    for row, vector_D in enumerate(made):
        if vector_D is not None:  # zeros are near nothing
            rows["vector"][row] = vector_D
    with new_file(path) as file:
        np.save(file, rows)
    return len(wanted)


NOTHING = 0
"""The length of vectors in a file that holds none."""


def _rows_of(size: int) -> np.dtype[np.void]:
    return np.dtype([("n", np.uint32), ("vector", np.float16, (size,))])


def _read(path: Place) -> NDArray[np.void]:
    try:
        with path.open("rb") as file:
            rows: NDArray[np.void] = np.load(file)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: is damaged ({error}). Delete it and run again.") from None
    return rows


def _sounds(folder: Place, wanted: list[int]) -> Iterator[Sound]:
    """What is embedded of each record; nothing, of one that cannot be read any more."""
    rows = records(folder, identity(folder)["digest"])[wanted].select("audio", "start_s", "length_s")
    for audio, start_s, length_s in rows.iter_rows():
        try:
            sound = sound_of(folder, audio)
            if start_s is not None:
                pieces = list(stretch(sound, start_s, length_s))
                yield np.concatenate([wave_NC for wave_NC, _ in pieces]), pieces[0][1]
            else:
                yield sound
        except AudioError:
            yield b""


BLOCK, SLAB = 2048, 8192
"""Vectors that are compared at once, and with how many: 64 MB of cosines."""
ROUNDING = 1e-5
"""What a cosine may lose by rounding: equal clips have one of 1."""


def twins(vectors_ND: Floats, threshold: float) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """For each row, the first row before it that stays and to which its cosine is at least `threshold`, and that
    cosine; -1 and 0 for rows that stay.

    Rows need not have unit length; one of zeros is near nothing. Beside `vectors_ND`, memory does not grow with N.
    """
    twin_N, cosine_N = np.full(len(vectors_ND), -1, np.int64), np.zeros(len(vectors_ND), np.float32)
    kept = np.zeros(0, np.int64)
    for start in range(0, len(vectors_ND), BLOCK):
        block_BD = _unit(vectors_ND[start : start + BLOCK])
        left = np.arange(len(block_BD))
        for first in range(0, len(kept), SLAB):
            others = kept[first : first + SLAB]
            cosine_BK = block_BD[left] @ _unit(vectors_ND[others]).T
            place_B, found_B = _first(cosine_BK >= threshold - ROUNDING)
            rows = start + left[found_B]
            twin_N[rows], cosine_N[rows] = others[place_B[found_B]], cosine_BK[found_B, place_B[found_B]]
            left = left[~found_B]
        cosine_BB = block_BD[left] @ block_BD[left].T
        place_B, found_B = _first(_of_those_that_stay(np.tril(cosine_BB >= threshold - ROUNDING, -1)))
        rows = start + left[found_B]
        twin_N[rows], cosine_N[rows] = start + left[place_B[found_B]], cosine_BB[found_B, place_B[found_B]]
        kept = np.concatenate([kept, start + left[~found_B]])
    return twin_N, cosine_N


def _first(near_BK: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The first that each row is near to, and whether there is one."""
    found_B = np.asarray(near_BK.any(axis=1))
    place_B = near_BK.argmax(axis=1) if near_BK.size else np.zeros(len(near_BK), np.int64)
    return place_B, found_B


def _of_those_that_stay(near_BB: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What each row is near to, without rows that go themselves, since they are near to one before them."""
    stays = np.ones(len(near_BB), bool)
    for row in np.flatnonzero(near_BB.any(axis=1)):
        stays[row] = not (near_BB[row] & stays).any()
    return near_BB & stays


def _unit(vectors_BD: Floats) -> NDArray[np.float32]:
    single_BD = vectors_BD.astype(np.float32)
    length_B1 = np.linalg.norm(single_BD, axis=1, keepdims=True)
    unit_BD: NDArray[np.float32] = single_BD / np.maximum(length_B1, np.float32(1e-12))
    return unit_BD
