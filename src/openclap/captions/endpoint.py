"""Write a sentence from keywords with any server of OpenAI's chat protocol: hosted, vLLM, llama.cpp, Ollama.

    OPENCLAP_CHAT_URL      its address, "https://host/v1"
    OPENCLAP_CHAT_MODEL    the model's name there
    OPENCLAP_CHAT_KEY      sent as a bearer token; optional where the server needs none

Several records share a request, and several requests run at the same time. A busy or failing server gets the same
request again after a pause: as long as Retry-After says, or twice as long each time. A caption that is refused, cut off
or malformed is requested once more for its keywords alone; if that fails too, it is left out and counted.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from openclap.captions.cache import Keywords
from openclap.captions.rules import clean
from openclap.errors import ConfigError, require
from openclap.http import USER_AGENT, send_with_retries

if TYPE_CHECKING:
    import httpx2

INSTRUCTIONS = """\
You write captions of sounds. You get a JSON list; each item is a list of keywords about one recording. Write one plain
English sentence for each, of at most twenty words, that says what is heard and uses the keywords. Add no sounds, places
or moods that the keywords do not name; do not mention keywords, tags or recordings. Answer with nothing but one JSON
object: {"captions": ["...", "..."]}, as many sentences as items, in their order."""
LONGEST = 400
"""Characters of a caption; a longer text is rejected."""
_BUSY = frozenset((408, 409, 425, 429, 500, 502, 503, 504, 529))
_USER_ERRORS = {
    401: "does not accept the key. Set OPENCLAP_CHAT_KEY.",
    403: "refuses this key. Set OPENCLAP_CHAT_KEY to one that may use the model.",
    404: "has no such address or model. Check OPENCLAP_CHAT_URL (most end with /v1) and OPENCLAP_CHAT_MODEL.",
}


@dataclass(frozen=True, slots=True)
class Patience:
    """Attempts of each request, requests that may fail in a row, and waits."""

    attempts: int = 6
    requests: int = 8
    first_pause_s: float = 1.0
    longest_pause_s: float = 60.0
    timeout_s: float = 120.0


@dataclass(slots=True)
class Endpoint:
    """A caption maker that calls a server.

    Attributes:
        per_request: keyword lists that share a request.
        concurrency: requests that run at the same time.
    """

    url: str
    model: str
    key: str | None = field(default=None, repr=False)
    per_request: int = 8
    concurrency: int = 4
    patience: Patience = Patience()
    _failures: int = field(default=0, init=False, repr=False)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Endpoint:
        """Read the address, model and key from the environment. Raises ConfigError that names a missing variable."""
        missing = [name for name in ("OPENCLAP_CHAT_URL", "OPENCLAP_CHAT_MODEL") if not environment.get(name)]
        if missing:
            raise ConfigError(
                f"{' and '.join(missing)} not set. An endpoint needs OPENCLAP_CHAT_URL (such as "
                "http://127.0.0.1:8000/v1), OPENCLAP_CHAT_MODEL and, if it needs one, OPENCLAP_CHAT_KEY."
            )
        return cls(
            environment["OPENCLAP_CHAT_URL"], environment["OPENCLAP_CHAT_MODEL"], environment.get("OPENCLAP_CHAT_KEY")
        )

    @property
    def name(self) -> str:
        return self.model

    @property
    def identity(self) -> str:
        instructions = hashlib.sha256(INSTRUCTIONS.encode()).hexdigest()[:16]
        return f"{self._place} {self.model} {instructions}"

    @property
    def _place(self) -> str:
        """The address without user name and password."""
        return re.sub(r"//[^/@]*@", "//", self.url.rstrip("/"))

    def __post_init__(self) -> None:
        if not _is_address(self.url):
            raise ConfigError(
                f"The address {self._place!r} is not that of a server, expected one such as http://127.0.0.1:8000/v1. "
                "Check OPENCLAP_CHAT_URL."
            )
        if self.key is not None and not (self.key.isascii() and self.key.isprintable()):
            raise ConfigError("OPENCLAP_CHAT_KEY holds characters that no key has. Copy it again, without line ends.")

    def make(self, keywords: Sequence[Keywords]) -> list[str | None]:
        """Write a sentence for each keyword list; None where the server returned none.

        Raises ConfigError when the server cannot be reached, fails repeatedly, or rejects address, key or model.
        """
        httpx2 = require("httpx2", "data")
        headers = {"User-Agent": USER_AGENT} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        parts = [keywords[start : start + self.per_request] for start in range(0, len(keywords), self.per_request)]
        with (
            httpx2.Client(headers=headers, timeout=self.patience.timeout_s) as client,
            ThreadPoolExecutor(self.concurrency) as pool,
        ):
            stopped = Event()
            waiting = [pool.submit(self._sentences, client, part, stopped) for part in parts]
            try:
                return [sentence for future in waiting for sentence in future.result()]
            except BaseException:
                stopped.set()  # ends the pauses between attempts, which may be long
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _sentences(self, client: httpx2.Client, keywords: Sequence[Keywords], stopped: Event) -> list[str | None]:
        """Send one request, and one more for each keyword list without a usable sentence in its response."""
        body = self._request(client, keywords, stopped)
        if body is None:
            return [None] * len(keywords)
        captions = sentences(body, len(keywords))
        # Alone already: a second request would get the same answer, at temperature 0.
        if len(keywords) == 1:
            return captions
        pairs = zip(keywords, captions, strict=True)
        return [text or self._sentences(client, [words], stopped)[0] for words, text in pairs]

    def _request(self, client: httpx2.Client, keywords: Sequence[Keywords], stopped: Event) -> bytes | None:
        """The body of the response, b"" for a refusal; None when all attempts failed or the run is stopped."""
        listed = json.dumps([list(words) for words in keywords], ensure_ascii=False)
        messages = [{"role": "system", "content": INSTRUCTIONS}, {"role": "user", "content": listed}]
        content = {"model": self.model, "messages": messages, "temperature": 0}
        response = self._send(client, content, stopped)
        if response.status_code in _USER_ERRORS:
            raise ConfigError(f"{self._place} {_USER_ERRORS[response.status_code]} It answered {response.status_code}.")
        if response.status_code not in _BUSY:
            self._failures = 0
            return response.content if response.status_code == 200 else b""
        if stopped.is_set():
            return None
        self._failures += 1
        if self._failures >= self.patience.requests:
            raise ConfigError(
                f"{self._place}: {self._failures} requests in a row failed, {self.patience.attempts} times each. Run "
                "the same again when the server works; captions written so far are kept."
            )
        return None

    def _send(self, client: httpx2.Client, content: dict[str, Any], stopped: Event) -> httpx2.Response:
        import httpx2

        try:
            return send_with_retries(
                lambda: client.post(f"{self.url.rstrip('/')}/chat/completions", json=content),
                attempts=self.patience.attempts,
                is_busy=_BUSY.__contains__,
                first_wait_s=self.patience.first_pause_s,
                longest_wait_s=self.patience.longest_pause_s,
                sleep=stopped.wait,
                stopped=stopped.is_set,
            )
        except httpx2.HTTPError as error:
            raise ConfigError(
                f"{self._place}: cannot be reached ({type(error).__name__}: {error}), tried {self.patience.attempts} "
                "times. Start the server or check OPENCLAP_CHAT_URL; captions written so far are kept."
            ) from error


def _is_address(url: str) -> bool:
    """Whether `url` is an http or https address with a host and a valid port."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # an open bracket, or a port that is no number
        return False


def sentences(answer: bytes, number: int) -> list[str | None]:
    """Parse the captions of a chat response: all None unless there are `number` of them; None for an invalid one."""
    nothing: list[str | None] = [None] * number
    try:
        choice = json.loads(answer)["choices"][0]
        content = choice["message"]["content"]
        if choice.get("finish_reason") not in ("stop", None):
            return nothing
        # Some models write words or a code fence around the object.
        captions = json.loads(content[content.index("{") : content.rindex("}") + 1])["captions"]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return nothing
    if not isinstance(captions, list) or len(captions) != number:
        return nothing
    return [_sentence(caption) for caption in captions]


def _sentence(caption: Any) -> str | None:
    text = clean(caption) if isinstance(caption, str) else ""
    return text if any(map(str.isalpha, text)) and len(text) <= LONGEST else None
