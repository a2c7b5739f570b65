"""Size, load time, speed and precision of the bundled model.

    python benchmarks/mini.py

Times are processor time: each is measured in a process of its own, with one thread (two where stated), and is the best
of five. Cosines are to torch in fp32, over 60 of the bundled sounds and their captions.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import openclap
from openclap.checkpoints.bundled import FOLDER, MINI
from openclap.demo.run import TABLE
from openclap.formatting import markdown_table
from openclap.sources.table import read_table

MEASURE = """
import json, resource, sys, time
import numpy as np
import openclap
runtime, precision = sys.argv[1:]
def spent():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
if runtime == "torch":
    import torch, transformers  # their import is not part of loading
    from transformers import AutoModel, BertModel
begun = spent()
model = openclap.load("mini", runtime=runtime, device="cpu", precision=precision)
loaded = spent() - begun
begun = spent()
model.embed_text(["rain"])
first = spent() - begun
noise = (0.1 * np.random.default_rng(0).standard_normal(441000)).astype(np.float32)
times, walls = [], []
for _ in range(5):
    begun, wall = spent(), time.perf_counter()
    model.embed_audio([(noise, 44100)])
    times.append(spent() - begun)
    walls.append(time.perf_counter() - wall)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
print(json.dumps([loaded, first, min(times), min(walls), peak]))
"""
CLIPS = 60


def main() -> None:
    size = sum(file.stat().st_size for file in FOLDER.iterdir())
    print(
        f"The folder has {size / 1e6:.1f} MB, its weights {(FOLDER / 'model.safetensors').stat().st_size / 1e6:.1f}.\n"
    )
    rows = [["", "load", "first text", "10 s clip", "by the clock", "peak memory"]]
    for runtime, precision, threads in (
        ("onnx", "fp32", 1),
        ("onnx", "fp32", 2),
        ("torch", "fp32", 1),
        ("torch", "int8", 1),
    ):
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        command = [sys.executable, "-c", MEASURE, runtime, precision]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        load, first, clip, wall, peak = json.loads(done.stdout)
        name = f"{runtime} {precision}" + (", two threads" if threads == 2 else "")
        times = [f"{1000 * seconds:.0f} ms" for seconds in (load, first, clip, wall)]
        rows.append([name, *times, f"{peak:.0f} MB"])
    print(markdown_table(rows, right=range(1, 6)), end="\n\n")
    print(cosines())


def cosines() -> str:
    """The lowest and the mean cosine of each precision and runtime to torch in fp32."""
    table = read_table(TABLE)
    records = table[:: len(table) // CLIPS][:CLIPS]
    sounds, texts = [record.audio for record in records], [record.captions[0] for record in records]
    exact = openclap.load(MINI, runtime="torch", device="cpu")
    wanted = exact.embed_audio(sounds), exact.embed_text(texts)
    rows = [["cosine to fp32: lowest, mean", "sounds", "texts"]]
    for runtime, precision in (("onnx", "fp32"), ("torch", "int8")):
        model = openclap.load(MINI, runtime=runtime, device="cpu", precision=precision)
        cells = [f"{runtime} {precision}"]
        for found, expected in zip((model.embed_audio(sounds), model.embed_text(texts)), wanted, strict=True):
            cosine = (found * expected).sum(axis=1)
            cells.append(f"{cosine.min():.6f}, {cosine.mean():.6f}")
        rows.append(cells)
    return markdown_table(rows)


if __name__ == "__main__":
    main()
