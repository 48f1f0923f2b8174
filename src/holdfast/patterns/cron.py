"""When a schedule fires: cron expressions in a time zone. Pure; the virtual object is in `schedules`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from itertools import islice, takewhile
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

SHORTCUTS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * SUN",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}


class InvalidSchedule(ValueError):
    """An expression or a time zone that does not exist; the message says what is wrong with it."""


class Cron:
    """Times of a cron expression.

    Args:
        expression: Five fields (minute, hour, day of month, month, day of week) as Debian's cron reads them, six with
            seconds before them, or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`.
        time_zone: IANA name, `Europe/Brussels`. A time that a clock change skips fires right after the change; one that
            comes twice fires once, unless the expression fires every hour or more often.
    Raises:
        InvalidSchedule: either of them.
    """

    def __init__(self, expression: str, time_zone: str = "UTC") -> None:
        self._expression = SHORTCUTS.get(expression.strip().lower(), expression)
        try:
            # UTC is known without a database of time zones, which a small machine may lack.
            self._zone: tzinfo = UTC if time_zone == "UTC" else ZoneInfo(time_zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise InvalidSchedule(f"{time_zone!r} is no time zone; give an IANA name such as Europe/Brussels") from None
        try:
            CronSim(self._expression, datetime(2026, 1, 1, tzinfo=self._zone))
        except CronSimError as error:
            raise InvalidSchedule(
                f"{expression!r} is no cron expression: {error}; for instance 30 2 * * MON-FRI"
            ) from None

    def after(self, at_ms: int) -> Iterator[int]:
        """Times later than `at_ms`, in order, as milliseconds since the epoch. None if it never fires again.

        It never does once the calendar is at its end, in the year 9999.
        """
        try:
            begin = datetime.fromtimestamp(at_ms / 1000, UTC).astimezone(self._zone)
            for due in CronSim(self._expression, begin):
                yield round(due.timestamp() * 1000)
        except OverflowError:
            return

    def next_ms(self, at_ms: int) -> int | None:
        """The first time later than `at_ms`."""
        return next(self.after(at_ms), None)

    def between(self, after_ms: int, until_ms: int, limit: int) -> list[int]:
        """The first `limit` times later than `after_ms`, `until_ms` included."""
        return list(islice(takewhile(lambda due_ms: due_ms <= until_ms, self.after(after_ms)), limit))
