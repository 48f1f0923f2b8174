"""Answers of the ingress: headers and bodies as a Restate server writes them. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from holdfast.core.model import Failure, Receipt

Headers = list[tuple[bytes, bytes]]

# Where pages of other origins were allowed to call: they may, with credentials, as on a Restate server. Same on every
# answer, so that caches keep answers to different origins apart.
CORS: Headers = [
    (b"vary", b"origin, access-control-request-method, access-control-request-headers"),
    (b"access-control-allow-credentials", b"true"),
]
JSON: tuple[bytes, bytes] = (b"content-type", b"application/json")

# RFC 9110: these answers never have a body.
BODYLESS_STATUSES = frozenset({204, 304})


def error_body(code: int, message: str, source: str, metadata: Mapping[str, str] | None = None) -> bytes:
    """Error JSON.

    Args:
        source: `ingress`: the request was refused; `invocation`: the invocation ended with this failure.
    """
    error: dict[str, Any] = {"code": code, "message": message}
    if metadata:
        error["metadata"] = dict(sorted(metadata.items()))
    error["source"] = source
    # A message may hold half of a surrogate pair, which UTF-8 cannot carry.
    return json.dumps(error, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


STATUS_MAX = 599
"""The largest status that every ASGI server can send, although the protocol allows three digits."""


def failure_status(failure: Failure, status_max: int = STATUS_MAX) -> int:
    """The HTTP status that shows a failure, or 500 where there is none for its code."""
    return failure.code if 200 <= failure.code <= status_max else 500  # 1xx only announces another answer


def receipt_body(receipt: Receipt) -> bytes:
    """What a send is answered with. Built by hand: an id needs no escaping, and this is a hot path."""
    when = ""
    if receipt.execution_time_ms is not None:
        seconds, millis = divmod(receipt.execution_time_ms, 1000)
        instant = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        # Nine digits or none, as the server writes them, although the clock of a timer counts milliseconds.
        fraction = f".{millis:03d}000000" if millis else ""
        when = f'"executionTime":"{instant}{fraction}Z",'
    status = "Accepted" if receipt.is_new else "PreviouslyAccepted"
    return f'{{"invocationId":"{receipt.invocation_id}",{when}"status":"{status}"}}'.encode()


def lookup_body(invocation_id: str) -> bytes:
    return f'{{"invocationId":"{invocation_id}"}}'.encode()


def health_body(services: Mapping[str, Any]) -> bytes:
    return json.dumps({"services": list(services)}, separators=(",", ":")).encode()


def expires(expires_at_ms: int) -> tuple[bytes, bytes]:
    """The header that tells until when a stored result is kept."""
    instant = datetime.fromtimestamp(expires_at_ms / 1000, UTC).isoformat(timespec="milliseconds")
    return b"idempotency-expires", instant.encode()


def preflight(request: Mapping[bytes, bytes]) -> Headers:
    """Headers that allow a page whatever it asks for."""
    headers: Headers = []
    for asked, allowed in (
        (b"access-control-request-method", b"access-control-allow-methods"),
        (b"access-control-request-headers", b"access-control-allow-headers"),
    ):
        if asked in request:
            headers.append((allowed, request[asked]))
    return headers
