"""`openclap demo`: train, measure and search on bundled sounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from openclap import paths
from openclap.cli.console import note, progress
from openclap.cli.eval import show_table
from openclap.cli.live import training_progress
from openclap.cli.search import show as show_hits

if TYPE_CHECKING:
    from openclap.demo.run import Demo

QUERIES = ("wolf howling", "a big metal bell", "somebody laughing", "something scary in space")


def demo(*, prepare: Annotated[bool, Parameter(negative="")] = False) -> int:
    """Train a model on bundled recordings, measure it, and find sounds by describing them.

    Takes a few minutes on two cores. Everything is kept in ~/.cache/openclap/demo ($OPENCLAP_HOME/demo): run again,
    it reuses what is done; stopped half-way, it goes on.

    Parameters
    ----------
    prepare
        Only fetch and convert the pretrained weights (107 MB), which needs the network; then stop.
    """
    from openclap.checkpoints.starts import start

    start("demo-start", note)
    if prepare:
        return 0
    from openclap.demo.run import Demo

    line = Demo(paths.home() / "demo")
    with line.claimed() as anew:
        if anew:
            note("The demo was made by another version and is made anew.")
        return _through(line)


def _through(line: Demo) -> int:
    note("\n1. Pack: sounds and captions to shards, split by group")
    with progress("Packing") as advance:
        packed = line.pack(advance)
    note(f"   {packed['train']} clips to learn from, {packed['test']} held out, in {line.shards}")

    note("\n2. Train: heads on pretrained towers")
    with training_progress() as watch:
        outcome = line.train(watch)
    if outcome.stopped:
        note(f"   Stopped at step {outcome.step} of {outcome.total_steps}, saved. Run it again to go on.")
        return 130
    note(f"   {outcome.total_steps} steps done; the model is in {outcome.model}")

    note("\n3. Measure: recordings the model has never heard")
    _measure(line)

    note("\n4. Search: describe a sound")
    with progress("Indexing") as advance:
        line.index(advance)
    library = line.library()
    for query in QUERIES:
        note(f'\n   openclap search "{query}" -k 3')
        show_hits(library.search(query, 3), json=False)
    _next(line)
    return 0


def _measure(line: Demo) -> None:
    with progress("Measuring") as advance:
        rows = line.measure(lambda _, done, total: advance(done, total))
    show_table(rows)
    note(f"   The report, with sounds to listen to: {line.report}")


def _next(line: Demo) -> None:
    note(
        f"""
Next
   look and listen   {line.report}
   your words        openclap search "rain on a window"
   your sounds       openclap index add ~/Sounds --index ~/sounds.index
                     openclap search "footsteps on gravel" --index ~/sounds.index
   in Python         openclap.load("{line.run / "model"}")"""
    )
