"""Where the next page of jobs begins, as an opaque text."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime

import msgspec


class InvalidCursor(ValueError):
    """Not a cursor that a page of jobs gave."""


def write_cursor(order_by: str, at: str, job_id: str) -> str:
    """Behind the job with this id, whose column `order_by` is the time `at`, as the database writes it."""
    return base64.urlsafe_b64encode(msgspec.json.encode((order_by, at, job_id))).decode().rstrip("=")


def read_cursor(cursor: str, order_by: str) -> tuple[str, str]:
    """The time and the id.

    Raises:
        InvalidCursor: none of ours, or one of another order.
    """
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        column, at, job_id = msgspec.json.decode(text, type=tuple[str, str, str])
        datetime.fromisoformat(at)
    except (binascii.Error, ValueError) as error:  # msgspec's errors are ValueErrors
        raise InvalidCursor("the cursor is not one that a page of jobs gave") from error
    if column != order_by:
        raise InvalidCursor(f"the cursor belongs to a list ordered by {column}")
    return at, job_id
