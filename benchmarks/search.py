"""Search of made windows: openclap's snapshot beside other approximate indexes, in one run.

    python benchmarks/search.py [--windows 100000] [--peers lancedb usearch faiss] [--flat] [--queries 100]

Windows and queries are made from a seed. Their cosines are those of the demo's model on the demo's sounds and captions:

| | demo, 630 windows | made, 630 windows |
|---|---:|---:|
| two windows, 1st, 50th, 99th percentile | -0.30, 0.06, 0.67 | see the first line that is printed |
| two windows of a file, median | 0.85 | |
| text and window, 1st, 50th, 99th percentile | -0.32, -0.01, 0.46 | |
| text and its best and 10th window | 0.56, 0.39 | |
| variance in 1, 4, 16, 64 directions | 0.10, 0.36, 0.71, 0.92 | the same by construction |

With --flat, all directions vary equally, which is harder for any index. One file has 500 near-equal windows.

Recall@10 is measured against the product of all stored vectors with the query. Filters keep random files, or the files
farthest from the query. Memory is anonymous memory of a fresh process (RssAnon), so without mapped files.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from openclap.search import snapshot_writer
from openclap.search.index import Index, IndexIdentity
from openclap.search.rows import FileRow, files_table, windows_schema

DIM = 512
K = 10
WINDOWS_OF_A_FILE = 4
CLUSTERS = 2000
SAME_CLUSTER, SAME_FILE = 0.5, 0.85
"""Cosines of two windows of one cluster, and of one file."""
TEXT = 0.6
"""Part of a text that it shares with a file."""
AUDIO_GAP, TEXT_GAP = 0.3, 0.14
"""Lengths of the means of windows and texts."""
ENERGY = {0: 0.0, 1: 0.104, 2: 0.2, 4: 0.36, 8: 0.545, 16: 0.708, 32: 0.827, 64: 0.915, 128: 0.974, 512: 1.0}
"""Part of the variance of the demo's windows in their first principal directions."""
NEAR_EQUAL = 500
AT_ONCE = 20_000

Search = Callable[[np.ndarray], np.ndarray]
"""Returns the numbers of the best windows for a query (D,)."""


class Made:
    """The generator of windows and queries."""

    def __init__(self, *, flat: bool) -> None:
        self._rng = np.random.default_rng(0)
        counts = np.diff(list(ENERGY))
        variance_D = np.repeat(np.diff(list(ENERGY.values())) / counts, counts)
        self._deviation_D = np.full(DIM, DIM**-0.5) if flat else np.sqrt(variance_D)
        self._rotation_DD = np.linalg.qr(self._rng.standard_normal((DIM, DIM)))[0]
        means = np.linalg.qr(self._rng.standard_normal((DIM, 2)))[0].T
        self._audio_D, self._text_D = AUDIO_GAP * means[0], TEXT_GAP * means[1]
        self._clusters_CD = self._noise(CLUSTERS)
        self._files: list[np.ndarray] = []

    def windows(self, count: int) -> Iterator[np.ndarray]:
        """Yield float16 unit vectors (N, D) of `count` windows in all; those of a file come one after the other."""
        for first in range(0, count, AT_ONCE):
            files = min(AT_ONCE, count - first) // WINDOWS_OF_A_FILE
            cluster_FD = self._clusters_CD[self._rng.integers(0, CLUSTERS, files)]
            file_FD = np.sqrt(SAME_CLUSTER / SAME_FILE) * cluster_FD
            file_FD += np.sqrt(1 - SAME_CLUSTER / SAME_FILE) * self._noise(files)
            self._files.append(file_FD[:100])
            noise_ND = self._noise(files * WINDOWS_OF_A_FILE)
            vector_ND = np.sqrt(SAME_FILE) * np.repeat(file_FD, WINDOWS_OF_A_FILE, axis=0)
            vector_ND += np.sqrt(1 - SAME_FILE) * noise_ND
            if first == 0:
                vector_ND[:NEAR_EQUAL] = vector_ND[0] + 0.02 * noise_ND[:NEAR_EQUAL]
            yield unit(vector_ND @ self._rotation_DD + self._audio_D).astype(np.float16)

    def queries(self, count: int) -> np.ndarray:
        """Unit vectors (Q, D), each near the sounds of a file, at the distance of a text."""
        files = np.concatenate(self._files)
        file_QD = files[self._rng.integers(0, len(files), count)]
        text_QD = TEXT * file_QD + np.sqrt(1 - TEXT**2) * self._noise(count)
        return unit(text_QD @ self._rotation_DD + self._text_D).astype(np.float32)

    def _noise(self, count: int) -> np.ndarray:
        return self._rng.standard_normal((count, DIM)) * self._deviation_D


def unit(vector_ND: np.ndarray) -> np.ndarray:
    return vector_ND / np.linalg.norm(vector_ND, axis=1, keepdims=True)


def fill(index: Index, folder: Path, made: Made, count: int) -> np.ndarray:
    """Write windows and files to the tables, and return the vectors, mapped. Those of an index of fewer dimensions have
    the first ones: the rotation spread what they have in common over all."""
    import pyarrow as pa

    dim = index.identity.dim
    vectors_ND = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float16, (count, dim))
    first = 0
    for whole_ND in made.windows(count):
        part_ND = unit(whole_ND[:, :dim].astype(np.float32)).astype(np.float16) if dim < DIM else whole_ND
        numbers = np.arange(first, first + len(part_ND))
        files = numbers // WINDOWS_OF_A_FILE
        files[numbers < NEAR_EQUAL] = 0
        place = np.where(numbers < NEAR_EQUAL, numbers, numbers % WINDOWS_OF_A_FILE)
        columns = {
            "hash": [f"{file:064x}" for file in files],
            "start_s": 10.0 * place,
            "end_s": 10.0 * place + 10.0,
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(part_ND.ravel()), dim),
        }
        index._windows.add(pa.table(columns, schema=windows_schema(dim)))
        rows = [FileRow(f"/s/{file}.wav", f"{file:064x}", 1, 1, 40.0, 48000, 2) for file in np.unique(files)]
        index._files.add(files_table(rows))
        vectors_ND[first : first + len(part_ND)] = part_ND
        first += len(part_ND)
    return vectors_ND


def cosines(vectors_ND: np.ndarray, query_QD: np.ndarray) -> Iterator[np.ndarray]:
    """Yield (Q, N) products for a block of windows at a time."""
    for first in range(0, len(vectors_ND), AT_ONCE):
        yield query_QD @ vectors_ND[first : first + AT_ONCE].astype(np.float32).T


def lowest_scores(vectors_ND: np.ndarray, query_QD: np.ndarray) -> np.ndarray:
    """The score (Q,) of the tenth-best window of each query."""
    best = np.full((len(query_QD), K), -1.0, np.float32)
    for block in cosines(vectors_ND, query_QD):
        both = np.concatenate([best, block], axis=1)
        best = -np.partition(-both, K - 1, axis=1)[:, :K]
    return best.min(axis=1)


def measured(name: str, search: Search, vectors_ND: np.ndarray, query_QD: np.ndarray, build_s: float) -> None:
    """Print a row: the time to build, recall@10, and times of searches one at a time."""
    lowest = lowest_scores(vectors_ND, query_QD)
    for query_D in query_QD[:5]:
        search(query_D)
    times, recalls = [], []
    for query_D, score in zip(query_QD, lowest, strict=True):
        before = time.perf_counter()
        found = search(query_D)
        times.append(1000 * (time.perf_counter() - before))
        true = vectors_ND[np.sort(np.asarray(found, np.int64)[:K])].astype(np.float32) @ query_D
        recalls.append((true >= score - 1e-6).sum() / K)
    p50, p99 = np.percentile(times, [50, 99])
    print(f"| {name} | {build_s:.1f} | {np.mean(recalls):.3f} | {p50:.2f} | {p99:.2f} |", flush=True)


def ours(folder: Path, vectors_ND: np.ndarray, query_QD: np.ndarray) -> None:
    """Print rows for openclap's snapshot, with and without filters; run in a process of its own."""
    before_mb = anonymous_mb()
    index = Index.open(folder)
    first = time.perf_counter()
    hits = index.search(query_QD[0], K)
    first_s = time.perf_counter() - first
    facts = index.facts()
    file_F = np.array([int(path[3:-4]) for path in facts["path"].to_pylist()])
    loaded_mb = anonymous_mb()

    def numbers(hits: Any) -> list[int]:
        return [int(hit.path[3:-4]) * WINDOWS_OF_A_FILE + int(hit.start_s / 10) for hit in hits]

    search = lambda query_D, **options: numbers(index.search(query_D, K, one_per_file=False, **options))  # noqa: E731
    print(f"first search {first_s:.3f} s, {hits.info}")
    measured("openclap", search, vectors_ND, query_QD, 0.0)
    print(f"memory while searching: {anonymous_mb() - loaded_mb:.0f} MB more, {loaded_mb - before_mb:.0f} MB at first")
    rng = np.random.default_rng(1)
    for part in (0.0001, 0.01, 0.3):
        filtered(f"keeps {part:.2%}", lambda _, part=part: rng.random(len(file_F)) < part, index, vectors_ND, query_QD)
    filtered(
        "keeps the farthest 30%", lambda query_D: farthest(vectors_ND, query_D, file_F), index, vectors_ND, query_QD
    )
    near_equal(index, vectors_ND)


def farthest(vectors_ND: np.ndarray, query_D: np.ndarray, file_F: np.ndarray) -> np.ndarray:
    first = np.concatenate(list(cosines(vectors_ND[::WINDOWS_OF_A_FILE], query_D[None])), axis=1)[0][file_F]
    return first <= np.quantile(first, 0.3)


def filtered(name: str, mask: Callable[..., np.ndarray], index: Index, vectors_ND: np.ndarray, query_QD: Any) -> None:
    """Print recall@10 and times under a filter; truth is the best hits by brute force over the windows it keeps."""
    file_F = np.array([int(path[3:-4]) for path in index.facts()["path"].to_pylist()])
    times, recalls, scored = [], [], []
    for query_D in query_QD[:30]:
        mask_F = mask(query_D)
        numbers = np.arange(len(vectors_ND))
        file_N = numbers // WINDOWS_OF_A_FILE
        file_N[numbers < NEAR_EQUAL] = 0
        kept_N = np.isin(file_N, file_F[mask_F])
        score_N = np.concatenate(list(cosines(vectors_ND, query_D[None])), axis=1)[0]
        lowest = np.sort(score_N[kept_N])[-K:].min() if kept_N.sum() >= K else -1.0
        before = time.perf_counter()
        hits = index.search(query_D, K, one_per_file=False, mask_F=mask_F)
        times.append(1000 * (time.perf_counter() - before))
        expected = min(K, kept_N.sum())
        recalls.append(sum(hit.score >= lowest - 1e-4 for hit in hits) / expected if expected else float(not hits))
        scored.append(hits.info.scored)
    p50, p99 = np.percentile(times, [50, 99])
    print(f"| openclap, {name} | | {np.mean(recalls):.3f} | {p50:.2f} | {p99:.2f} |", flush=True)


def near_equal(index: Index, vectors_ND: np.ndarray) -> None:
    """Check the best hits of files when one of them owns 500 near-equal windows next to the query."""
    query_D = vectors_ND[0].astype(np.float32)
    score_N = np.concatenate(list(cosines(vectors_ND, query_D[None])), axis=1)[0]
    score_F = np.maximum.reduceat(score_N, np.arange(0, len(score_N), WINDOWS_OF_A_FILE))
    score_F[: NEAR_EQUAL // WINDOWS_OF_A_FILE] = -1  # these belong to file 0
    expected = [f"/s/{file}.wav" for file in [0, *np.argsort(-score_F)[: K - 1].tolist()]]
    found = [hit.path for hit in index.search(query_D, K)]
    print("best files beside 500 near-equal windows:", "right" if found == expected else f"WRONG {found} {expected}")


def anonymous_mb() -> float:
    """Anonymous memory of this process; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def lancedb_index(index: Index, kind: str, **search_options: int) -> tuple[float, Search]:
    import lancedb.index

    table = index._database.open_table("windows")
    before = time.perf_counter()
    if kind == "IVF_RQ":
        table.create_index("vector", config=lancedb.index.IvfRq(distance_type="cosine"), replace=True)
    else:
        table.create_index("vector", config=lancedb.index.HnswSq(distance_type="cosine"), replace=True)
    build_s = time.perf_counter() - before
    number_of = {
        int(row): number
        for number, row in enumerate(table.search().select(["_rowid"]).to_arrow()["_rowid"].to_pylist())
    }

    def search(query_D: np.ndarray) -> np.ndarray:
        query = table.search(query_D, vector_column_name="vector").distance_type("cosine").limit(K)
        query = query.refine_factor(10).nprobes(search_options["nprobes"])
        return np.array(
            [number_of[row] for row in query.select(["_rowid", "_distance"]).to_arrow()["_rowid"].to_pylist()]
        )

    return build_s, search


def faiss_hnsw(vectors_ND: np.ndarray) -> tuple[float, Search]:
    import faiss

    before = time.perf_counter()
    hnsw = faiss.index_factory(DIM, "HNSW32_SQ8", faiss.METRIC_INNER_PRODUCT)
    hnsw.train(vectors_ND[:: max(1, len(vectors_ND) // 50_000)].astype(np.float32))
    for first in range(0, len(vectors_ND), AT_ONCE):
        hnsw.add(vectors_ND[first : first + AT_ONCE].astype(np.float32))
    hnsw.hnsw.efSearch = 128
    return time.perf_counter() - before, lambda query_D: hnsw.search(query_D[None], K)[1][0]


def usearch_index(vectors_ND: np.ndarray) -> tuple[float, Search]:
    import usearch.index

    before = time.perf_counter()
    graph = usearch.index.Index(ndim=DIM, metric="ip", dtype="f16", expansion_search=128)
    for first in range(0, len(vectors_ND), AT_ONCE):
        graph.add(np.arange(first, min(len(vectors_ND), first + AT_ONCE)), vectors_ND[first : first + AT_ONCE])
    return time.perf_counter() - before, lambda query_D: graph.search(query_D, K).keys


def describe(vectors_ND: np.ndarray, query_QD: np.ndarray) -> None:
    """Print the cosines that the demo's are compared with."""
    sample = vectors_ND[NEAR_EQUAL : NEAR_EQUAL + 4 * 630 : 4].astype(np.float32)
    windows = (sample @ sample.T)[~np.eye(len(sample), dtype=bool)]
    same = (
        vectors_ND[NEAR_EQUAL : NEAR_EQUAL + 2520 : 4].astype(np.float32)
        * vectors_ND[NEAR_EQUAL + 1 : NEAR_EQUAL + 2521 : 4]
    ).sum(axis=1)
    texts = query_QD @ sample.T
    print(
        "cosines: windows", np.percentile(windows, [1, 50, 99]).round(2), "of a file", np.median(same).round(2), end=" "
    )
    print("texts", np.percentile(texts, [1, 50, 99]).round(2), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--peers", nargs="*", default=["lancedb", "usearch", "faiss"])
    parser.add_argument("--flat", action="store_true")
    parser.add_argument("--folder", type=Path, help="where a run that was made before is used again, or kept")
    parser.add_argument("--search", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.search:
        vectors_ND = np.load(options.folder / "vectors.npy", mmap_mode="r")
        ours(options.folder / "index", vectors_ND, np.load(options.folder / "queries.npy"))
        return
    folder = options.folder or Path(tempfile.mkdtemp())
    try:
        compare(folder, options)
    finally:
        if not options.folder:
            shutil.rmtree(folder)


def compare(folder: Path, options: argparse.Namespace) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    identity = IndexIdentity(digest="d" * 64, model="made", dim=DIM, length_s=10, hop_s=10)
    made = Made(flat=options.flat)
    if not Index.exists(folder / "index"):
        index = Index.create(folder / "index", identity)
        vectors_ND = fill(index, folder, made, options.windows // AT_ONCE * AT_ONCE)
        np.save(folder / "queries.npy", made.queries(options.queries))
        (folder / "made.json").write_text(json.dumps({"windows": len(vectors_ND), "flat": options.flat}))
    index, vectors_ND = Index.open(folder / "index"), np.load(folder / "vectors.npy", mmap_mode="r")
    query_QD = np.load(folder / "queries.npy")
    print(f"{len(vectors_ND):,} windows × {DIM}, {len(query_QD)} queries", "flat" if options.flat else "")
    describe(vectors_ND, query_QD)
    before, before_mb = time.perf_counter(), anonymous_mb()
    snapshot_writer.rebuild(index.place, DIM)
    print(
        f"snapshot built in {time.perf_counter() - before:.1f} s, {anonymous_mb() - before_mb:.0f} MB more", flush=True
    )
    print("\n| index | build, s | recall@10 | p50, ms | p99, ms |\n|---|---:|---:|---:|---:|", flush=True)
    subprocess.run([sys.executable, __file__, "--search", "--folder", str(folder)], check=True)
    if "faiss" in options.peers:
        build_s, search = faiss_hnsw(vectors_ND)
        measured("FAISS HNSW32_SQ8, efSearch 128", search, vectors_ND, query_QD, build_s)
    if "usearch" in options.peers:
        build_s, search = usearch_index(vectors_ND)
        measured("usearch f16, expansion 128", search, vectors_ND, query_QD, build_s)
    if "lancedb" in options.peers:
        for kind in ("IVF_RQ", "IVF_HNSW_SQ"):
            build_s, search = lancedb_index(index, kind, nprobes=40)
            measured(f"LanceDB {kind}, 40 probes", search, vectors_ND, query_QD, build_s)


if __name__ == "__main__":
    main()
