"""What a handler was called with, where the SDK does not check it."""

from __future__ import annotations

from typing import TypeVar

from restate import TerminalError

T = TypeVar("T")


def required(request: T | None) -> T:
    """The request. The SDK hands an empty body on as None, and what comes of that would be retried for ever.

    Raises:
        TerminalError: 400, there is none.
    """
    if request is None:
        raise TerminalError("this handler needs a request: a JSON object as the body", status_code=400)
    return request
