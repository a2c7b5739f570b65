"""An index in object storage: the same tables of LanceDB at an address, two small tables beside them, and a cache here.

    files.lance, windows.lance      as in a folder
    documents.lance                 name -> content: index.json, fit.npz, tokenizer.json
    lease.lance                     one row: the process that writes, and its heartbeat

A store has no files that a system would lock, and no folder that could be mapped. So the right to write is a *lease*,
taken by an update of one row: LanceDB commits by conditional puts, and of two updates of one row the second sees the
first. Snapshot and keywords are derived on each machine that searches, under openclap's home.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import uuid4

from openclap.errors import ConfigError, DataError
from openclap.paths import home
from openclap.search.lease import FREE, POLL_S, IndexLease, lease_schema
from openclap.search.place import TABLES, CheckLock, IndexPlace, TableVersion
from openclap.storage import write_bytes

SCHEMES = ("s3", "gs", "az")

_DOCUMENTS, _LEASE = "documents", "lease"
_ID = b"openclap.id"
"""Key in the metadata of a table: a random number, so that a table that was made again is another one."""
_CAUSES = (r"<Code>(\w+)</Code>", r'message: \\?"([^"\\]+)', r'inner: .*?\("([^"]+)"\)', r"status: (\d{3})")
_CREATING_TAKES_S = 60.0


class RemotePlace(IndexPlace):
    """An index in S3, Google Cloud Storage or Azure Blob Storage, or a store that speaks as one of them.

    Credentials, region and endpoint are those of the environment, under the names that the store's own tools use
    (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, …). Raises ConfigError for a URL of anything else.
    """

    keep_versions = timedelta(days=1)  # a machine that makes its first snapshot reads one version for hours
    advice = "Check the address, the network and your permissions there."

    def __init__(self, url: str) -> None:
        scheme, _, path = url.partition("://")
        if scheme not in SCHEMES or not path.strip("/"):
            raise ConfigError(
                f"{url}: is no address of an index, expected a folder, or s3://, gs:// or az://BUCKET/NAME."
            )
        self.address = url
        name = re.sub(r"[^\w.-]", "_", path.rpartition("/")[2])
        self.folder = home() / "remote-indexes" / f"{name}-{hashlib.sha256(url.encode()).hexdigest()[:12]}"
        self._fixed: dict[str, Any] = {}
        self._documents: tuple[TableVersion, dict[str, bytes]] | None = None
        self._reading = Lock()

    @property
    def own_folder(self) -> None:
        return None

    @cached_property
    def database(self) -> Any:
        return self._connect(read_consistency_interval=timedelta(0))

    @cached_property
    def _unrefreshed(self) -> Any:
        """A connection whose tables stay at a version until `checkout_latest`, so that reading the number and the
        metadata of one version takes one request."""
        return self._connect()

    def _connect(self, **options: Any) -> Any:
        import lancedb

        return lancedb.connect(self.address, storage_options=storage_options(os.environ), **options)

    def newest_versions(self) -> dict[str, TableVersion]:
        with self._reading:
            return {table: self._newest(table) for table in TABLES}

    def _newest(self, name: str) -> TableVersion:
        try:
            if name in self._fixed:
                self._fixed[name].checkout_latest()
            else:
                self._fixed[name] = self._unrefreshed.open_table(name)
            return _version(self._fixed[name])
        except (RuntimeError, ValueError, OSError) as error:
            self._fixed.pop(name, None)
            raise self._unreadable(error) from error

    def version(self, name: str, table: Any) -> TableVersion:
        return _version(table)

    def read(self, name: str) -> bytes | None:
        with self._reading:
            try:
                version = self._newest(_DOCUMENTS)
            except DataError as error:
                if _is_missing(error.__cause__):
                    return None
                raise
            if self._documents is None or self._documents[0] != version:
                try:
                    rows = self._fixed[_DOCUMENTS].search().to_arrow().to_pylist()
                except (RuntimeError, ValueError, OSError) as error:
                    raise self._unreadable(error) from error
                self._documents = version, {row["name"]: row["content"] for row in rows}
            return self._documents[1].get(name)

    def _unreadable(self, error: BaseException) -> DataError:
        return DataError(f"{self}: the index cannot be read ({self.reason(error)}). {self.advice}")

    def write(self, name: str, content: bytes) -> None:
        import pyarrow as pa

        table = self.open_table(_DOCUMENTS)
        upsert = table.merge_insert("name").when_matched_update_all().when_not_matched_insert_all()
        upsert.execute(pa.table({"name": [name], "content": [content]}, schema=_documents_schema()))

    def local_copy(self, name: str) -> Path | None:
        content = self.read(name)
        if content is None:
            return None
        self.folder.mkdir(parents=True, exist_ok=True)
        write_bytes(self.folder / name, content)
        return self.folder / name

    @contextmanager
    def creating(self) -> Iterator[None]:
        self._refuse_used()
        self._create_lease()
        with self.writing(_CREATING_TAKES_S):
            self._refuse_used()
            names = self._table_names()
            for name in (*TABLES, _DOCUMENTS):
                if name in names:
                    self.database.drop_table(name)
            self.create_table(_DOCUMENTS, _documents_schema())
            yield

    def _create_lease(self) -> None:
        """Create the table of the lease, unless there is one. Another process may be doing so: then creating it fails,
        and opening it succeeds a moment later."""
        until = time.monotonic() + _CREATING_TAKES_S
        while True:
            try:
                self.open_table(_LEASE)
                return
            except (RuntimeError, ValueError, OSError) as missing:
                try:
                    self._create(_LEASE, lease_schema(), [FREE])
                except (RuntimeError, ValueError, OSError) as error:
                    if not _is_missing(missing) or time.monotonic() > until:
                        raise DataError(f"{self}: cannot be created ({self.reason(error)}). {self.advice}") from error
                    time.sleep(POLL_S)

    def _refuse_used(self) -> None:
        if self.exists():
            raise DataError(f"{self} is an index already. Open it, or choose another address.")
        names = self._table_names()
        if foreign := sorted(names - {*TABLES, _DOCUMENTS, _LEASE}):
            raise DataError(f"{self} contains another table ({foreign[0]}). Choose another address for the index.")
        for name in TABLES:
            # A creation that was killed leaves empty tables; full ones are an index that lost its index.json.
            if name in names and self.open_table(name).count_rows():
                raise DataError(f"{self} holds an index without its index.json. Delete it, and index the sounds again.")

    def _table_names(self) -> set[str]:
        try:
            return set(self.database.list_tables().tables)
        except (RuntimeError, ValueError, OSError) as error:
            raise DataError(f"{self}: cannot be reached ({self.reason(error)}). {self.advice}") from error

    def create_table(self, name: str, schema: Any) -> None:
        self._create(name, schema, [])

    def _create(self, name: str, schema: Any, rows: list[dict[str, Any]]) -> None:
        import pyarrow as pa

        schema = schema.with_metadata({_ID: uuid4().hex})
        self.database.create_table(name, data=pa.Table.from_pylist(rows, schema=schema), schema=schema)

    @cached_property
    def _lease_table(self) -> Any:
        return self.open_table(_LEASE)

    @contextmanager
    def writing(self, timeout_s: float = 0.0) -> Iterator[CheckLock]:
        try:
            lease = IndexLease(self.address, self._lease_table)
            lease.acquire(timeout_s)
        except (RuntimeError, ValueError, OSError) as error:
            raise DataError(f"{self}: cannot be written ({self.reason(error)}). {self.advice}") from error
        try:
            yield lease.check
        finally:
            lease.release()

    def check_space(self, size: int) -> None:
        """A store has room."""

    def reason(self, error: BaseException) -> str:
        """The store's answer, or the system's."""
        text = str(error)
        for pattern in _CAUSES:
            if found := re.search(pattern, text):
                return found[1]
        return super().reason(error)


def storage_options(environment: Mapping[str, str]) -> dict[str, str]:
    """Options of LanceDB that the environment implies: an endpoint without TLS, such as a store on one's own machine,
    and the name that newer tools of AWS give to the endpoint of S3 alone."""
    endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
    options = {"endpoint": endpoint} if endpoint else {}
    return options | ({"allow_http": "true"} if (endpoint or "").startswith("http://") else {})


def _is_missing(error: BaseException | None) -> bool:
    return isinstance(error, ValueError) and "not found" in str(error).partition("(")[0]


def _version(table: Any) -> TableVersion:
    return TableVersion(table.version, (table.schema.metadata or {}).get(_ID, b"").decode())


def _documents_schema() -> Any:
    import pyarrow as pa

    return pa.schema([("name", pa.string()), ("content", pa.large_binary())])
