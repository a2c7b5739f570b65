"""The command line: one file a verb; each parses, calls and prints.

Results go to stdout, progress and notes to stderr; a user's mistake is one sentence and exit code 2.
"""

from __future__ import annotations

import io
import signal
import sys
from types import FrameType

from cyclopts import App, CycloptsError, UnknownOptionError

import openclap
from openclap.cli import (
    classify,
    convert,
    dataset,
    demo,
    doctor,
    embed,
    eval,
    fad,
    finetune,
    index,
    init,
    inspect,
    models,
    page,
    push,
    score,
    search,
    train,
)
from openclap.cli.console import complain, noting_audio_warnings
from openclap.errors import MissingTokenizerError, OpenClapError

app = App(
    name="openclap",
    help="Find sounds by describing them; train and measure the models that do it.",
    help_epilogue="`openclap demo` shows all of it on bundled sounds.",
    version=openclap.__version__,
    print_error=False,
    exit_on_error=False,
    suppress_keyboard_interrupt=False,
    result_action="return_value",
)
index_app = App(name="index", help="Build and look at search indexes.")

app.command(demo.demo)
app.command(dataset.app)
app.command(init.init)
app.command(train.train)
app.command(finetune.finetune)
app.command(page.page)
app.command(eval.evaluate, name="eval")
app.command(embed.embed)
app.command(classify.classify)
app.command(score.score)
app.command(fad.fad)
app.command(index_app)
index_app.command(index.add)
index_app.command(index.status)
app.command(search.search)
app.command(search.similar)
app.command(models.models)
app.command(inspect.inspect)
app.command(convert.convert)
app.command(push.push)
app.command(doctor.doctor)


EARLY = {
    verb: f"{word} comes first, then a run's own values: openclap {verb} {word} --out RUN --epochs 5."
    for verb, word in {"train": "RECIPE", "finetune": "SOUNDS"}.items()
}
"""Options that only the run knows cannot be told from its subject when they stand before it."""


def main() -> None:
    """The console script."""
    if sys.stdout is None:  # closed by the caller
        sys.stdout = io.StringIO()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that cannot write an en dash
    signal.signal(signal.SIGTERM, _end)
    sys.exit(run(sys.argv[1:]))


def _end(number: int, frame: FrameType | None) -> None:
    """On SIGTERM, leave by way of every clean-up: no draft stays behind."""
    sys.exit(128 + number)


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code: 0 done, 2 a user's mistake, 130 interrupted."""
    try:
        with noting_audio_warnings():
            code = app(arguments)
        sys.stdout.flush()
    except OpenClapError as error:
        complain(_told(error, _verb(arguments)))
        return 2
    except CycloptsError as error:
        verb = _verb(arguments)
        is_stdin = "-" in arguments and "standard input is not read: name files or folders."
        is_early = isinstance(error, UnknownOptionError) and EARLY.get(verb.strip())
        complain(is_stdin or is_early or f"{str(error).strip()} See: openclap {verb}--help")
        return 2
    except BrokenPipeError:  # `openclap search … | head`
        sys.stdout = None
        return 1
    except OSError as error:  # a full disk, a folder that may not be written
        complain(f"{error.filename or 'the system'}: {error.strerror}. Check the path, its permissions and the disk.")
        return 2
    except KeyboardInterrupt:
        complain("interrupted.")
        return 130
    return code if isinstance(code, int) else 0


def _told(error: OpenClapError, verb: str) -> str:
    """An error's text; of a missing tokenizer, with the option of `verb`, or, without one, how the model gets it."""
    if not isinstance(error, MissingTokenizerError):
        return str(error)
    place = app
    for word in verb.split():
        place = place[word]
    if "--tokenizer" in (name for argument in place.assemble_argument_collection() for name in argument.names):
        return f"{error.why} Pass a tokenizer.json with --tokenizer."
    return f"{error.why} Give the model one: openclap convert MODEL OUT --to openclap --tokenizer FILE."


def _verb(arguments: list[str]) -> str:
    """The part of a command line that names a verb, with a space behind each word."""
    words: list[str] = []
    place = app
    for word in arguments:
        if word not in place:
            break
        words.append(f"{word} ")
        place = place[word]
    return "".join(words)
