"""`openclap demo`: fine-tune, evaluate and search on bundled sounds. The steps are in `openclap.demo.run`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openclap import paths
from openclap.cli.console import note, progress
from openclap.cli.eval import show_changes, show_table
from openclap.cli.index import prepare_graphs
from openclap.cli.live import training_progress
from openclap.cli.search import show as show_hits

if TYPE_CHECKING:
    from openclap.demo.run import Demo

QUERIES = ("wolf howling", "a big metal bell", "somebody laughing", "something scary in space")


def demo() -> int:
    """Fine-tune the bundled model on bundled recordings, evaluate it, and find sounds by description.

    Takes a minute or two on two cores, and needs no network. All files are in ~/.cache/openclap/demo
    ($OPENCLAP_HOME/demo). Finished steps are not repeated; after a stop, the same command resumes.
    """
    from openclap.demo.run import Demo

    steps = Demo(paths.home() / "demo")
    with steps.locked() as was_outdated:
        if was_outdated:
            note("The demo's files are from another version of openclap and were deleted; they are made again.")
        return _run(steps)


def _run(steps: Demo) -> int:
    note("\n1. Pack: sounds and captions to shards, split by group")
    with progress("Packing") as advance:
        packed = steps.pack(advance)
    note(f"   {packed['train']} clips for training, {packed['test']} for the test, in {steps.shards}")

    note("\n2. Fine-tune: the heads of mini, the model in the package")
    with training_progress() as update:
        result = steps.train(update)
    if result.stopped:
        note(f"   Stopped at step {result.step} of {result.total_steps}, saved. Run the same command to resume.")
        return 130
    note(f"   {result.total_steps} steps done; the model is in {result.model}")

    note("\n3. Evaluate: recordings outside the training of mini and of this run")
    _evaluate(steps)

    note("\n4. Search: describe a sound")
    with progress("Indexing") as advance:
        steps.index(advance)
    prepare_graphs(steps.library())
    library = steps.library()  # without torch from now on
    for query in QUERIES:
        note(f'\n   openclap search "{query}" -k 3')
        show_hits(library.search(query, 3), json=False)
    _print_next_steps(steps)
    return 0


def _evaluate(steps: Demo) -> None:
    with progress("Evaluating") as advance:
        measured = steps.measure(lambda _, done, total: advance(done, total))
    show_table(measured.figures)
    show_changes(f"Changes from {steps.config.start} to the fine-tuned model", measured.changes)
    note(f"   {measured.verdict}")
    note(f"   The report, with audio: {steps.report}")


def _print_next_steps(steps: Demo) -> None:
    note(
        f"""
Next
   look and listen   {steps.report}
   your words        openclap search "rain on a window"
   your sounds       openclap index add ~/Sounds --index ~/sounds.index
                     openclap search "footsteps on gravel" --index ~/sounds.index
   in Python         openclap.load("{steps.run / "model"}")
   on a page         openclap serve --open {steps.folder / "index"}
                     then http://127.0.0.1:7007"""
    )
