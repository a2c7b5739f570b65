"""Errors of the HTTP interface, in the form of OpenAI's: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

from collections.abc import Mapping

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
        error = {"message": self.detail, "type": self.kind, "param": self.param, "code": self.code}
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
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path"))
    message = first["msg"].removeprefix("Value error, ").rstrip(".")
    sentence = f"{where}: {message}." if where else f"The request is invalid: {message}."
    return ApiError(400, sentence, param=where or None).response()


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


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?")) else f"{text}."
