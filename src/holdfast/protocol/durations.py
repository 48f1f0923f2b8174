"""Durations as people write them -> milliseconds, and back. Pure.

Two notations: ISO 8601 (`PT1H30M`) and friendly (`1h 30m`, `1 day, 02:30:00`, `2.5s`).
"""

from __future__ import annotations

import re
from fractions import Fraction

DAYS_MAX = 2_500_000
"""Keeps the end of every duration that begins today before the year 9999, the last one that dates can show."""
DURATION_MS_MAX = DAYS_MAX * 86_400_000

_DAY_NS = 86_400 * 10**9
# Largest first: the order in which a duration must name them.
_UNITS: tuple[tuple[int | None, str], ...] = (
    (None, "years year yrs yr y"),
    (None, "months month mos mo"),
    (7 * _DAY_NS, "weeks week wks wk w"),
    (_DAY_NS, "days day d"),
    (3_600 * 10**9, "hours hour hrs hr h"),
    (60 * 10**9, "minutes minute mins min m"),
    (10**9, "seconds second secs sec s"),
    (10**6, "milliseconds millisecond millis milli msecs msec ms"),
    (10**3, "microseconds microsecond micros micro usecs usec us µsecs µsec µs μsecs μsec μs"),
    (1, "nanoseconds nanosecond nanos nano nsecs nsec ns"),
)
_RANK = {name: rank for rank, (_, names) in enumerate(_UNITS) for name in names.split()}
_HOURS = _RANK["h"]
_SHOWN_MS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1))

_ITEM = re.compile(r"([0-9]+)(?:[.,]([0-9]*))?[ \t]*([a-zµμ]+)")
_CLOCK = re.compile(r"([0-9]+):([0-9]+):([0-9]+)(?:[.,]([0-9]{1,9}))?")
_SEPARATOR = re.compile(r",[ \t]+|[ \t]*")
_ISO_DATE = re.compile(r"([0-9]+)([YMWD])")
_ISO_TIME = re.compile(r"([0-9]+)(?:[.,]([0-9]{1,9}))?([HMS])")
_ISO_DATE_UNITS = {"Y": "y", "M": "mo", "W": "w", "D": "d"}
_ISO_TIME_UNITS = {"H": "h", "M": "m", "S": "s"}


def parse_duration_ms(text: str) -> int:
    """Milliseconds, rounded down.

    Raises:
        ValueError: not a duration, negative, in units that have no fixed length (months, years), or too long. The
            message is the reason.
    """
    unsigned, is_negative = _split_sign(text)
    if unsigned[:1] in ("P", "p"):
        total_ns = _iso_ns(unsigned[1:].upper())
    else:
        if unsigned is text and text.endswith("ago"):
            unsigned, is_negative = text.removesuffix("ago").rstrip(" \t"), True
        total_ns = _friendly_ns(unsigned)
    if is_negative:
        raise ValueError("it is negative")
    return checked_ms(total_ns // 10**6)


def checked_ms(duration_ms: int) -> int:
    """
    Raises:
        ValueError: too long.
    """
    if duration_ms > DURATION_MS_MAX:
        raise ValueError(_TOO_LONG)
    return duration_ms


_TOO_LONG = f"it is longer than {DAYS_MAX} days"


def friendly_duration(duration_ms: int) -> str:
    """Milliseconds as Restate's people-friendly text: `1d`, `1h 30m`, `500ms`, `0s`."""
    parts: list[str] = []
    for unit, unit_ms in _SHOWN_MS:
        count, duration_ms = divmod(duration_ms, unit_ms)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts) or "0s"


def _split_sign(text: str) -> tuple[str, bool]:
    return (text[1:], text[0] == "-") if text[:1] in ("+", "-") else (text, False)


def _friendly_ns(text: str) -> int:
    """`1 day, 2h 30m`, `1d 02:30:00.5`: items from the largest unit to the smallest."""
    if not text:
        raise ValueError("it is empty")
    total_ns, position, smallest = 0, 0, -1
    while position < len(text):
        clock = _CLOCK.match(text, position)
        if clock and smallest < _HOURS:
            hours, minutes, seconds, fraction = clock.groups()
            total_ns += _item_ns(hours, None, "h") + _item_ns(minutes, None, "m") + _item_ns(seconds, fraction, "s")
            position, smallest = clock.end(), len(_UNITS)
        else:
            item = _ITEM.match(text, position)
            if item is None:
                raise ValueError(f"expected a number with a unit, such as `2s` or `1h 30m`, at {text[position:]!r}")
            number, fraction, unit = item.groups()
            smallest = _next_rank(unit, smallest, item.group())
            total_ns += _item_ns(number, fraction, unit)
            position = item.end()
            if fraction is not None:
                smallest = len(_UNITS)  # only the last item may have a fraction
        position = _after_separator(text, position)
    return total_ns


def _after_separator(text: str, position: int) -> int:
    separator = _SEPARATOR.match(text, position)
    end = separator.end() if separator else position
    if end == len(text) and separator and "," in separator.group():
        raise ValueError("it ends with a comma")
    return end


def _next_rank(unit: str, smallest: int, item: str) -> int:
    rank = _RANK.get(unit)
    if rank is None:
        raise ValueError(f"{unit!r} is no unit; use d, h, m, s or ms, as in `2s` or `1h 30m`")
    if rank <= smallest:
        raise ValueError(f"{item!r} is out of place: units go from the largest to the smallest, each at most once")
    return rank


def _item_ns(number: str, fraction: str | None, unit: str) -> int:
    rank = _RANK[unit]
    unit_ns = _UNITS[rank][0]
    if unit_ns is None:
        raise ValueError("please use units of days or smaller")
    if len(number) > 30:
        raise ValueError(_TOO_LONG)
    total_ns = int(number) * unit_ns
    if fraction is None:
        return total_ns
    if rank < _HOURS:
        raise ValueError("only hours and smaller units may have a fraction")
    if not 1 <= len(fraction) <= 9:
        raise ValueError("a fraction has one to nine digits")
    return total_ns + int(Fraction(int(fraction), 10 ** len(fraction)) * unit_ns)


def _iso_ns(text: str) -> int:
    """What follows the `P`: date items, then `T` and time items."""
    total_ns, position, smallest = 0, 0, -1
    for pattern, units in ((_ISO_DATE, _ISO_DATE_UNITS), (_ISO_TIME, _ISO_TIME_UNITS)):
        if units is _ISO_TIME_UNITS:
            if not text.startswith("T", position):
                break
            position += 1
        count_before = position
        while item := pattern.match(text, position):
            groups = item.groups()
            fraction = groups[1] if len(groups) == 3 else None
            unit = units[groups[-1]]
            smallest = _next_rank(unit, smallest, item.group())
            total_ns += _item_ns(groups[0], fraction, unit)
            position = item.end()
            if fraction is not None:
                break
        if position == count_before and units is _ISO_TIME_UNITS:
            raise ValueError("nothing follows the `T`")
    if smallest < 0 or position != len(text):
        raise ValueError(f"expected a form such as PT2S or P1DT2H, but {text[position:]!r} remains")
    return total_ns
