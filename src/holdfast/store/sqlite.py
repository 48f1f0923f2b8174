"""The durable tables on SQLite. The only module that knows SQL of the hot path; see migrations/ for the schema."""

# pyright: reportUnknownMemberType=false
# apsw's stubs name collections.abc.Buffer, which Python 3.11 does not have yet.

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import apsw

from holdfast.core import awaiting
from holdfast.core.model import Invocation, Status

_COLUMNS = (
    "seq, id, service, handler, key, exclusive, status, created_at_ms, modified_at_ms, start_at_ms, completed_at_ms, "
    "idempotency_key, invoked_by_id, invoked_by_target, sink_seq, sink_completion_id, has_listeners, random_seed, "
    "retention_ms, journal_retention_ms, inbox_seq, deployment_id, protocol_version, awaiting, failure_code, head, "
    "output, restarted_from, inboxed_at_ms, running_at_ms"
)
_INSERT = f"INSERT INTO invocation ({_COLUMNS}) VALUES ({', '.join('?' * 30)})"
_UPDATE = (
    "UPDATE invocation SET status = ?, modified_at_ms = ?, completed_at_ms = ?, has_listeners = ?, inbox_seq = ?, "
    "deployment_id = ?, protocol_version = ?, awaiting = ?, failure_code = ?, head = ?, output = ?, inboxed_at_ms = ?, "
    "running_at_ms = ? WHERE seq = ?"
)
_SELECT = f"SELECT {_COLUMNS} FROM invocation WHERE "
_SQL_INTEGER = 1 << 63


class SqliteTables:
    """Implements `core.tables.Tables` on one connection. `begin`, work, then `commit` or `rollback`."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.connection = connection
        # A cursor runs one statement at a time; execute() on the connection would make a new one per call.
        self._cursor = connection.cursor()
        self._execute: Callable[..., Any] = self._cursor.execute
        self._many: Callable[..., Any] = self._cursor.executemany

    def begin(self) -> None:
        self._execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """When this returns, the batch is on disk.

        Raises:
            apsw.Error: disk full, I/O error; the batch is rolled back.
        """
        self._execute("COMMIT")

    def rollback(self) -> None:
        if self.connection.in_transaction:
            self._execute("ROLLBACK")

    @property
    def is_in_batch(self) -> bool:
        return self.connection.in_transaction

    def settle_log(self) -> None:
        """Move everything that is in the write-ahead log to the database itself, and empty the log.

        After this, all that can be read is on disk. Without, it may be in the operating system's cache only: when a
        sync has failed, and the process that knew of it is gone.

        Raises:
            apsw.Error: disk full, I/O error.
        """
        # On the one cursor, because a statement that another has not finished would be in the way. With a reader in the
        # way it moves what it can and raises nothing.
        self._execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def make_room(self, size_bytes: int) -> None:
        """Write that much, durably, and remove it again.

        Raises:
            apsw.Error: disk full, I/O error; nothing is left behind.
        """
        try:
            self.settle_log()  # which may be all the space that was missing
        except apsw.LockedError:
            pass  # a statement that failed is not gone yet
        try:
            for statement in (
                f"INSERT OR REPLACE INTO meta VALUES ('room', hex(zeroblob({size_bytes // 2})))",
                "DELETE FROM meta WHERE name = 'room'",
            ):
                self.begin()
                self._execute(statement)
                self.commit()
        except apsw.Error:
            self.rollback()
            raise

    # ---- invocations and journals ------------------------------------------------------------------------------------

    def insert_invocations(self, invocations: Iterable[Invocation]) -> None:
        self._many(
            _INSERT,
            [
                (
                    inv.seq,
                    inv.id,
                    inv.service,
                    inv.handler,
                    inv.key,
                    inv.exclusive,
                    inv.status,
                    inv.created_at_ms,
                    inv.modified_at_ms,
                    inv.start_at_ms,
                    inv.completed_at_ms,
                    inv.idempotency_key,
                    inv.invoked_by_id,
                    inv.invoked_by_target,
                    inv.sink_seq,
                    inv.sink_completion_id,
                    inv.has_listeners,
                    _signed(inv.random_seed),
                    inv.retention_ms,
                    inv.journal_retention_ms,
                    inv.inbox_seq,
                    inv.deployment_id,
                    inv.protocol_version,
                    awaiting.to_json(inv.awaiting) if inv.awaiting is not None else None,
                    inv.failure_code,
                    inv.head,
                    inv.output,
                    inv.restarted_from,
                    inv.inboxed_at_ms,
                    inv.running_at_ms,
                )
                for inv in invocations
            ],
        )

    def update_invocations(self, invocations: Iterable[Invocation]) -> None:
        self._many(
            _UPDATE,
            [
                (
                    inv.status,
                    inv.modified_at_ms,
                    inv.completed_at_ms,
                    inv.has_listeners,
                    inv.inbox_seq,
                    inv.deployment_id,
                    inv.protocol_version,
                    awaiting.to_json(inv.awaiting) if inv.awaiting is not None else None,
                    inv.failure_code,
                    inv.head,
                    inv.output,
                    inv.inboxed_at_ms,
                    inv.running_at_ms,
                    inv.seq,
                )
                for inv in invocations
            ],
        )

    def delete_invocation(self, seq: int) -> None:
        self._execute("DELETE FROM invocation WHERE seq = ?", (seq,))
        self._execute("DELETE FROM journal_event WHERE seq = ?", (seq,))

    def invocation_by_id(self, invocation_id: str) -> Invocation | None:
        return self._load(self._execute(_SELECT + "id = ?", (invocation_id,)).fetchone())

    def invocation_by_seq(self, seq: int) -> Invocation | None:
        return self._load(self._execute(_SELECT + "seq = ?", (seq,)).fetchone())

    def _load(self, row: Any) -> Invocation | None:
        if row is None:
            return None
        inv = Invocation(row[0], row[1], row[2], row[3], row[4], bool(row[5]), row[6], row[7], None)
        inv.modified_at_ms, inv.start_at_ms, inv.completed_at_ms, inv.idempotency_key = row[8:12]
        inv.invoked_by_id, inv.invoked_by_target, inv.sink_seq, inv.sink_completion_id = row[12:16]
        inv.has_listeners = bool(row[16])
        inv.random_seed = None if row[17] is None else row[17] % (2 * _SQL_INTEGER)
        inv.retention_ms, inv.journal_retention_ms, inv.inbox_seq = row[18:21]
        inv.deployment_id, inv.protocol_version = row[21:23]
        inv.awaiting = None if row[23] is None else awaiting.from_json(row[23])
        inv.failure_code, inv.head, inv.output, inv.restarted_from = row[24:28]
        inv.inboxed_at_ms, inv.running_at_ms = row[28:30]
        last = self._execute(
            "SELECT first_index + entry_count, stored_at_ms FROM journal WHERE seq = ? "
            "ORDER BY first_index DESC LIMIT 1",
            (inv.seq,),
        ).fetchone()
        # The head is one Input frame; everything later is in journal rows.
        inv.entries, inv.entry_at_ms = last if last is not None else (1 if inv.head else 0, inv.created_at_ms)
        return inv

    def append_journal(self, segments: Iterable[tuple[int, int, int, int, bytes]]) -> None:
        self._many("INSERT INTO journal VALUES (?, ?, ?, ?, ?)", segments)

    def journal(self, seq: int) -> bytes:
        rows = self._execute("SELECT frames FROM journal WHERE seq = ? ORDER BY first_index", (seq,))
        return b"".join([row[0] for row in rows])

    def delete_journal(self, seq: int) -> None:
        self._execute("DELETE FROM journal WHERE seq = ?", (seq,))

    def add_event(self, seq: int, at_ms: int, after_index: int, event: str) -> None:
        self._execute("INSERT INTO journal_event VALUES (?, ?, ?, ?)", (seq, at_ms, after_index, event))

    def reserve_numbers(self, until: int) -> None:
        self._execute("INSERT OR REPLACE INTO meta VALUES ('next_number', ?)", (str(until),))

    # ---- keys ----------------------------------------------------------------------------------------------------------

    def key_queue(self, service: str, key: str) -> tuple[int | None, list[int]]:
        holder, waiting = None, list[tuple[int, int]]()
        rows = self._execute(
            "SELECT status, seq, inbox_seq FROM invocation WHERE status IN ('inboxed', 'invoked', 'suspended', "
            "'paused') AND service = ? AND key = ? AND exclusive = 1 ORDER BY inbox_seq",
            (service, key),
        )
        for status, seq, inbox_seq in rows:
            if status == Status.INBOXED:
                waiting.append((inbox_seq, seq))
            else:
                holder = seq
        mutations = self._execute(
            "SELECT inbox_seq FROM state_mutation WHERE service = ? AND key = ? ORDER BY inbox_seq", (service, key)
        )
        waiting += [(row[0], -row[0]) for row in mutations]
        return holder, [seq for _, seq in sorted(waiting)]

    def add_mutation(
        self, inbox_seq: int, service: str, key: str, new_state: dict[str, bytes], version: str | None
    ) -> None:
        encoded = json.dumps({name: value.hex() for name, value in new_state.items()})
        self._execute("INSERT INTO state_mutation VALUES (?, ?, ?, ?, ?)", (inbox_seq, service, key, version, encoded))

    def take_mutation(self, inbox_seq: int) -> tuple[dict[str, bytes], str | None]:
        row = self._execute(
            "DELETE FROM state_mutation WHERE inbox_seq = ? RETURNING new_state, version", (inbox_seq,)
        ).fetchone()
        return {name: bytes.fromhex(value) for name, value in json.loads(row[0]).items()}, row[1]

    # ---- state ---------------------------------------------------------------------------------------------------------

    def state(self, service: str, key: str) -> list[tuple[str, bytes]]:
        rows = self._execute("SELECT name, value FROM state WHERE service = ? AND key = ?", (service, key))
        return rows.fetchall()

    def state_value(self, service: str, key: str, name: str) -> bytes | None:
        row = self._execute(
            "SELECT value FROM state WHERE service = ? AND key = ? AND name = ?", (service, key, name)
        ).fetchone()
        return None if row is None else row[0]

    def set_state(self, service: str, key: str, name: str, value: bytes) -> None:
        self._execute(
            "INSERT INTO state VALUES (?, ?, ?, ?) ON CONFLICT (service, key, name) DO UPDATE SET value = excluded.value",
            (service, key, name, value),
        )

    def clear_state(self, service: str, key: str, name: str) -> None:
        self._execute("DELETE FROM state WHERE service = ? AND key = ? AND name = ?", (service, key, name))

    def clear_all_state(self, service: str, key: str) -> None:
        self._execute("DELETE FROM state WHERE service = ? AND key = ?", (service, key))

    # ---- promises ------------------------------------------------------------------------------------------------------

    def promise(self, service: str, key: str, name: str) -> bytes | None:
        row = self._execute(
            "SELECT result FROM promise WHERE service = ? AND key = ? AND name = ?", (service, key, name)
        ).fetchone()
        return None if row is None else row[0]

    def complete_promise(self, service: str, key: str, name: str, result: bytes) -> None:
        self._execute("INSERT INTO promise VALUES (?, ?, ?, ?)", (service, key, name, result))

    def add_promise_listener(self, service: str, key: str, name: str, seq: int, completion_id: int) -> None:
        self._execute(
            "INSERT OR REPLACE INTO promise_listener VALUES (?, ?, ?, ?, ?)", (service, key, name, seq, completion_id)
        )

    def take_promise_listeners(self, service: str, key: str, name: str) -> list[tuple[int, int]]:
        rows = self._execute(
            "DELETE FROM promise_listener WHERE service = ? AND key = ? AND name = ? RETURNING seq, completion_id",
            (service, key, name),
        )
        return sorted(rows.fetchall())

    def delete_promises(self, service: str, key: str) -> None:
        self._execute("DELETE FROM promise WHERE service = ? AND key = ?", (service, key))
        self._execute("DELETE FROM promise_listener WHERE service = ? AND key = ?", (service, key))

    # ---- listeners and timers --------------------------------------------------------------------------------------------

    def add_listener(self, target_seq: int, seq: int, completion_id: int, notification_type: int) -> None:
        self._execute(
            "INSERT OR REPLACE INTO listener VALUES (?, ?, ?, ?)", (target_seq, seq, completion_id, notification_type)
        )

    def take_listeners(self, target_seq: int) -> list[tuple[int, int, int]]:
        rows = self._execute(
            "DELETE FROM listener WHERE target_seq = ? RETURNING seq, completion_id, notification_type", (target_seq,)
        )
        return sorted(rows.fetchall())

    def add_timer(self, due_ms: int, seq: int, completion_id: int) -> None:
        self._execute("INSERT OR REPLACE INTO timer VALUES (?, ?, ?)", (_clamp(due_ms), seq, completion_id))

    def remove_timer(self, due_ms: int, seq: int, completion_id: int) -> None:
        self._execute(
            "DELETE FROM timer WHERE due_ms = ? AND seq = ? AND completion_id = ?", (_clamp(due_ms), seq, completion_id)
        )

    # ---- what the runtime asks ---------------------------------------------------------------------------------------------

    def due_timers(self, at_ms: int, limit: int) -> list[tuple[int, int, int]]:
        """(due_ms, seq, completion_id) of timers that are due, earliest first."""
        rows = self._execute("SELECT * FROM timer WHERE due_ms <= ? ORDER BY due_ms LIMIT ?", (at_ms, limit))
        return rows.fetchall()

    def next_timer_ms(self) -> int | None:
        row = self._execute("SELECT due_ms FROM timer ORDER BY due_ms LIMIT 1").fetchone()
        return None if row is None else row[0]

    def invoked(self) -> list[int]:
        """Seqs of all invocations that an attempt should be working on, in order of arrival."""
        rows = self._execute("SELECT seq FROM invocation WHERE status = 'invoked' ORDER BY seq")
        return [row[0] for row in rows]

    def expired(self, at_ms: int, after_seq: int, limit: int) -> tuple[int, list[tuple[str, bool]]]:
        """Look at `limit` rows behind `after_seq`: (last seq looked at, [(id, journal only)] whose retention is over)."""
        rows = self._execute(
            "SELECT seq, id, status, completed_at_ms, retention_ms, journal_retention_ms, "
            "journal_retention_ms < retention_ms AND (length(head) > 0 OR EXISTS (SELECT 1 FROM journal "
            "WHERE journal.seq = invocation.seq)) FROM invocation WHERE seq > ? ORDER BY seq LIMIT ?",
            (after_seq, limit),
        ).fetchall()
        out: list[tuple[str, bool]] = []
        for _, invocation_id, status, completed_at_ms, retention_ms, journal_retention_ms, has_journal in rows:
            if status != Status.COMPLETED or completed_at_ms is None:
                continue
            if completed_at_ms + retention_ms <= at_ms:
                out.append((invocation_id, False))
            elif has_journal and completed_at_ms + journal_retention_ms <= at_ms:
                out.append((invocation_id, True))
        return (rows[-1][0] if len(rows) == limit else 0), out

    def meta(self, name: str) -> str | None:
        row = self._execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else row[0]


def _signed(value: int | None) -> int | None:
    return value if value is None or value < _SQL_INTEGER else value - 2 * _SQL_INTEGER


def _clamp(due_ms: int) -> int:
    return min(due_ms, _SQL_INTEGER - 1)  # a sleep of "for ever" must still be a SQLite integer
