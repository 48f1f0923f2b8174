"""An embedded engine as a source of metrics: its rows, read beside the engine, and what its invoker counts."""

# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# apsw's stubs name collections.abc.Buffer, which Python 3.11 does not have yet.

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import apsw

from holdfast.errors import EngineStopped
from holdfast.metrics.tally import Completion, Handler, Look, Tally
from holdfast.protocol import messages as m
from holdfast.protocol.wire import HEADER_BYTES, message, split
from holdfast.store.failures import unreadable

if TYPE_CHECKING:
    from holdfast.runtime.engine import EngineRuntime

_PUBLIC = {"inboxed": "pending", "invoked": "running"}
_CANCELLED = (409, "cancelled")

_COUNTS = "SELECT service, status, count(*) FROM invocation GROUP BY service, status"
_COMPLETIONS = """
    SELECT id, service, handler, coalesce(start_at_ms, created_at_ms), completed_at_ms, failure_code,
           CASE WHEN failure_code IS NOT NULL THEN output END
    FROM invocation WHERE status = 'completed' AND completed_at_ms >= ?
"""
# INDEXED BY: a table of millions that are over must not be read for the few that are not.
_JOURNALS = """
    SELECT service, sum(size), max(size) FROM (
        SELECT service, frame_count(head)
            + coalesce((SELECT sum(entry_count) FROM journal j WHERE j.seq = invocation.seq), 0) AS size
        FROM invocation INDEXED BY invocation_live WHERE status <> 'completed'
    ) GROUP BY service
"""
_STATE = "SELECT service, count(DISTINCT key), sum(length(value)) FROM state GROUP BY service"


class EngineMetrics:
    """Looks at an engine of this process.

    Args:
        engine: A started engine. Rows of invocations that are over are counted while they are kept; one without any
            retention is never seen.
    """

    engine = "embedded"

    def __init__(self, engine: EngineRuntime) -> None:
        self._runtime = engine
        self.tally = Tally()
        self.lock = asyncio.Lock()

    async def look(self, since_ms: int) -> Look:
        """
        Raises:
            EngineError: the engine does not run, or its file cannot be read.
        """
        runtime = self._runtime
        runtime.check_running()
        if runtime.path is None:
            rows = _read(runtime.reader, since_ms)  # nobody else can see a database in memory
        else:
            rows = await asyncio.to_thread(_read_file, runtime.path, since_ms)
        counts: dict[tuple[str, str], int] = {
            (service, _PUBLIC.get(str(status), str(status))): count for service, status, count in rows["counts"]
        }
        for service, count in runtime.backing_off().items():
            if counts.get((service, "running"), 0) >= count:  # rows and memory are looked at one after the other
                counts[service, "running"] -= count
                counts[service, "backing-off"] = count
        retries: dict[tuple[str, Handler], int] = {("", handler): n for handler, n in runtime.retries.items()}
        return Look(
            counts=counts,
            completions=[_completion(row) for row in rows["completions"]],
            retries=retries,
            journal_entries={service: total for service, total, _ in rows["journals"]},
            journal_entries_max={service: largest for service, _, largest in rows["journals"]},
            state_keys={service: keys for service, keys, _ in rows["state"]},
            state_bytes={service: size for service, _, size in rows["state"]},
        )


def _completion(row: Any) -> Completion:
    invocation_id, service, handler, started_at_ms, completed_at_ms, failure_code, output = row
    outcome = "success"
    if failure_code is not None:
        code, text, _ = m.decode_failure(cast(bytes, message(output[HEADER_BYTES:])[15]))
        outcome = "cancelled" if (code, text) == _CANCELLED else "failure"
    return Completion(invocation_id, service, handler, started_at_ms, completed_at_ms, outcome)


def _read_file(path: Path, since_ms: int) -> dict[str, list[Any]]:
    try:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    except apsw.Error as error:
        raise unreadable(error) from error
    try:
        return _read(connection, since_ms)
    finally:
        connection.close(True)


def _read(connection: apsw.Connection, since_ms: int) -> dict[str, list[Any]]:
    try:
        connection.create_scalar_function("frame_count", cast(Any, _frame_count), 1, deterministic=True)
        return {
            "counts": list(connection.execute(_COUNTS)),
            "completions": list(connection.execute(_COMPLETIONS, [since_ms])),
            "journals": list(connection.execute(_JOURNALS)),
            "state": list(connection.execute(_STATE)),
        }
    except apsw.ConnectionClosedError:
        raise EngineStopped("the engine is stopped") from None
    except apsw.Error as error:
        raise unreadable(error) from error


def _frame_count(frames: bytes) -> int:
    return sum(1 for _ in split(frames))
