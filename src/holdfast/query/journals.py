"""`sys_journal` and `sys_journal_events`. A stored row holds the frames of one commit; each frame is an entry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from holdfast.protocol import messages as m
from holdfast.protocol.wire import split
from holdfast.query import entries, failures
from holdfast.query.conditions import Condition, Filterable
from holdfast.query.entries import Surroundings
from holdfast.query.invocations import HAS_JOURNAL, OUTPUT_ENTRY
from holdfast.query.reading import Reading
from holdfast.query.tables import Listed, Selected, as_stored, computed, partition_key_of_id

_ENTRY_VERSION = 2
_FULL_TEXT = frozenset(("entry_json", "entry_lite_json"))
_BODIES = _FULL_TEXT | {"name", "raw"}

_Part = tuple[int, bytes]
"""(when stored, frames)."""


def _entries(reading: Reading, columns: frozenset[str], condition: Condition | None) -> Iterator[Mapping[str, Any]]:
    where, values = ("1", ()) if condition is None else (condition.sql, condition.values)
    invocations = reading.rows(
        "SELECT i.seq, i.id, i.created_at_ms, i.modified_at_ms, i.head, "  # noqa: S608 ours; values are bound
        f"{OUTPUT_ENTRY} FROM invocation i WHERE {HAS_JOURNAL} AND {where}",
        values,
    )
    for seq, invocation_id, created_at_ms, modified_at_ms, head, output in invocations:
        yield from _of_one(reading, columns, seq, invocation_id, (created_at_ms, head), (modified_at_ms, output))


def _of_one(
    reading: Reading, columns: frozenset[str], seq: int, invocation_id: str, first: _Part, last: _Part
) -> Iterator[Mapping[str, Any]]:
    stored = reading.rows(
        "SELECT j.stored_at_ms, j.frames FROM journal j WHERE j.seq = ? ORDER BY j.first_index", (seq,)
    )
    parts: list[_Part] = [first, *((at_ms, frames) for at_ms, frames in stored), last]
    around = Surroundings(_invocation_ids(parts) if columns & _FULL_TEXT else {}, reading.snapshot.services)
    partition_key = partition_key_of_id(invocation_id) if "partition_key" in columns else None
    index = 0
    for at_ms, frames in parts:
        for message_type, body in split(frames):
            row: dict[str, Any] = {
                "partition_key": partition_key,
                "id": invocation_id,
                "index": index,
                "entry_type": m.entry_type_name(message_type),
                "raw_length": len(body),
                "version": _ENTRY_VERSION,
                "appended_at": at_ms,
            }
            if columns & _BODIES:
                row |= _body(columns, message_type, body, around)
            yield row
            index += 1


def _invocation_ids(parts: list[_Part]) -> dict[int, str]:
    """Of those called, by the completion that told the caller."""
    told = (entries.told_invocation_id(kind, body) for _, frames in parts for kind, body in split(frames))
    return dict(one for one in told if one is not None)


def _body(columns: frozenset[str], message_type: int, body: bytes, around: Surroundings) -> dict[str, Any]:
    return {
        "name": entries.entry_name(message_type, body),
        "raw": body,
        "entry_json": entries.entry_json(message_type, body, around) if "entry_json" in columns else None,
        "entry_lite_json": entries.entry_lite_json(message_type, body, around)
        if "entry_lite_json" in columns
        else None,
    }


SYS_JOURNAL = Listed(_entries, {"id": Filterable("i.id")})

SYS_JOURNAL_EVENTS = Selected(
    "journal_event e JOIN invocation i ON i.seq = e.seq",
    "1",
    {
        "partition_key": computed("i.id", partition_key_of_id),
        "id": as_stored("i.id", "text"),
        "after_journal_entry_index": as_stored("max(0, e.after_index - 1)", "number"),
        "appended_at": as_stored("e.at_ms", "time"),
        "event_type": as_stored("json_extract(e.event, '$.ty')", "text"),
        "event_json": computed("e.event", failures.event_json),
    },
)
