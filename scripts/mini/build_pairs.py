"""Build the pairs of the bundled model: sounds of packages and a soundfont, with captions, groups and licences.

    python -m scripts.mini.build_pairs --out build/mini [--packages DIR] [--without-rendering]

This needs `apt-get` of Debian 12, `dpkg-deb` and `npm`, and for rendering tinysoundfont (render.py). Archives in DIR
are not fetched again, and each is checked against its SHA-256. The same archives give the same table and sounds, byte
for byte.

A sound is used if captions.csv (or the demo's table) has words for it, it lasts at least 0.05 s, is not silent, and has
other samples than all before it. It is written as 16-bit FLAC, mono, at its own rate, scaled down where it clips,
and cut after 30 s. pairs.csv has one row a sound:

    path, package, key       the FLAC, its package, and its place in the package
    group                    sounds that splits must not separate: takes of one sound, one voice, one original, and
                             near-duplicates in other packages (groups.py)
    caption, extra_captions  a phrase, and others joined by " | "
    tags, label              words, and one of the classes for zero-shot classification
    licence, attribution, source
    ship                     whether the shipped weights may learn from it: CC0, CC BY or MIT
    caption_from, reviewed   the rule that made the caption, and whether it was read against the file's name and folder
    demo_held_out            whether its group holds a clip of the demo's test split: never used for training
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import polars as pl
import soundfile
from numpy.typing import NDArray
from scripts.build_demo_sounds import HERE as SCRIPTS
from scripts.build_demo_sounds import Original, unpack
from scripts.mini.groups import merge_groups
from scripts.mini.packages import DEMO, SOUNDFONT, TRANSCRIPTS, debian_packages, sounds_of, transcripts_in
from scripts.mini.render import INSTALL_TINYSOUNDFONT, render
from scripts.mini.words import Terms, Words, terms_of, words_of

from openclap.audio import decode
from openclap.audio.io import to_mono
from openclap.data.split import split_by_group
from openclap.demo.run import SPLIT_SEED, SPLITS
from openclap.errors import AudioError

SHORTEST_S, LONGEST_S, SILENT = 0.05, 30.0, 1e-3
Sound = tuple[Original, Words]


def demo_words() -> dict[tuple[str, str], tuple[Words, str]]:
    """Return words and tags of the demo's clips by source and name in the package."""
    table = pl.read_csv(SCRIPTS / "demo_captions.csv", infer_schema=False)
    return {
        (row["source"], row["original"]): (
            Words(tuple(row["captions"].split(" | ")), row["label"], row["group"], row["caption_from"]),
            row["tags"],
        )
        for row in table.to_dicts()
    }


def demo_test_groups() -> set[str]:
    """Return the groups of the demo's test split, as `openclap demo` packs it."""
    groups = [words.group for words, _ in demo_words().values()]
    return {group for group, split in split_by_group(groups, SPLITS, SPLIT_SEED).items() if split == "test"}


def described(packages: Path) -> Iterator[Sound]:
    """Yield every sound that has words, package after package; the demo's first."""
    known = demo_words()
    for package, read in DEMO.items():
        with tempfile.TemporaryDirectory() as scratch:
            for original in read(unpack(package, packages, Path(scratch))):
                if (original.source, original.key) in known:
                    yield original, known[original.source, original.key][0]
    debian = debian_packages()
    with tempfile.TemporaryDirectory() as scratch:
        transcripts = transcripts_in(unpack(debian[TRANSCRIPTS], packages, Path(scratch)))
    for source, package in debian.items():
        if source in (SOUNDFONT, TRANSCRIPTS):
            continue
        with tempfile.TemporaryDirectory() as scratch:
            for original in sounds_of(package, unpack(package, packages, Path(scratch))):
                if words := words_of(source, original.key, transcripts):
                    yield original, words


def decoded(original: Original) -> tuple[NDArray[np.float32], int]:
    """Decode to mono at the file's own rate, at most 30 s, with a peak of at most 0.99."""
    wave, rate = decode(io.BytesIO(original.encoded))
    wave_N = to_mono(wave)[: int(LONGEST_S * rate)]
    return wave_N / np.float32(max(1.0, np.abs(wave_N).max(initial=0.0) / 0.99)), rate


def usable(sounds: Iterable[Sound]) -> Iterator[tuple[Sound, NDArray[np.float32], int]]:
    """Yield the sounds that meet the module's conditions; print the others with the reason."""
    seen = set[bytes]()
    for original, words in sounds:
        try:
            wave_N, rate = decoded(original)
        except AudioError as error:
            print(f"left out {original.source} {original.key}: {error}")
            continue
        if wave_N.size < SHORTEST_S * rate or np.abs(wave_N).max() <= SILENT:
            print(f"left out {original.source} {original.key}: shorter than {SHORTEST_S} s, or silent")
        elif wave_N.tobytes() in seen:
            print(f"left out {original.source} {original.key}: same samples as an earlier sound")
        else:
            seen.add(wave_N.tobytes())
            yield (original, words), wave_N, rate


def write(
    sound: Sound, wave_N: NDArray[np.float32], rate: int, out: Path, tags: str | None = None
) -> dict[str, object]:
    """Write one sound as FLAC; return its row of pairs.csv."""
    original, words = sound
    package = original.source.split(":")[1]
    # Suffix included: "Blast3.wav" and "Blast3.ogg" are two sounds.
    path = out / "sounds" / package / (re.sub(r"[^A-Za-z0-9.]+", "-", original.key).strip("-") + ".flac")
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave_N, rate, subtype="PCM_16")
    return {
        "path": str(path),
        "package": package,
        "key": original.key,
        "group": words.group,
        "caption": words.captions[0],
        "extra_captions": " | ".join(words.captions[1:]),
        "tags": tags or ", ".join(_content_words(words.captions)),
        "label": words.label,
        "licence": original.licence,
        "attribution": original.author,
        "source": original.link,
        "ship": Terms(original.licence, original.author, original.link).shipped,
        "caption_from": words.caption_from,
        "reviewed": words.caption_from not in ("rendered", "transcript"),
    }


def build(packages: Path, out: Path, *, rendering: bool = True) -> pl.DataFrame:
    """Write all sounds and pairs.csv; return the table."""
    packages.mkdir(parents=True, exist_ok=True)
    known = demo_words()
    rows = []
    for sound, wave_N, rate in usable(described(packages)):
        tags = known.get((sound[0].source, sound[0].key), (None, None))[1]
        rows.append(write(sound, wave_N, rate, out, tags))
        if len(rows) % 500 == 0:
            print(f"{len(rows)} sounds written")
    if rendering:
        rows += rendered(packages, out)
    table = merge_groups(pl.DataFrame(rows), demo_test_groups())
    temporary = out / ".pairs.csv"
    table.write_csv(temporary)
    temporary.replace(out / "pairs.csv")
    return table


def rendered(packages: Path, out: Path) -> Iterator[dict[str, object]]:
    """Render the soundfont's instruments, and yield their rows."""
    terms = terms_of(SOUNDFONT, "")
    with tempfile.TemporaryDirectory() as scratch:
        folder = unpack(debian_packages()[SOUNDFONT], packages, Path(scratch))
        for key, words, wave_N, rate in render(next(folder.rglob("*.sf3"))):
            original = Original(SOUNDFONT, key, key, key, terms.author, terms.licence, terms.link, b"")
            yield write((original, words), wave_N, rate, out)


def _content_words(captions: Iterable[str]) -> list[str]:
    dull = set((SCRIPTS / "captioner" / "stopwords.txt").read_text(encoding="utf-8").split())
    found = dict.fromkeys(re.findall(r"[a-z][a-z-]+", " ".join(captions).lower()))
    return [word for word in found if word not in dull]


def summary(table: pl.DataFrame) -> Mapping[str, object]:
    return {
        "clips": table.height,
        "may be learned by the shipped weights": int((table["ship"] & ~table["demo_held_out"]).sum()),
        "packages": table["package"].n_unique(),
        "groups": table["group"].n_unique(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the pairs of the bundled model.")
    parser.add_argument("--out", type=Path, default=Path("build/mini"))
    parser.add_argument("--packages", type=Path, default=Path("build/packages"), help="the archives")
    parser.add_argument("--without-rendering", action="store_true", help="leave out the soundfont's instruments")
    arguments = parser.parse_args()
    # Looked for before anything is fetched: rendering is the last step.
    if not arguments.without_rendering and importlib.util.find_spec("tinysoundfont") is None:
        raise SystemExit(f"Rendering needs tinysoundfont. Run: {INSTALL_TINYSOUNDFONT}, or use --without-rendering.")
    table = build(arguments.packages, arguments.out, rendering=not arguments.without_rendering)
    print(", ".join(f"{count} {what}" for what, count in summary(table).items()))


if __name__ == "__main__":
    main()
