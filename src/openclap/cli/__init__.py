"""The command line: one file a command; each parses, calls the library and prints.

Results go to stdout, progress and notes to stderr; a user's mistake is one sentence and exit code 2.
"""

from __future__ import annotations

import io
import signal
import sys
from types import FrameType
from typing import Any

from cyclopts import App, CycloptsError, Group, Parameter, UnknownOptionError, UnusedCliTokensError

import openclap
from openclap.cli import (
    cache,
    classify,
    convert,
    dataset,
    demo,
    doctor,
    duplicates,
    embed,
    eval,
    fad,
    finetune,
    index,
    init,
    inspect,
    locate,
    mcp,
    models,
    page,
    push,
    score,
    search,
    serve,
    train,
)
from openclap.cli.console import complain, noting_warnings
from openclap.errors import MissingTokenizerError, OpenClapError, reporting_missing_torch

USE, TRAIN, MODELS = (
    Group(heading, sort_key=place)
    for place, heading in enumerate(("Use a model", "Train and evaluate", "Manage models"), start=1)
)
"""Headings of `openclap --help`, in this order."""


def _format_default(value: Any) -> str | None:
    """Show no default for options that are not given, flags that are off, and empty lists."""
    return None if value is None or value is False or value == () else str(value)  # 0 == False


app = App(
    name="openclap",
    help="Find sounds by describing them; train and evaluate the models for it.\n\n"
    "Start with `openclap demo`: it trains, evaluates and searches on bundled sounds.",
    version=openclap.__version__,
    # Flags and lists have no negative option: every flag is off and every list is empty unless it is given.
    default_parameter=Parameter(negative="", show_default=_format_default),
    group_commands=Group("Other commands", sort_key=4),
    # Errors and interrupts come back to `run`, which turns each into one sentence and an exit code.
    print_error=False,
    exit_on_error=False,
    suppress_keyboard_interrupt=False,
    result_action="return_value",
)
index_app = App(name="index", help="Build and inspect search indexes.", group=USE, group_commands="Commands")
cache_app = App(name="cache", help="Show or clear the cache of embeddings.", group=USE, group_commands="Commands")
dataset.app.group = (TRAIN,)

app.command(index_app)
index_app.command(index.add)
index_app.command(index.update)
index_app.command(index.remove)
index_app.command(index.status)
index_app.command(index.facets)
index_app.command(index.label)
index_app.command(index.export)
index_app.command(index.rebuild)
index_app.command(index.optimize)
index_app.command(index.verify)
app.command(search.search, group=USE)
app.command(search.similar, group=USE)
app.command(duplicates.duplicates, group=USE)
app.command(classify.classify, group=USE)
app.command(locate.locate, group=USE)
app.command(embed.embed, group=USE)
app.command(score.score, group=USE)
app.command(fad.fad, group=USE)
app.command(serve.serve, group=USE)
app.command(mcp.mcp, group=USE)
app.command(cache_app)
cache_app.default(cache.show)
cache_app.command(cache.clear)
app.command(dataset.app)
app.command(init.init, group=TRAIN)
app.command(train.train, group=TRAIN)
app.command(finetune.finetune, group=TRAIN)
app.command(page.page, group=TRAIN)
app.command(eval.evaluate, name="eval", group=TRAIN)
app.command(models.models, group=MODELS)
app.command(inspect.inspect, group=MODELS)
app.command(convert.convert, group=MODELS)
app.command(push.push, group=MODELS)
app.command(demo.demo)
app.command(doctor.doctor)


ARGUMENT_FIRST = {
    command: f"{word} comes first, then options of the run: openclap {command} {word} --out RUN --epochs 5."
    for command, word in {"train": "RECIPE", "finetune": "SOUNDS"}.items()
}
"""Messages for `openclap train --epochs 5 RECIPE`: the parser cannot know whether an option of the run takes a value,
so the argument must come before them."""


def main() -> None:
    """Run the console script and exit with its code."""
    if sys.stdout is None:  # Python's value where the caller has closed the descriptor
        sys.stdout = io.StringIO()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for terminals that cannot write an en dash
    # Python's default would end the process at once, and leave partial files and locks.
    signal.signal(signal.SIGTERM, _exit_on_signal)
    sys.exit(run(sys.argv[1:]))


def _exit_on_signal(number: int, frame: FrameType | None) -> None:
    """Exit on SIGTERM by an exception: `finally` blocks then remove partial files and release locks."""
    sys.exit(128 + number)  # the code by which shells report a signal


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code.

    0: done. 1: the reader of stdout is gone, or `dataset check` found damage. 2: an error that the user can correct.
    130: interrupted, or stopped with a checkpoint.
    """
    try:
        # Once for all commands: a folder of sounds may warn from any of them.
        with noting_warnings(), reporting_missing_torch():
            code = app(arguments)
        sys.stdout.flush()
    except OpenClapError as error:
        complain(_sentence(error, _verb(arguments)))
        return 2
    except CycloptsError as error:
        verb = _verb(arguments)
        stdin_hint = "-" in arguments and "Standard input is not read. Name files or folders."
        order_hint = isinstance(error, UnknownOptionError) and ARGUMENT_FIRST.get(verb.strip())
        text = str(error).strip()
        if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
            text = f"{error.unused_tokens[0]}: is one argument more than openclap {verb}takes."
        complain(stdin_hint or order_hint or f"{text} See: openclap {verb}--help")
        return 2
    except BrokenPipeError:  # `openclap search … | head`
        sys.stdout = None  # otherwise Python flushes it at exit and prints a second error
        return 1
    except OSError as error:  # a full disk, a folder without write permission
        complain(f"{error.filename or 'The system'}: {error.strerror}. Check the path, its permissions and the disk.")
        return 2
    except KeyboardInterrupt:
        complain("Interrupted.")
        return 130
    return code if isinstance(code, int) else 0  # most commands return None


def _sentence(error: OpenClapError, verb: str) -> str:
    """The text of an error. For a missing tokenizer it names --tokenizer, or, where the command lacks that option, the
    conversion that adds a tokenizer to a model."""
    if not isinstance(error, MissingTokenizerError):
        return str(error)
    command = app
    for word in verb.split():
        command = command[word]
    if "--tokenizer" in (name for argument in command.assemble_argument_collection() for name in argument.names):
        return f"{error.why} Pass a tokenizer.json with --tokenizer."
    return f"{error.why} Give the model one: openclap convert MODEL OUT --to openclap --tokenizer FILE."


def _verb(arguments: list[str]) -> str:
    """The words of a command line that name a command, each followed by a space: "dataset build "."""
    words: list[str] = []
    command = app
    for word in arguments:
        if word not in command:
            break
        words.append(f"{word} ")
        command = command[word]
    return "".join(words)
