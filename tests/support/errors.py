"""Check an error that a user meets: its type, the values that it names, and that it is made of sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest

from openclap.errors import OpenClapError

ErrorType = TypeVar("ErrorType", bound=OpenClapError)

FRAGMENT = re.compile(
    r"(?![^:]+: )(the|an|no|not|none|there|this|it|is|are|has|cannot|expected|invalid|each|every|all) "
)
"""The beginning of a part of a sentence: a word in lower case that is no name of a file, an option or an argument, and
no part of a name before a colon."""


@contextmanager
def raises_naming(kind: type[ErrorType], *values: object) -> Iterator[pytest.ExceptionInfo[ErrorType]]:
    """Expect an error of `kind` whose message names each of `values`: a path, an option, a number, a label.

    The rest of its words may change.
    """
    with pytest.raises(kind) as caught:
        yield caught
    check_message(str(caught.value), *values)


def check_message(message: str, *values: object) -> None:
    """Check that a message consists of whole sentences on one line, and names each of `values`."""
    assert "\n" not in message, f"has several lines: {message}"
    assert not FRAGMENT.match(message), f"begins with neither a capital nor a name: {message}"
    assert message.endswith((".", "?")), f"ends without a full stop: {message}"
    assert [value for value in values if not is_named(value, message)] == [], message


def check_refusal(stderr: str, *values: object) -> None:
    """Check that a command ended with one message for the user, after its progress, that names each of `values`."""
    *_, message = re.split(r"^openclap: ", stderr, flags=re.M)
    assert message != stderr and "Traceback" not in stderr, stderr
    check_message(" ".join(message.split()), *values)


def is_named(value: object, message: str) -> bool:
    """Whether a message has `value` as a whole: `1` is in neither `10` nor `1.5`, and `a` is not in `a.wav`."""
    return re.search(rf"(?<!\w)(?<!\d\.){re.escape(str(value))}(?!\w|\.\w)", message) is not None
