"""Turn the failures of reading damaged checkpoints into one error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from openclap.errors import CheckpointError, OpenClapError
from openclap.formatting import describe_error


@contextmanager
def errors_as_checkpoint_errors(source: object) -> Iterator[None]:
    """Turn any failure to interpret `source` into one CheckpointError.

    A damaged file fails in as many ways as it has bytes, so that no list of exceptions would be complete.
    """
    try:
        yield
    except OpenClapError:
        raise
    except OSError as error:
        raise CheckpointError(f"{error.filename or source}: cannot be read ({error.strerror or error}).") from error
    except Exception as error:
        raise CheckpointError(
            f"{source}: holds content that no checkpoint of its kind has ({describe_error(error)}). Is it damaged?"
        ) from error
