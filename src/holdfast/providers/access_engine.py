"""Access to an engine in this process: plain method calls, no HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from holdfast.core import ids
from holdfast.embedded import Engine
from holdfast.errors import (
    CallerError,
    EngineError,
    InvalidRequest,
    InvocationConflict,
    InvocationFailed,
    InvocationNotFound,
)
from holdfast.protocol.discovery import HandlerSpec
from holdfast.providers.access import EngineAccess, InvocationRow, Receipt, RunPage
from holdfast.providers.errors import InvalidInput, ProviderUnavailable
from holdfast.providers.types import HistoryEvent
from holdfast.runtime.introspect import InvocationInfo

_KEYS_MAX = 1_000_000
"""Of `keys_with`: workflows are created by people, so all their ids fit in memory."""


class InProcessAccess(EngineAccess):
    """Requests to a running `Engine`."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.endpoint = f"embedded engine on {engine.path or ':memory:'}"

    async def send(
        self, service: str, key: str | None, handler: str, argument: Any, *, idempotency_key: str | None = None
    ) -> Receipt:
        async with self._errors():
            spec = self._handler(service, handler)
            body = b"" if argument is None else json.dumps(argument).encode()
            receipt = await self.engine.send(spec, key, body, idempotency_key=idempotency_key)
            return Receipt(receipt.invocation_id, receipt.is_new)

    async def call(
        self, service: str, key: str | None, handler: str, argument: Any, *, idempotency_key: str | None = None
    ) -> Any:
        async with self._errors():
            spec = self._handler(service, handler)
            body = b"" if argument is None else json.dumps(argument).encode()
            completion, _ = await self.engine.call(spec, key, body, idempotency_key=idempotency_key)
        if completion.failure is not None:
            failure = completion.failure
            raise InvocationFailed(failure.message, failure_code=failure.code, invocation_id=completion.invocation_id)
        return json.loads(completion.value) if completion.value else None

    async def attach(self, invocation_id: str, wait: timedelta) -> bool:
        async with self._errors():
            try:
                await asyncio.wait_for(self.engine.attach(invocation_id), wait.total_seconds())
            except (TimeoutError, InvocationNotFound):
                return False
            return True

    async def invocations(self, invocation_ids: Iterable[str]) -> dict[str, InvocationRow]:
        found: dict[str, InvocationRow] = {}
        async with self._errors():
            for invocation_id in invocation_ids:
                try:
                    found[invocation_id] = _row(self.engine.describe(invocation_id))
                except InvocationNotFound:
                    continue
        return found

    async def runs(
        self,
        service: str,
        handler: str,
        *,
        key_prefix: str,
        created_after: datetime | None,
        created_before: datetime | None,
        limit: int,
        cursor: str | None,
    ) -> RunPage:
        rows: list[InvocationRow] = []
        if cursor is not None:
            ids.invocation_bytes(cursor)
        async with self._errors():
            while True:
                page = self.engine.list_invocations(
                    service=service, handler=handler, key_prefix=key_prefix or None, limit=limit, before=cursor
                )
                for row in map(_row, page):
                    cursor = row.id
                    if created_after is not None and row.created_at <= created_after:
                        return RunPage(tuple(rows), None)  # newest first: all that follow are older still
                    if created_before is None or row.created_at < created_before:
                        rows.append(row)
                        if len(rows) == limit:
                            return RunPage(tuple(rows), cursor)
                if len(page) < limit:
                    return RunPage(tuple(rows), None)
                await asyncio.sleep(0)  # a long table is read in pieces, handlers run in between

    async def states(
        self, service: str, keys: Iterable[str], names: Iterable[str] | None = None
    ) -> dict[str, dict[str, bytes]]:
        wanted = None if names is None else set(names)
        found: dict[str, dict[str, bytes]] = {}
        async with self._errors():
            for key in keys:
                state = self.engine.state(service, key)
                if kept := {name: value for name, value in state.items() if wanted is None or name in wanted}:
                    found[key] = kept
        return found

    async def keys_with(self, service: str, name: str, *, after: str, limit: int) -> list[tuple[str, bytes]]:
        async with self._errors():
            found: list[tuple[str, bytes]] = []
            for key in self.engine.state_keys(service, _KEYS_MAX):
                if key > after and (value := self.engine.state(service, key).get(name)) is not None:
                    found.append((key, value))
                    if len(found) == limit:
                        break
            return found

    async def journal(self, invocation_id: str) -> list[HistoryEvent]:
        async with self._errors():
            try:
                entries = self.engine.journal(invocation_id)
                events = self.engine.journal_events(invocation_id)
            except InvocationNotFound:
                return []
        found = [
            HistoryEvent(
                timestamp=_time(entry.appended_at_ms),
                type=entry.entry_type,
                name=entry.name,
                details={"index": entry.index, **entry.detail},
            )
            for entry in entries
        ]
        return found + [journal_event(_time(event["at_ms"]), event) for event in events]

    async def cancel(self, invocation_id: str) -> None:
        async with self._errors():
            try:
                await self.engine.cancel(invocation_id)
            except (InvocationConflict, InvocationNotFound):
                return

    async def kill(self, invocation_id: str) -> None:
        async with self._errors():
            try:
                await self.engine.kill(invocation_id)
            except (InvocationConflict, InvocationNotFound):
                return

    async def resolve_awakeable(self, awakeable_id: str, payload: Any) -> None:
        async with self._errors():
            try:
                await self.engine.resolve_awakeable(awakeable_id, json.dumps(payload).encode())
            except InvalidRequest as error:
                raise InvalidInput("name", error.message) from None

    async def handlers(self, service: str) -> Mapping[str, str] | None:
        async with self._errors():
            self.engine.check_running()
        spec = self.engine.services.get(service)
        return None if spec is None else {each.name: (each.ty or "service").lower() for each in spec.handlers.values()}

    async def close(self) -> None:
        """Nothing to let go of: the engine belongs to whoever opened it."""

    def _handler(self, service: str, handler: str) -> HandlerSpec:
        self.engine.check_running()
        spec = self.engine.services.get(service)
        if spec is None or handler not in spec.handlers:
            raise InvalidInput("workflow_id", f"its service {service}/{handler} is not registered with the engine")
        return spec.handlers[handler]

    @asynccontextmanager
    async def _errors(self) -> AsyncGenerator[None]:
        """The engine's own failures in a provider's words."""
        try:
            yield
        except (CallerError, ProviderUnavailable):
            raise
        except EngineError as error:
            raise ProviderUnavailable(
                f"{self.endpoint}: {error.message}", endpoint=self.endpoint, hint=error.hint
            ) from error


def journal_event(at: datetime, event: Mapping[str, Any]) -> HistoryEvent:
    """A failed attempt or a pause, as both engines record them."""
    if event.get("ty") == "Paused":
        return HistoryEvent(timestamp=at, type="paused")
    details = {
        "code": event.get("error_code"),
        "message": event.get("error_message"),
        "doc_code": event.get("restate_doc_error_code"),
    }
    return HistoryEvent(
        timestamp=at,
        type="attempt-failed",
        name=str(event.get("related_command_name") or ""),
        details={name: value for name, value in details.items() if value is not None},
    )


def _row(info: InvocationInfo) -> InvocationRow:
    last_failure = info.last_failure
    if last_failure is not None and info.last_failure_code is not None:
        last_failure = f"[{info.last_failure_code}] {last_failure}"
    # An attempt leaves a second entry, a failure, or is in flight. What it did before a restart is in the journal.
    has_run = info.journal_size > 1 or info.retry_count > 0 or info.status in ("running", "suspended", "completed")
    return InvocationRow(
        id=info.id,
        service=info.service,
        handler=info.handler,
        key=info.key,
        status=info.status,
        created_at=_time(info.created_at_ms),
        started_at=None,
        completed_at=_time(info.completed_at_ms) if info.completed_at_ms is not None else None,
        has_run=has_run,
        retry_count=info.retry_count,
        last_failure=last_failure,
        completion_result=info.completion_result,
        completion_failure=info.completion_failure,
        deployment_id=info.pinned_deployment_id,
    )


def _time(epoch_ms: int) -> datetime:
    return datetime.fromtimestamp(epoch_ms / 1_000, UTC)
