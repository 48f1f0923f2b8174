"""The disk is full: refuse what is new, keep what is there, and go on when space returns.

When a batch cannot be written, memory is ahead of the rows. So memory is dropped, with every attempt, as if the process
had died; what makes the difference is that reads still work, that callers who wait for what was accepted go on waiting,
and that nobody has to start anything again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import apsw

from holdfast.store.failures import is_full, unusable
from holdfast.store.sqlite import SqliteTables

if TYPE_CHECKING:
    from holdfast.runtime.processor import Processor

log = logging.getLogger("holdfast.engine")

PROBE_S = 1.0
"""Interval of trying whether there is space again."""

ROOM_BYTES = 1 << 20
"""What must fit before anything is accepted: with less, the next requests would fill the disk again."""


class Standstill:
    """Holds the engine still while its disk is full. All methods run in the engine's loop."""

    def __init__(
        self,
        processor: Processor,
        tables: SqliteTables,
        drop_memory: Callable[[], None],
        go_on: Callable[[], None],
    ) -> None:
        """
        Args:
            drop_memory: Forget everything that can be derived from rows, and end every attempt.
            go_on: Derive it again.
        """
        self._processor = processor
        self._tables = tables
        self._drop_memory = drop_memory
        self._go_on = go_on
        self._probing: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Nothing can be written. `drop_memory` was not called yet."""
        log.error("the disk is full: nothing is accepted until there is space")
        self._drop_memory()
        self._probe_later()

    def end(self) -> None:
        """The engine closes."""
        if self._probing is not None:
            self._probing.cancel()
            self._probing = None

    def _probe_later(self) -> None:
        self._probing = self._processor.call_later(PROBE_S, self._probe)

    def _probe(self) -> None:
        self._probing = None
        try:
            self._tables.make_room(ROOM_BYTES)
        except apsw.Error as error:
            if is_full(error, self._tables.connection):
                self._probe_later()
            else:
                self._processor.fail(unusable(error, "looking for space failed"))
            return
        log.warning("there is space on the disk again: going on")
        self._drop_memory()  # reads have brought some of it back
        self._processor.disk_full = None
        self._go_on()
