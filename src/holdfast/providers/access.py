"""What a provider asks of an engine, and no more: the seam between both engines and everything above them.

Rows and values come in the engine's own words (statuses, entry types); `status.py` makes executions of them. Every
request may be repeated: what starts something carries a key.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from holdfast.core import ids
from holdfast.providers.types import HistoryEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class InvocationRow:
    """One invocation, as the engine lists it. Times are aware datetimes in UTC."""

    id: str
    service: str
    handler: str
    key: str | None
    status: str
    """Public status: scheduled, pending, ready, running, backing-off, suspended, paused, completed."""
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    has_run: bool
    """An attempt was made, whatever became of it."""
    retry_count: int
    last_failure: str | None
    completion_result: str | None
    completion_failure: str | None
    """`[409] killed`."""
    deployment_id: str | None


@dataclass(frozen=True, slots=True)
class Receipt:
    """A durable one-way request."""

    invocation_id: str
    is_new: bool


@dataclass(frozen=True, slots=True)
class RunPage:
    """Invocations, newest first, and where the next page starts; None at the end."""

    rows: tuple[InvocationRow, ...]
    cursor: str | None


class EngineAccess(ABC):
    """Requests to one engine. All may raise `ProviderUnavailable`."""

    @abstractmethod
    async def send(
        self, service: str, key: str | None, handler: str, argument: Any, *, idempotency_key: str | None = None
    ) -> Receipt:
        """Submit; returns when it is durable. A workflow's run is sent once for a key, whatever the rest.

        Raises:
            InvalidInput: the engine refused the request.
        """

    @abstractmethod
    async def call(
        self, service: str, key: str | None, handler: str, argument: Any, *, idempotency_key: str | None = None
    ) -> Any:
        """Call and wait for the JSON result.

        Raises:
            InvocationFailed: it ended with a terminal error.
        """

    @abstractmethod
    async def attach(self, invocation_id: str, wait: timedelta) -> bool:
        """Wait for the end of an invocation, whatever it is; False when it is not over in time, or there is none."""

    @abstractmethod
    async def invocations(self, invocation_ids: Iterable[str]) -> dict[str, InvocationRow]:
        """Rows of those that there are."""

    @abstractmethod
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
        """Invocations of one handler whose key begins with `key_prefix`, newest first.

        Raises:
            ValueError: a cursor that was not made here.
        """

    @abstractmethod
    async def states(
        self, service: str, keys: Iterable[str], names: Iterable[str] | None = None
    ) -> dict[str, dict[str, bytes]]:
        """K/V state: key -> name -> stored bytes. Keys without state are missing.

        Args:
            names: Only these entries; None means all.
        """

    @abstractmethod
    async def keys_with(self, service: str, name: str, *, after: str, limit: int) -> list[tuple[str, bytes]]:
        """(key, value) of every key of a service that has an entry `name`, in order of keys, behind `after`."""

    @abstractmethod
    async def journal(self, invocation_id: str) -> list[HistoryEvent]:
        """Journal entries and failed attempts, oldest first; empty when the journal is gone."""

    @abstractmethod
    async def cancel(self, invocation_id: str) -> None:
        """Send the cancel signal. An invocation that is over, or unknown, is left as it is."""

    @abstractmethod
    async def kill(self, invocation_id: str) -> None:
        """End it now, with what it called. An invocation that is over, or unknown, is left as it is."""

    @abstractmethod
    async def resolve_awakeable(self, awakeable_id: str, payload: Any) -> None:
        """Complete an awakeable; nothing happens when it is complete already.

        Raises:
            InvalidInput: not an awakeable id.
        """

    @abstractmethod
    async def handlers(self, service: str) -> Mapping[str, str] | None:
        """Handler -> its kind (`workflow`, `shared`, `exclusive`, `service`); None for an unknown service."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of connections."""

    @staticmethod
    def run_id(service: str, key: str) -> str:
        """Invocation id of a workflow's run. Both engines derive it from service and key alone, in the same way."""
        return ids.invocation_text(ids.workflow_run_id(service, key))
