"""Errors of the HTTP interface, in the form of OpenAI's: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from openclap.errors import (
    AudioError,
    CheckpointError,
    ConfigError,
    DataError,
    IndexMismatchError,
    MissingExtraError,
    OpenClapError,
)

STATUS: dict[type[OpenClapError], int] = {
    AudioError: 400,
    ConfigError: 400,
    IndexMismatchError: 409,
    DataError: 503,
    CheckpointError: 503,
    MissingExtraError: 501,
}
"""The status of each error of the library. Those of stored data are not the client's fault, so they are 503."""


MOST_CHARACTERS = 1000
"""Of a message; the rest is cut off."""


class ApiError(HTTPException):
    """A response that is an error. An HTTPException, since FastAPI lets only those through while it reads a body.

    Attributes:
        kind: OpenAI's `type`, such as "invalid_request_error".
        param: the field of the request that is wrong.
        code: a word for programs, such as "model_not_found".
    """

    def __init__(
        self,
        status: int,
        message: str,
        kind: str = "invalid_request_error",
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, headers)
        self.kind, self.param, self.code = kind, param, code

    def response(self) -> Response:
        """The response with this error."""
        param = None if self.param is None else _shown(self.param)
        error = {"message": _shown(self.detail), "type": self.kind, "param": param, "code": self.code}
        return JSONResponse({"error": error}, self.status_code, self.headers)


def of_library(error: OpenClapError) -> ApiError:
    """Convert an error of the library."""
    status = next((number for kind, number in STATUS.items() if isinstance(error, kind)), 500)
    return ApiError(status, str(error), "invalid_request_error" if status < 500 else "server_error")


async def answer_library_error(request: Request, error: Exception) -> Response:
    """The handler of the library's errors."""
    assert isinstance(error, OpenClapError)
    return of_library(error).response()


async def answer_invalid(request: Request, error: Exception) -> Response:
    """The handler of requests that do not fit the schema: one sentence, with the field."""
    assert isinstance(error, RequestValidationError)
    # Each form that a field may have adds its error: that of the innermost field is about the form that was meant.
    located = [(_field(each, error.body), each["msg"]) for each in error.errors()]
    field, text = max(located, key=lambda each: len(each[0]))
    where = ".".join(map(str, field))
    message = text.removeprefix("Value error, ").rstrip(".")
    sentence = f"{where}: {message}." if where else f"The request is invalid: {message}."
    return ApiError(400, sentence, param=where or None).response()


def _field(error: Mapping[str, Any], body: Any) -> list[str | int]:
    """The path of the field that an error of pydantic is about, without the names of types that stand in between."""
    location: tuple[str | int, ...] = error["loc"]
    source, *path = location
    if source != "body":
        return path
    field: list[str | int] = []
    value = body
    for part in path:
        if part in value if isinstance(value, Mapping) else isinstance(value, list) and isinstance(part, int):
            field.append(part)
            value = value[part]
    return [*field, path[-1]] if error["type"] == "missing" and path else field


async def answer_http_error(request: Request, error: Exception) -> Response:
    """The handler of `ApiError`, and of Starlette's own errors: an unknown path, a wrong method, a form that cannot be
    read."""
    assert isinstance(error, HTTPException)
    if isinstance(error, ApiError):
        return error.response()
    kind = "invalid_request_error" if error.status_code < 500 else "server_error"
    return ApiError(error.status_code, _sentence(str(error.detail)), kind, headers=error.headers).response()


async def answer_failure(request: Request, error: Exception) -> Response:
    """The handler of errors in the server itself; the traceback goes to the log and not to the client."""
    return ApiError(500, "The server failed. Its log says why.", "server_error").response()


def _shown(text: str) -> str:
    """A text of bounded length that UTF-8 can carry: messages repeat names and values of requests."""
    short = text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}…"
    return short.encode("utf-8", "replace").decode()


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?")) else f"{text}."
