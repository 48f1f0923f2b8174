"""Reading rows for one query: from its snapshot, a part at a time, until somebody calls it off."""

# pyright: reportUnknownMemberType=false
# apsw's stubs name collections.abc.Buffer, which Python 3.11 does not have yet.

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import apsw

from holdfast.runtime.snapshot import Snapshot

ROWS_AT_ONCE = 512
BYTES_AT_ONCE = 1 << 20
"""Of large values, so that a table of large values is not in memory as a whole."""

Row = tuple[Any, ...]


class CalledOff(Exception):
    """The query is over: nobody waits for these rows any more."""


class Reading:
    """One query's view of an engine. DataFusion reads it from threads of its own, several tables in turn."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.live = snapshot.live
        self._connection = snapshot.connection
        # One connection, so that every table shows the same moment; SQLite's own lock would let statements interleave,
        # but closing it must wait for the one that runs.
        self._lock = threading.Lock()
        self._is_over = False
        self._types = {name: service.ty.lower() for name, service in snapshot.services.items()}

    def rows(self, sql: str, values: Sequence[Any] = ()) -> Iterator[Row]:
        """Rows of a SELECT.

        Raises:
            CalledOff: `end` was called meanwhile.
        """
        cursor: apsw.Cursor | None = None
        while True:
            part: list[Row] = []
            with self._lock:
                if self._is_over:
                    raise CalledOff
                try:
                    if cursor is None:
                        cursor = self._connection.cursor()
                        cursor.execute(sql, values)
                    size = 0
                    for row in cursor:
                        part.append(row)
                        size += sum([len(value) for value in row if type(value) is bytes])
                        if len(part) >= ROWS_AT_ONCE or size >= BYTES_AT_ONCE:
                            break
                except apsw.InterruptError:
                    raise CalledOff from None
            if not part:
                return
            yield from part

    def check(self) -> None:
        """
        Raises:
            CalledOff: the query is over.
        """
        if self._is_over:
            raise CalledOff

    def end(self) -> None:
        """Stop whatever reads, and let go of the database."""
        self._is_over = True
        self._connection.interrupt()
        with self._lock:
            self._connection.close(True)

    def service_type(self, service: str, key: str | None) -> str:
        """`service`, `virtual_object` or `workflow`; of a service that is not registered any more, what its key tells."""
        return self._types.get(service) or ("service" if key is None else "virtual_object")
