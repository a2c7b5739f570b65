"""`openclap serve`: models and indexes over HTTP."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from openclap import paths
from openclap.cli.console import note, progress
from openclap.cli.defaults import default_index
from openclap.cli.model_options import ModelOptions
from openclap.cli.running_server import local_host, registered

if TYPE_CHECKING:
    from openclap.embedder import Embedder
    from openclap.library import Library
    from openclap.server.indexing import IndexingJob
    from openclap.server.security import Access
    from openclap.server.service import ServedIndex, ServedModel, Service

TOKEN_VARIABLE = "OPENCLAP_TOKEN"
PROGRESS_S = 0.25
"""Time between two looks at the progress of indexing."""


def serve(
    sounds: list[Path] | None = None,
    *,
    port: int = 7007,
    host: str = "127.0.0.1",
    token_file: Path | None = None,
    host_name: tuple[str, ...] = (),
    fetch_from: tuple[str, ...] = (),
    matryoshka: tuple[int, ...] = (),
    max_upload_mb: int = 64,
    max_audio_s: int = 600,
    max_requests: int = 128,
    open_page: Annotated[bool, Parameter(name="--open")] = False,
    model_options: ModelOptions = ModelOptions(),
) -> int:
    """Serve a page that finds sounds, and its interface over HTTP: search, embeddings (as OpenAI's), sounds.

    The page is at /, and the interface is described at /docs. They are reachable from this machine only, and pages of
    other web sites cannot use them. On another address (--host) every request needs a token, from --token-file or the
    variable OPENCLAP_TOKEN.
    Sound files are only read. Ctrl-C stops the server. While it runs, `openclap search` and `similar` use it.

    Parameters
    ----------
    sounds
        Indexes (folders or addresses such as s3://BUCKET/NAME), or folders of sounds, which are indexed under
        openclap's home first. Default: your own index (`openclap index add`), or the demo's; with --model, or without
        any index, the model alone.
    port
        The port; 0 for any that is free.
    host
        The address to listen on.
    token_file
        A file with the token, 16 characters or more.
    host_name
        A further name by which the server is reached; may be repeated. Without it: localhost and numeric addresses.
    fetch_from
        A host from which sounds are fetched by URL; may be repeated. Without it, URLs are refused.
    matryoshka
        A shorter size of embeddings that the model was trained for, which requests may choose; may be repeated.
    max_upload_mb
        The size of the largest request, in megabytes.
    max_audio_s
        The length of the longest sound in a request, in seconds.
    max_requests
        The number of requests in progress from which on further ones are refused with status 429.
    open_page
        Open the page in the browser.
    """
    from openclap.errors import require
    from openclap.limits import check_count

    for package in ("fastapi", "uvicorn", "python_multipart", "prometheus_client", "sse_starlette"):
        require(package, "serve")
    from openclap.paths import is_loopback
    from openclap.server.metrics import Metrics
    from openclap.server.security import Access, BodyLimits, host_names
    from openclap.server.service import Limits, Service

    check_count("--port", port, least=0, most=65535)
    limits = Limits(
        requests=check_count("--max-requests", max_requests),
        audio_s=check_count("--max-audio-s", max_audio_s),
        body=replace(BodyLimits(), most_bytes=check_count("--max-upload-mb", max_upload_mb, most=1 << 20) << 20),
    )
    token = read_token(host, token_file)
    access = Access(token, host_names(host_name), is_local=is_loopback(host) and token is None)
    with listen(host, port) as endpoint:  # first, since loading a model takes seconds
        metrics = Metrics()
        models, indexes = open_all(sounds or [], model_options, matryoshka, metrics)
        service = Service(
            models, indexes, limits=limits, url_hosts=frozenset(map(str.lower, fetch_from)), metrics=metrics
        )
        run(service, access, endpoint, open_page=open_page)
    note("Stopped.")
    return 0


def url(host: str, port: int) -> str:
    """The address of a server."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def read_token(host: str, token_file: Path | None) -> str | None:
    """The token of --token-file or of the environment. Raises ConfigError when a server on `host` must have one."""
    from openclap.errors import ConfigError
    from openclap.paths import is_loopback

    token = os.environ.get(TOKEN_VARIABLE)
    if token_file is not None:
        try:
            token = token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            raise ConfigError(f"{token_file}: cannot be read, expected a text file with a token.") from None
    if token is None and not is_loopback(host):
        raise ConfigError(
            f"--host is {host}, which other machines can reach, so requests need a token. Give one with --token-file "
            f"or in the variable {TOKEN_VARIABLE}."
        )
    return token


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on an address. Raises ConfigError when that is not possible."""
    from openclap.errors import ConfigError

    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        endpoint = socket.socket(family, kind, protocol)
        try:
            endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            endpoint.bind(address)
            endpoint.listen(2048)
        except BaseException:
            endpoint.close()
            raise
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"Port {port} of {host} cannot be used ({reason}). Choose another with --port, or 0 for any."
        ) from None
    return endpoint


def open_all(
    sounds: Sequence[Path], model_options: ModelOptions, matryoshka: Sequence[int], metrics: object
) -> tuple[list[ServedModel], list[ServedIndex]]:
    """Open the indexes and models to serve; indexes of one model share it. Raises as `openclap.Library.open`."""
    from openclap.search.index import Index
    from openclap.server.service import ServedIndex, distinct_names

    if not sounds and (model_options.model is not None or not Index.exists(default_index())):
        return [served_model(model_options.name, model_options.load(), matryoshka, metrics, model_options)], []
    places = list(sounds or [default_index()])
    models: dict[tuple[str, str], ServedModel] = {}
    indexes = []
    for name, place in zip(distinct_names(places), places, strict=True):
        library, folders = open_sounds(place, model_options)
        identity = library.index.identity
        key = (identity.digest, library.embedder.precision)
        if key not in models:
            models[key] = served_model(identity.model, library.embedder, matryoshka, metrics, model_options)
        indexes.append(ServedIndex(name, library, models[key], folders))
    return list(models.values()), indexes


def open_sounds(path: Path, model_options: ModelOptions) -> tuple[Library, tuple[Path, ...]]:
    """The library of an index, or of a folder of sounds, and the folders to keep it up to date with."""
    from openclap.errors import DataError
    from openclap.search.index import Index

    if Index.exists(path):
        return model_options.open_library(path), ()
    if paths.is_url(path):
        Index.open(path)  # raises: no index is made by serving an address
    if not path.is_dir():
        reason = "is no folder" if path.exists() else "does not exist"
        raise DataError(
            f"{path}: {reason}, expected an index or a folder of sounds. "
            "Make an index with 'openclap index add FOLDER'."
        )
    folder = path.absolute()
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    return model_options.open_library(paths.home() / "indexes" / f"{folder.name}-{digest}"), (folder,)


def served_model(
    name: str, embedder: Embedder, matryoshka: Sequence[int], metrics: object, model_options: ModelOptions
) -> ServedModel:
    """A model with its thread. Its name is that of the folder where it was given by path."""
    from openclap.server.batching import ModelThread
    from openclap.server.metrics import Metrics
    from openclap.server.service import ServedModel, TorchModel, check_sizes

    assert isinstance(metrics, Metrics)
    sizes = check_sizes(embedder, matryoshka)
    thread = ModelThread(embedder.runtime, observe=metrics.observe_batch)
    revision = model_options.revision if name == model_options.name else None
    in_torch = TorchModel(
        lambda: model_options.load_named(name, revision=revision, runtime="torch"), metrics.observe_batch
    )
    return ServedModel(Path(name).name if Path(name).exists() else name, embedder, thread, sizes, in_torch)


def run(service: Service, access: Access, endpoint: socket.socket, *, open_page: bool = False) -> None:
    """Serve until SIGINT or SIGTERM; requests in progress are completed. Open the page in a browser, if wanted."""
    import webbrowser

    from openclap.server.app import create_app
    from openclap.server.batching import is_on_cpu
    from openclap.server.connections import server_of

    app = create_app(service, access)
    host, port = endpoint.getsockname()[:2]
    served = ", ".join(service.indexes) or "no index"
    note(f"Serving {served} with {', '.join(service.models)} at {url(host, port)} (interface: /docs).")
    note("Ctrl-C stops the server.")
    if open_page and not webbrowser.open(url(local_host(host), port)):
        note("No browser was found. Open the address in one.")
    jobs = app.state.jobs.start_all()
    threading.Thread(target=show_indexing, args=[jobs], name="progress", daemon=True).start()
    # On a GPU scores differ in their last digits from those of a command, which uses the CPU.
    on_cpu = {
        name: index.library.index.folder
        for name, index in service.indexes.items()
        if is_on_cpu(index.model.embedder.runtime)
    }
    with registered(host, port, access.token, on_cpu), suppress(KeyboardInterrupt, SystemExit):
        server_of(app).run(sockets=[endpoint])  # raises the signal that stopped it again


def show_indexing(jobs: Sequence[IndexingJob]) -> None:
    """Show the progress of running jobs until they end, and their results; the first one's first."""
    for job in jobs:
        name, seconds = job.index.name, 0.0
        with progress(f"Indexing {name}") as advance:
            while (state := job.state).state == "running":
                advance(state.done, state.total)
                advance.add_seconds(state.seconds - seconds)
                seconds = state.seconds
                time.sleep(PROGRESS_S)
        counts = f"{state.added} added, {state.unchanged} unchanged, {state.moved} moved, {state.removed} removed"
        result = f"{counts}, {state.skipped} skipped" if state.state == "done" else state.state
        note(f"Indexing {name}: {result}.{f' {state.message}' if state.message else ''}")
