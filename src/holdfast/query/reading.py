"""What one query reads: rows of the database at one moment, and the engine's memory beside them."""

# pyright: reportUnknownMemberType=false
# apsw's stubs name collections.abc.Buffer, which Python 3.11 does not have yet.

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import apsw

from holdfast.protocol.messages import is_command
from holdfast.protocol.wire import HEADER, HEADER_BYTES
from holdfast.runtime.snapshot import Snapshot

ROWS_AT_ONCE = 512
BYTES_AT_ONCE = 1 << 20
"""Of large values, so that a table of large values is not in memory as a whole."""

COMMAND_COUNT = "command_count"
"""A function for SQL here: how many of a blob's frames are commands."""

Row = tuple[Any, ...]


def open_file(path: Path) -> apsw.Connection:
    """A connection that sees the file as it is now, and cannot change it."""
    return _fixed(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY))


def open_copy(database: bytes) -> apsw.Connection:
    """A connection to a copy of a database that is in memory elsewhere."""
    connection = apsw.Connection(":memory:")
    connection.deserialize("main", database)
    return _fixed(connection)


def _fixed(connection: apsw.Connection) -> apsw.Connection:
    try:
        connection.pragma("query_only", True)
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()  # the first read decides what is seen
    except BaseException:
        connection.close(True)
        raise
    return connection


class Reading:
    """DataFusion reads tables from threads of its own, several at a time; all of them see the same moment."""

    def __init__(self, connection: apsw.Connection, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.live = snapshot.live
        self._connection = connection
        connection.create_scalar_function(COMMAND_COUNT, _command_count, 1, deterministic=True)
        self._lock = threading.Lock()  # one connection, because two would not see the same moment
        self._types = {name: service.ty.lower() for name, service in snapshot.services.items()}

    def rows(self, sql: str, values: Sequence[Any] = ()) -> Iterator[Row]:
        """Rows of a SELECT, read a part at a time."""
        cursor: apsw.Cursor | None = None
        while True:
            part: list[Row] = []
            size = 0
            with self._lock:
                if cursor is None:
                    cursor = self._connection.cursor()
                    cursor.execute(sql, values)
                for row in cursor:
                    part.append(row)
                    size += sum([len(value) for value in row if type(value) is bytes])
                    if len(part) >= ROWS_AT_ONCE or size >= BYTES_AT_ONCE:
                        break
            if not part:
                return
            yield from part

    def service_type(self, service: str, key: str | None) -> str:
        """`service`, `virtual_object` or `workflow`; of a service that is not registered any more, what its key tells."""
        return self._types.get(service) or ("service" if key is None else "virtual_object")


def _command_count(*arguments: Any) -> int:
    (frames,) = arguments
    # By the headers alone: most of a journal is bodies.
    count = position = 0
    while position < len(frames):
        message_type, _, size = HEADER.unpack_from(frames, position)
        count += is_command(message_type)
        position += HEADER_BYTES + size
    return count
