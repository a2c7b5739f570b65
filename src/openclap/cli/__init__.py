"""The command line: one file a command; each parses, calls the library and prints.

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
    help="Find sounds by describing them; train and evaluate the models for it.",
    help_epilogue="`openclap demo` shows all of it on bundled sounds.",
    version=openclap.__version__,
    print_error=False,
    exit_on_error=False,
    suppress_keyboard_interrupt=False,
    result_action="return_value",
)
index_app = App(name="index", help="Build and inspect search indexes.")

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


SUBJECT_FIRST = {
    verb: f"{word} comes first, then options of the run: openclap {verb} {word} --out RUN --epochs 5."
    for verb, word in {"train": "RECIPE", "finetune": "SOUNDS"}.items()
}
"""Messages for options of a run in front of its subject, where they cannot be distinguished from it."""


def main() -> None:
    """The console script."""
    if sys.stdout is None:  # closed by the caller
        sys.stdout = io.StringIO()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for terminals that cannot write an en dash
    signal.signal(signal.SIGTERM, _exit_on_signal)
    sys.exit(run(sys.argv[1:]))


def _exit_on_signal(number: int, frame: FrameType | None) -> None:
    """Exit on SIGTERM through every clean-up, so that no draft remains."""
    sys.exit(128 + number)


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code: 0 done, 2 a user's mistake, 130 interrupted."""
    try:
        with noting_audio_warnings():
            code = app(arguments)
        sys.stdout.flush()
    except OpenClapError as error:
        complain(_sentence(error, _verb(arguments)))
        return 2
    except CycloptsError as error:
        verb = _verb(arguments)
        is_stdin = "-" in arguments and "Standard input is not read. Name files or folders."
        is_early = isinstance(error, UnknownOptionError) and SUBJECT_FIRST.get(verb.strip())
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


def _sentence(error: OpenClapError, verb: str) -> str:
    """The text of an error; a missing tokenizer with the option of `verb`, or the command that adds one to a model."""
    if not isinstance(error, MissingTokenizerError):
        return str(error)
    place = app
    for word in verb.split():
        place = place[word]
    if "--tokenizer" in (name for argument in place.assemble_argument_collection() for name in argument.names):
        return f"{error.why} Pass a tokenizer.json with --tokenizer."
    return f"{error.why} Give the model one: openclap convert MODEL OUT --to openclap --tokenizer FILE."


def _verb(arguments: list[str]) -> str:
    """The words of a command line that name a command, with a space behind each."""
    words: list[str] = []
    place = app
    for word in arguments:
        if word not in place:
            break
        words.append(f"{word} ")
        place = place[word]
    return "".join(words)
