"""Paths, query strings and JSON bodies of the admin API -> values. Refusals are those of Restate's admin API.

A request of the wrong form is answered in plain text: 400 (path, query, JSON), 413, 415 and 422 (JSON of the wrong
shape). A request that asks for something that cannot be is an `InvalidRequest`, which is answered in JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast
from urllib.parse import unquote_to_bytes

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from holdfast.core import ids
from holdfast.errors import InvalidRequest
from holdfast.protocol.durations import parse_duration_ms

Endpoint = Callable[[Request], Awaitable[Response]]

INDEX_MAX = (1 << 32) - 1
"""Largest index of a journal entry."""

_WRONG_SHAPE = "Failed to deserialize the JSON body into the target type"
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*")
_URI = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*://[^/?#\s]+)?[^\s\x00-\x1f\x7f\"<>\\^`{}]*")


class Resource:
    """One path: an endpoint per method, 405 with `Allow` for all others."""

    def __init__(self, **endpoints: Endpoint) -> None:
        self.endpoints = endpoints
        self._allowed = ",".join(["GET,HEAD" if method == "GET" else method for method in endpoints])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        endpoint = self.endpoints.get(method)
        if endpoint is None:
            raise HTTPException(405, headers={"allow": self._allowed})
        response = await endpoint(Request(scope, receive))
        await response(scope, receive, send)


class RawPaths:
    """Routes by the path as it was sent, so that `%2F` in a key or a service name is no slash."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and b"%" in (raw := scope.get("raw_path") or b""):
            scope = {**scope, "path": raw.partition(b"?")[0].decode("latin-1")}
        await self._app(scope, receive, send)


def path_text(request: Request, name: str) -> str:
    """A part of the path, decoded.

    Raises:
        HTTPException: 400, not UTF-8.
    """
    try:
        return unquote_to_bytes(request.path_params[name]).decode()
    except UnicodeDecodeError:
        raise HTTPException(400, f"Invalid URL: Invalid UTF-8 in `{name}`") from None


def path_id(request: Request, name: str, kind: str) -> str:
    """An id in the path.

    Args:
        kind: `dp` or `sub`.
    Raises:
        HTTPException: 400, malformed.
    """
    text = path_text(request, name)
    try:
        ids.check_resource(text, kind)
    except ids.MalformedId as error:
        raise HTTPException(400, f"Invalid URL: Cannot parse `{name}` with value `{text}`: {error}") from None
    return text


class Query:
    """The query string. A parameter may be given once."""

    def __init__(self, request: Request) -> None:
        self._values = request.query_params

    def text(self, name: str) -> str | None:
        found = self._values.getlist(name)
        if len(found) > 1:
            raise _bad_query(f"duplicate field `{name}`")
        return found[0] if found else None

    def flag(self, name: str) -> bool:
        """False when it is missing."""
        text = self.text(name)
        if text not in (None, "true", "false"):
            raise _bad_query(f"{name}: provided string was not `true` or `false`")
        return text == "true"

    def index(self, name: str) -> int:
        """Of a journal entry; 0 when it is missing."""
        text = self.text(name)
        if text is None:
            return 0
        if not text:
            raise _bad_query(f"{name}: cannot parse integer from empty string")
        digits = text.removeprefix("+")
        if not digits.isascii() or not digits.isdigit():
            raise _bad_query(f"{name}: invalid digit found in string")
        if len(digits) > 1_000 or int(digits) > INDEX_MAX:
            raise _bad_query(f"{name}: number too large to fit in target type")
        return int(digits)

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        """One of `choices`, whose first letter may be a capital one; the first of them when it is missing."""
        text = self.text(name)
        if text is None:
            return choices[0]
        if text not in (known := [spelt for choice in choices for spelt in (choice.capitalize(), choice)]):
            listed = ", ".join(f"`{spelt}`" for spelt in known)
            raise _bad_query(f"{name}: unknown variant `{text}`, expected one of {listed}")
        return text.lower()


def _bad_query(reason: str) -> HTTPException:
    return HTTPException(400, f"Failed to deserialize query string: {reason}")


def wrong_shape(reason: str) -> HTTPException:
    """The body is JSON, but not what it should be."""
    return HTTPException(422, f"{_WRONG_SHAPE}: {reason}")


async def json_body(request: Request, bytes_max: int) -> Any:
    """The body.

    Raises:
        HTTPException: 415 not declared as JSON, 413 larger than `bytes_max`, 400 not JSON.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not re.fullmatch(r"application/\S+\+json", media_type):
        raise HTTPException(415, "Expected request with `Content-Type: application/json`")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > bytes_max:
            raise HTTPException(413, "Failed to buffer the request body: length limit exceeded")
    try:
        text = body.decode()
        document: Any = json.loads(text, parse_constant=_refuse_constant)
        if "\\u" in text:
            # Half a surrogate pair is valid in Python's JSON, but no text that can be stored.
            json.dumps(document, ensure_ascii=False).encode()
    except RecursionError:
        raise HTTPException(400, "Failed to parse the request body as JSON: recursion limit exceeded") from None
    except ValueError as error:
        raise HTTPException(400, f"Failed to parse the request body as JSON: {error}") from None
    return document


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON value")


async def json_fields(request: Request, bytes_max: int) -> Fields:
    """The body, an object. Raises as `json_body`, and 422 for anything else."""
    document = await json_body(request, bytes_max)
    if not isinstance(document, dict):
        raise wrong_shape(f"expected an object, got {_kind(document)}")
    return Fields(cast(dict[str, Any], document))


class Fields:
    """An object of a JSON body. Null counts as missing, unknown fields are ignored.

    Every method raises 422 when the value is of another type.
    """

    def __init__(self, document: Mapping[str, Any], place: str = "") -> None:
        self._document = document
        self._place = place

    def __contains__(self, name: str) -> bool:
        return self._document.get(name) is not None

    def _get(self, name: str, kind: type, expected: str) -> Any:
        value = self._document.get(name)
        if value is None or (type(value) is kind):  # not isinstance: a bool is an int
            return value
        raise self.refused(name, f"expected {expected}, got {_kind(value)}")

    def refused(self, name: str, reason: str) -> HTTPException:
        return wrong_shape(f"{self._place}{name}: {reason}")

    def text(self, name: str) -> str | None:
        return self._get(name, str, "a string")

    def required_text(self, name: str) -> str:
        found = self.text(name)
        if found is None:
            raise wrong_shape(f"missing field `{self._place}{name}`")
        return found

    def flag(self, name: str) -> bool | None:
        return self._get(name, bool, "a boolean")

    def object(self, name: str) -> dict[str, Any] | None:
        return self._get(name, dict, "an object")

    def list(self, name: str) -> list[Any] | None:
        return self._get(name, list, "a list")

    def text_map(self, name: str) -> dict[str, str] | None:
        """An object of strings."""
        found = self.object(name)
        if found is None:
            return None
        values = Fields(found, f"{self._place}{name}.")
        return {key: values.required_text(key) for key in found}

    def headers(self, name: str) -> dict[str, str] | None:
        """An object of HTTP headers; their names in lower case."""
        found = self.text_map(name)
        if found is None:
            return None
        for header, value in found.items():
            if not _HEADER_NAME.fullmatch(header):
                raise self.refused(f"{name}.{header}", "this is no name of a header")
            if not _HEADER_VALUE.fullmatch(value):
                raise self.refused(f"{name}.{header}", "a header value is printable ASCII text")
        return {header.lower(): value for header, value in found.items()}

    def duration_ms(self, name: str) -> int | None:
        """A text like `3h`, `1d 12h` or `PT3H`, in milliseconds."""
        text = self.text(name)
        if text is None:
            return None
        try:
            return 0 if text == "0" else parse_duration_ms(text)
        except ValueError as error:
            raise self.refused(name, f"no duration such as `3h`, `1d 12h` or `PT3H`: {error}") from None

    def uri(self, name: str) -> str | None:
        """An absolute address.

        Raises:
            InvalidRequest: it is not absolute.
        """
        text = self.text(name)
        if text is None:
            return None
        if not text or text.endswith("://") or not _URI.fullmatch(text) or ":///" in text:
            raise self.refused(name, "this is no URI")
        if "://" not in text:
            raise InvalidRequest(
                f"The request field '{name}' is invalid. Reason: The provided uri {text} is not absolute, only "
                "absolute URIs can be used.",
                hint="write it with its scheme, like http://localhost:9080",
            )
        return text


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case str():
            return "a string"
        case int() | float():
            return "a number"
        case list():
            return "a list"
        case _:
            return "an object"
