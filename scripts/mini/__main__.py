"""Make the bundled model: from the packages to the finished weights, with one command.

    python -m scripts.mini [--folder build/mini] [--out src/openclap/checkpoints/mini] [--packages build/packages]

`make mini` sets up the environment and runs it. Each step is a process of its own with one thread; FOLDER/steps.json
has the seconds and processor seconds of each, and the SHA-256 of its outputs. A step is not repeated while its inputs,
its options and its outputs are those of that file. A step that was killed starts again; the longest ones go on instead
(packages that were fetched, features that were cached, the training of the text tower).

Two runs on one machine give the same bits. On another machine sums may be rounded otherwise.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.mini.distil_text import STEPS, TEXTS

HERE = Path(__file__).parent
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""The order of sums, and so the last digits, depend on the number of threads."""


@dataclass(frozen=True)
class Step:
    """A program to run.

    Attributes:
        command: arguments of Python.
        inputs: files that its outputs depend on, besides those of earlier steps.
        outputs: files that it has written when it is complete.
    """

    name: str
    command: tuple[str, ...]
    inputs: tuple[Path, ...]
    outputs: tuple[Path, ...]


def steps(folder: Path, out: Path, packages: Path, *, texts: int = TEXTS, updates: int = STEPS) -> Iterator[Step]:
    """Yield all steps, in their order. `updates` are the steps of the text tower's training."""
    tables = (*sorted(HERE.glob("*.csv")), HERE.with_name("demo_captions.csv"))
    words = HERE.with_name("captioner") / "stopwords.txt"
    pairs, whiten, text = folder / "pairs.csv", folder / "whiten.npz", folder / "text" / "model.safetensors"
    sounds = ("--out", str(folder), "--packages", str(packages))
    yield made_by("build_pairs", sounds, (*tables, words), (pairs,))
    yield made_by("features", (str(folder),), (pairs,), (folder / "features.npz",))
    yield made_by("whiten", (str(folder),), (pairs,), (whiten,))
    distilled = ("--pairs", str(pairs), "--out", str(text.parent), "--whiten", str(whiten))
    sizes = ("--texts", str(texts), "--steps", str(updates))
    yield made_by("distil_text", (*distilled, *sizes), (pairs, whiten, HERE / "phrases.txt"), (text,))
    made = tuple(out / name for name in ("model.safetensors", "config.json", "tokenizer.json", "sounds.csv"))
    learned = (pairs, folder / "features.npz", text, HERE / "categories.csv")
    yield made_by("train", (str(folder), "--out", str(out)), learned, made)


def made_by(name: str, options: tuple[str, ...], data: tuple[Path, ...], outputs: tuple[Path, ...]) -> Step:
    """The step that runs a module of this package, which depends on its data and its code."""
    return Step(name, ("-m", f"scripts.mini.{name}", *options), (*data, *modules(name)), outputs)


def modules(name: str) -> list[Path]:
    """The file of a module, and those of this package that it imports, directly or through another one."""
    found: set[str] = set()

    def add(module: str) -> None:
        if module not in found:
            found.add(module)
            for imported in _imports(HERE / f"{module}.py"):
                add(imported)

    add(name)
    return [HERE / f"{module}.py" for module in sorted(found)]


def _imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("scripts.mini"):
            # "from scripts.mini import heads" or "from scripts.mini.heads import unit"
            yield from str(node.module).split(".")[2:] or [alias.name for alias in node.names]


def run(wanted: Sequence[Step], log: Path) -> None:
    """Run the steps that are not complete. Raises SystemExit with the name of a step that fails."""
    done = json.loads(log.read_text(encoding="utf-8")) if log.exists() else {}
    for step in wanted:
        before = {"command": list(step.command), "inputs": digests(step.inputs)}
        known = done.get(step.name, {})
        if {key: known.get(key) for key in before} == before and known["outputs"] == digests(step.outputs):
            print(f"{step.name}: complete", flush=True)
            continue
        print(f"{step.name}: python {' '.join(step.command)}", flush=True)
        begun, spent = time.monotonic(), _spent()
        command = [sys.executable, *step.command]
        if status := subprocess.run(command, env=os.environ | THREADS, cwd=HERE.parents[1], check=False).returncode:
            raise SystemExit(f"{step.name} failed with exit code {status}. Mend the cause, and run the command again.")
        times = {"seconds": round(time.monotonic() - begun, 3), "processor_seconds": round(_spent() - spent, 3)}
        done[step.name] = before | times | {"outputs": digests(step.outputs)}
        draft = log.with_suffix(".draft")
        draft.write_text(json.dumps(done, indent=2) + "\n", encoding="utf-8")
        draft.replace(log)
        print(f"{step.name}: {times['seconds']:.0f} s, {times['processor_seconds']:.0f} s of a core", flush=True)


def digests(files: Sequence[Path]) -> dict[str, str]:
    """SHA-256 by name of the files that exist."""
    found = {file.name: file for file in files if file.exists()}
    return {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in found.items()}


def _spent() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("build/mini"))
    parser.add_argument("--out", type=Path, default=Path("src/openclap/checkpoints/mini"))
    parser.add_argument("--packages", type=Path, default=Path("build/packages"))
    parser.add_argument("--texts", type=int, default=TEXTS, help="that the text tower learns")
    parser.add_argument("--steps", type=int, default=STEPS, help="of its training")
    options = parser.parse_args()
    folder, out, packages = (path.absolute() for path in (options.folder, options.out, options.packages))
    folder.mkdir(parents=True, exist_ok=True)
    run([*steps(folder, out, packages, texts=options.texts, updates=options.steps)], folder / "steps.json")


if __name__ == "__main__":
    main()
