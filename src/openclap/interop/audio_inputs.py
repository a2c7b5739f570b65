"""Adapt the audio of datasets, mteb and sentence-transformers to the inputs of `Embedder.embed_audio`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from openclap.audio.inputs import Sound
from openclap.errors import AudioError
from openclap.types import AUDIO_SUFFIXES


def to_sound(audio: Any) -> Sound:
    """Convert {"array": …, "sampling_rate": …} or {"bytes": …, "path": …}; anything else is returned unchanged.

    Those libraries put channels first, openclap puts samples first; the longer side is taken as the samples. Invalid
    audio is reported by the embedder, not here.
    """
    if isinstance(audio, Mapping) and {"array", "sampling_rate"} <= audio.keys():
        array = np.asarray(audio["array"])
        return (array.T if array.ndim == 2 and array.shape[0] < array.shape[1] else array), audio["sampling_rate"]
    if isinstance(audio, Mapping) and {"bytes", "path"} <= audio.keys():
        content: Sound = audio["bytes"] or audio["path"]
        return content
    return audio  # type: ignore[no-any-return]


VIDEO_SUFFIXES = frozenset({".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"})
"""The audio of videos is decoded like that of any file."""
SUFFIX = re.compile(r"[^/\\](\.[A-Za-z0-9]{1,5})$")
ANCHORED = re.compile(r"(?:/|\./|\.\./|~|[A-Za-z]:[/\\]|\\\\|file:|https?:)")


def is_path(text: str) -> bool:
    """Return whether a string is the path of an audio file, and not a text to embed.

    A path has a suffix or a separator, and names an existing file. Raises AudioError for a string that looks like a
    path and names no file: embedding it as text would hide the mistake. No sentence looks like a path: without spaces
    it would have to end in an audio suffix, and with spaces it would also have to begin like a path or with the name of
    an existing folder.
    """
    suffix = SUFFIX.search(text)
    if not suffix and not re.search(r"[/\\]", text):
        return False
    path = os.path.expanduser(text)  # noqa: PTH111  pathlib raises for texts that are no valid path
    if os.path.isfile(path):  # noqa: PTH113
        return True
    folder, name = os.path.split(path)
    has_audio_suffix = suffix is not None and suffix[1].lower() in AUDIO_SUFFIXES | VIDEO_SUFFIXES
    is_one_word, is_anchored = not re.search(r"\s", text), ANCHORED.match(text) is not None
    in_folder = bool(name and folder.strip("/\\") and os.path.isdir(folder))  # noqa: PTH112
    if (has_audio_suffix and (is_one_word or is_anchored or in_folder)) or (is_one_word and is_anchored and in_folder):
        raise AudioError(
            f"{text}: looks like the path of an audio file that does not exist. Check the path; to embed it "
            f'as text, pass {{"text": {text!r}}}.'
        )
    return False
