"""The folder of an index: `index.json` (model, roots and exclusions), and two LanceDB tables.

`index.json` is written last, so a folder that has one is complete. Format 1 had neither roots nor the files' metadata,
and format 2 did not say which files are damaged; such an index opens, and its next write upgrades it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from openclap.errors import DataError, IndexMismatchError
from openclap.search.paths import is_gone, prefixes
from openclap.search.place import DAMAGED, HEADER_NAME, IndexPlace
from openclap.search.rows import files_schema, windows_schema
from openclap.types import COSINE_BOUNDS

FORMAT_VERSION = 3

QUERY_COSINE = 0.999
"""Least cosine between a query and the same query in fp32: one that is as close serves on any machine."""


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

    def found(self, folder: Path | None) -> str:
        """Where the root is now: at its path, or else beside the index; its path if it is at neither."""
        if folder is None or self.from_index is None or not is_gone(self.path):
            return self.path
        beside = os.path.normpath(folder / self.from_index)
        return self.path if is_gone(beside) else beside


@dataclass(frozen=True, slots=True)
class IndexHeader:
    """The content of `index.json`.

    Attributes:
        version: of the format.
        exclude: patterns of files and folders that are not indexed; see `walk`.
        first_folder: where the index was made, which names it wherever it is moved; "" for one that was not written
            since headers have this, and for one in object storage.
    """

    identity: IndexIdentity
    roots: tuple[IndexRoot, ...] = ()
    exclude: tuple[str, ...] = ()
    version: int = FORMAT_VERSION
    first_folder: str = ""

    def with_roots(self, folder: Path | None, paths: Iterable[str]) -> IndexHeader:
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


def create(place: IndexPlace, identity: IndexIdentity) -> None:
    """Make `place` an empty index. Of two processes that create it at once, the second one gets the error.

    Raises DataError when it is an index already, contains anything else, or cannot be written.
    """
    with place.creating(), storage(place, "written"):
        place.create_table("files", files_schema())
        place.create_table("windows", windows_schema(identity.dim))
        write_header(place, IndexHeader(identity))


def replaced_folder(folder: Path) -> Path:
    """The place of an old index while the rebuilt one takes its place. Hidden, so that no folder of the user's has the
    name: "index.old" may be a backup."""
    return folder.with_name(f".{folder.name}.replaced")


def rebuilding_folder(folder: Path) -> Path:
    """The place of a new index that is to replace the one in `folder`."""
    return folder.with_name(f".{folder.name}.rebuilding")


def read_header(place: IndexPlace) -> IndexHeader:
    """Read the `index.json` of the index at `place`. Raises DataError when it is no index, damaged or too new."""
    content = place.read(HEADER_NAME)
    if content is None:
        raise _no_index(place)
    try:
        header = json.loads(content)
        version = int(header["format_version"])
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged_header(place) from error
    if version > FORMAT_VERSION:
        raise DataError(
            f"{place} was written by a newer openclap (index format {version}, and this one reads "
            f"{FORMAT_VERSION}). Update openclap, or index into another folder."
        )
    try:
        roots = tuple(IndexRoot(str(root["path"]), root.get("from_index")) for root in header.get("roots", ()))
        exclude = tuple(map(str, header.get("exclude", ())))
        first_folder = str(header.get("first_folder") or "")
        return IndexHeader(_identity(header["identity"]), roots, exclude, version, first_folder)
    except (AttributeError, ValueError, KeyError, TypeError) as error:
        raise _damaged_header(place) from error


def check_identity(place: IndexPlace, stored: IndexIdentity, wanted: IndexIdentity) -> None:
    """Raise IndexMismatchError when queries of `wanted` cannot be compared with the vectors of `stored`: they are of
    another model, or their precision is another one that states no cosine of at least 0.999 to fp32."""
    if stored.digest not in (wanted.digest, _digest_with_precision(wanted.digest, stored.precision)):
        raise IndexMismatchError(
            f"{place} was built with {_label(stored)}, and the model in use is {_label(wanted)}. "
            "Their vectors cannot be compared. Load the model of the index, or index into another folder."
        )
    bound = COSINE_BOUNDS.get(wanted.precision, 0.0)
    if wanted.precision != stored.precision and bound < QUERY_COSINE:
        raise IndexMismatchError(
            f"{place} holds vectors of precision {stored.precision}, and those of {wanted.precision} are only within "
            f"a cosine of {bound} of fp32, expected at least {QUERY_COSINE}. Choose precision {_close_enough(stored)}."
        )


def check_precision(place: IndexPlace, stored: IndexIdentity, precision: str) -> None:
    """Raise IndexMismatchError unless new vectors of `precision` are as those of the index."""
    if precision != stored.precision:
        raise IndexMismatchError(
            f"{place} holds vectors of precision {stored.precision}, and the model in use computes {precision}: it "
            f"cannot add to this index. Choose precision {stored.precision}, or index into another folder."
        )


def _digest_with_precision(digest: str, precision: str) -> str:
    return hashlib.sha256(f"{digest} {precision}".encode()).hexdigest()


def _close_enough(stored: IndexIdentity) -> str:
    names = [name for name, bound in COSINE_BOUNDS.items() if bound >= QUERY_COSINE or name == stored.precision]
    return f"{', '.join(names[:-1])} or {names[-1]}"


def open_table(place: IndexPlace, name: str, *schemas: Any) -> Any:
    """The table `name`. Raises DataError when it is missing, unreadable or of none of these schemas."""
    with storage(place, "read"):
        table = place.open_table(name)
        stored = table.schema
    if not any(stored.equals(schema) for schema in schemas):
        raise DataError(f"{place}: the table '{name}' has unexpected columns. {DAMAGED}")
    return table


def upgrade(place: IndexPlace, files: Any) -> None:
    """Bring an index to the current format; its write lock is held. The header comes first, so that older versions of
    openclap refuse an index that was upgraded in half, and this one goes on."""
    with storage(place, "written"):
        header = read_header(place)
        if header.version < FORMAT_VERSION or (place.is_local and not header.first_folder):
            write_header(place, replace(header, version=FORMAT_VERSION))
        known = set(files.schema.names)
        if missing := [field for field in files_schema() if field.name not in known]:
            files.add_columns(missing)


def write_header(place: IndexPlace, header: IndexHeader) -> None:
    """Replace `index.json` in one step. Raises OSError and errors of LanceDB."""
    content = {
        "format_version": header.version,
        "first_folder": header.first_folder or str(place.own_folder or ""),
        "identity": asdict(header.identity),
        "roots": [asdict(root) for root in header.roots],
        "exclude": list(header.exclude),
    }
    place.write(HEADER_NAME, (json.dumps(content, indent=2) + "\n").encode())


@contextmanager
def storage(place: IndexPlace, verb: str) -> Iterator[None]:
    """Convert errors of LanceDB and Arrow to DataError. `verb` is "read" or "written"."""
    import pyarrow as pa

    try:
        yield
    except (RuntimeError, ValueError, OSError, pa.ArrowException) as error:
        advice = place.advice if verb == "read" else "Check the free space and the permissions, then run it again."
        raise DataError(f"{place}: the index cannot be {verb} ({place.reason(error)}). {advice}") from error


def _from_index(folder: Path | None, path: str) -> str | None:
    if folder is None:  # in object storage
        return None
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


def _no_index(place: IndexPlace) -> DataError:
    folder = place.own_folder
    if folder is None:
        return DataError(f"{place}: there is no index at this address. Make one with 'openclap index add'.")
    reason = "does not exist" if not folder.exists() else "is not a search index: it has no index.json"
    if (replaced_folder(folder) / HEADER_NAME).is_file():
        return DataError(f"{place} {reason}. Its rebuilding was stopped: run 'openclap index rebuild' to finish it.")
    return DataError(f"{place} {reason}. Give the folder of an index, or make one with 'openclap index add'.")


def _damaged_header(place: IndexPlace) -> DataError:
    return DataError(f"{place}: its index.json cannot be read. {place.advice}")
