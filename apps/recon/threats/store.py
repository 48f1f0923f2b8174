"""Threats in SurrealDB. The virtual objects own the truth; rows are for lists, and for histories too old for state."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import msgspec

from apps.recon.store import Store
from apps.recon.threats.model import ThreatRecord


class ThreatRow(msgspec.Struct):
    """A threat in a list."""

    threat_id: str
    severity: str
    title: str
    updates: int
    host_count: int
    first_seen: datetime
    last_seen: datetime


class ThreatStore:
    """Threats and archives, on recon's database."""

    def __init__(self, store: Store) -> None:
        self.base = store

    async def put(self, record: ThreatRecord) -> None:
        """Write the row of a threat, as its object now is."""
        await self.base.write(
            "UPSERT type::thing('threat', $id) CONTENT $row RETURN NONE",
            id=record.threat_id,
            row={
                "threat_id": record.threat_id,
                "severity": record.severity,
                "title": record.title,
                "updates": record.updates,
                "host_count": record.host_count,
                "first_seen": datetime.fromtimestamp(record.first_seen_ms / 1000, UTC),
                "last_seen": datetime.fromtimestamp(record.last_seen_ms / 1000, UTC),
            },
        )

    async def threats(self, *, limit: int, offset: int) -> list[ThreatRow]:
        """Those that anybody still reports, last seen first."""
        (rows,) = await self.base.read(
            "SELECT * FROM threat WHERE updates > 0 ORDER BY last_seen DESC, threat_id LIMIT $limit START $offset",
            limit=limit,
            offset=offset,
        )
        return [msgspec.convert({key: row[key] for key in ThreatRow.__struct_fields__}, ThreatRow) for row in rows]

    async def write_chunk(self, kind: str, key: str, entries: list[Any]) -> None:
        """Keep entries of a history that its object lets go. `key` is `<object's key>:<number of the chunk>`."""
        await self.base.write(
            "INSERT IGNORE INTO history_chunk { id: $id, entries: $entries } RETURN NONE",
            id=[kind, key],
            entries=json.dumps(entries),
        )

    async def read_chunk(self, kind: str, key: str) -> list[Any] | None:
        """The entries of a chunk, or None."""
        (entries,) = await self.base.read(
            "SELECT VALUE entries FROM ONLY type::thing('history_chunk', $id)", id=[kind, key]
        )
        return None if entries is None else json.loads(entries)

    async def is_registered(self, public_key: str) -> bool:
        """Whether somebody vouched for this scanner key, and has not revoked it."""
        (rows,) = await self.base.read(
            "SELECT VALUE public_key FROM scanner_key WHERE public_key = $key AND revoked_at = NONE", key=public_key
        )
        return bool(rows)
