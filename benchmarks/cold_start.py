"""Time from the shell to the hits: `openclap search` and `openclap similar`, beside `import torch`, in turn in one run.

    python benchmarks/cold_start.py [--runs 10] [--windows 1000000] [--model mini] [--folder FOLDER]
                                    [--only NAME ...]

Each run is a fresh process, on the index of one sound, on one of many made windows (see search.py), and on one of a
model of published size: a ClapModel folder as transformers saves it, with HTSAT-tiny, RoBERTa (500 MB), random weights,
and a tokenizer of as many made words as RoBERTa's has pieces. Printed are medians by the clock and of processor time,
and their ratios to `import torch`; other processes on the machine disturb processor time less. With --folder, the
indexes are kept there and used again.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

from openclap import runtimes
from openclap.cli.index import prepare_graphs
from openclap.library import Library, identity_of
from openclap.search.index import Index
from search import AT_ONCE, Made, fill

RATE = 44100
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
"""With compiled modules, as an installed package has."""
GOALS = {"search": 0.7, "similar": 1.0, "search of many": 1.2, "similar of many": 1.2, "search with RoBERTa": 2.0}
"""Times that are wanted, in multiples of `import torch`."""


@dataclass
class Times:
    """Seconds of each run, by the clock and of processor time."""

    clock: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def run(self, command: list[str]) -> None:
        """Run a command once more. Raises CalledProcessError when it fails."""
        used, start = _processor_s(), time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env=ENVIRONMENT)
        self.clock.append(time.perf_counter() - start)
        self.processor.append(_processor_s() - used)

    def medians(self) -> tuple[float, float]:
        """Of the clock and of processor time."""
        return statistics.median(self.clock), statistics.median(self.processor)


def _processor_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def make_indexes(folder: Path, model: str, windows: int) -> None:
    """Write sound.wav and the indexes `one` and, for more than no windows, `many`; convert a model that needs it."""
    sound = folder / "sound.wav"
    soundfile.write(sound, 0.1 * np.random.default_rng(0).standard_normal(3 * RATE), RATE)
    library = Library.open(folder / "one", model, device="cpu")
    library.add([sound])
    prepare_graphs(library)
    if windows and not Index.exists(folder / "many"):
        many = Index.create(folder / "many", identity_of(library.embedder, library.index.identity.model))
        fill(many, folder, Made(flat=False), windows // AT_ONCE * AT_ONCE)
        many.optimize()


def make_published(folder: Path) -> None:
    """Write a ClapModel folder of published size, and the index `RoBERTa` of one sound."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

    torch.manual_seed(0)
    config = ClapConfig()
    ClapModel(config).save_pretrained(folder / "published")
    ClapFeatureExtractor(
        truncation="rand_trunc", padding="repeatpad", frequency_min=50, frequency_max=14000
    ).save_pretrained(folder / "published")
    words = ["<s>", "<pad>", "</s>", "<unk>", *(f"word{number}" for number in range(4, config.text_config.vocab_size))]
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "published" / "tokenizer.json"))
    Library.open(folder / "RoBERTa", folder / "published", device="cpu").add([folder / "sound.wav"])


def commands(folder: Path) -> dict[str, list[str]]:
    """The command lines to time, by name."""
    openclap = [sys.executable, "-m", "openclap"]
    by_name = {"import torch": [sys.executable, "-c", "import torch"]}
    for index, ending in (("one", ""), ("many", " of many")):
        options = ["--index", str(folder / index), "--json"]
        by_name[f"search{ending}"] = [*openclap, "search", "rain on a tin roof", *options]
        by_name[f"similar{ending}"] = [*openclap, "similar", str(folder / "sound.wav"), *options]
    index = ["--index", str(folder / "RoBERTa"), "--json"]
    by_name["search with RoBERTa"] = [*openclap, "search", "rain on a tin roof", *index]
    return by_name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--windows", type=int, default=1_000_000)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[*GOALS], help="commands to time")
    options = parser.parse_args()
    if not runtimes.has("torch"):
        sys.exit("torch is what the times are compared with. Install it with: pip install 'openclap[torch]'.")
    folder = options.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    try:
        wanted = {"import torch", *(options.only or GOALS)}
        uses_many = any(name.endswith("of many") for name in wanted)
        make_indexes(folder, options.model, options.windows if uses_many else 0)
        if "search with RoBERTa" in wanted:
            make_published(folder)
        measure({name: command for name, command in commands(folder).items() if name in wanted}, options.runs)
    finally:
        if not options.folder:
            shutil.rmtree(folder)


def measure(by_name: dict[str, list[str]], runs: int) -> None:
    """Time all commands in turn, once for warming up and `runs` times, and print the table."""
    for command in by_name.values():
        Times().run(command)
    times = {name: Times() for name in by_name}
    for _ in range(runs):
        for name, command in by_name.items():
            times[name].run(command)
    of_torch = times["import torch"].medians()
    print(
        "| command | clock, s | processor, s | clock, × torch | processor, × torch | goal |\n|---|--:|--:|--:|--:|--:|"
    )
    for name, each in times.items():
        clock, processor = each.medians()
        ratios = f"{clock / of_torch[0]:.2f} | {processor / of_torch[1]:.2f}"
        print(f"| {name} | {clock:.2f} | {processor:.2f} | {ratios} | {GOALS.get(name, '')} |")


if __name__ == "__main__":
    main()
