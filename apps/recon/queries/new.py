"""What is new since a time, with a cursor: everything once, in the order in which recon learned of it."""
# ruff: noqa: S608 (statements are put together from constants of this module; what a caller sends is bound)

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from apps.recon.queries.reading import QUERY_TIMEOUT, Reading

KINDS = ("host", "port")

_COLUMNS = {
    "host": "record::id(id) AS id, added_ns, time::from::nanos(added_ns) AS added_at, address, name, asn, city, region, country,"
    " first_seen, last_seen",
    "port": "record::id(id) AS id, added_ns, time::from::nanos(added_ns) AS added_at, host.address AS address, number, protocol, service,"
    " product, version, first_seen, last_seen",
}

# What is left of the moment where the last page ended, then what came later. Only the page itself is read as a whole.
_PAGE = {
    kind: f"""
    SELECT {columns} FROM {kind} WITH INDEX {kind}_added_ns WHERE added_ns = $at ORDER BY id {QUERY_TIMEOUT};
    LET $page = (SELECT id, added_ns FROM {kind} WITH INDEX {kind}_added_ns WHERE added_ns > $at
        ORDER BY added_ns, id LIMIT $limit {QUERY_TIMEOUT});
    SELECT {columns} FROM $page.id {QUERY_TIMEOUT};"""
    for kind, columns in _COLUMNS.items()
}


class InvalidCursor(ValueError):
    """Not a cursor that a page gave."""


@dataclass(frozen=True, slots=True)
class Position:
    """Behind what to begin."""

    at_ns: int
    """Nanoseconds since the epoch."""
    behind: Any = None
    """Id of the last one of that moment that was seen; None: none of them."""

    @classmethod
    def of(cls, since: datetime) -> Position:
        """The first of what was added at that time or later."""
        past = since - datetime(1970, 1, 1, tzinfo=UTC)
        return cls((past // timedelta(microseconds=1)) * 1_000)

    def encode(self, kind: str) -> str:
        text = msgspec.json.encode((kind, self.at_ns, self.behind))
        return base64.urlsafe_b64encode(text).decode().rstrip("=")

    @classmethod
    def decode(cls, cursor: str, kind: str) -> Position:
        """Raises: InvalidCursor."""
        try:
            text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
            given, at_ns, behind = msgspec.json.decode(text, type=tuple[str, int, str | list[str | int] | None])
        except (binascii.Error, ValueError) as error:  # msgspec's errors are ValueErrors
            raise InvalidCursor("the cursor is not one that a page of this list gave") from error
        if given != kind:
            raise InvalidCursor(f"the cursor belongs to a list of {given}s")
        return cls(at_ns, behind)


async def read_new(
    reading: Reading, kind: str, position: Position, limit: int
) -> tuple[list[dict[str, Any]], Position, bool]:
    """What was added behind `position`: the rows, the position behind them, and whether there are more now."""
    same, _, later = await reading(_PAGE[kind], at=position.at_ns, limit=limit + 1)
    rows: list[dict[str, Any]] = [row for row in same if position.behind is None or row["id"] > position.behind]
    rows += later
    page = rows[:limit]
    if page:
        position = Position(page[-1]["added_ns"], page[-1]["id"])
    for row in page:
        del row["added_ns"], row["id"]
    return page, position, len(rows) > limit
