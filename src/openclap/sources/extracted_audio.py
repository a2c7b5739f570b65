"""Write audio that lies inside a table or a tar to a file of its own.

Everything after a source (decoding, fetching, packing) then handles one kind of audio: a file. The file's name is the
SHA-256 of its content, so that reading the same table again, or another copy of it, writes nothing.
"""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath

from openclap.errors import DataError
from openclap.paths import home
from openclap.sources.files import AUDIO_AND_VIDEO_SUFFIXES
from openclap.storage import new_file


def default_folder() -> Path:
    """Return the folder for extracted audio without another choice; it may be deleted at any time."""
    return home() / "sounds"


def own_group(path: Path) -> str:
    """Return a group for one extracted file, the same on every machine and wherever the folder is."""
    return f"sha256:{path.stem}"


def extract_audio(content: bytes, name: str, folder: Path) -> Path:
    """Write `content` to a file under `folder`, with the suffix of `name` where that is one of audio, and return it.

    Several processes may do so at once. Raises DataError when the file cannot be written.
    """
    digest = hashlib.sha256(content).hexdigest()
    suffix = PurePosixPath(name).suffix.lower()
    # 256 subfolders: a folder of a million files is slow on many file systems.
    path = folder / digest[:2] / f"{digest}{suffix if suffix in AUDIO_AND_VIDEO_SUFFIXES else ''}"
    try:
        # The name is the hash of the content, so equal sizes are enough and nothing has to be read.
        if not (path.is_file() and path.stat().st_size == len(content)):
            path.parent.mkdir(parents=True, exist_ok=True)
            with new_file(path) as file:
                file.write(content)
    except OSError as error:
        raise DataError(
            f"{folder}: audio cannot be extracted there ({error.strerror}). Make room, or choose another cache folder."
        ) from error
    return path
