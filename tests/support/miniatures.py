"""The public evaluation sets in miniature: their published layouts, with short pieces of bundled sounds."""

from __future__ import annotations

import csv
import io
import json
import zlib
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import soundfile

BUNDLED = sorted((Path(__file__).parents[2] / "src" / "openclap" / "demo" / "sounds").glob("*.ogg"))
RATE = 16_000
KINDS = {
    "dog": ("dog", "a big dog"),
    "rain": ("rain", "rain on the roof"),
    "bell": ("bell", "the bell in a roof"),
    "wolf": ("wolf", "a wolf howling"),
}


@cache
def _bundled(number: int) -> tuple[np.ndarray, int]:
    wave, rate = soundfile.read(BUNDLED[number % len(BUNDLED)], dtype="float32", always_2d=True)
    return wave.mean(axis=1)[: rate // 2], rate


def put(path: Path, kind: str = "", number: int = 0) -> Path:
    """Half a second of a bundled sound: one sound a kind, made different by a little noise a number."""
    wave, rate = _bundled(zlib.crc32(kind.encode()) % len(BUNDLED))
    noise = 0.02 * np.random.default_rng([zlib.crc32(kind.encode()), number]).standard_normal(len(wave))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.clip(wave + noise, -1, 1).astype(np.float32), rate)
    return path


def table(path: Path, head: Sequence[str] | None, rows: Iterable[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    if head:
        writer.writerow(head)
    writer.writerows(rows)
    path.write_text(out.getvalue(), encoding="utf-8")


def esc50(root: Path, folds: int = 5) -> None:
    rows = []
    for fold in range(1, folds + 1):
        for target, kind in enumerate(KINDS):
            upload = 1000 * fold + target
            name = f"{fold}-{upload}-A-{target}.wav"
            put(root / "audio" / name, kind, fold)
            rows.append((name, fold, target, kind, "False", upload, "A"))
    table(root / "meta" / "esc50.csv", ["filename", "fold", "target", "category", "esc10", "src_file", "take"], rows)


def urbansound8k(root: Path, folds: int = 10) -> None:
    rows = []
    for fold in range(1, folds + 1):
        for target, kind in enumerate(["dog", "rain"]):
            upload = 5000 + 10 * fold + target
            name = f"{upload}-{target}-0-0.wav"
            put(root / "audio" / f"fold{fold}" / name, kind, fold)
            rows.append((name, upload, 0.0, 0.5, 1, fold, target, f"{kind}_bark" if kind == "dog" else kind))
    head = ["slice_file_name", "fsID", "start", "end", "salience", "fold", "classID", "class"]
    table(root / "metadata" / "UrbanSound8K.csv", head, rows)


def clotho(root: Path, clips: int = 6) -> None:
    for split in ("development", "validation", "evaluation"):
        captions, facts = [], []
        for number in range(clips):
            kind, (short, long) = list(KINDS.items())[number % len(KINDS)]
            name = f"{kind} {split} {number}.wav"
            put(root / split / name, kind, number)
            captions.append((name, long, f"a {short}", f"{long} {number}", f"the sound of a {short}", f"{short} noise"))
            link = f"https://freesound.org/people/u{number}/sounds/{7000 + number}"
            facts.append((name, kind, 7000 + number, link, "[0, 22050]", f"u{number}", "CC0"))
        table(root / f"clotho_captions_{split}.csv", ["file_name", *(f"caption_{n}" for n in range(1, 6))], captions)
        head = ["file_name", "keywords", "sound_id", "sound_link", "start_end_samples", "manufacturer", "license"]
        table(root / f"clotho_metadata_{split}.csv", head, facts)
    # DCASE 2025, task 6: some captions of the test split, each with all clips that it is right for.
    names = [f"{list(KINDS)[number % len(KINDS)]} evaluation {number}.wav" for number in range(clips)]
    queries = [(f"the sound of a {short}", kind) for kind, (short, _) in KINDS.items()]
    rows = [(query, str([name for name in names if name.startswith(kind)])) for query, kind in queries]
    table(root / "metadata_eval.csv", ["query", "audio_filenames"], rows)


def audiocaps(root: Path, clips: int = 6) -> None:
    head = ["audiocap_id", "youtube_id", "start_time", "caption"]
    for split, said in (("train", 1), ("val", 5), ("test", 5)):
        rows = []
        for number in range(clips):
            kind, (short, long) = list(KINDS.items())[number % len(KINDS)]
            video, start = f"{split[:4]:_<4}{number:07d}", 10 * number
            put(root / "audio" / split / f"{video}_{start}.wav", kind, 20 + number)
            texts = [long, f"a {short}", f"{short} noise", f"this is {long}", f"{short} number {number}"]
            rows += [(100 * number + n, video, start, text) for n, text in enumerate(texts[:said])]
        table(root / f"{split}.csv", head, rows)


def fsd50k(root: Path, clips: int = 8) -> None:
    truth, infos = root / "FSD50K.ground_truth", root / "FSD50K.metadata"
    numbers = iter(range(60_000, 61_000))
    for part, splits in (("dev", ("train", "val")), ("eval", (None,))):
        rows, said = [], {}
        for split in splits:
            for count in range(clips):
                kind, name = list(KINDS)[count % len(KINDS)], str(next(numbers))
                put(root / f"FSD50K.{part}_audio" / f"{name}.wav", kind, int(name))
                labels = f"{kind.capitalize()},Animal" if kind in ("dog", "wolf") else kind.capitalize()
                rows.append((name, labels, "/m/x", *([split] if split else [])))
                said[name] = {"title": kind, "description": "", "tags": [], "license": "CC0", "uploader": f"u{count}"}
        head = ["fname", "labels", "mids", *(["split"] if part == "dev" else [])]
        table(truth / f"{part}.csv", head, rows)
        infos.mkdir(parents=True, exist_ok=True)
        (infos / f"{part}_clips_info_FSD50K.json").write_text(json.dumps(said), encoding="utf-8")


def vggsound(root: Path, clips: int = 8) -> None:
    rows = []
    for split in ("train", "test"):
        for number in range(clips):
            kind, video = list(KINDS)[number % len(KINDS)], f"{split:_<5}{number:06d}"
            put(root / f"{video}_{10 * number:06d}.wav", kind, 40 + number)
            rows.append((video, 10 * number, f"{kind} howling", split))
    table(root / "vggsound.csv", None, rows)


def gtzan(root: Path, clips: int = 2) -> None:
    for kind in KINDS:
        for number in range(clips):
            put(root / "genres" / kind / f"{kind}.{number:05d}.wav", kind, 60 + number)


def audioset(root: Path, clips: int = 8) -> None:
    ids = {kind: f"/m/0{number}" for number, kind in enumerate(KINDS)}
    lines = [
        "# Segments csv created Sun Mar  5 10:54:25 2017",
        "# num_ytids=8",
        "# YTID, start_seconds, end_seconds, p",
    ]
    for number in range(clips):
        kind, video = list(KINDS)[number % len(KINDS)], f"eval_{number:06d}"
        put(root / "eval_segments" / f"Y{video}.wav", kind, 80 + number)
        labels = f"{ids[kind]},/m/09" if kind in ("dog", "wolf") else ids[kind]
        lines.append(f'{video}, 30.000, 40.000, "{labels}"')
    root.mkdir(parents=True, exist_ok=True)
    (root / "eval_segments.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    names = [(number, mid, kind.capitalize()) for number, (kind, mid) in enumerate(ids.items())]
    table(root / "class_labels_indices.csv", ["index", "mid", "display_name"], [*names, (9, "/m/09", "Animal")])


SETS = {
    "esc50": esc50,
    "urbansound8k": urbansound8k,
    "clotho": clotho,
    "audiocaps": audiocaps,
    "fsd50k": fsd50k,
    "vggsound": vggsound,
    "gtzan": gtzan,
    "audioset": audioset,
}


def all_sets(root: Path) -> Path:
    """Every set under `root`, in a folder of its name."""
    for name, make in SETS.items():
        make(root / name)
    return root
