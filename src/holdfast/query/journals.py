"""`sys_journal` and `sys_journal_events`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

from holdfast.protocol import messages as m
from holdfast.protocol.wire import split
from holdfast.query import entries, failures
from holdfast.query.conditions import Condition, Filterable
from holdfast.query.entries import Surroundings
from holdfast.query.invocations import HAS_JOURNAL, OUTPUT_ENTRY
from holdfast.query.reading import Reading, Row
from holdfast.query.tables import Selected, as_stored, computed, partition_key_of_id

_ENTRY_VERSION = 2
_FULL_TEXT = frozenset(("entry_json", "entry_lite_json"))

_CHEAP = ("partition_key", "id", "index", "entry_type", "raw", "raw_length", "version", "appended_at")
"""Columns that cost nothing to have; the others are made when they are asked for."""

_Part = tuple[int, bytes]
"""(when stored, frames)."""
_Make = Callable[[int, bytes, Surroundings], str | None]

_MADE: dict[str, _Make] = {
    "name": lambda message_type, body, _around: entries.entry_name(message_type, body),
    "entry_json": entries.entry_json,
    "entry_lite_json": entries.entry_lite_json,
}


class _Journal:
    """Every frame is a row. A stored row holds those of one commit, so they are taken apart here."""

    filterable: Mapping[str, Filterable] = {"id": Filterable("i.id")}

    def rows(self, reading: Reading, columns: Sequence[str], condition: Condition | None) -> Iterator[Row]:
        where, values = ("1", ()) if condition is None else (condition.sql, condition.values)
        invocations = reading.rows(
            "SELECT i.seq, i.id, i.created_at_ms, i.modified_at_ms, i.head, "  # noqa: S608 ours; values are bound
            f"{OUTPUT_ENTRY} FROM invocation i WHERE {HAS_JOURNAL} AND {where}",
            values,
        )
        made = [name for name in columns if name in _MADE]
        places = [*_CHEAP, *made]
        # One more at the end, which is null.
        select = _selected([places.index(name) if name in places else len(places) for name in columns])
        needs_ids = not _FULL_TEXT.isdisjoint(columns)
        for seq, invocation_id, created_at_ms, modified_at_ms, head, output in invocations:
            parts = self._parts(reading, seq, (created_at_ms, head), (modified_at_ms, output))
            ids = _invocation_ids(parts) if needs_ids else {}
            around = Surroundings(ids, reading.snapshot.services)
            for cheap in _frames(parts, invocation_id):
                yield select((*cheap[1:], *[_MADE[name](cheap[0], cheap[5], around) for name in made], None))

    @staticmethod
    def _parts(reading: Reading, seq: int, first: _Part, last: _Part) -> list[_Part]:
        stored = reading.rows(
            "SELECT j.stored_at_ms, j.frames FROM journal j WHERE j.seq = ? ORDER BY j.first_index", (seq,)
        )
        return [first, *((at_ms, frames) for at_ms, frames in stored), last]


def _frames(parts: list[_Part], invocation_id: str) -> Iterator[tuple[Any, ...]]:
    """Message type, and what `_CHEAP` names."""
    partition_key = partition_key_of_id(invocation_id)
    index = 0
    for at_ms, frames in parts:
        for message_type, body in split(frames):
            kind = m.entry_type_name(message_type)
            yield message_type, partition_key, invocation_id, index, kind, body, len(body), _ENTRY_VERSION, at_ms
            index += 1


def _selected(places: list[int]) -> Callable[[Row], Row]:
    if len(places) < 2:
        return lambda row: tuple([row[place] for place in places])
    return itemgetter(*places)


def _invocation_ids(parts: list[_Part]) -> dict[int, str]:
    """Of those called, by the completion that told the caller."""
    told = (entries.told_invocation_id(kind, body) for _, frames in parts for kind, body in split(frames))
    return dict(one for one in told if one is not None)


SYS_JOURNAL = _Journal()

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
