"""What an index derives from its vectors and stores beside them: NumPy archives, with facts in JSON.

They can be computed again, so a reader takes a missing or damaged one for none.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from openclap.errors import DataError
from openclap.search.place import IndexPlace


def write_archive(
    place: IndexPlace, name: str, facts: Mapping[str, Any], arrays: Mapping[str, Any], command: str
) -> None:
    """Store facts and arrays under `name`.

    Args:
        command: the command that computes them again, for the error.

    Raises DataError when they cannot be written, or another process is writing.
    """
    content = io.BytesIO()
    stored: dict[str, Any] = {"facts": np.frombuffer(json.dumps(facts).encode(), np.uint8), **arrays}
    np.savez(content, **stored)
    with place.writing():
        try:
            place.write(name, content.getvalue())
        except (OSError, RuntimeError, ValueError) as error:
            raise DataError(
                f"{place}: {name} cannot be written ({place.reason(error)}). Check the free space and the permissions, "
                f"then run '{command}'."
            ) from error


def read_archive(place: IndexPlace, name: str) -> Any:
    """NumPy's archive; reading a missing or damaged one raises any of a dozen kinds of errors, here or later."""
    return np.load(io.BytesIO(place.read(name) or b""))


def archive_facts(archive: Any) -> dict[str, Any]:
    """The facts of an open archive."""
    facts: dict[str, Any] = json.loads(archive["facts"].tobytes())
    return facts
