"""The folder of an index: `index.json` (model, roots and exclusions), and two LanceDB tables.

`index.json` is written last, so a folder that has one is complete. Format 1 had neither roots nor the files' metadata;
such an index opens, and its next write upgrades it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from openclap.errors import DataError, IndexMismatchError
from openclap.locks import only_writer
from openclap.search.keywords import KEYWORDS_NAME
from openclap.search.paths import is_gone, prefixes
from openclap.search.rows import files_schema, windows_schema
from openclap.types import COSINE_BOUNDS

FORMAT_VERSION = 2

_WRITE_LOCK, _CREATE_LOCK = "write.lock", "create.lock"
_HEADER_NAME = "index.json"
_TABLES = ("files", "windows")
_PART_NAME = _HEADER_NAME + ".part"
FIT_NAME = "fit.npz"
"""The background of `fit.py`."""
_OWN_NAMES = {
    KEYWORDS_NAME,
    _WRITE_LOCK,
    _CREATE_LOCK,
    _HEADER_NAME,
    _PART_NAME,
    "snapshot",
    FIT_NAME,
    *(f"{name}.lance" for name in _TABLES),
}
"""Entries of a folder that may become an index; any other belongs to the user."""
_SPACE_MARGIN = 32 << 20
"""Free bytes that writing leaves on a disk."""
QUERY_COSINE = 0.999
"""Least cosine between a query and the same query in fp32: one that is as close serves on any machine."""
_CREATING_TAKES_S = 30.0
"""Wait for another process that creates the same index."""


@dataclass(frozen=True, slots=True)
class IndexIdentity:
    """The model of an index, and how it embeds.

    Attributes:
        digest: covers weights, preset and clip policy. Vectors of one digest can be compared if their precisions are
            close enough (`check_identity`). Older indexes of another precision than fp32 store a digest of this one and
            the precision.
        model, revision: the name by which the model is loaded again.
        dim: the length of a vector.
        length_s, hop_s: the windows, in seconds.
        channels, trim_silence: how sounds are read.
        precision: of the arithmetic that computed the stored vectors.
    """

    digest: str
    model: str
    dim: int
    length_s: float
    hop_s: float
    channels: Literal["mean", "left", "right", "loudest"] = "mean"
    trim_silence: bool = False
    precision: str = "fp32"
    revision: str | None = None


@dataclass(frozen=True, slots=True)
class IndexRoot:
    """A folder or file that was added to an index, as an absolute path.

    Attributes:
        from_index: the same place relative to the index's folder: both may be on a drive that is mounted elsewhere.
    """

    path: str
    from_index: str | None = None

    def found(self, folder: Path) -> str:
        """Where the root is now: at its path, or else beside the index; its path if it is at neither."""
        if self.from_index is None or not is_gone(self.path):
            return self.path
        beside = os.path.normpath(folder / self.from_index)
        return self.path if is_gone(beside) else beside


@dataclass(frozen=True, slots=True)
class IndexHeader:
    """The content of `index.json`.

    Attributes:
        version: of the format.
        exclude: patterns of files and folders that are not indexed; see `walk`.
    """

    identity: IndexIdentity
    roots: tuple[IndexRoot, ...] = ()
    exclude: tuple[str, ...] = ()
    version: int = FORMAT_VERSION

    def with_roots(self, folder: Path, paths: Iterable[str]) -> IndexHeader:
        """A copy with more roots; a root below another one is left out."""
        roots = {root.path: root for root in self.roots}
        for path in paths:
            roots[path] = IndexRoot(path, _from_index(folder, path))
        kept = [root for path, root in roots.items() if not path.startswith(prefixes(roots))]
        return replace(self, roots=tuple(kept))

    def without_roots(self, paths: Iterable[str]) -> IndexHeader:
        """A copy without the roots that are among `paths` or below one."""
        names = set(paths)
        under = prefixes(names)
        kept = [root for root in self.roots if root.path not in names and not root.path.startswith(under)]
        return replace(self, roots=tuple(kept))


def create(folder: Path, identity: IndexIdentity) -> None:
    """Make `folder` an empty index. Of two processes that create it at once, the second one gets the error.

    Raises DataError when it is an index already, contains anything else, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be created ({error.strerror}). Choose another place.") from error
    _refuse_used(folder)  # before a lock file is written to a folder of the user's
    with only_writer(folder, _CREATE_LOCK, timeout_s=_CREATING_TAKES_S):
        _refuse_used(folder)  # again, since another process may have created it before we got the lock
        with storage(folder, "written"):
            _remove_empty_tables(folder)
            database = connect(folder)
            database.create_table("files", schema=files_schema())
            database.create_table("windows", schema=windows_schema(identity.dim))
            write_header(folder, IndexHeader(identity))


def replaced_folder(folder: Path) -> Path:
    """The place of an old index while the rebuilt one takes its place. Hidden, so that no folder of the user's has the
    name: "index.old" may be a backup."""
    return folder.with_name(f".{folder.name}.replaced")


def rebuilding_folder(folder: Path) -> Path:
    """The place of a new index that is to replace the one in `folder`."""
    return folder.with_name(f".{folder.name}.rebuilding")


def exists(folder: Path) -> bool:
    """Whether `folder` has the header of an index; it may still be damaged."""
    return (folder / _HEADER_NAME).is_file()


def read_header(folder: Path) -> IndexHeader:
    """Read the `index.json` of the index in `folder`. Raises DataError when it is no index, damaged or too new."""
    if not exists(folder):
        reason = "does not exist" if not folder.exists() else "is not a search index: it has no index.json"
        if exists(replaced_folder(folder)):
            raise DataError(
                f"{folder} {reason}. Its rebuilding was stopped: run 'openclap index rebuild' to finish it."
            )
        raise DataError(f"{folder} {reason}. Give the folder of an index, or make one with 'openclap index add'.")
    try:
        header = json.loads((folder / _HEADER_NAME).read_text(encoding="utf-8"))
        version = int(header["format_version"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged_header(folder) from error
    if version > FORMAT_VERSION:
        raise DataError(
            f"{folder} was written by a newer openclap (index format {version}, and this one reads "
            f"{FORMAT_VERSION}). Update openclap, or index into another folder."
        )
    try:
        roots = tuple(IndexRoot(str(root["path"]), root.get("from_index")) for root in header.get("roots", ()))
        return IndexHeader(_identity(header["identity"]), roots, tuple(map(str, header.get("exclude", ()))), version)
    except (AttributeError, ValueError, KeyError, TypeError) as error:
        raise _damaged_header(folder) from error


def check_identity(folder: Path, stored: IndexIdentity, wanted: IndexIdentity) -> None:
    """Raise IndexMismatchError when queries of `wanted` cannot be compared with the vectors of `stored`: they are of
    another model, or their precision is another one that states no cosine of at least 0.999 to fp32."""
    if stored.digest not in (wanted.digest, _digest_with_precision(wanted.digest, stored.precision)):
        raise IndexMismatchError(
            f"{folder} was built with {_label(stored)}, and the model in use is {_label(wanted)}. "
            "Their vectors cannot be compared. Load the model of the index, or index into another folder."
        )
    bound = COSINE_BOUNDS.get(wanted.precision, 0.0)
    if wanted.precision != stored.precision and bound < QUERY_COSINE:
        raise IndexMismatchError(
            f"{folder} holds vectors of precision {stored.precision}, and those of {wanted.precision} are only within "
            f"a cosine of {bound} of fp32, expected at least {QUERY_COSINE}. Choose precision {_close_enough(stored)}."
        )


def check_precision(folder: Path, stored: IndexIdentity, precision: str) -> None:
    """Raise IndexMismatchError unless new vectors of `precision` are as those of the index."""
    if precision != stored.precision:
        raise IndexMismatchError(
            f"{folder} holds vectors of precision {stored.precision}, and the model in use computes {precision}: it "
            f"cannot add to this index. Choose precision {stored.precision}, or index into another folder."
        )


def _digest_with_precision(digest: str, precision: str) -> str:
    return hashlib.sha256(f"{digest} {precision}".encode()).hexdigest()


def _close_enough(stored: IndexIdentity) -> str:
    names = [name for name, bound in COSINE_BOUNDS.items() if bound >= QUERY_COSINE or name == stored.precision]
    return f"{', '.join(names[:-1])} or {names[-1]}"


def connect(folder: Path) -> Any:
    """A LanceDB connection whose tables always show the latest commit of any process."""
    import lancedb

    return lancedb.connect(str(folder), read_consistency_interval=timedelta(0))


def open_table(folder: Path, database: Any, name: str, *schemas: Any) -> Any:
    """The table `name`. Raises DataError when it is missing, unreadable or of none of these schemas."""
    with storage(folder, "read"):
        table = database.open_table(name)
        stored = table.schema
    if not any(stored.equals(schema) for schema in schemas):
        raise DataError(f"{folder}: the table '{name}' has unexpected columns. {_REBUILD}")
    return table


def upgrade(folder: Path, files: Any) -> None:
    """Bring an index to the current format; its write lock is held. The header comes first, so that older versions of
    openclap refuse an index that was upgraded in half, and this one goes on."""
    with storage(folder, "written"):
        header = read_header(folder)
        if header.version < FORMAT_VERSION:
            write_header(folder, replace(header, version=FORMAT_VERSION))
        known = set(files.schema.names)
        if missing := [field for field in files_schema() if field.name not in known]:
            files.add_columns(missing)


def write_header(folder: Path, header: IndexHeader) -> None:
    """Replace `index.json` in one step. Raises OSError."""
    content = {
        "format_version": header.version,
        "identity": asdict(header.identity),
        "roots": [asdict(root) for root in header.roots],
        "exclude": list(header.exclude),
    }
    part = folder / _PART_NAME
    with part.open("w", encoding="utf-8") as file:
        file.write(json.dumps(content, indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(folder / _HEADER_NAME)


def check_space(folder: Path, size: int) -> None:
    """Raise DataError unless the disk has room for `size` bytes, and a margin. LanceDB can commit half a manifest to a
    full disk, which makes a table unreadable, so the disk must not become full."""
    free = shutil.disk_usage(folder).free
    if free < 2 * size + _SPACE_MARGIN:
        raise DataError(
            f"{folder}: the index cannot be written ({free / 1e6:.0f} MB of free space are left). Make room, then run "
            "it again: it resumes."
        )


def write_lock(folder: Path) -> AbstractContextManager[None]:
    """Lock `folder` for writing; the system releases the lock of a process that dies.

    Without it, two processes that add the same new file would both insert it: LanceDB's commits are atomic, but two
    inserts do not conflict. Raises DataError when another process or thread has the lock, or the folder cannot be
    written.
    """
    return only_writer(folder, _WRITE_LOCK)


@contextmanager
def storage(folder: Path, verb: str) -> Iterator[None]:
    """Convert errors of LanceDB and Arrow to DataError. `verb` is "read" or "written"."""
    import pyarrow as pa

    try:
        yield
    except (RuntimeError, ValueError, OSError, pa.ArrowException) as error:
        cause = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        advice = _REBUILD if verb == "read" else "Check the free space and the permissions, then run it again."
        raise DataError(f"{folder}: the index cannot be {verb} ({cause}). {advice}") from error


_REBUILD = "It is damaged or was removed. Delete the folder and index the sounds again."


def _refuse_used(folder: Path) -> None:
    if exists(folder):
        raise DataError(f"{folder} is an index already. Open it, or choose another folder.")
    if foreign := sorted(entry.name for entry in folder.iterdir() if entry.name not in _OWN_NAMES):
        raise DataError(f"{folder} contains other files ({foreign[0]}). Choose an empty or a new folder for the index.")
    database = connect(folder)
    for name in _TABLES:
        # A creation that was killed leaves empty tables; full ones are an index that lost its index.json.
        if (folder / f"{name}.lance").exists() and _holds_rows(folder, database, name):
            raise DataError(f"{folder} holds an index without its index.json. {_REBUILD}")


def _remove_empty_tables(folder: Path) -> None:
    for name in _TABLES:
        if (table := folder / f"{name}.lance").exists():
            shutil.rmtree(table)


def _holds_rows(folder: Path, database: Any, name: str) -> bool:
    try:
        with storage(folder, "read"):
            return bool(database.open_table(name).count_rows())
    except DataError:
        return any((folder / f"{name}.lance" / "data").glob("*"))


def _from_index(folder: Path, path: str) -> str | None:
    try:
        return os.path.relpath(path, folder)
    except ValueError:  # another drive of Windows
        return None


def _identity(stored: Any) -> IndexIdentity:
    return IndexIdentity(
        digest=str(stored["digest"]),
        model=str(stored["model"]),
        dim=int(stored["dim"]),
        length_s=float(stored["length_s"]),
        hop_s=float(stored["hop_s"]),
        channels=stored.get("channels", "mean"),
        trim_silence=stored.get("trim_silence") is True,
        precision=str(stored.get("precision", "fp32")),  # older indexes do not store it
        revision=stored.get("revision"),
    )


def _label(identity: IndexIdentity) -> str:
    windows = f"windows of {identity.length_s:g} s every {identity.hop_s:g} s, channels {identity.channels}"
    windows += ", silent ends cut" if identity.trim_silence else ""
    windows += "" if identity.precision == "fp32" else f", {identity.precision}"
    return f"{identity.model} ({windows}, digest {identity.digest[:12]})"


def _damaged_header(folder: Path) -> DataError:
    return DataError(f"{folder}: its index.json cannot be read. {_REBUILD}")
