"""Calls to the outside that may be repeated without harm: a key for the other side, and retry policies for ours."""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta
from typing import Any, NoReturn

from restate import RunOptions, TerminalError
from restate.exceptions import RetryableError

EXTERNAL_CALL: RunOptions[Any] = RunOptions(
    max_attempts=4,
    initial_retry_interval=timedelta(seconds=1),
    retry_interval_factor=2,
    max_retry_interval=timedelta(seconds=4),
)
"""Again after 1, 2 and 4 s, then the step has failed: for what somebody waits for, or can do without."""

UNTIL_DONE: RunOptions[Any] = RunOptions(
    initial_retry_interval=timedelta(milliseconds=500),
    retry_interval_factor=2,
    max_retry_interval=timedelta(minutes=5),
)
"""For ever, at last every five minutes: for what must happen. It ends by TerminalError or a cancellation only."""

ONE_ATTEMPT: RunOptions[Any] = RunOptions(max_attempts=1)
"""No retry after an error: for what the other side cannot recognise as a repetition. When the process dies in the
middle of it, it still runs again; nothing but a key prevents the second effect then."""

PASSING_STATUS_CODES = frozenset({408, 425, 429})
"""The 4xx answers that mean "not now" (RFC 9110, 8470, 6585)."""


def idempotency_key(scope: str, *identity: object) -> str:
    """A key by which the other side recognises the same request; equal arguments give equal keys.

        key = idempotency_key("charge", order_id)                # once per order, whoever asks and how often
        key = idempotency_key("charge", ctx.uuid())              # once per time that this line is reached
        payment = await ctx.run_typed("charge", charge, EXTERNAL_CALL, key, order)

    A step that was running when the process died runs again, so every call that costs or changes something needs one.
    Make it outside the step: drawn inside, a repetition would have another one. Not needed for calls of services on
    the same engine: those happen once anyway.

    Args:
        scope: What is done; it stays readable at the start of the key.
        identity: Values that JSON or `str` can write, in an order that matters.
    Returns:
        `scope-` and 32 hexadecimal digits.
    """
    text = json.dumps([scope, *identity], default=str, separators=(",", ":"))
    return f"{scope}-{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def raise_for_status(status_code: int, message: str = "", *, retry_after_s: float | None = None) -> None:
    """In a step: what an HTTP answer means for retries. Does nothing for codes below 400.

    Args:
        status_code: Of the answer.
        message: What was asked, and what came back.
        retry_after_s: From the answer's `retry-after`, in seconds; None leaves it to the step's policy.
    Raises:
        TerminalError: With that code: the request is wrong, and will be wrong again (4xx).
        RetryableError: It may work later: 408, 425, 429 and all from 500 on. Connection errors are retried as they are.
    """
    if status_code >= 400:
        _raise(status_code, message or f"answered with {status_code}", retry_after_s)


def _raise(status_code: int, message: str, retry_after_s: float | None) -> NoReturn:
    if status_code < 500 and status_code not in PASSING_STATUS_CODES:
        raise TerminalError(message, status_code=status_code)
    delay = None if retry_after_s is None else timedelta(seconds=retry_after_s)
    raise RetryableError(message, status_code=status_code, retry_after=delay)
