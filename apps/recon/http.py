"""What all routes of recon share: errors as JSON, answers as JSON, reading parameters and bodies."""

from __future__ import annotations

import hmac
import logging
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, TypeVar

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from apps.recon.settings import Settings
from apps.recon.surreal import StoreUnavailable

logger = logging.getLogger("recon.api")

T = TypeVar("T")

JSON_BYTES_MAX = 1 << 20
"""Of a body that is no scan."""

_NULL_ESCAPE = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")

_TIME_LEAST = datetime(1970, 1, 1, tzinfo=UTC)
_TIME_MOST = datetime(2262, 1, 1, tzinfo=UTC)
"""What nanoseconds in 64 bits can tell; all times of recon are between them."""


class ApiError(Exception):
    """Answered as JSON: `error` (the code), `message`, `timestamp`."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers


class ErrorBody(msgspec.Struct):
    error: str
    message: str
    timestamp: datetime


def answer(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON response of anything msgspec can write."""
    return Response(msgspec.json.encode(body), status, headers, media_type="application/json")


async def read_body(request: Request, bytes_max: int) -> bytes:
    """The body, read no further than `bytes_max`.

    Raises:
        ApiError: 413 when it is larger, 400 when it ended early.
    """
    too_large = ApiError(413, "too_large", f"the body is larger than {bytes_max} bytes")
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared) > bytes_max:
        raise too_large
    chunks: list[bytes] = []
    size_bytes = 0
    try:
        async for chunk in request.stream():
            chunks.append(chunk)
            size_bytes += len(chunk)
            if size_bytes > bytes_max:
                raise too_large
    except ClientDisconnect as error:
        raise ApiError(400, "invalid_request", "the body ended early") from error
    return b"".join(chunks)


async def read_json(request: Request, type_: type[T], *, bytes_max: int = JSON_BYTES_MAX) -> T:
    """The body as `type_`; an empty one is read as `{}`.

    Raises:
        ApiError: 400 with the reason, 413.
    """
    body = await read_body(request, bytes_max)
    if _NULL_ESCAPE.search(body):
        raise no_null()
    try:
        return msgspec.json.decode(body or b"{}", type=type_)
    except msgspec.ValidationError as error:
        raise ApiError(400, "invalid_request", str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(400, "invalid_json", f"the body is not valid JSON: {error}") from error


def no_null() -> ApiError:
    """The answer to a request with a null byte: the database takes one in no key, and gives back no row that has one."""
    return ApiError(400, "invalid_request", "the request holds a null byte; give printable text")


def number(query: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    """A whole number from the query. Raises: ApiError 400."""
    text = query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and least <= int(text) <= most):
        raise ApiError(400, "invalid_parameter", f"{name} must be a whole number from {least} to {most}")
    return int(text)


def choice(query: Mapping[str, str], name: str, choices: Sequence[str]) -> str | None:
    """One of `choices` from the query, or None when it is not there. Raises: ApiError 400."""
    text = query.get(name)
    if text is not None and text not in choices:
        raise ApiError(400, "invalid_parameter", f"{name} must be one of {', '.join(choices)}")
    return text


def time(query: Mapping[str, str], name: str) -> datetime | None:
    """A moment from the query, RFC 3339 with a zone; one before 1970 is as good as 1970. Raises: ApiError 400."""
    text = query.get(name)
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text.replace(" ", "+"))  # an unescaped plus sign arrives as a blank
        if moment.tzinfo is not None:
            return min(max(moment.astimezone(UTC), _TIME_LEAST), _TIME_MOST)
    except (ValueError, OverflowError):
        pass
    raise ApiError(400, "invalid_parameter", f"{name} must be a time with its zone, e.g. 2026-01-31T12:00:00Z")


def require_admin(request: Request, settings: Settings) -> None:
    """Let only the holder of the admin token pass.

    Raises:
        ApiError: 403 when no token is configured, 401 when the request has another one.
    """
    if settings.admin_token is None:
        raise ApiError(403, "admin_disabled", "this route needs an admin token; start recon with RECON_ADMIN_TOKEN")
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(token.strip().encode(), settings.admin_token.encode()):
        raise ApiError(
            401, "unauthorized", "this route needs the admin token", {"WWW-Authenticate": 'Bearer realm="recon"'}
        )


async def answer_error(_: Request, error: Exception) -> Response:
    """Exception handler for `ApiError`."""
    assert isinstance(error, ApiError)
    return answer(ErrorBody(error.code, str(error), datetime.now(UTC)), error.status, error.headers)


async def answer_routing(request: Request, error: Exception) -> Response:
    """Exception handler for what Starlette itself refuses: no such route, or another method."""
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase.lower()
    body = ErrorBody(phrase.replace(" ", "_"), f"{request.method} {request.url.path}: {phrase}", datetime.now(UTC))
    return answer(body, error.status_code, error.headers)


async def answer_store_error(_: Request, error: Exception) -> Response:
    """Exception handler for `StoreError`: the database's words go to the log, not to the caller."""
    logger.error("the database failed: %s", error)
    if isinstance(error, StoreUnavailable):
        unavailable = ErrorBody("unavailable", "the database cannot be reached; try again", datetime.now(UTC))
        return answer(unavailable, 503, {"Retry-After": "5"})
    return answer(ErrorBody("internal_error", "the database failed; the log has the details", datetime.now(UTC)), 500)


async def answer_unexpected(_: Request, error: Exception) -> Response:
    """Exception handler for all else; the server logs the traceback."""
    return answer(ErrorBody("internal_error", "unexpected error; the log has the details", datetime.now(UTC)), 500)
