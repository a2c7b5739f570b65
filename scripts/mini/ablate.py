"""Measure each ingredient of mini by leaving it out, or adding it: every package is left out and asked in turn.

    python -m scripts.mini.ablate DIR [--only NAME ...] [--closed-form]

DIR holds pairs.csv. Changed sounds, mixtures and the features of an untrained network come from `scripts.mini.views`;
rows whose files it did not write are left out. Captions are rewritten by the bundled captioner (`openclap.captions`),
which learned from AudioCaps: a measurement, and nothing that ships. `--closed-form` measures that teacher in place
of the heads that follow it, which takes a fifth of the time and leaves out the rows about these heads.

Each row has R@10 and zero-shot accuracy with intervals, and the paired differences to mini as it is.

N clips, W windows, F features, T captions, D dimensions.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scripts.mini.evaluate import Answers, Data, ask_package, embed, join
from scripts.mini.features import Cache, MiniLM
from scripts.mini.heads import Array, Pairs
from scripts.mini.recipe import JOINT, MINI, STUDENT, Method, Trained, closed_form, distilled, mini, plain
from scripts.mini.views import CHANGES, MIXTURES_FILE, UNTRAINED_FILE, choose_mixtures, view_file

from openclap.captions.keyword_to_caption import BUNDLED, load
from openclap.evals.bootstrap import measure_interval, paired_difference
from openclap.formatting import markdown_table

Clips = NDArray[np.int64]
FIGURES = ("R@10", "zero-shot")


@dataclass(frozen=True)
class Ablation:
    """A change of mini.

    Attributes:
        method: trains on pairs.
        pairs: the pairs of the clips to train on.
        keep: the clips that are trained on, of those that may be.
        data: the data in place of the real ones, where features differ.
    """

    method: Method
    pairs: Callable[[Data, Clips], Pairs] = lambda data, clips: data.pairs.take(clips)
    keep: Callable[[Data, Clips], Clips] = lambda data, clips: clips
    data: Callable[[Data], Data] = lambda data: data


def without_rendered(data: Data, clips: Clips) -> Clips:
    return np.array([clip for clip in clips if data.rows[clip].caption_from != "rendered"], np.int64)


def free_licences(data: Data, clips: Clips) -> Clips:
    """CC0, CC BY and MIT alone, which is what shipped weights learn from."""
    return np.array([clip for clip in clips if data.rows[clip].ship], np.int64)


def any_licence_as_many(data: Data, clips: Clips) -> Clips:
    """As many clips as `free_licences` leaves, of all licences: what their number alone costs."""
    count = len(free_licences(data, clips))
    return np.sort(np.random.default_rng(0).choice(clips, count, replace=False))


def one_caption(data: Data, clips: Clips) -> Pairs:
    """The first caption of each clip alone."""
    pairs = data.pairs.take(clips)
    first_N = np.searchsorted(pairs.owner_T, np.arange(len(clips)))
    return replace(pairs, caption_TD=pairs.caption_TD[first_N], owner_T=np.arange(len(clips)))


def with_views(files: Sequence[Path], data: Data, clips: Clips) -> Pairs:
    """Windows of changed sounds beside those of the sounds."""
    pairs = data.pairs.take(clips)
    windows, owners = [pairs.window_WF], [pairs.owner_W]
    for file in files:
        known = Cache(file).known
        for number, clip in enumerate(clips):
            more_WF = known.get(data.rows[clip].path)
            if more_WF is not None:
                windows.append(more_WF.astype(np.float32))
                owners.append(np.full(len(more_WF), number))
    owner_W = np.concatenate(owners)
    order_W = np.argsort(owner_W, kind="stable")
    return replace(pairs, window_WF=np.concatenate(windows)[order_W], owner_W=owner_W[order_W])


def with_mixtures(folder: Path, data: Data, clips: Clips) -> Pairs:
    """Sums of two sounds, captioned by both, as further clips; each is a group of its own."""
    pairs, known, allowed = data.pairs.take(clips), Cache(folder / MIXTURES_FILE).known, set(clips.tolist())
    chosen = [(one, other) for one, other in choose_mixtures(data.rows) if one in allowed and other in allowed]
    keys = [f"{data.rows[one].path} {data.rows[other].path}" for one, other in chosen]
    captions = [f"{data.rows[one].captions[0]} and {data.rows[other].captions[0]}" for one, other in chosen]
    windows = [known[key].astype(np.float32) for key in keys]
    count, more = len(clips), len(chosen)
    return Pairs(
        np.concatenate([pairs.window_WF, *windows]),
        np.concatenate([pairs.owner_W, np.repeat(count + np.arange(more), [len(part) for part in windows])]),
        np.concatenate([pairs.caption_TD, MiniLM(folder)(captions)]),
        np.concatenate([pairs.owner_T, count + np.arange(more)]),
        np.concatenate([pairs.group_N, np.array([f"mixture {key}" for key in keys])]),
        np.concatenate([pairs.class_ND, np.zeros((more, pairs.class_ND.shape[1]), np.float32)]),
    )


class Rewritten:
    """One more caption for each recording, which the bundled captioner writes from the words of its first one."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.vector_of = folder, dict[str, Array]()

    def __call__(self, data: Data, clips: Clips) -> Pairs:
        if not self.vector_of:
            captions = sorted({row.captions[0] for row in data.rows if row.caption_from == "name"})
            words = [tuple(word for word in caption.split() if len(word) > 3) or (caption,) for caption in captions]
            written = load(BUNDLED, device="cpu").make(words)
            made = {caption: text for caption, text in zip(captions, written, strict=True) if text}
            self.vector_of = dict(zip(made, MiniLM(self.folder)(made.values()), strict=True))
        pairs = data.pairs.take(clips)
        more = [(n, self.vector_of.get(data.rows[clip].captions[0])) for n, clip in enumerate(clips)]
        found = [(number, vector) for number, vector in more if vector is not None]
        owner_T = np.concatenate([pairs.owner_T, np.array([number for number, _ in found], np.int64)])
        order_T = np.argsort(owner_T, kind="stable")
        caption_TD = np.concatenate([pairs.caption_TD, np.stack([vector for _, vector in found])])
        return replace(pairs, caption_TD=caption_TD[order_T], owner_T=owner_T[order_T])


def untrained(folder: Path, data: Data) -> Data:
    """The same data with the features of the network before any training."""
    known = Cache(folder / UNTRAINED_FILE).known
    windows = [known[row.path].astype(np.float32) for row in data.rows]
    owner_W = np.repeat(np.arange(len(windows)), [len(part) for part in windows])
    return replace(data, pairs=replace(data.pairs, window_WF=np.concatenate(windows), owner_W=owner_W))


def ablations(folder: Path, *, closed: bool) -> Mapping[str, Ablation]:
    """Every change whose files exist, by name; the first is mini as it is."""
    whole: Callable[..., Trained] = closed_form if closed else mini
    views = [view_file(folder, name) for name in CHANGES]
    found = {
        "mini": Ablation(whole),
        "without category heads": Ablation(plain(partial(whole, parts=(1.0, 1.0, 0.0)))),
        "category probabilities, not their names": Ablation(partial(whole, parts=(1.0, 1.0, 0.0))),
        "without rendered instruments": Ablation(whole, keep=without_rendered),
        "CC0, BY and MIT alone": Ablation(whole, keep=free_licences),
        "all licences, as many clips as those": Ablation(whole, keep=any_licence_as_many),
        "without classes beside captions": Ablation(partial(whole, classes=0.0)),
        "first captions alone": Ablation(whole, pairs=one_caption),
        "captions not whitened": Ablation(partial(whole, exponent=0.0)),
        "captions rewritten as well": Ablation(whole, pairs=Rewritten(folder)),
    }
    for name, file in zip(CHANGES, views, strict=True):
        if file.exists():
            found[f"with views: {name}"] = Ablation(whole, pairs=partial(with_views, [file]))
    if all(file.exists() for file in views):
        found["with all four views"] = Ablation(whole, pairs=partial(with_views, views))
    if (folder / MIXTURES_FILE).exists():
        found["with mixtures of two sounds"] = Ablation(whole, pairs=partial(with_mixtures, folder))
    if (folder / UNTRAINED_FILE).exists():
        without_names = plain(partial(whole, parts=(1.0, 1.0, 0.0)))
        found["untrained start weights"] = Ablation(without_names, data=partial(untrained, folder))
    if not closed:
        found["without interpolated batches"] = Ablation(partial(mini, options=replace(MINI, mixed=0.0)))
        found["heads of 512"] = Ablation(partial(mini, options=replace(MINI, size=512)))
        found["similarities alone"] = Ablation(partial(mini, options=replace(MINI, regression=0.0)))
        found["without classes among the texts"] = Ablation(partial(mini, joint=replace(JOINT, copies=0)))
        found["InfoNCE heads as the only teachers"] = Ablation(partial(mini, joint=replace(JOINT, closed=0.0)))
        found["the closed form a thousand times, so hard targets"] = Ablation(
            partial(mini, joint=replace(JOINT, closed=1000.0))
        )
        for name, options in {
            "one head along the closed form": STUDENT,
            "…, hard targets": replace(STUDENT, soft=0.0),
            "…, without the teacher": replace(STUDENT, teacher=0.0),
            "…, weights averaged over steps": replace(STUDENT, average=0.98),
        }.items():
            found[name] = Ablation(partial(distilled, options=options))
    return found


def ask_ablation(data: Data, ablation: Ablation) -> Answers:
    """Train for every package, and ask it."""
    data, parts = ablation.data(data), []
    for package, training, asked in data.folds(only_shipped=False):
        trained = ablation.method(ablation.pairs(data, ablation.keep(data, training)), data.phrase_PD)
        parts.append(ask_package(data, package, asked, embed(data, trained, data.pairs.take(asked))))
    return join(parts)


def row_of(name: str, answers: Answers, mini: Answers) -> list[str]:
    """Name, both figures with intervals, and both differences to mini."""
    ours, base = answers.measures(), mini.measures()
    estimates = [measure_interval(ours[key], answers.group_N) for key in FIGURES]
    gaps = [paired_difference(ours[key], base[key], answers.group_N).estimate for key in FIGURES]
    cells = [f"{found.value:.3f} ({found.low:.3f}–{found.high:.3f})" for found in estimates]
    return [name, *cells, *(f"{gap.value:+.3f} ({gap.low:+.3f} to {gap.high:+.3f})" for gap in gaps)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", help="names of rows")
    parser.add_argument("--closed-form", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data, changes = Data.read(options.folder), ablations(options.folder, closed=options.closed_form)
    mini = ask_ablation(data, changes["mini"])
    rows = []
    for name, change in changes.items():
        if name == "mini" or not options.only or name in options.only:
            rows.append(row_of(name, mini if name == "mini" else ask_ablation(data, change), mini))
            print(rows[-1], file=sys.stderr, flush=True)
    print(markdown_table([["", *FIGURES, *(f"{key} less mini's" for key in FIGURES)], *rows]))


if __name__ == "__main__":
    main()
