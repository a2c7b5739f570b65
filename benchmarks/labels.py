"""Labels of the bundled model: how often words of captions confirm them, and the time to label a million windows.

    OMP_NUM_THREADS=1 python benchmarks/labels.py [--windows 1000000]

Captions do not name all that is heard, so a label without a word may still be right. N windows, L labels, D embedding.
"""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa

import openclap
from openclap.demo.run import SOUNDS, TABLE
from openclap.library import Library
from openclap.search import labels as module
from openclap.search.filters import facets, mask_of
from openclap.search.labels import Label, StoredLabels, default_labels
from openclap.search.ranking import View, Windows
from openclap.sources.table import read_table

DIM = 512
WINDOWS_PER_FILE = 4
WORDS = {
    "Aircraft": "jet|plane|helicopter|aircraft|take",
    "Alarms": "alarm|siren|buzz",
    "Ambience": "ambi|room|inside|background|atmosphere|outdoor|street|haunted",
    "Animals": "dog|cat |meow|kitten|cow|horse|sheep|pig|duck|goose|owl|bird|crow|rooster|chicken|cricket|wolf|monkey",
    "Beeps": "beep|blip|bleep",
    "Bells": "bell|gong|chime|ding|cowbell",
    "Birds": "bird|crow|owl|goose|duck|rooster|chicken|seagull|chirp",
    "Cartoon": "boing|cartoon|comedy|comic|toy|pop|slide",
    "Clocks": "clock|tick",
    "Communications": "phone|ring|morse|radio",
    "Computers": "typ|keyboard|computer",
    "Crowds": "crowd|applau|audience|cheer|people",
    "Destruction": "crash|collaps|falling|break",
    "Doors": "door|knock",
    "Drums": "drum|hi-hat|cymbal|kick|snare|tom |tabla|beat|conga|tambourine|bongo|percussion|timpani",
    "Electricity": "electric|spark|hum|buzz",
    "Explosions": "explo|bomb|blast",
    "Fight": "punch|slap|hit|kick drum|boing",
    "Fire": "fire|crackl|flame",
    "Footsteps": "step|walk|run",
    "Glass": "glass",
    "Horns": "horn|toot|honk",
    "Human": "laugh|cough|sneez|baby|cry|snor|breath|burp|clap|snap|kiss",
    "Lasers": "laser|zap",
    "Machines": "machin|factory|mill|mine|engine|print|motor|drill|saw",
    "Magic": "magic|fairy|sparkl|spell",
    "Mechanical": "click|ratchet|lever|gear|mechan",
    "Metal": "metal|hammer|anvil|clang",
    "Motors": "motor|engine|printer|servo|propeller",
    "Music": "music|loop|melody|song|tune|beat|chord",
    "Musical instruments": "guitar|piano|violin|flute|note|string|trumpet|sax|harp|bass|chord|organ|marimba|clarinet",
    "Rain": "rain",
    "Robots": "robot",
    "Science fiction": "space|alien|ufo|laser|warp|teleport|robot|glitch|lunar",
    "Swooshes": "woosh|swoosh|whoosh|swish",
    "Synthesizer": "synth|electronic|bass|pad|tone|noise|drone|lead",
    "Tools": "hammer|drill|saw",
    "Toys": "toy|squeak",
    "Trains": "train|locomotive|monorail|maglev|steam engine|railway",
    "User interface": "click|pop|blip|beep|tap",
    "Vehicles": "car|bus|truck|engine|motor|vehicle|drive",
    "Voices": "voice|singing|scream|speak|shout|choir|saying",
    "Water": "water|splash|wave|bubble|rain|drip|drop|ocean|river",
    "Weather": "thunder|storm|wind|rain",
    "Whistles": "whistl",
    "Wind": "wind",
    "Wood": "wood|tree|log",
}
"""Words of a caption or tag that confirm a label."""


def confirmed(library: Library, least: float) -> tuple[float, float]:
    """The part of the files with a label, and the part of the labels that a word confirms."""
    module.LEAST = least  # type: ignore[misc]
    (library.index.folder / module.LABELS_NAME).unlink(missing_ok=True)
    library.label()
    files = module.with_labels(library.index, library.index.facts(), always=True).to_pylist()
    labels = [
        (label, f"{file['caption']} {' '.join(file['tags'] or ())}") for file in files for label in file["labels"]
    ]
    right = sum(bool(re.search(WORDS.get(label, "$^"), text)) for label, text in labels)
    return sum(bool(file["labels"]) for file in files) / len(files), right / len(labels)


def made(count: int) -> View:
    """Made windows of random directions, WINDOWS_PER_FILE a file."""
    rng = np.random.default_rng(0)
    vectors_ND = np.empty((count, DIM), np.float16)
    for first in range(0, count, 50_000):
        part_ND = vectors_ND[first : first + 50_000]
        part_ND[:] = rng.standard_normal(part_ND.shape, np.float32) / np.sqrt(DIM)
    content_N = (np.arange(count) // WINDOWS_PER_FILE).astype(np.int32)
    numbers = range(int(content_N[-1]) + 1)
    facts = pa.table({"path": [f"/{n}.wav" for n in numbers], "hash": [f"{n * 2654435761:064x}" for n in numbers]})
    windows = Windows(vectors_ND, np.zeros((count, 2)), content_N)
    newer = Windows(vectors_ND[:0], np.zeros((0, 2)), content_N[:0])
    contents = np.arange(len(numbers), dtype=np.int32)
    return View(windows, newer, None, facts, contents, np.ones(len(numbers), bool), len(numbers))


def begin(labels: tuple[Label, ...]) -> StoredLabels:
    """The labels with random directions."""

    def embed(texts: object) -> np.ndarray:
        return np.random.default_rng(1).standard_normal((len(texts), DIM)).astype(np.float32)  # type: ignore[arg-type]

    return module._begin(labels, embed, 100.0)


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=1_000_000)
    count = parser.parse_args().windows
    with TemporaryDirectory() as folder:
        library = Library(Library.open(folder + "/index").index, openclap.load("mini"))
        library.add([Path(SOUNDS)], records=read_table(TABLE))
        for least in (1e-9, 0.3, 0.5, 0.7):
            files, right = confirmed(library, least)
            print(f"least probability {least:g}: {files:.0%} of the files have a label, words confirm {right:.0%}")
    view, stored = made(count), begin(default_labels())
    start = time.process_time()
    contents = module._used_contents(view)
    keys_C = module._keys(view, contents)
    labels_CM = np.full((len(keys_C), module.MOST), module.NONE, np.int16)
    module._label(view, stored, contents, labels_CM, np.arange(len(keys_C)))
    print(f"{count:,} windows labelled in {time.process_time() - start:.1f} s of processor time")
    start = time.process_time()
    table = module.joined(view.facts, module.replace(stored, keys_C=keys_C, labels_CM=labels_CM))
    print(f"table with labels {time.process_time() - start:.2f} s")
    start = time.process_time()
    mask_of(table, ["label=Rain"])
    print(f"filter {time.process_time() - start:.3f} s")
    start = time.process_time()
    facets(table, "labels")
    print(f"counts {time.process_time() - start:.2f} s")


if __name__ == "__main__":
    main()
