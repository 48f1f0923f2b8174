"""What operators ask of a running engine: look, cancel, kill, pause, resume, restart, purge, edit state."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import apsw

from holdfast.core import events as ev
from holdfast.core import ids
from holdfast.core.machine import Machine
from holdfast.errors import InvalidRequest, InvocationNotFound
from holdfast.protocol.discovery import ServiceSpec
from holdfast.runtime.clock import Clock
from holdfast.runtime.deployments import Deployments
from holdfast.runtime.introspect import Introspection, InvocationInfo, JournalEntryInfo
from holdfast.runtime.invoker import Invoker
from holdfast.runtime.processor import Processor
from holdfast.runtime.snapshot import Snapshot, take_snapshot
from holdfast.store.sqlite import SqliteTables

T = TypeVar("T")


class Operations:
    """The operators' part of `EngineRuntime`, which sets what is declared here."""

    introspection: Introspection
    path: Path | None
    _tables: SqliteTables
    _clock: Clock
    _entropy: Callable[[int], bytes]
    _loop: asyncio.AbstractEventLoop
    _machine: Machine
    _processor: Processor
    _invoker: Invoker
    _reader: apsw.Connection

    @property
    def services(self) -> dict[str, ServiceSpec]:
        raise NotImplementedError

    @property
    def deployments(self) -> Deployments:
        raise NotImplementedError

    def check_running(self) -> None:
        raise NotImplementedError

    async def _ask(self, token: asyncio.Future[T], event: ev.Event) -> T:
        raise NotImplementedError

    @property
    def reader(self) -> apsw.Connection:
        """Sees what is committed; in a database of memory, what its only connection sees."""
        return self._reader

    @property
    def retries(self) -> Mapping[tuple[str, str], int]:
        """(service, handler) -> attempts that failed and were to be repeated, since this engine was started."""
        return self._invoker.retries

    def backing_off(self) -> dict[str, int]:
        """service -> invocations that wait for their next attempt."""
        waiting = (inv.service for inv in self._machine.resident.values() if inv.next_retry_at_ms is not None)
        return dict(Counter(waiting))

    async def cancel(self, invocation_id: str) -> str:
        """Ask an invocation to stop: `appended` (the signal is stored) or `done` (it had not started and is gone).

        Raises:
            InvocationNotFound, InvocationConflict (already completed), InvalidRequest (malformed id).
        """
        return await self._operate(ev.CancelRequested, invocation_id)

    async def kill(self, invocation_id: str) -> None:
        """End an invocation now, with everything it called. State it wrote stays. Raises as `cancel`."""
        await self._operate(ev.KillRequested, invocation_id)

    async def pause(self, invocation_id: str) -> str:
        """Stop attempting: `accepted` (it will pause) or `done` (nothing to do). Raises as `cancel`."""
        return await self._operate(ev.PauseRequested, invocation_id)

    async def resume(self, invocation_id: str, deployment: str = "keep") -> None:
        """Attempt a paused, suspended or backing-off invocation now, with fresh retries.

        Args:
            deployment: `keep` the one it is bound to, or go on with `latest` or the one of this id; that can be chosen
                only for one that is paused or suspended.
        Raises:
            InvocationTooEarly: not started yet. InvalidRequest: no such deployment, or it cannot read the journal.
            InvocationConflict: completed, or running while another deployment is asked for. Otherwise as `cancel`.
        """
        _check_field_id(invocation_id)
        choice = _deployment_choice(deployment)

        def event(token: object, invocation: str, at_ms: int) -> ev.Event:
            return ev.ResumeRequested(token, invocation, at_ms, choice)

        await self._operate(event, invocation_id)

    async def restart_as_new(self, invocation_id: str, *, from_index: int = 0, deployment: str = "latest") -> str:
        """Run a completed invocation again, as a new one with the same input, target and retention.

        Args:
            from_index: The new one takes over the journal up to this entry, with the results of the commands in it, so
                that these are not run again; 0 is the input only.
            deployment: `latest`, `keep` the one it is bound to, or an id.
        Returns:
            The id of the new invocation.
        Raises:
            InvocationNotFound, InvocationConflict (still running), InvocationTooEarly (not started yet).
            InvalidRequest: 410 the journal is gone, 422 a workflow, 400 a command up to `from_index` has no result, no
                such deployment, or it cannot read the journal.
        """
        _check_field_id(invocation_id)
        choice = _deployment_choice(deployment)
        raw_id = ids.invocation_bytes(invocation_id)[:8] + self._entropy(16)  # the key's part of an id stays

        def event(token: object, invocation: str, at_ms: int) -> ev.Event:
            return ev.RestartRequested(token, invocation, raw_id, from_index, choice, at_ms)

        return await self._operate(event, invocation_id)

    async def purge(self, invocation_id: str) -> None:
        """Forget a completed invocation; of a workflow run also state and promises. Raises as `cancel`."""
        await self._purge(invocation_id, journal_only=False)

    async def purge_journal(self, invocation_id: str) -> None:
        """Forget the journal of a completed invocation and keep its output. Raises as `cancel`."""
        await self._purge(invocation_id, journal_only=True)

    async def _purge(self, invocation_id: str, *, journal_only: bool) -> None:
        self.check_running()
        _check_field_id(invocation_id)
        token: asyncio.Future[str] = self._loop.create_future()
        await self._ask(token, ev.PurgeRequested(token, invocation_id, journal_only, self._clock.now_ms()))

    async def _operate(self, event: Callable[[object, str, int], ev.Event], invocation_id: str) -> str:
        self.check_running()
        _check_field_id(invocation_id)
        token: asyncio.Future[str] = self._loop.create_future()
        return await self._ask(token, event(token, invocation_id, self._clock.now_ms()))

    async def mutate_state(
        self, service: str, key: str, new_state: dict[str, bytes], version: str | None = None
    ) -> None:
        """Replace the whole state of a key; it takes its turn behind the key's running handler.

        Args:
            version: apply only if the state still has this version (see `core.results.state_version`).
        Raises:
            InvalidRequest: unknown service, or one without state.
        """
        self.check_running()
        spec = self.services.get(service)
        if spec is None:
            raise InvalidRequest(f"The requested service '{service}' does not exist", status=404)
        if not spec.keyed:
            raise InvalidRequest("Cannot modify state for service type Service")
        token: asyncio.Future[str] = self._loop.create_future()
        await self._ask(token, ev.StateReplaced(token, service, key, new_state, version, self._clock.now_ms()))

    def list_invocations(
        self,
        *,
        statuses: list[str] | None = None,
        service: str | None = None,
        handler: str | None = None,
        key: str | None = None,
        key_prefix: str | None = None,
        deployment: str | None = None,
        limit: int = 100,
        before: str | None = None,
        oldest_first: bool = False,
    ) -> list[InvocationInfo]:
        """A page of invocations, newest first.

        Args:
            statuses: public statuses; None means all.
            key_prefix: Only keys that begin with it.
            deployment: Only those bound to this one.
            before: id of the last row of the previous page.
        Raises:
            InvalidRequest: an unknown status.
        """
        self._settle_now()
        try:
            return self.introspection.list_invocations(
                statuses=statuses,
                service=service,
                handler=handler,
                key=key,
                key_prefix=key_prefix,
                deployment=deployment,
                limit=limit,
                before=before,
                oldest_first=oldest_first,
            )
        except ValueError as error:
            raise InvalidRequest(str(error)) from None

    def describe(self, invocation_id: str) -> InvocationInfo:
        """
        Raises:
            InvocationNotFound, InvalidRequest (malformed id).
        """
        return self._known(invocation_id, self._look(invocation_id).describe(invocation_id))

    def journal(self, invocation_id: str) -> list[JournalEntryInfo]:
        """All entries in stored order. Raises as `describe`."""
        return self._known(invocation_id, self._look(invocation_id).journal(invocation_id))

    def journal_events(self, invocation_id: str) -> list[dict[str, Any]]:
        """Failed attempts (each distinct failure once) and pauses, oldest first. Raises as `describe`."""
        self.describe(invocation_id)
        return self.introspection.events(invocation_id)

    def input_preview(self, invocation_id: str) -> bytes | None:
        """The request body; None when the journal is gone. Raises as `describe`."""
        self.describe(invocation_id)
        return self.introspection.input_of(invocation_id)

    def state_keys(self, service: str, limit: int = 100) -> list[str]:
        """Keys of a service that have state, in order."""
        self._settle_now()
        return self.introspection.keys(service, limit)

    def state(self, service: str, key: str) -> dict[str, bytes]:
        """The state of one key, as stored bytes."""
        self._settle_now()
        return self.introspection.state(service, key)

    async def snapshot(self, open_rows: Callable[[Path], Awaitable[object]]) -> Snapshot:
        """Rows and memory of the same moment, as near as two can be that are read one after the other.

        Args:
            open_rows: Begins to read the database file, which then holds everything received before this call. Not
                called by an engine in memory: the snapshot has a copy of its rows.
        """
        self.check_running()
        await self._processor.settled()
        if self.path is not None:
            await open_rows(self.path)
        self.check_running()
        writer = self._tables.connection if self.path is None else None
        return take_snapshot(writer, self._machine.resident.values(), self.deployments.catalog)

    def statistics(self) -> dict[str, int]:
        """Figures of this moment: attempts in flight, invocations in memory."""
        return {"attempts": len(self._invoker.attempts), "resident": len(self._machine.resident)}

    def _settle_now(self) -> None:
        """What was received before this call is seen by it."""
        self.check_running()
        self._processor.drain()
        self.check_running()

    def _look(self, invocation_id: str) -> Introspection:
        _check_field_id(invocation_id)
        self._settle_now()
        return self.introspection

    @staticmethod
    def _known(invocation_id: str, found: T | None) -> T:
        if found is None:
            raise InvocationNotFound(
                f"The requested invocation '{invocation_id}' does not exist",
                hint="it may be purged; recent ones: holdfast invocations list",
            )
        return found


def _deployment_choice(text: str) -> str:
    """`keep`, `latest` or an id of the right form; the first letter of the words may be a capital one."""
    if text in ("keep", "Keep", "latest", "Latest"):
        return text.lower()
    try:
        ids.check_resource(text, "dp")
    except ids.MalformedId as error:
        raise InvalidRequest(
            f"The query parameter 'deployment' is invalid. Reason: {error}",
            hint="use keep, latest or an id of `holdfast deployments list`",
        ) from None
    return text


def _check_field_id(invocation_id: str) -> None:
    try:
        ids.invocation_bytes(invocation_id)
    except ids.MalformedId as error:
        raise InvalidRequest(
            f"The request field 'invocation_id' is invalid. Reason: {error}",
            hint="ids look like inv_1…; see `holdfast invocations list`",
        ) from None
