"""A file server with the faults of servers on the internet.

A path is `/BEHAVIOUR/NAME`; behaviours are the methods named in `BEHAVIOURS`. `NAME` is a file in `files`, or else
"SIZE.wav", SIZE bytes that begin like a WAV. First and later requests are counted for each path.
"""

from __future__ import annotations

import gzip
import hashlib
import random
import ssl
import time
from collections.abc import Callable
from email.utils import formatdate
from urllib.parse import quote

from support.http_server import Exchange, HttpServer

CUT = 20_000
"""Bytes after which a connection is cut."""
CHUNK = 4096
LAST_MODIFIED = "Mon, 06 Jan 2025 10:00:00 GMT"


class Misbehaving(HttpServer):
    """A file server; see `HttpServer`."""

    def __init__(self, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> None:
        super().__init__(host, tls)
        self.files: dict[str, bytes] = {}

    def url(self, behaviour: str, name: str = "30000.wav", **query: str) -> str:
        asked = "&".join(f"{key}={quote(value, safe='')}" for key, value in query.items())
        return f"{self.root}/{behaviour}/{name}" + (f"?{asked}" if asked else "")

    def body(self, name: str) -> bytes:
        """Content of the file `name`."""
        if name in self.files:
            return self.files[name]
        size = int("".join(filter(str.isdigit, name)))
        content = random.Random(name).randbytes(size)
        return (b"RIFF\x24\x00\x00\x00WAVEfmt " + content)[:size]

    def count(self, behaviour: str, name: str = "30000.wav") -> int:
        """Requests for this path so far."""
        with self._lock:
            return sum(request.path == f"/{behaviour}/{name}" for request in self.requests)

    def handle(self, exchange: Exchange) -> None:
        _Behaviours(self, exchange).act()


class _Behaviours:
    """One request, and all ways to answer it."""

    def __init__(self, server: Misbehaving, exchange: Exchange) -> None:
        self.server, self.exchange, self.request = server, exchange, exchange.request_
        earlier = [request for request in server.requests if request.started < self.request.started]
        self.before = sum(request.path == self.request.path for request in earlier)
        self.wfile = exchange.wfile

    def act(self) -> None:
        _, behaviour, self.name = self.request.path.split("/", 2)
        BEHAVIOURS.get(behaviour, _Behaviours.status)(self)

    # -- good manners

    def ok(self) -> None:
        """The file, or the requested range of it if If-Range matches."""
        self._send_part(self._body, self._etag)

    def dated(self) -> None:
        """The same with a date in place of an ETag."""
        self._send_part(self._body, None, LAST_MODIFIED)

    def chunked(self) -> None:
        self._send_chunked(self._body)

    def closed(self) -> None:
        """No length: the end of the connection is the end of the file."""
        self.exchange.head(200, {"Connection": "close"})
        self.exchange.trickle(self._body)
        self.exchange.close_connection = True

    def gzipped(self) -> None:
        """Compressed, although the client accepts only identity."""
        self.exchange.send(200, gzip.compress(self._body), {"Content-Encoding": "gzip", "ETag": self._etag})

    def echo(self) -> None:
        """The headers of the request, as a sound would look."""
        self.exchange.send(200, b"RIFF" + repr(dict(self.request.headers)).encode())

    # -- refusals

    def status(self) -> None:
        """The behaviour is a number: that status, always."""
        self.exchange.send(int(self.request.path.split("/")[1]), b"no")

    def once_500(self) -> None:
        self.exchange.send(500, b"no") if self.before == 0 else self.ok()

    def once_429(self) -> None:
        """The first request: 429 with a Retry-After of one second."""
        self.exchange.send(429, b"no", {"Retry-After": "1"}) if self.before == 0 else self.ok()

    def once_429_date(self) -> None:
        """The first request: 429 with a Retry-After of a date two seconds ahead."""
        date = {"Retry-After": formatdate(time.time() + 2, usegmt=True)}
        self.exchange.send(429, b"no", date) if self.before == 0 else self.ok()

    # -- broken connections

    def cut(self) -> None:
        """Every answer breaks off after `CUT` bytes."""
        self._send_part(self._body, self._etag, most=CUT)

    def cut_once(self) -> None:
        """The first does; no validator."""
        self._send_part(self._body, None, most=None if self.before else CUT)

    def cut_deaf(self) -> None:
        """The first two do, and Range is ignored."""
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
        self.exchange.head(200, {"Content-Length": str(len(self._body) + 1000)})
        self.exchange.trickle(self._body)
        self.exchange.close_connection = True

    def long(self) -> None:
        """A thousand bytes more than stated."""
        self.exchange.head(200, {"Content-Length": str(len(self._body) - 1000)})
        self.exchange.trickle(self._body)
        self.exchange.close_connection = True

    def hang_up(self) -> None:
        """No answer at all."""
        self.exchange.close_connection = True

    def garbage(self) -> None:
        self.wfile.write(b"\x00\x01 this is not HTTP\r\n\r\n")
        self.exchange.close_connection = True

    # -- slowness

    def steady(self) -> None:
        """A chunk each hundredth of a second, and Range is known."""
        self._send_part(self._body, self._etag, wait_s=0.01)

    def slow(self) -> None:
        """A hundred bytes at a time."""
        self.exchange.head(200, {"Content-Length": str(len(self._body)), "ETag": self._etag})
        self.exchange.trickle(self._body, size=100, wait_s=0.05)

    def slow_head(self) -> None:
        """The headers, letter by letter."""
        self.exchange.trickle(b"HTTP/1.1 200 OK\r\n" + b"X-Nothing: " + b"x" * 10_000, size=1, wait_s=0.05)

    def silent(self) -> None:
        """Nothing, for a while."""
        time.sleep(1.5)
        self.exchange.close_connection = True

    def silent_once(self) -> None:
        """Half of the first answer, then nothing."""
        if self.before:
            self.ok()
            return
        self.exchange.head(200, {"Content-Length": str(len(self._body)), "ETag": self._etag})
        self.exchange.trickle(self._body[:CUT])
        time.sleep(1.5)
        self.exchange.close_connection = True

    # -- other things than the file

    def html(self) -> None:
        self.exchange.send(200, b"<!DOCTYPE html><title>Sign in</title>" + b" " * 5000, {"Content-Type": "text/html"})

    def html_as_audio(self) -> None:
        self.exchange.send(200, b"\n\n<html><body>gone</body></html>", {"Content-Type": "audio/mpeg"})

    def json(self) -> None:
        self.exchange.send(200, b'{"error": "no such sound"}', {"Content-Type": "application/octet-stream"})

    def text(self) -> None:
        self.exchange.send(200, b"Sorry, this sound was removed.", {"Content-Type": "text/plain; charset=utf-8"})

    def audio_as_html(self) -> None:
        self.exchange.send(200, self._body, {"Content-Type": "text/html"})

    def png(self) -> None:
        self.exchange.send(200, b"\x89PNG\r\n\x1a\n" + b"\x00" * 5000, {"Content-Type": "audio/wav"})

    def zip(self) -> None:
        self.exchange.send(200, b"PK\x03\x04" + b"\x00" * 5000)

    def empty(self) -> None:
        self.exchange.send(200, b"")

    def endless(self) -> None:
        self.exchange.head(200, {"Transfer-Encoding": "chunked"})
        piece = b"RIFF" + b"\x00" * 65_532
        while True:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))

    def huge(self) -> None:
        """A length of a terabyte."""
        self.exchange.head(200, {"Content-Length": str(1 << 40)})
        self.exchange.trickle(self._body)
        self.exchange.close_connection = True

    def bomb(self) -> None:
        """A small body that unpacks to 4 MB."""
        self.exchange.send(200, gzip.compress(b"RIFF" + bytes(4 << 20)), {"Content-Encoding": "gzip"})

    # -- elsewhere

    def redirect(self) -> None:
        """To the address in the query's `to`."""
        self.exchange.send(302, b"elsewhere", {"Location": self.request.query["to"]})

    def loop(self) -> None:
        self.exchange.send(301, b"", {"Location": self.exchange.path})

    def nowhere(self) -> None:
        self.exchange.send(302, b"")

    # -- tools

    @property
    def _body(self) -> bytes:
        return self.server.body(self.name)

    @property
    def _etag(self) -> str:
        return _etag(self._body)

    def _send_chunked(self, body: bytes, *, end: bool = True) -> None:
        self.exchange.head(200, {"Transfer-Encoding": "chunked"})
        for start in range(0, len(body), CHUNK):
            piece = body[start : start + CHUNK]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        if end:
            self.wfile.write(b"0\r\n\r\n")
        self.exchange.close_connection = not end

    def _deaf(self, body: bytes, *, cut: bool) -> None:
        self.exchange.head(200, {"Content-Length": str(len(body)), "ETag": _etag(body)})
        self.exchange.trickle(body[:CUT] if cut else body)
        self.exchange.close_connection = cut

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
        """Answer a range request as RFC 9110 says, or against it with `careless` and `shift`.

        With `most`, the connection ends after that many bytes.
        """
        condition = self.request.headers.get("if-range")
        ranged = "range" in self.request.headers and (careless or condition in (None, etag, date))
        start = self.request.start + shift if ranged else 0
        if start >= len(body) > 0 and ranged:
            self.exchange.send(416, b"", {"Content-Range": f"bytes */{len(body)}"})
            return
        part = body[start:]
        headers = {"Content-Length": str(len(part)), "Accept-Ranges": "bytes"}
        headers |= {"ETag": etag} if etag else {}
        headers |= {"Last-Modified": date} if date else {}
        headers |= {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"} if ranged else {}
        self.exchange.head(206 if ranged else 200, headers)
        self.exchange.trickle(part if most is None else part[:most], wait_s=wait_s)
        self.exchange.close_connection = most is not None


def _etag(body: bytes) -> str:
    return f'"{hashlib.sha1(body).hexdigest()}"'


BEHAVIOURS: dict[str, Callable[[_Behaviours], None]] = {
    "ok": _Behaviours.ok,
    "dated": _Behaviours.dated,
    "chunked": _Behaviours.chunked,
    "closed": _Behaviours.closed,
    "gzipped": _Behaviours.gzipped,
    "echo": _Behaviours.echo,
    "once-500": _Behaviours.once_500,
    "once-429": _Behaviours.once_429,
    "once-429-date": _Behaviours.once_429_date,
    "cut": _Behaviours.cut,
    "cut-once": _Behaviours.cut_once,
    "cut-deaf": _Behaviours.cut_deaf,
    "cut-changed": _Behaviours.cut_changed,
    "cut-liar": _Behaviours.cut_liar,
    "cut-shifted": _Behaviours.cut_shifted,
    "chunked-cut": _Behaviours.chunked_cut,
    "short": _Behaviours.short,
    "long": _Behaviours.long,
    "hang-up": _Behaviours.hang_up,
    "garbage": _Behaviours.garbage,
    "steady": _Behaviours.steady,
    "slow": _Behaviours.slow,
    "slow-head": _Behaviours.slow_head,
    "silent": _Behaviours.silent,
    "silent-once": _Behaviours.silent_once,
    "html": _Behaviours.html,
    "html-as-audio": _Behaviours.html_as_audio,
    "json": _Behaviours.json,
    "text": _Behaviours.text,
    "audio-as-html": _Behaviours.audio_as_html,
    "png": _Behaviours.png,
    "zip": _Behaviours.zip,
    "empty": _Behaviours.empty,
    "endless": _Behaviours.endless,
    "huge": _Behaviours.huge,
    "bomb": _Behaviours.bomb,
    "redirect": _Behaviours.redirect,
    "loop": _Behaviours.loop,
    "nowhere": _Behaviours.nowhere,
}
"""By the first part of the path; a number (404, 503, …) is that status."""
