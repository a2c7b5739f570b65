"""`openclap train`: train a model by a recipe."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from openclap.cli.console import list_skipped, note, print_json, print_table, shown
from openclap.cli.live import RunDisplay
from openclap.cli.model_options import TokenizerFile


def train(
    recipe: str,
    *options: Annotated[str, Parameter(allow_leading_hyphen=True, show=False)],
    out: Path | None = None,
    tokenizer: TokenizerFile = None,
    list_options: bool = False,
    dry_run: bool = False,
    processes: int = 1,
    json: bool = False,
) -> int:
    """Train a model by a recipe.

    Every value of the recipe is an option: --epochs 5 --optim.lr 3e-4. Writes the model to OUT/model, the log to
    OUT/log.jsonl and OUT/tensorboard, and the curves to OUT/report.html. After Ctrl-C or a kill, the same command
    resumes from the last checkpoint.

    Parameters
    ----------
    recipe
        The name of a recipe, such as "demo" (an unknown name lists all), or the path of a Python file with a function
        `config()`.
    out
        The run folder.
    list_options
        Print every option of the recipe with its value and meaning, and exit.
    dry_run
        Print an estimate of memory and time, and exit.
    processes
        The number of processes that --dry-run assumes; torchrun starts them for a real run.
    json
        Print the result, the options or the estimate as JSON.
    """
    from openclap.errors import ConfigError
    from openclap.runs import is_first_process, training_config
    from openclap.runs import train as run
    from openclap.training.curves_page import REPORT

    values = parse_options(options) | ({"tokenizer": str(tokenizer)} if tokenizer else {})
    # Read by our own code, since the defaults are the recipe's (docs/decisions/0014).
    config = training_config(recipe, values)
    if list_options:
        from openclap.training.config import describe_options

        rows = describe_options(config)
        if json:
            print_json([dict(zip(("option", "value", "meaning"), row, strict=True)) for row in rows])
        else:
            print_table(["option", "value", "meaning"], rows)
        return 0
    if dry_run:
        from openclap.cli.plan import print_plan
        from openclap.recipes import expected_inputs
        from openclap.training.profiling import plan_training

        print_plan(plan_training(config, expected_inputs(recipe), processes=processes), json=json)
        return 0
    if out is None:
        raise ConfigError("No run folder was given: add --out RUN. Only --dry-run and --list-options need none.")
    with RunDisplay() as display:
        result = run(config, out=out, progress=display.on_row, teaching=display.on_teaching)
    # Under torchrun every process runs this command, and one of them speaks.
    if not is_first_process():
        return 130 if result.stopped else 0
    if json:
        print_json({"model": str(result.model), "step": result.step, "total_steps": result.total_steps})
    note(f"The curves are in {shown(out / REPORT)}")
    list_skipped([(reason.partition(": ")[0], reason) for reason in result.skipped])
    if result.stopped:
        note(f"Stopped at step {result.step} of {result.total_steps}, saved. Run the same command to resume.")
        return 130
    note(f"Trained {result.total_steps} steps; the model is in {result.model}")
    return 0


def parse_options(words: tuple[str, ...]) -> dict[str, str | None]:
    """Parse `--name value`, `--name=value`, and `--name` alone (None), which switches a boolean on.

    Values are converted by `openclap.training.config.override`. Raises ConfigError for anything else.
    """
    from openclap.errors import ConfigError

    options: dict[str, str | None] = {}
    remaining = deque(words)
    while remaining:
        word = remaining.popleft()
        if not word.startswith("--"):
            raise ConfigError(f"{word!r} was not expected here; options are written --name value.")
        name, equals, value = word[2:].partition("=")
        if equals:
            options[name] = value
        elif not remaining or remaining[0].startswith("--"):  # a value may begin with one dash: -1
            options[name] = None
        else:
            options[name] = remaining.popleft()
    return options
