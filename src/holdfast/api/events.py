"""Server-sent events (WHATWG HTML, section 9.2): changes of an execution as a stream that may break and go on.

Each change is an event `state` with an id made of what it says. A client that lost the stream sends the last id it saw;
what it has seen is not repeated, and once it has seen the end it is told that there is nothing more (204), which keeps
browsers from asking again. Between changes a comment goes out from time to time, so that proxies keep the connection and
a client that is gone is noticed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from starlette.types import Receive, Scope, Send

from holdfast.api.problems import problem
from holdfast.errors import HoldfastError
from holdfast.providers.types import ExecutionState, StateChange

logger = logging.getLogger("holdfast.api")

MEDIA_TYPE = "text/event-stream"
HEARTBEAT_S = 15.0
"""Shorter than the usual idle limit of proxies (60 s), and of load balancers that allow half of that."""

RETRY_MS = 1_000
"""How long a client waits before it connects again; told to browsers, which would take three seconds."""

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would keep events until its buffer is full
]


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a stream."""

    name: str
    data: str
    id: str = ""


def event_id(change: StateChange) -> str:
    """What a change says, as an id: the same content again is the same id."""
    content = [change.sub_state.value, change.progress, change.error.to_json() if change.error else None]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return f"{change.to_state.value}.{digest[:16]}"


def state_of(last_event_id: str) -> ExecutionState | None:
    """The state that a client saw last, of the id it sends; None when the id is none of ours."""
    try:
        return ExecutionState(last_event_id.partition(".")[0])
    except ValueError:
        return None


def encode(event: Event) -> bytes:
    """As it goes over the wire."""
    lines = [f"event: {event.name}"]
    if event.id:
        lines.append(f"id: {event.id}")
    lines += [f"data: {line}" for line in event.data.split("\n")]
    return ("\n".join(lines) + "\n\n").encode()


class EventStream:
    """The response: changes as they come, until the execution is over, the client has gone, or the API is closed.

    Args:
        first: The first change, already there, so that an error before it is an ordinary answer.
        changes: The following ones.
        last_event_id: The id the client saw last; a first change of that id is not sent again.
        closing: Set when the API is closed.
    """

    def __init__(
        self,
        first: StateChange,
        changes: AsyncIterator[StateChange],
        *,
        last_event_id: str = "",
        closing: asyncio.Event,
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        self._first = first
        self._changes = changes
        self._last_event_id = last_event_id
        self._closing = closing
        self._heartbeat_s = heartbeat_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def write(data: bytes, *, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": more})

        watchers = [asyncio.ensure_future(disconnected(receive)), asyncio.ensure_future(self._closing.wait())]
        try:
            with suppress(OSError):  # the client has gone while we wrote
                await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
                await write(f"retry: {RETRY_MS}\n\n".encode())
                await self._send_changes(write, watchers, instance=str(scope.get("path", "")))
                if not watchers[0].done():
                    await write(b"", more=False)
        finally:
            await discard(*watchers)
            await _close(self._changes)

    async def _send_changes(
        self, write: Callable[[bytes], Awaitable[None]], watchers: Sequence[asyncio.Future[Any]], instance: str
    ) -> None:
        change = self._as_seen(self._first)
        if event_id(change) != self._last_event_id:
            await write(_state_event(change))
        while True:
            upcoming = asyncio.ensure_future(_next(self._changes))
            try:
                while not upcoming.done():
                    await asyncio.wait(
                        [upcoming, *watchers], timeout=self._heartbeat_s, return_when=asyncio.FIRST_COMPLETED
                    )
                    if any(watcher.done() for watcher in watchers):
                        return
                    if not upcoming.done():
                        await write(b": heartbeat\n\n")
            finally:
                await discard(upcoming)
            try:
                following = upcoming.result()
            except HoldfastError as error:
                # The status line is gone; a client that connects again gets the error as an answer, or goes on.
                logger.warning("a watch ended: %s", error.message, extra={"error_code": error.code})
                await write(encode(Event("problem", json.dumps(problem(error, instance)))))
                return
            if following is None:
                return
            await write(_state_event(following))

    def _as_seen(self, first: StateChange) -> StateChange:
        """The first change, from the state that the client saw last."""
        seen = state_of(self._last_event_id)
        return first if seen is None or first.from_state is not None else replace(first, from_state=seen)


def _state_event(change: StateChange) -> bytes:
    return encode(Event("state", json.dumps(change.to_json()), event_id(change)))


async def disconnected(receive: Receive) -> None:
    """Returns when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def discard(*tasks: asyncio.Future[Any]) -> None:
    """End tasks whose outcome nobody wants any more."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # looked at, so that it is not reported as forgotten


async def _next(changes: AsyncIterator[StateChange]) -> StateChange | None:
    return await anext(changes, None)


async def _close(changes: AsyncIterator[StateChange]) -> None:
    close = getattr(changes, "aclose", None)
    if close is not None:
        await close()


class EventReader:
    """Lines of a stream -> events, for the client."""

    def __init__(self) -> None:
        self._name, self._id, self._data = "", "", list[str]()

    def feed(self, line: str) -> Iterator[Event]:
        """One line without its end; yields the event that it completes.

        A line that begins with a colon is a comment, one without a colon a field without a value.
        """
        if not line:
            if self._data:
                yield Event(self._name or "message", "\n".join(self._data), self._id)
            self._name, self._data = "", []
            return
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            self._name = value
        elif field == "id":
            self._id = value
        elif field == "data":
            self._data.append(value)
