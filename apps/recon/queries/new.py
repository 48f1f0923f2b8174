"""What is new since a time, with a cursor: everything once, in the order in which recon learned of it."""
# ruff: noqa: S608 (statements are put together from constants of this module; what a caller sends is bound)

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from apps.recon.queries.reading import QUERY_TIMEOUT, Reading

KINDS = ("host", "port")

_COLUMNS = {
    "host": "record::id(id) AS id, added_at, <string>added_at AS at, address, name, asn, city, region, country,"
    " first_seen, last_seen",
    "port": "record::id(id) AS id, added_at, <string>added_at AS at, host.address AS address, number, protocol, service,"
    " product, version, first_seen, last_seen",
}

# What is left of the moment where the last page ended, then what came later. Only the page itself is read as a whole.
# The cast keeps SurrealDB 2.3 off the index, so all rows are looked at; without it the answer would be wrong: an index
# holds times as text, where "30.5Z" comes before "30Z".
_PAGE = {
    kind: f"""
    SELECT {columns} FROM {kind} WITH INDEX {kind}_added_at WHERE added_at = <datetime>$at ORDER BY id {QUERY_TIMEOUT};
    LET $page = (SELECT id, added_at FROM {kind} WITH INDEX {kind}_added_at WHERE added_at > <datetime>$at
        ORDER BY added_at, id LIMIT $limit {QUERY_TIMEOUT});
    SELECT {columns} FROM $page.id {QUERY_TIMEOUT};"""
    for kind, columns in _COLUMNS.items()
}


class InvalidCursor(ValueError):
    """Not a cursor that a page gave."""


@dataclass(frozen=True, slots=True)
class Position:
    """Behind what to begin."""

    at: str
    """RFC 3339 with nanoseconds, as the database writes it."""
    behind: Any = None
    """Id of the last one of that moment that was seen; None: none of them."""

    @classmethod
    def of(cls, since: datetime) -> Position:
        """The first of what was added at that time or later."""
        return cls(since.astimezone(UTC).isoformat().replace("+00:00", "Z"))

    def encode(self, kind: str) -> str:
        text = msgspec.json.encode((kind, self.at, self.behind))
        return base64.urlsafe_b64encode(text).decode().rstrip("=")

    @classmethod
    def decode(cls, cursor: str, kind: str) -> Position:
        """Raises: InvalidCursor."""
        try:
            text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
            given, at, behind = msgspec.json.decode(text, type=tuple[str, str, str | list[str | int] | None])
            datetime.fromisoformat(at)
        except (binascii.Error, ValueError) as error:  # msgspec's errors are ValueErrors
            raise InvalidCursor("the cursor is not one that a page of this list gave") from error
        if given != kind:
            raise InvalidCursor(f"the cursor belongs to a list of {given}s")
        return cls(at, behind)


async def read_new(
    reading: Reading, kind: str, position: Position, limit: int
) -> tuple[list[dict[str, Any]], Position, bool]:
    """What was added behind `position`: the rows, the position behind them, and whether there are more now."""
    same, _, later = await reading(_PAGE[kind], at=position.at, limit=limit + 1)
    rows: list[dict[str, Any]] = [row for row in same if position.behind is None or row["id"] > position.behind]
    rows += later
    page = rows[:limit]
    if page:
        position = Position(page[-1]["at"], page[-1]["id"])
    for row in page:
        del row["at"], row["id"]
    return page, position, len(rows) > limit
