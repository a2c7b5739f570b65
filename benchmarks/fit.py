"""How well the fit of a query tells sounds that an index has from sounds that it lacks, and whether rare words drown.

    python benchmarks/fit.py INDEX [--json FILE]

INDEX holds the bundled sounds and those of the packages below, unpacked with dpkg and npm, and was built with the
model to be measured. The notes of the sound font are played from its samples by `--notes FILE.sf2 FOLDER`, before
indexing.

    minetest-data lmms-common sound-icons simutrans-pak64 lomiri-sounds sound-theme-freedesktop lincity-ng-data
    frozen-bubble-data pingus-data asterisk-core-sounds-en-wav timgm6mb-soundfont

PRESENT and ABSENT were written from the names of the files, before any search. PRESENT gives the names that must exist;
that the sounds of ABSENT are missing is known from names alone. Intervals are bootstraps over queries. The demo's model
was trained on most of the bundled sounds, so queries whose sounds are in other packages have a figure of their own.
"""

from __future__ import annotations

import argparse
import json
import re
import struct
from pathlib import Path

import numpy as np

from openclap.demo.run import SOUNDS
from openclap.library import Library
from openclap.search.fit import PROBABLY_NOTHING, read_background
from openclap.search.index import Index

PRESENT = {
    "a dog barking": "scratch-dog",
    "a cat meowing": "scratch-(cat|meow)",
    "a wolf howling": "wolf",
    "a rooster crowing": "rooster",
    "a duck quacking": "duck",
    "a horse neighing": "horse",
    "an owl hooting": "-owl",
    "a sea lion barking": "sea-?lion",
    "a baby crying": "baby|cry",
    "a woman screaming": "scream",
    "a man sneezing": "sneeze",
    "a person snoring": "snore",
    "a woman speaking on the telephone": "^vm-|^conf-",
    "a crowd applauding": "applause",
    "a jackhammer at work": "jackhammer",
    "a chainsaw cutting wood": "chain|tree-cutting",
    "a sewing machine": "sewing",
    "footsteps on gravel": "gravel_footstep",
    "footsteps in snow": "snow_footstep",
    "glass breaking": "break_glass",
    "a fire crackling": "fire_fire",
    "a steel door closing": "steel_door_close",
    "water running": "env_sounds_water",
    "bubbles rising": "bubbles",
    "a steam train whistling": "steam",
    "a helicopter flying": "helicopter",
    "a jet plane taking off": "jet",
    "a car horn": "car-horn",
    "a ship's horn": "boat-horn|ship|ferry",
    "a typewriter": "typewriter",
    "the shutter of a camera": "camera-shutter",
    "morse code": "morse",
    "a church organ": "church_organ",
    "a harpsichord": "harpsichord|cembalo",
    "a violin": "violin",
    "a trumpet": "trumpet",
    "a xylophone": "xylo",
    "a tabla": "tabla",
    "a gong": "gong",
    "a hi-hat": "hi-?hat",
}
ABSENT = (
    "a vacuum cleaner", "a hair dryer", "a toilet flushing", "a lawn mower", "a kitchen blender", "popcorn popping",
    "a zip being closed", "bacon frying in a pan", "a cork popping out of a bottle", "a tennis match",
    "a bowling ball hitting the pins", "a basketball bouncing in a hall", "a game of table tennis", "a golf swing",
    "a whale singing", "dolphins clicking", "an elephant trumpeting", "frogs croaking in a pond", "a snake hissing",
    "a turkey gobbling", "a donkey braying", "a woodpecker drumming", "rain on an umbrella", "a sword fight",
    "a whip cracking", "fireworks in the sky", "a dentist's drill", "an electric shaver", "a pencil writing on paper",
    "a skateboard on the pavement", "paper being torn", "a coin spinning on a table", "dice rolling",
    "cards being shuffled", "monks chanting in a monastery", "an opera singer", "a Geiger counter", "a dishwasher",
    "a knife being sharpened", "ice skating",
)  # fmt: skip
RARE = {
    "glockenspiel": "glockenspiel",
    "kalimba": "kalimba|mbira",
    "banjo": "banjo",
    "koto": "koto",
    "sitar": "sitar",
    "bagpipe": "bag",
    "harmonica": "harmonica",
    "accordion": "accordion",
    "xylophone": "xylo",
    "harpsichord": "harpsichord|cembalo",
}
"""Rare words, and the names of files that have the sound."""
_BOOTSTRAPS = 2000


def auroc(present: np.ndarray, absent: np.ndarray) -> float:
    """The probability that a query with a sound has the higher fit; ties count half."""
    above = present[:, None] - absent[None, :]
    return float((above > 0).mean() + (above == 0).mean() / 2)


def interval(present: np.ndarray, absent: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of the AUROC."""
    rng = np.random.default_rng(0)
    values = [auroc(rng.choice(present, len(present)), rng.choice(absent, len(absent))) for _ in range(_BOOTSTRAPS)]
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def check_names(index: Index) -> None:
    """Raise SystemExit when the index lacks a sound that a query needs."""
    names = [Path(path).name for path in index.files_by_path()]
    for pattern in (*PRESENT.values(), *RARE.values()):
        if not any(re.search(pattern, name, re.IGNORECASE) for name in names):
            raise SystemExit(f"No file of the index is called {pattern}, expected the packages that --help lists.")


def separation(library: Library) -> dict[str, float]:
    """AUROC with its interval, and the part of queries that are called "probably nothing here"."""
    of_present, of_absent = (
        np.array([library.search(text, 1).info.fit for text in texts], float) for texts in (PRESENT, ABSENT)
    )
    low, high = interval(of_present, of_absent)
    names = [path.name for path in SOUNDS.iterdir()]
    is_bundled = np.array([any(re.search(each, name, re.IGNORECASE) for name in names) for each in PRESENT.values()])
    others_low, others_high = interval(of_present[~is_bundled], of_absent)
    for texts, fits in ((PRESENT, of_present), (ABSENT, of_absent)):
        print("  ".join(f"{text} {fit:.2f}" for text, fit in zip(texts, fits, strict=True)))
    return {
        "AUROC": auroc(of_present, of_absent),
        "low": low,
        "high": high,
        "AUROC of other sounds than the bundled": auroc(of_present[~is_bundled], of_absent),
        "low of others": others_low,
        "high of others": others_high,
        "number of others": int((~is_bundled).sum()),
        "false nothing": float((of_present < PROBABLY_NOTHING).mean()),
        "true nothing": float((of_absent < PROBABLY_NOTHING).mean()),
    }


def rank_of(library: Library, text: str, pattern: str, **options: str) -> int:
    """The rank of the first file with such a name."""
    hits = library.search(text, len(library.index.files_by_path()), **options)  # type: ignore[arg-type]
    matches = (rank for rank, hit in enumerate(hits, 1) if re.search(pattern, Path(hit.path).name, re.IGNORECASE))
    return next(matches)


def play_notes(font: Path, folder: Path) -> int:
    """Write a note of 1.5 s for each sample of a sound font, its loop repeated and faded; the number of notes."""
    import soundfile

    content = font.read_bytes()
    samples = np.frombuffer(content, "<i2", offset=content.find(b"smpl") + 8, count=_size(content, b"smpl") // 2)
    headers = content.find(b"shdr") + 8
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for at in range(headers, headers + _size(content, b"shdr") - 46, 46):  # the last record, EOS, is no sample
        name = content[at : at + 20].split(b"\0")[0].decode("latin-1")
        first, last, loop, loop_end, rate = struct.unpack_from("<5I", content, at + 20)
        if last - first < 0.04 * rate:  # a single period of a wave
            continue
        note = samples[first:last] / 32768
        if loop_end - loop > 8 and len(note) < 1.5 * rate:
            more = np.resize(samples[loop:loop_end] / 32768, max(0, int(1.5 * rate) - (loop_end - first)))
            note = np.concatenate([samples[first:loop_end] / 32768, more])
            note *= np.exp(-2 * np.arange(len(note)) / rate)
        soundfile.write(folder / f"{re.sub('[^A-Za-z0-9]+', '-', name)}-{at}.wav", note, rate)
        count += 1
    return count


def _size(content: bytes, chunk: bytes) -> int:
    return int(struct.unpack_from("<I", content, content.find(chunk) + 4)[0])


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", nargs="?")
    parser.add_argument("--notes", nargs=2, metavar=("FONT", "FOLDER"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.notes:
        print(play_notes(*map(Path, options.notes)), "notes")
        return
    library = Library.open(options.index, device="cpu")
    check_names(library.index)
    background = read_background(library.index)
    if background is None:
        raise SystemExit("The index has no background. Run: openclap index update --index INDEX")
    print("files, windows:", *library.index.count(), " background at", background.windows, "windows")
    figures = separation(library)
    print(json.dumps(figures, indent=1))
    ranks = {
        word: [rank_of(library, text, pattern, keywords="off") for text in (f"a {word}", f"a quiet {word}")]
        + [rank_of(library, f"a quiet {word}", pattern)]
        for word, pattern in RARE.items()
    }
    print("ranks: plain, quiet, quiet with rare words (the default)")
    for word, places in ranks.items():
        print(f"{word:14}", *places)
    print("median", *np.median(list(ranks.values()), axis=0))
    if options.json:
        options.json.write_text(json.dumps({**figures, "ranks": ranks}, indent=1))


if __name__ == "__main__":
    main()
