"""Sounds as datasets, mteb and sentence-transformers hand them around, to what `Embedder.embed_audio` reads."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from openclap.audio.inputs import Sound
from openclap.errors import AudioError
from openclap.types import AUDIO_SUFFIXES


def sound(given: Any) -> Sound:
    """{"array": …, "sampling_rate": …}, {"bytes": …, "path": …}, or what is a sound already; all else is told later.

    Those libraries put channels first, openclap samples; the longer side is taken for the samples.
    """
    if isinstance(given, Mapping) and {"array", "sampling_rate"} <= given.keys():
        array = np.asarray(given["array"])
        return (array.T if array.ndim == 2 and array.shape[0] < array.shape[1] else array), given["sampling_rate"]
    if isinstance(given, Mapping) and {"bytes", "path"} <= given.keys():
        found: Sound = given["bytes"] or given["path"]
        return found
    return given  # type: ignore[no-any-return]


VIDEO_SUFFIXES = frozenset({".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"})
"""Their sound is decoded as that of any file."""
SUFFIX = re.compile(r"[^/\\](\.[A-Za-z0-9]{1,5})$")
ANCHORED = re.compile(r"(?:/|\./|\.\./|~|[A-Za-z]:[/\\]|\\\\|file:|https?:)")


def is_path(text: str) -> bool:
    """Is this string the path of a sound (True), or a text?

    A path has a suffix or a separator, and names a file. Raises AudioError for what looks like a path and names none.
    No sentence does: without spaces it would have to end like a sound file, and with spaces to begin like a path too,
    or with the name of a folder that is there.
    """
    suffix = SUFFIX.search(text)
    if not suffix and not re.search(r"[/\\]", text):
        return False
    path = os.path.expanduser(text)  # noqa: PTH111  pathlib raises for texts that no path can be
    if os.path.isfile(path):  # noqa: PTH113
        return True
    folder, name = os.path.split(path)
    of_sound = suffix is not None and suffix[1].lower() in AUDIO_SUFFIXES | VIDEO_SUFFIXES
    one_word, anchored = not re.search(r"\s", text), ANCHORED.match(text) is not None
    inside = bool(name and folder.strip("/\\") and os.path.isdir(folder))  # noqa: PTH112
    if (of_sound and (one_word or anchored or inside)) or (one_word and anchored and inside):
        raise AudioError(
            f"{text}: looks like the path of a sound, and there is no such file. Check the path; to embed these words "
            f'as a text, pass {{"text": {text!r}}}.'
        )
    return False
