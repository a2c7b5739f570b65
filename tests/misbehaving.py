"""A file server on this machine's loopback that does to its clients whatever the internet does.

An address is `/BEHAVIOUR/NAME`; the behaviours are the methods named in `BEHAVIOURS`. `NAME` is a file that was put
into `files`, or else "SIZE.wav", so many bytes that begin like a WAV. What happens on the first request and what on
later ones is counted for each address. The server keeps what it was asked and how many requests were open at once.
"""

from __future__ import annotations

import gzip
import hashlib
import random
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit

CUT = 20_000
"""Bytes after which a connection is cut."""
CHUNK = 4096
LAST_MODIFIED = "Mon, 06 Jan 2025 10:00:00 GMT"


@dataclass(frozen=True)
class Asked:
    """One request: its path without the query, its headers by lower-case name, and when it came."""

    path: str
    headers: Mapping[str, str]
    at: float

    @property
    def start(self) -> int:
        """The first byte asked for."""
        return int(self.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")[0])


class Misbehaving:
    """The server; `with Misbehaving() as server:` runs it. With `tls` it speaks https.

    `host` is what it is called in addresses: "localhost" is another host to whoever counts by name.
    """

    def __init__(self, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> None:
        self.files: dict[str, bytes] = {}
        self.pause_s = 0.0
        """Before each answer."""
        self.asked: list[Asked] = []
        self.most_at_once = 0
        self._open = 0
        self._lock = threading.Lock()
        server = self

        class Handler(_Handler):
            owner = server

        self._server = _Server(("127.0.0.1", 0), Handler)
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = int(self._server.server_address[1])
        self.root = f"{'https' if tls else 'http'}://{host}:{self.port}"

    def __enter__(self) -> Misbehaving:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def url(self, behaviour: str, name: str = "30000.wav", **query: str) -> str:
        asked = "&".join(f"{key}={quote(value, safe='')}" for key, value in query.items())
        return f"{self.root}/{behaviour}/{name}" + (f"?{asked}" if asked else "")

    def body(self, name: str) -> bytes:
        """What the file `name` holds."""
        if name in self.files:
            return self.files[name]
        size = int("".join(filter(str.isdigit, name)))
        content = random.Random(name).randbytes(size)
        return (b"RIFF\x24\x00\x00\x00WAVEfmt " + content)[:size]

    def count(self, behaviour: str, name: str = "30000.wav") -> int:
        """Requests for this address so far."""
        with self._lock:
            return sum(each.path == f"/{behaviour}/{name}" for each in self.asked)

    def enter(self, asked: Asked) -> int:
        """Note a request that begins: the how many-th of its address it is, from 0."""
        with self._lock:
            before = sum(each.path == asked.path for each in self.asked)
            self.asked.append(asked)
            self._open += 1
            self.most_at_once = max(self.most_at_once, self._open)
        return before

    def leave(self) -> None:
        with self._lock:
            self._open -= 1


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are what this is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: Misbehaving

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        url = urlsplit(self.path)  # a proxy is asked for a whole URL
        path = unquote(url.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.query = {key: values[0] for key, values in parse_qs(url.query).items()}
        self.asked = Asked(path, headers, time.monotonic())
        self.before = self.owner.enter(self.asked)
        _, behaviour, self.name = path.split("/", 2)
        try:
            time.sleep(self.owner.pause_s)
            with suppress(ConnectionError):
                BEHAVIOURS.get(behaviour, _Handler.status)(self)
        finally:
            self.owner.leave()

    # -- good manners

    def ok(self) -> None:
        """The file, or the part of it that is asked for, if it is still the same."""
        self._send_part(self._body, self._etag)

    def dated(self) -> None:
        """The same with a date in place of an ETag."""
        self._send_part(self._body, None, LAST_MODIFIED)

    def chunked(self) -> None:
        self._send_chunked(self._body)

    def closed(self) -> None:
        """No length: the end of the connection is the end of the file."""
        self._head(200, {"Connection": "close"})
        self._trickle(self._body)
        self.close_connection = True

    def gzipped(self) -> None:
        """Compressed, though nobody asked for it."""
        self._send(200, gzip.compress(self._body), {"Content-Encoding": "gzip", "ETag": self._etag})

    def echo(self) -> None:
        """The headers of the request, as a sound would look."""
        self._send(200, b"RIFF" + repr(dict(self.asked.headers)).encode())

    # -- refusals

    def status(self) -> None:
        """The behaviour is a number: that status, always."""
        self._send(int(self.asked.path.split("/")[1]), b"no")

    def once_500(self) -> None:
        self._send(500, b"no") if self.before == 0 else self.ok()

    def once_429(self) -> None:
        """Wait a second, please."""
        self._send(429, b"no", {"Retry-After": "1"}) if self.before == 0 else self.ok()

    def once_429_date(self) -> None:
        """Wait until a second that is two away, please."""
        date = {"Retry-After": formatdate(time.time() + 2, usegmt=True)}
        self._send(429, b"no", date) if self.before == 0 else self.ok()

    # -- broken connections

    def cut(self) -> None:
        """Every answer breaks off after `CUT` bytes."""
        self._send_part(self._body, self._etag, most=CUT)

    def cut_once(self) -> None:
        """The first does; no validator."""
        self._send_part(self._body, None, most=None if self.before else CUT)

    def cut_deaf(self) -> None:
        """The first two do, and Range is not known here."""
        self._deaf(self._body, cut=self.before < 2)

    def cut_changed(self) -> None:
        """The first does, and then the file is another one."""
        body = self._body if self.before == 0 else self._body[::-1]
        self._send_part(body, _etag(body), most=None if self.before else CUT)

    def cut_liar(self) -> None:
        """The second answer is a part of another file, though If-Range forbids that."""
        body = self._body[::-1] if self.before == 1 else self._body
        most = None if self.before else CUT
        self._send_part(body, _etag(body), most=most, careless=self.before == 1)

    def cut_shifted(self) -> None:
        """The second answer is a part that begins elsewhere."""
        shift = 7 if self.before == 1 else 0
        self._send_part(self._body, self._etag, most=None if self.before else CUT, shift=shift)

    def chunked_cut(self) -> None:
        self._send_chunked(self._body[:CUT], end=False)

    def short(self) -> None:
        """A thousand bytes fewer than stated."""
        self._head(200, {"Content-Length": str(len(self._body) + 1000)})
        self._trickle(self._body)
        self.close_connection = True

    def long(self) -> None:
        """A thousand bytes more than stated."""
        self._head(200, {"Content-Length": str(len(self._body) - 1000)})
        self._trickle(self._body)
        self.close_connection = True

    def hang_up(self) -> None:
        """No answer at all."""
        self.close_connection = True

    def garbage(self) -> None:
        self.wfile.write(b"\x00\x01 this is not HTTP\r\n\r\n")
        self.close_connection = True

    # -- slowness

    def steady(self) -> None:
        """A chunk each hundredth of a second, and Range is known."""
        self._send_part(self._body, self._etag, wait_s=0.01)

    def slow(self) -> None:
        """A hundred bytes at a time."""
        self._head(200, {"Content-Length": str(len(self._body)), "ETag": self._etag})
        self._trickle(self._body, size=100, wait_s=0.05)

    def slow_head(self) -> None:
        """The headers, letter by letter."""
        self._trickle(b"HTTP/1.1 200 OK\r\n" + b"X-Nothing: " + b"x" * 10_000, size=1, wait_s=0.05)

    def silent(self) -> None:
        """Nothing, for a while."""
        time.sleep(1.5)
        self.close_connection = True

    def silent_once(self) -> None:
        """Half of the first answer, then nothing."""
        if self.before:
            self.ok()
            return
        self._head(200, {"Content-Length": str(len(self._body)), "ETag": self._etag})
        self._trickle(self._body[:CUT])
        time.sleep(1.5)
        self.close_connection = True

    # -- other things than the file

    def html(self) -> None:
        self._send(200, b"<!DOCTYPE html><title>Sign in</title>" + b" " * 5000, {"Content-Type": "text/html"})

    def html_as_audio(self) -> None:
        self._send(200, b"\n\n<html><body>gone</body></html>", {"Content-Type": "audio/mpeg"})

    def json(self) -> None:
        self._send(200, b'{"error": "no such sound"}', {"Content-Type": "application/octet-stream"})

    def text(self) -> None:
        self._send(200, b"Sorry, this sound was removed.", {"Content-Type": "text/plain; charset=utf-8"})

    def audio_as_html(self) -> None:
        self._send(200, self._body, {"Content-Type": "text/html"})

    def png(self) -> None:
        self._send(200, b"\x89PNG\r\n\x1a\n" + b"\x00" * 5000, {"Content-Type": "audio/wav"})

    def zip(self) -> None:
        self._send(200, b"PK\x03\x04" + b"\x00" * 5000)

    def empty(self) -> None:
        self._send(200, b"")

    def endless(self) -> None:
        self._head(200, {"Transfer-Encoding": "chunked"})
        piece = b"RIFF" + b"\x00" * 65_532
        while True:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))

    def huge(self) -> None:
        """A length of a terabyte."""
        self._head(200, {"Content-Length": str(1 << 40)})
        self._trickle(self._body)
        self.close_connection = True

    def bomb(self) -> None:
        """A small body that unpacks to 4 MB."""
        self._send(200, gzip.compress(b"RIFF" + bytes(4 << 20)), {"Content-Encoding": "gzip"})

    # -- elsewhere

    def redirect(self) -> None:
        """To the address in the query's `to`."""
        self._send(302, b"elsewhere", {"Location": self.query["to"]})

    def loop(self) -> None:
        self._send(301, b"", {"Location": self.path})

    def nowhere(self) -> None:
        self._send(302, b"")

    # -- tools

    @property
    def _body(self) -> bytes:
        return self.owner.body(self.name)

    @property
    def _etag(self) -> str:
        return _etag(self._body)

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self._head(status, {"Content-Length": str(len(body)), **(headers or {})})
        self.wfile.write(body)

    def _trickle(self, body: bytes, size: int = CHUNK, wait_s: float = 0.0) -> None:
        for start in range(0, len(body), size):
            self.wfile.write(body[start : start + size])
            time.sleep(wait_s)

    def _send_chunked(self, body: bytes, *, end: bool = True) -> None:
        self._head(200, {"Transfer-Encoding": "chunked"})
        for start in range(0, len(body), CHUNK):
            piece = body[start : start + CHUNK]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        if end:
            self.wfile.write(b"0\r\n\r\n")
        self.close_connection = not end

    def _deaf(self, body: bytes, *, cut: bool) -> None:
        self._head(200, {"Content-Length": str(len(body)), "ETag": _etag(body)})
        self._trickle(body[:CUT] if cut else body)
        self.close_connection = cut

    def _send_part(
        self,
        body: bytes,
        etag: str | None,
        date: str | None = None,
        *,
        most: int | None = None,
        careless: bool = False,
        shift: int = 0,
        wait_s: float = 0.0,
    ) -> None:
        """As RFC 9110 has it, unless told otherwise; with `most`, the connection ends after so many bytes."""
        condition = self.asked.headers.get("if-range")
        ranged = "range" in self.asked.headers and (careless or condition in (None, etag, date))
        start = self.asked.start + shift if ranged else 0
        if start >= len(body) > 0 and ranged:
            self._send(416, b"", {"Content-Range": f"bytes */{len(body)}"})
            return
        part = body[start:]
        headers = {"Content-Length": str(len(part)), "Accept-Ranges": "bytes"}
        headers |= {"ETag": etag} if etag else {}
        headers |= {"Last-Modified": date} if date else {}
        headers |= {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"} if ranged else {}
        self._head(206 if ranged else 200, headers)
        self._trickle(part if most is None else part[:most], wait_s=wait_s)
        self.close_connection = most is not None


def _etag(body: bytes) -> str:
    return f'"{hashlib.sha1(body).hexdigest()}"'


BEHAVIOURS: dict[str, Callable[[_Handler], None]] = {
    "ok": _Handler.ok,
    "dated": _Handler.dated,
    "chunked": _Handler.chunked,
    "closed": _Handler.closed,
    "gzipped": _Handler.gzipped,
    "echo": _Handler.echo,
    "once-500": _Handler.once_500,
    "once-429": _Handler.once_429,
    "once-429-date": _Handler.once_429_date,
    "cut": _Handler.cut,
    "cut-once": _Handler.cut_once,
    "cut-deaf": _Handler.cut_deaf,
    "cut-changed": _Handler.cut_changed,
    "cut-liar": _Handler.cut_liar,
    "cut-shifted": _Handler.cut_shifted,
    "chunked-cut": _Handler.chunked_cut,
    "short": _Handler.short,
    "long": _Handler.long,
    "hang-up": _Handler.hang_up,
    "garbage": _Handler.garbage,
    "steady": _Handler.steady,
    "slow": _Handler.slow,
    "slow-head": _Handler.slow_head,
    "silent": _Handler.silent,
    "silent-once": _Handler.silent_once,
    "html": _Handler.html,
    "html-as-audio": _Handler.html_as_audio,
    "json": _Handler.json,
    "text": _Handler.text,
    "audio-as-html": _Handler.audio_as_html,
    "png": _Handler.png,
    "zip": _Handler.zip,
    "empty": _Handler.empty,
    "endless": _Handler.endless,
    "huge": _Handler.huge,
    "bomb": _Handler.bomb,
    "redirect": _Handler.redirect,
    "loop": _Handler.loop,
    "nowhere": _Handler.nowhere,
}
"""By the first part of the path; a number (404, 503, …) is that status."""
