"""The `delay` query parameter -> milliseconds. Pure.

ISO 8601 (`PT1H30M`), friendly (`1h 30m`, `1 day, 02:30:00`, `2.5s`), and a bare whole number of milliseconds. Restate
refuses the last one, although its Python client sends it; accepting it is our extension.
"""

from __future__ import annotations

from holdfast.errors import InvalidRequest
from holdfast.protocol.durations import DAYS_MAX, DURATION_MS_MAX, checked_ms, parse_duration_ms

DELAY_DAYS_MAX = DAYS_MAX


def parse_delay_ms(text: str) -> int:
    """Milliseconds from now, rounded down.

    Raises:
        InvalidRequest: not a duration, negative, in units that have no fixed length (months, years), or too long.
    """
    try:
        if text.isascii() and text.isdigit():
            return checked_ms(
                int(text) if len(text) < 30 else DURATION_MS_MAX + 1
            )  # Python refuses thousands of digits
        return parse_duration_ms(text)
    except ValueError as error:
        raise InvalidRequest(f"bad delay query parameter, must be a ISO8601 duration: {error}") from None
