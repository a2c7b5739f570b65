"""Keywords to a sentence, by any server that speaks OpenAI's chat protocol: hosted, or vLLM, llama.cpp, Ollama here.

    OPENCLAP_CHAT_URL      where it is, "https://host/v1"
    OPENCLAP_CHAT_MODEL    what it calls the model
    OPENCLAP_CHAT_KEY      sent as a bearer token; may be left out where the server asks for none

Several records share a request, and several requests are under way at once. A server that is busy or stumbles is asked
again after a pause, as long as it says in Retry-After or twice as long each time. An answer that is refused, cut off
or not of the form asked for costs its sentence and is counted, after each keyword list was asked for alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from threading import Event
from typing import Any

from openclap.captions.cache import Keywords
from openclap.captions.rules import clean
from openclap.errors import ConfigError, require

INSTRUCTIONS = """\
You write captions of sounds. You get a JSON list; each item is a list of keywords about one recording. Write one plain
English sentence for each, of at most twenty words, that says what is heard and uses the keywords. Add no sounds, places
or moods that the keywords do not name; do not mention keywords, tags or recordings. Answer with nothing but one JSON
object: {"captions": ["...", "..."]}, as many sentences as items, in their order."""
LONGEST = 400
"""Characters; what is longer is no caption."""
_AGAIN = frozenset((408, 409, 425, 429, 500, 502, 503, 504, 529))
_YOURS = {
    401: "does not accept the key. Set OPENCLAP_CHAT_KEY.",
    403: "refuses this key. Set OPENCLAP_CHAT_KEY to one that may use the model.",
    404: "has no such address or model. Check OPENCLAP_CHAT_URL (most end with /v1) and OPENCLAP_CHAT_MODEL.",
}


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a request is made, how long is waited for what, and how many may fail in a row."""

    attempts: int = 6
    requests: int = 8
    first_pause_s: float = 1.0
    longest_pause_s: float = 60.0
    timeout_s: float = 120.0


@dataclass(slots=True)
class Endpoint:
    """A maker that asks a server.

    Attributes:
        per_request: keyword lists that share a request.
        at_once: requests under way together.
    """

    url: str
    model: str
    key: str | None = field(default=None, repr=False)
    per_request: int = 8
    at_once: int = 4
    patience: Patience = Patience()
    _gave_up: int = field(default=0, init=False, repr=False)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Endpoint:
        """Raises ConfigError saying which variable is missing."""
        missing = [name for name in ("OPENCLAP_CHAT_URL", "OPENCLAP_CHAT_MODEL") if not environment.get(name)]
        if missing:
            raise ConfigError(
                f"{' and '.join(missing)} not set. An endpoint needs OPENCLAP_CHAT_URL (such as "
                "http://127.0.0.1:8000/v1), OPENCLAP_CHAT_MODEL and, where it asks for one, OPENCLAP_CHAT_KEY."
            )
        return cls(
            environment["OPENCLAP_CHAT_URL"], environment["OPENCLAP_CHAT_MODEL"], environment.get("OPENCLAP_CHAT_KEY")
        )

    @property
    def name(self) -> str:
        return self.model

    @property
    def identity(self) -> str:
        asked = hashlib.sha256(INSTRUCTIONS.encode()).hexdigest()[:16]
        return f"{self._place} {self.model} {asked}"

    @property
    def _place(self) -> str:
        """The address without a user's name and password."""
        return re.sub(r"//[^/@]*@", "//", self.url.rstrip("/"))

    def __post_init__(self) -> None:
        if self.key is not None and not (self.key.isascii() and self.key.isprintable()):
            raise ConfigError("OPENCLAP_CHAT_KEY holds characters that no key has. Copy it again, without line ends.")

    def make(self, keywords: Sequence[Keywords]) -> list[str | None]:
        """A sentence for each; None where the server gave none.

        Raises ConfigError when it cannot be reached, goes on failing, or says that address, key or model are wrong.
        """
        httpx2 = require("httpx2", "data")
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        parts = [keywords[start : start + self.per_request] for start in range(0, len(keywords), self.per_request)]
        with (
            httpx2.Client(headers=headers, timeout=self.patience.timeout_s) as client,
            ThreadPoolExecutor(self.at_once) as pool,
        ):
            stopped = Event()
            waiting = [pool.submit(self._sentences, client, part, stopped) for part in parts]
            try:
                return [sentence for future in waiting for sentence in future.result()]
            except BaseException:
                stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _sentences(self, client: Any, keywords: Sequence[Keywords], stopped: Event) -> list[str | None]:
        """One request; those that its answer leaves without a sentence once more, each alone."""
        answer = self._ask(client, keywords, stopped)
        if answer is None:
            return [None] * len(keywords)
        made = sentences(answer, len(keywords))
        if len(keywords) == 1:
            return made
        pairs = zip(keywords, made, strict=True)
        return [text or self._sentences(client, [words], stopped)[0] for words, text in pairs]

    def _ask(self, client: Any, keywords: Sequence[Keywords], stopped: Event) -> bytes | None:
        """The body of the answer, b"" for a refusal; None when the server had enough chances, or all is stopped."""
        listed = json.dumps([list(words) for words in keywords], ensure_ascii=False)
        messages = [{"role": "system", "content": INSTRUCTIONS}, {"role": "user", "content": listed}]
        request = {"model": self.model, "messages": messages, "temperature": 0}
        for attempt in range(self.patience.attempts):
            last = attempt == self.patience.attempts - 1
            pause = self.patience.first_pause_s * 2**attempt
            answer = self._post(client, request, last)
            if answer is not None:
                if answer.status_code in _YOURS:
                    raise ConfigError(f"{self._place} {_YOURS[answer.status_code]} It answered {answer.status_code}.")
                if answer.status_code not in _AGAIN:
                    self._gave_up = 0
                    return bytes(answer.content) if answer.status_code == 200 else b""
                asked = retry_after(answer.headers)
                pause = pause if asked is None else asked
            if stopped.wait(0 if last else min(pause, self.patience.longest_pause_s)):
                return None
        self._gave_up += 1
        if self._gave_up >= self.patience.requests:
            raise ConfigError(
                f"{self._place}: {self._gave_up} requests in a row failed, {self.patience.attempts} times each. Run "
                "the same again when it works; captions that were made are kept."
            )
        return None

    def _post(self, client: Any, request: dict[str, Any], last: bool) -> Any:
        """The response; None when the connection failed and may be tried again."""
        import httpx2

        try:
            return client.post(f"{self.url.rstrip('/')}/chat/completions", json=request)
        except (httpx2.UnsupportedProtocol, httpx2.InvalidURL) as error:
            raise ConfigError(
                f"{self._place}: is no address of a server ({error}). Check OPENCLAP_CHAT_URL."
            ) from error
        except httpx2.HTTPError as error:
            if last:
                raise ConfigError(self._unreachable(error)) from error
            return None

    def _unreachable(self, error: Exception) -> str:
        return (
            f"{self._place}: cannot be reached ({type(error).__name__}: {error}), tried {self.patience.attempts} "
            "times. Start the server or check OPENCLAP_CHAT_URL; captions that were made are kept."
        )


def sentences(answer: bytes, number: int) -> list[str | None]:
    """The captions in the body of a chat answer: all None unless it holds `number` of them; None for what is none."""
    nothing: list[str | None] = [None] * number
    try:
        choice = json.loads(answer)["choices"][0]
        content = choice["message"]["content"]
        if choice.get("finish_reason") not in ("stop", None):
            return nothing
        captions = json.loads(content[content.index("{") : content.rindex("}") + 1])["captions"]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return nothing
    if not isinstance(captions, list) or len(captions) != number:
        return nothing
    return [_sentence(caption) for caption in captions]


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The header's seconds, or those until its date; None without it."""
    value = headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, ((date if date.tzinfo else date.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds())


def _sentence(caption: Any) -> str | None:
    text = clean(caption) if isinstance(caption, str) else ""
    return text if any(map(str.isalpha, text)) and len(text) <= LONGEST else None
