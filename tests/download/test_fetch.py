"""Every way in which a server misbehaves: the outcome, the files left, and the number of requests."""

from __future__ import annotations

import errno
import json
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from openclap.download import FailedFetch, FetchedFile, FetchLimits, FileRequest, fetch
from openclap.errors import ConfigError, DataError
from openclap.storage import partial_of
from support.errors import raises_naming
from support.fetching import QUICK, left_over, outcome, sha256
from support.misbehaving import Misbehaving

BODY = "30000.wav"


@pytest.fixture(scope="module")
def shared() -> Iterator[Misbehaving]:
    with Misbehaving() as server:
        yield server


@pytest.fixture
def server() -> Iterator[Misbehaving]:
    with Misbehaving() as server:
        yield server


@pytest.mark.parametrize(
    ("behaviour", "requests"),
    [
        ("ok", 1),
        ("dated", 1),
        ("chunked", 1),
        ("closed", 1),
        ("gzipped", 1),
        ("audio-as-html", 1),
        ("once-500", 2),
        ("cut", 2),
        ("cut-once", 2),
        ("cut-deaf", 3),
        ("cut-liar", 3),
        ("cut-shifted", 3),
        ("silent-once", 2),
    ],
)
def test_file_arrives_after_requests(server: Misbehaving, tmp_path: Path, behaviour: str, requests: int) -> None:
    body = server.body(BODY)
    wanted = FileRequest(server.url(behaviour), tmp_path / "deep" / "a.wav")
    assert outcome(wanted) == FetchedFile(wanted, 30_000, sha256(body), was_there=False)
    assert wanted.to.read_bytes() == body
    assert server.count(behaviour) == requests
    assert left_over(wanted.to.parent) == []


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("404", "not found"),
        ("410", "not found"),
        ("401", "refused"),
        ("403", "refused"),
        ("204", "refused"),
        ("nowhere", "refused"),
        ("loop", "redirect loop"),
        ("html", "not audio"),
        ("html-as-audio", "not audio"),
        ("json", "not audio"),
        ("text", "not audio"),
        ("png", "not audio"),
        ("zip", "not audio"),
        ("huge", "too large"),
        ("endless", "too large"),
        ("bomb", "too large"),
    ],
)
def test_permanent_failure_is_requested_once(shared: Misbehaving, tmp_path: Path, behaviour: str, reason: str) -> None:
    result = outcome(FileRequest(shared.url(behaviour), tmp_path / "a.wav"))
    assert isinstance(result, FailedFetch)
    assert (result.kind, result.attempts, result.permanent) == (reason, 1, True)
    assert result.detail and "\n" not in result.detail
    assert shared.count(behaviour) == (11 if behaviour == "loop" else 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("500", "server error"),
        ("503", "server error"),
        ("429", "rate limited"),
        ("empty", "empty"),
        ("short", "cut off"),
        ("chunked-cut", "cut off"),
        ("hang-up", "cut off"),
        ("garbage", "cut off"),
    ],
)
def test_temporary_failure_is_retried(shared: Misbehaving, tmp_path: Path, behaviour: str, reason: str) -> None:
    result = outcome(FileRequest(shared.url(behaviour), tmp_path / "a.wav"))
    assert isinstance(result, FailedFetch)
    assert (result.kind, result.attempts, result.permanent) == (reason, 4, False)
    assert shared.count(behaviour) == 4
    assert list(tmp_path.iterdir()) == []  # nothing of these can be gone on with


@pytest.mark.parametrize(
    ("behaviour", "attempts"), [("slow", 1), ("slow-head", 1), ("silent", 2)], ids=["body", "headers", "nothing"]
)
def test_slow_servers_time_out(shared: Misbehaving, tmp_path: Path, behaviour: str, attempts: int) -> None:
    limits = replace(QUICK, timeout_s=0.6, idle_s=0.25, attempts=2)
    result = outcome(FileRequest(shared.url(behaviour), tmp_path / "a.wav"), limits)
    assert isinstance(result, FailedFetch)
    assert (result.kind, result.attempts, result.permanent) == ("too slow", attempts, False)
    assert partial_of(tmp_path / "a.wav").exists() == (behaviour == "slow")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a.wav",
        "ftp://example.org/a.wav",
        "file:///etc/passwd",
        "http://",
        "http:///a",
        "https://[::1",
        "//x/a",
        "\0",
    ],
)
def test_invalid_urls(tmp_path: Path, url: str) -> None:
    result = outcome(FileRequest(url, tmp_path / "a.wav"))
    assert isinstance(result, FailedFetch)
    assert (result.kind, result.attempts, result.permanent) == ("bad address", 0, True)


def test_refused_connection_and_unknown_host(tmp_path: Path) -> None:
    with Misbehaving() as gone:
        pass
    refused = outcome(FileRequest(gone.url("ok"), tmp_path / "a.wav"))
    unknown = outcome(FileRequest("http://nobody.invalid/a.wav", tmp_path / "a.wav"))
    for result in (refused, unknown):
        assert isinstance(result, FailedFetch)
        assert (result.kind, result.attempts, result.permanent) == ("no connection", 4, False)


def test_unreachable_host_is_given_up(tmp_path: Path) -> None:
    with Misbehaving() as gone:
        pass
    many = [FileRequest(gone.url("ok", f"{n}.wav"), tmp_path / f"{n}.wav") for n in range(200)]
    results = list(fetch(many, limits=replace(QUICK, patience_s=0.1)))
    assert {(result.kind, result.permanent) for result in results if isinstance(result, FailedFetch)} == {
        ("no connection", False)
    }
    assert len(results) == 200
    assert sum(result.attempts == 0 for result in results if isinstance(result, FailedFetch)) > 100


def test_partial_file_is_resumed_by_range(server: Misbehaving, tmp_path: Path) -> None:
    wanted = FileRequest(server.url("cut"), tmp_path / "a.wav")
    first = outcome(wanted, replace(QUICK, attempts=1))
    assert isinstance(first, FailedFetch) and first.kind == "cut off"
    assert partial_of(wanted.to).read_bytes() == server.body(BODY)[:20_000]
    assert not wanted.to.exists()
    assert isinstance(outcome(wanted, replace(QUICK, attempts=1)), FetchedFile)
    assert [request.start for request in server.requests] == [0, 20_000]
    assert server.requests[1].headers["if-range"].startswith('"')


def test_changed_file_starts_over(server: Misbehaving, tmp_path: Path) -> None:
    wanted = FileRequest(server.url("cut-changed"), tmp_path / "a.wav")
    assert isinstance(outcome(wanted), FetchedFile)
    assert wanted.to.read_bytes() == server.body(BODY)[::-1]


def test_last_modified_is_the_validator_without_an_etag(server: Misbehaving, tmp_path: Path) -> None:
    server.files["a.wav"] = server.body("50000.wav")
    wanted = FileRequest(server.url("dated", "a.wav"), tmp_path / "a.wav")
    _leave_partial(wanted, server.files["a.wav"][:20_000], validator="Mon, 06 Jan 2025 10:00:00 GMT")
    assert isinstance(outcome(wanted), FetchedFile)
    assert [request.start for request in server.requests] == [20_000]
    assert wanted.to.read_bytes() == server.files["a.wav"]


def test_without_validator_only_a_known_hash_resumes(server: Misbehaving, tmp_path: Path) -> None:
    body = server.body(BODY)
    blind = FileRequest(server.url("cut-once"), tmp_path / "a.wav")
    assert isinstance(outcome(blind), FetchedFile)
    sure = FileRequest(server.url("cut-once", "30001.wav"), tmp_path / "b.wav", sha256=sha256(server.body("30001.wav")))
    assert isinstance(outcome(sure), FetchedFile)
    assert [request.start for request in server.requests] == [0, 0, 0, 20_000]
    assert blind.to.read_bytes() == body


def test_damaged_partial_file_starts_over(server: Misbehaving, tmp_path: Path) -> None:
    body = server.body(BODY)
    wanted = FileRequest(server.url("ok"), tmp_path / "a.wav", sha256=sha256(body).upper())
    _leave_partial(wanted, b"RIFF" + bytes(9_996), validator=None)
    assert outcome(wanted) == FetchedFile(wanted, 30_000, sha256(body), was_there=False)
    assert [request.start for request in server.requests] == [10_000, 0]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"source": 1}', b'{"source": "", "validator": 1, "length": ""}']
)
def test_partial_file_without_valid_metadata_starts_over(server: Misbehaving, tmp_path: Path, content: bytes) -> None:
    wanted = FileRequest(server.url("ok"), tmp_path / "a.wav", sha256=sha256(server.body(BODY)))
    partial_of(wanted.to).write_bytes(b"anything")
    (tmp_path / ".a.wav.partial.json").write_bytes(content)
    assert isinstance(outcome(wanted), FetchedFile)
    assert [request.start for request in server.requests] == [0]


def test_partial_file_of_another_url_starts_over(server: Misbehaving, tmp_path: Path) -> None:
    assert isinstance(
        outcome(FileRequest(server.url("cut"), tmp_path / "a.wav"), replace(QUICK, attempts=1)), FailedFetch
    )
    other = FileRequest(server.url("ok", "40000.wav"), tmp_path / "a.wav")
    assert isinstance(outcome(other), FetchedFile)
    assert other.to.read_bytes() == server.body("40000.wav")
    assert server.requests[-1].start == 0


@pytest.mark.parametrize("length", [30_000, None])
def test_complete_partial_file_is_renamed(server: Misbehaving, tmp_path: Path, length: int | None) -> None:
    """A kill came between the last byte and the name; without a length the server says that nothing is left (416)."""
    body = server.body(BODY)
    wanted = FileRequest(server.url("ok"), tmp_path / "a.wav")
    _leave_partial(wanted, body, validator=_etag(server), length=length)
    assert outcome(wanted) == FetchedFile(wanted, 30_000, sha256(body), was_there=False)
    assert server.count("ok") == (0 if length else 1)
    assert left_over(tmp_path) == []


def test_partial_file_longer_than_the_file_starts_over(server: Misbehaving, tmp_path: Path) -> None:
    wanted = FileRequest(server.url("ok"), tmp_path / "a.wav")
    _leave_partial(wanted, server.body(BODY) + b"more", validator=_etag(server))
    assert isinstance(outcome(wanted), FetchedFile)
    assert wanted.to.read_bytes() == server.body(BODY)


def test_length_and_hash_are_checked(server: Misbehaving, tmp_path: Path) -> None:
    to, body = tmp_path / "a.wav", server.body(BODY)
    wrong = [
        (FileRequest(server.url("ok"), to, size=29_999), "wrong length"),
        (FileRequest(server.url("ok"), to, size=30_001), "wrong length"),
        (FileRequest(server.url("chunked"), to, size=29_999), "wrong length"),
        (FileRequest(server.url("chunked"), to, size=30_001), "wrong length"),
        (FileRequest(server.url("long"), to, size=30_000), "wrong length"),
        (FileRequest(server.url("ok"), to, sha256="0" * 64), "wrong hash"),
    ]
    for wanted, reason in wrong:
        result = outcome(wanted)
        assert isinstance(result, FailedFetch)
        assert (result.kind, result.attempts, result.permanent) == (reason, 1, True)
        assert list(tmp_path.iterdir()) == []
    assert isinstance(outcome(FileRequest(server.url("ok"), to, size=30_000, sha256=sha256(body))), FetchedFile)


def test_existing_file_is_not_fetched_again(server: Misbehaving, tmp_path: Path) -> None:
    body = server.body(BODY)
    wanted = FileRequest(server.url("ok"), tmp_path / "a.wav", size=30_000, sha256=sha256(body))
    wanted.to.write_bytes(body)
    assert outcome(wanted) == FetchedFile(wanted, 30_000, sha256(body), was_there=True)
    assert outcome(replace(wanted, size=None, sha256=None)) == FetchedFile(
        replace(wanted, size=None, sha256=None), 30_000, sha256(body), was_there=True
    )
    assert server.requests == []


@pytest.mark.parametrize("there", [b"", b"another file", b"RIFF" + bytes(29_996)])
def test_existing_file_that_does_not_match_is_replaced(server: Misbehaving, tmp_path: Path, there: bytes) -> None:
    body = server.body(BODY)
    wanted = FileRequest(server.url("ok"), tmp_path / "a.wav", size=30_000, sha256=sha256(body))
    wanted.to.write_bytes(there)
    assert isinstance(outcome(replace(wanted, url=server.url("404"))), FailedFetch)
    assert wanted.to.read_bytes() == there
    assert outcome(wanted) == FetchedFile(wanted, 30_000, sha256(body), was_there=False)


def test_files_other_than_audio(server: Misbehaving, tmp_path: Path) -> None:
    assert isinstance(outcome(FileRequest(server.url("zip"), tmp_path / "a.zip", audio=False)), FetchedFile)
    assert isinstance(outcome(FileRequest(server.url("json"), tmp_path / "a.json", audio=False)), FetchedFile)


def test_file_requested_twice_is_fetched_once(server: Misbehaving, tmp_path: Path) -> None:
    results = list(fetch([FileRequest(server.url("steady"), tmp_path / "a.wav")] * 3, limits=QUICK))
    assert sorted(result.was_there for result in results if isinstance(result, FetchedFile)) == [False, True, True]
    assert server.count("steady") == 1


def test_unwritable_paths(server: Misbehaving, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder.wav").mkdir()
    places = [tmp_path / "file" / "a.wav", tmp_path / "folder.wav", tmp_path / ("n" * 300), tmp_path / "\0.wav"]
    for place in places:
        result = outcome(FileRequest(server.url("ok"), place))
        assert isinstance(result, FailedFetch)
        assert (result.kind, result.permanent) == ("cannot be written", True)
    assert (tmp_path / "file").read_bytes() == b""
    assert server.requests == []


def test_full_disk_stops_everything(server: Misbehaving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with raises_naming(DataError, tmp_path):
        outcome(FileRequest(server.url("ok"), tmp_path / "a.wav"))
    assert not (tmp_path / "a.wav").exists()


def test_urls_with_spaces_and_non_ascii_letters(server: Misbehaving, tmp_path: Path) -> None:
    server.files["dub dub/höher.wav"] = b"RIFF and so on"
    assert isinstance(outcome(FileRequest(f"{server.root}/ok/dub dub/höher.wav", tmp_path / "a.wav")), FetchedFile)


def test_secrets_in_urls_are_not_shown(tmp_path: Path) -> None:
    result = outcome(FileRequest("ftp://me:secret@example.org/a.wav?token=secret", tmp_path / "a.wav"))
    assert (
        isinstance(result, FailedFetch) and "ftp://example.org/a.wav" in result.detail and "secret" not in result.detail
    )


def test_progress_counts_every_byte_once(server: Misbehaving, tmp_path: Path) -> None:
    pieces: list[int] = []
    wanted = [FileRequest(server.url("cut", f"{size}.wav"), tmp_path / f"{size}.wav") for size in (30_000, 30_001)]
    assert len(list(fetch(wanted, limits=QUICK, progress=pieces.append))) == 2
    assert sum(pieces) == 60_001


def test_invalid_limits() -> None:
    with raises_naming(ConfigError, "concurrency", 0):
        FetchLimits(concurrency=0)


def test_https(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trusted where the system trusts it, by the name in the address, though an address was what was connected to."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    try:
        subprocess.run([*make.split(), *names], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("needs the openssl command")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with Misbehaving("localhost", context) as server:
        untrusted = outcome(FileRequest(server.url("ok"), tmp_path / "a.wav"))
        assert isinstance(untrusted, FailedFetch) and untrusted.kind == "no connection"
        assert "certificate" in untrusted.detail.lower()
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        for behaviour in ("ok", "cut"):
            assert isinstance(outcome(FileRequest(server.url(behaviour), tmp_path / behaviour)), FetchedFile)
        late = outcome(FileRequest(server.url("slow"), tmp_path / "slow"), replace(QUICK, timeout_s=0.3))
        assert isinstance(late, FailedFetch) and late.kind == "too slow"
        misnamed = outcome(FileRequest(server.url("ok").replace("localhost", "127.0.0.1"), tmp_path / "b.wav"))
        assert isinstance(misnamed, FailedFetch) and misnamed.kind == "no connection"


def _leave_partial(wanted: FileRequest, content: bytes, validator: str | None, length: int | None = None) -> None:
    """What a killed run would have left."""
    partial_of(wanted.to).write_bytes(content)
    known = {"source": sha256(wanted.url.encode()), "validator": validator, "length": length}
    (wanted.to.parent / f".{wanted.to.name}.partial.json").write_text(json.dumps(known))


def _etag(server: Misbehaving) -> str:
    import urllib.request

    with urllib.request.urlopen(server.url("ok")) as answer:
        answer.read()
        server.requests.clear()
        return str(answer.headers["ETag"])
