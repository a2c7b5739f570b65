"""`openclap train`: a recipe and some shards to a model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from openclap.cli.console import list_skipped, note, print_json, print_table, shown
from openclap.cli.live import training_line
from openclap.cli.model_options import Tokenizer


def train(
    recipe: str,
    *options: Annotated[str, Parameter(allow_leading_hyphen=True, show=False)],
    out: Path | None = None,
    tokenizer: Tokenizer = None,
    values: Annotated[bool, Parameter(negative="")] = False,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    processes: int = 1,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Train a model as a recipe says. Any value of the recipe can be replaced: --epochs 5 --optim.lr 3e-4.

    Stopped with Ctrl-C or killed, the same command goes on from the last saved state. The model is written to
    OUT/model, the log to OUT/log.jsonl and OUT/tensorboard, its curves to OUT/report.html.

    Parameters
    ----------
    recipe
        A recipe's name ("demo"; any other word lists them) or the path of a Python file with a function `config()`.
    out
        Folder of the run.
    values
        Print every value of the recipe and what it means, and begin nothing.
    dry_run
        Print what the run would take, and begin nothing.
    processes
        Of a dry run: how many processes share the batch, as under torchrun.
    json
        Print one JSON object about the outcome, or about the plan.
    """
    from openclap.errors import ConfigError
    from openclap.recipes import given
    from openclap.recipes import recipe as find
    from openclap.training.options import explained, override
    from openclap.training.page import write_page
    from openclap.training.trainer import train as run

    given_options = options_given(options) | ({"tokenizer": str(tokenizer)} if tokenizer else {})
    config = override(find(recipe), given_options)
    if values:
        told = explained(config)
        if json:
            print_json([dict(zip(("option", "value", "meaning"), each, strict=True)) for each in told])
        else:
            print_table(["option", "value", "meaning"], told)
        return 0
    if dry_run:
        from openclap.cli.plan import show
        from openclap.training.plan import plan

        show(plan(config, given(recipe), processes=processes), json=json)
        return 0
    if out is None:
        raise ConfigError("A run needs a folder: --out RUN. (--dry-run and --values need none.)")
    with training_line() as watch:
        outcome = run(config, out, watch=watch)
    if os.environ.get("RANK", "0") != "0":  # of several processes, the first one speaks
        return 130 if outcome.stopped else 0
    if json:
        print_json({"model": str(outcome.model), "step": outcome.step, "total_steps": outcome.total_steps})
    note(f"The curves are in {shown(write_page(out))}")
    list_skipped([(reason.partition(": ")[0], reason) for reason in outcome.skipped])
    if outcome.stopped:
        note(f"Stopped at step {outcome.step} of {outcome.total_steps}, saved. Run the same command to go on.")
        return 130
    note(f"Trained {outcome.total_steps} steps; the model is in {outcome.model}")
    return 0


def options_given(options: tuple[str, ...]) -> dict[str, str | None]:
    """`--name value`, `--name=value` and, for a choice of yes or no, `--name` alone (None). Raises ConfigError for
    anything else."""
    from openclap.errors import ConfigError

    pairs: dict[str, str | None] = {}
    words = list(options)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            raise ConfigError(f"{word!r} was not expected here; options are written --name value.")
        name, given, value = word[2:].partition("=")
        alone = not given and (not words or words[0].startswith("--"))
        pairs[name] = None if alone else value if given else words.pop(0)
    return pairs
