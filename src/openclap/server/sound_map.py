"""A map of an index: each sound at the two main directions of the embeddings.

N windows, C contents of the index, K contents on the map, F files, D embedding.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Query, Request

from openclap.search.filters import LABELS_COLUMN
from openclap.search.index import Index
from openclap.search.labels import labels_stamp, with_labels
from openclap.search.ranking import Numbers, View
from openclap.search.rows import FloatArray
from openclap.server.batching import ModelTask
from openclap.server.inputs import IndexName
from openclap.server.overview import Cache
from openclap.server.page_schemas import SoundMap
from openclap.server.service import Service

MOST_SOUNDS = 20_000
"""Sounds on a map; of more, every n-th in the order of their paths."""
MOST_GROUPS = 8
"""Groups with a colour of their own: the largest."""
_SPREAD = 0.01
"""Part of the sounds on each side that are drawn at the edge, so that few far ones do not press the others together."""
_BLOCK = 16_384

GroupBy = Literal["folder", "category", "labels", "tags"]


def router(service: Service) -> APIRouter:
    """The routes of this module."""
    routes = APIRouter(tags=["Search"])
    caches = {name: Cache() for name in service.indexes}

    @routes.get("/v1/map", operation_id="sound_map")
    async def sound_map(
        request: Request,
        index: IndexName = None,
        group: Annotated[GroupBy, Query(description="The fact by which the sounds are grouped.")] = "folder",
    ) -> SoundMap:
        """Up to 20,000 sounds at the two main directions of their embeddings (principal components), with their groups.
        It is computed once, until the index changes."""
        served = service.index(index)

        def work(task: ModelTask) -> SoundMap:
            opened = served.library.index
            key = f"{group} {opened.moved_roots()} {labels_stamp(opened)}"
            return caches[served.name].get(opened, key, lambda facts: _map(opened, facts, group))

        return await service.run(request, "files", work)

    return routes


def _map(index: Index, facts: Any, group: GroupBy) -> SoundMap:
    view = index.view()
    content_F = view.content_F[view.is_live_F]
    files = with_labels(index, view.live_facts, always=group == "labels")
    files = index.with_present_paths(files)
    paths = files.column("path").to_pylist()
    known = [file for file in sorted(range(len(paths)), key=paths.__getitem__) if content_F[file] >= 0]
    chosen = np.array(known[:: max(1, -(-len(known) // MOST_SOUNDS))], np.int64)
    points_F2 = spread(principal_components(mean_vectors(view, content_F[chosen])))
    names, group_F = _groups(files.take(chosen), group)
    return SoundMap(
        total=len(facts),
        paths=[paths[file] for file in chosen],
        x=np.rint(points_F2[:, 0] * 10_000).astype(int).tolist(),
        y=np.rint(points_F2[:, 1] * 10_000).astype(int).tolist(),
        group=group_F,
        groups=names,
    )


def mean_vectors(view: View, content_F: Numbers) -> FloatArray:
    """The normalised means (F, D) of the windows of some contents. Only these are held in memory."""
    wanted_K, place_F = np.unique(content_F, return_inverse=True)
    place_C = np.full(view.contents, -1)
    place_C[wanted_K] = np.arange(len(wanted_K))
    sum_KD = np.zeros((len(wanted_K), view.stored.vectors_ND.shape[1]), np.float32)
    for windows in (view.stored, view.newer):
        for first in range(0, len(windows), _BLOCK):
            place_N = place_C[windows.content_N[first : first + _BLOCK]]
            vectors_ND = windows.vectors_ND[first : first + _BLOCK][place_N >= 0]
            np.add.at(sum_KD, place_N[place_N >= 0], vectors_ND.astype(np.float32))
    mean_KD: FloatArray = sum_KD / np.maximum(np.linalg.norm(sum_KD, axis=1, keepdims=True), 1e-12)
    return mean_KD[place_F]


def principal_components(vectors_FD: FloatArray) -> FloatArray:
    """The coordinates (F, 2) of vectors along the two directions of the largest variance. Each direction has its sign
    such that its largest weight is positive, so that equal indexes have equal maps."""
    if not len(vectors_FD):
        return np.zeros((0, 2), np.float32)
    centred_FD = vectors_FD.astype(np.float64) - vectors_FD.mean(axis=0)
    _, directions_DD = np.linalg.eigh(centred_FD.T @ centred_FD)
    main_D2 = directions_DD[:, :-3:-1]
    main_D2 = main_D2 * np.sign(main_D2[np.abs(main_D2).argmax(axis=0), np.arange(main_D2.shape[1])])
    points_F2: FloatArray = (centred_FD @ main_D2).astype(np.float32)
    return points_F2


def spread(points_F2: FloatArray) -> FloatArray:
    """Points within the unit square: from the _SPREAD quantile of each coordinate to that of the other side."""
    if not len(points_F2):
        return points_F2
    low_2, high_2 = np.quantile(points_F2, [_SPREAD, 1 - _SPREAD], axis=0)
    spread_F2: FloatArray = np.clip((points_F2 - low_2) / np.maximum(high_2 - low_2, 1e-9), 0, 1).astype(np.float32)
    return spread_F2


def _groups(files: Any, group: GroupBy) -> tuple[list[str], list[int]]:
    """The names of the largest groups, and the number of each file's group: -1 for another or none."""
    if group == "folder":
        own = [[PurePath(path).parent.name] for path in files.column("path").to_pylist()]
    elif group == "category":
        own = [[category] if category else [] for category in files.column("category").to_pylist()]
    elif group == "labels":
        own = [list(labels or ())[:1] for labels in files.column(LABELS_COLUMN).to_pylist()]
    else:
        lists = zip(files.column("tags").to_pylist(), files.column("keywords").to_pylist(), strict=True)
        own = [[*(tags or ()), *(keywords or ())] for tags, keywords in lists]
    counts: dict[str, int] = {}
    for names in own:
        for name in names:
            counts[name] = counts.get(name, 0) + 1
    largest = sorted(counts, key=lambda name: (-counts[name], name))[:MOST_GROUPS]
    number = {name: place for place, name in enumerate(largest)}
    # Of several tags the rarest of the largest groups says most.
    return largest, [max((number[name] for name in names if name in number), default=-1) for names in own]
