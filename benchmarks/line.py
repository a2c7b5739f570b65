"""What each step of the line costs: `make bench` prints the table that stands in docs/benchmarks.md.

Every step is a fresh process, so that its peak memory (`ru_maxrss`) is its own. The demo is made in a temporary
folder.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

IMPORTS, SEARCHES, CLIPS = 7, 20, 100
QUERY = "wolf howling"


def pack() -> str:
    with _demo().locked():
        counts = _demo().pack(lambda done, total: None)
    return f"{counts['train']} + {counts['test']} clips"


def train() -> str:
    return f"{_demo().train(lambda row: None).total_steps} steps"


def measure() -> str:
    return f"{len(_demo().measure(lambda what, done, total: None).figures) - 1} figures, two models"


def index() -> str:
    return f"{_demo().index(lambda done, total: None).added} files"


def embed() -> str:
    import openclap
    from openclap.demo.run import SOUNDS

    model = openclap.load(_demo().run / "model")
    files = sorted(SOUNDS.glob("*.ogg"))[: CLIPS + 1]
    model.embed_audio(files[:1])
    seconds = _seconds(lambda: model.embed_audio(files[1:]))
    return f"{CLIPS / seconds:.1f} clips/s, decoding included"


def search() -> str:
    library = _demo().library()
    library.search(QUERY, 10)
    vector_D = library.embedder.embed_text([QUERY])[0]
    whole = statistics.median(_seconds(lambda: library.search(QUERY, 10)) for _ in range(SEARCHES))
    index_alone = statistics.median(_seconds(lambda: library.index.search(vector_D, 10)) for _ in range(SEARCHES))
    files, windows = library.index.count()
    held = f"{files} files, {windows} windows"
    return f"{whole * 1e3:.1f} ms a query, {index_alone * 1e3:.1f} ms of it the index ({held})"


STEPS: dict[str, Callable[[], str]] = {step.__name__: step for step in (pack, train, measure, index, embed, search)}


def main() -> None:
    if len(sys.argv) > 1:
        _report_step(STEPS[sys.argv[1]])
        return
    print("| step | seconds | processor | peak memory | result |\n|---|---:|---:|---:|---|")
    bare, full = _start_up("pass"), _start_up("import openclap")
    result = f"{bare:.2f} s of it Python itself; median of {IMPORTS}"
    print(f'| `python -c "import openclap"` | {full:.2f} | – | – | {result} |')
    with tempfile.TemporaryDirectory() as scratch:
        environment = os.environ | {"OPENCLAP_HOME": scratch, "HF_HUB_OFFLINE": "1"}
        for name in STEPS:
            command = [sys.executable, __file__, name]
            run = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
            row = json.loads(run.stdout.splitlines()[-1])
            facts = f"{row['seconds']:.1f} | {row['processor']:.1f} s | {row['peak_mb']:,.0f} MB"
            print(f"| {name} | {facts} | {row['result']} |", flush=True)


def _report_step(step: Callable[[], str]) -> None:
    started = time.perf_counter()
    result = step()
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)
    seconds, processor = time.perf_counter() - started, time.process_time()
    print(json.dumps({"seconds": seconds, "processor": processor, "peak_mb": peak_mb, "result": result}))


def _demo():
    from openclap import paths
    from openclap.demo.run import Demo

    return Demo(paths.home() / "demo")


def _start_up(code: str) -> float:
    """The median of fresh interpreters that run `code`, in seconds."""
    command = [sys.executable, "-c", code]
    return statistics.median(_seconds(lambda: subprocess.run(command, check=True)) for _ in range(IMPORTS))


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
