"""Answers as JSON, whatever handlers have put into them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Protocol, cast

from starlette.responses import Response


class Rendered(Protocol):
    """Everything that is answered."""

    def to_json(self) -> dict[str, Any]: ...


def json_response(
    value: Rendered | dict[str, Any],
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    media_type: str = "application/json",
) -> Response:
    """An answer. `no-store`: the same question may be answered differently a moment later."""
    document = value if isinstance(value, dict) else value.to_json()
    return Response(
        json_bytes(document), status, headers={"cache-control": "no-store", **(headers or {})}, media_type=media_type
    )


def json_bytes(document: Any) -> bytes:
    """JSON of any value that came from a handler: Python reads and writes NaN and halves of surrogate pairs in JSON,
    which others cannot read. Numbers that are none become text, halves become U+FFFD."""
    try:
        text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:
        text = json.dumps(_without_nan(document), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def _without_nan(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return str(value)
        case dict():
            return {name: _without_nan(item) for name, item in cast("dict[str, Any]", value).items()}
        case list():
            return [_without_nan(item) for item in cast("list[Any]", value)]
        case _:
            return value
