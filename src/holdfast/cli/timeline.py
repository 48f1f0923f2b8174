"""One invocation as text: what it is, and its journal as a timeline. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.runtime.introspect import InvocationInfo, JournalEntryInfo

_DETAIL_CHARS_MAX = 100


def ago(duration_ms: int) -> str:
    """A duration with the precision that a glance needs: `850 ms`, `12.3 s`, `4 min`, `3.5 h`, `2.1 d`."""
    if duration_ms < 1_000:
        return f"{duration_ms} ms"
    if duration_ms < 60_000:
        return f"{duration_ms / 1_000:.1f} s"
    if duration_ms < 3_600_000:
        return f"{duration_ms / 60_000:.1f} min"
    if duration_ms < 86_400_000:
        return f"{duration_ms / 3_600_000:.1f} h"
    return f"{duration_ms / 86_400_000:.1f} d"


def description(info: InvocationInfo, entries: Sequence[JournalEntryInfo], now_ms: int) -> str:
    """What an invocation is and how it stands, a fact per line."""
    created = datetime.fromtimestamp(info.created_at_ms / 1_000, UTC)
    lines = [f"{info.id}  {info.target}", _standing(info, entries, now_ms)]
    lines.append(f"created {created:%Y-%m-%d %H:%M:%S} UTC, {ago(now_ms - info.created_at_ms)} ago, by {_caller(info)}")
    if info.idempotency_key is not None:
        lines.append(f"idempotency key {info.idempotency_key}")
    if info.last_failure and info.status != "completed":
        first, *further = info.last_failure.splitlines()
        # What a paused one says is how to go on.
        lines += [f"last failure: {first}", *(f"  {line}" for line in further if info.status == "paused")]
    return "\n".join(lines)


def timeline(
    info: InvocationInfo, entries: Sequence[JournalEntryInfo], events: Sequence[Mapping[str, Any]] = ()
) -> str:
    """The journal, one entry per line, with the time since the invocation was created.

    Results hang under commands; failed attempts and pauses (`events`) stand where they happened, marked with `!`.
    """
    if not entries:
        return "(no journal)"
    rows: list[tuple[int, str, str]] = []
    waiting = list(events)
    for entry in entries:
        while waiting and waiting[0]["at_ms"] < entry.appended_at_ms:
            rows.append(_event(waiting.pop(0)))
        rows.append((entry.appended_at_ms, str(entry.index), _entry(entry, info.created_at_ms)))
    rows += [_event(event) for event in waiting]
    lines = [(_since(info.created_at_ms, at_ms), mark, text) for at_ms, mark, text in rows]
    widths = [max(len(line[column]) for line in lines) for column in (0, 1)]
    return "\n".join(f"{at:>{widths[0]}}  {mark:>{widths[1]}}  {text}".rstrip() for at, mark, text in lines)


def _standing(info: InvocationInfo, entries: Sequence[JournalEntryInfo], now_ms: int) -> str:
    match info.status:
        case "completed":
            ended_ms = info.completed_at_ms or info.modified_at_ms
            outcome = info.completion_failure or info.completion_result or "ended"
            return f"completed: {outcome}, after {ago(max(0, ended_ms - info.created_at_ms))}"
        case "scheduled" if info.scheduled_start_at_ms is not None:
            return f"scheduled: starts {_when(info.scheduled_start_at_ms, now_ms)}"
        case "backing-off" if info.next_retry_at_ms is not None:
            retry = _when(info.next_retry_at_ms, now_ms)
            return f"backing-off: attempt {info.retry_count} failed, the next starts {retry}"
        case "suspended" if info.waiting_for:
            return f"suspended: waits for {', '.join(_awaited(one, entries) for one in info.waiting_for)}"
        case "pending":
            return f"pending: another invocation holds key {info.key}"
        case status:
            return status


def _awaited(what: str, entries: Sequence[JournalEntryInfo]) -> str:
    """`completion 1` -> `Sleep "tea" (completion 1)`, when the journal tells which command that is."""
    for entry in entries:
        if entry.entry_type.startswith("Command") and what == f"completion {entry.completion_id}":
            return f"{_title(entry)} ({what})"
    return what


def _when(at_ms: int, now_ms: int) -> str:
    return f"in {ago(at_ms - now_ms)}" if at_ms > now_ms else "now"


def _since(created_at_ms: int, at_ms: int) -> str:
    return f"+{ago(max(0, at_ms - created_at_ms))}"


def _caller(info: InvocationInfo) -> str:
    if info.restarted_from is not None:
        return f"restart of {info.restarted_from}"
    if info.invoked_by_id is None:
        return info.invoked_by
    return f"{info.invoked_by_target or info.invoked_by} {info.invoked_by_id}"


def _entry(entry: JournalEntryInfo, created_at_ms: int) -> str:
    result = "└ " if entry.entry_type.startswith("Notification") else ""
    detail = " ".join(_field(name, value, created_at_ms) for name, value in entry.detail.items() if value is not None)
    if len(detail) > _DETAIL_CHARS_MAX:
        detail = f"{detail[:_DETAIL_CHARS_MAX]}…"
    return f"{result}{_title(entry)}  {detail}"


def _title(entry: JournalEntryInfo) -> str:
    what = entry.entry_type.partition(": ")[2] or entry.entry_type
    return f'{what} "{entry.name}"' if entry.name else what


def _field(name: str, value: Any, created_at_ms: int) -> str:
    if name.endswith("_time_ms") and isinstance(value, int):
        return f"{name.removesuffix('_ms')}={_since(created_at_ms, value)}"
    return f"{name}={value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"


def _event(event: Mapping[str, Any]) -> tuple[int, str, str]:
    if event["ty"] == "Paused":
        return event["at_ms"], "!", "paused"
    message = str(event["error_message"]).splitlines()[0]
    return event["at_ms"], "!", f"attempt failed: [{event['error_code']}] {message}"
