"""One attempt to run a handler: what all kinds share, and the kind that calls an application in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Protocol

from holdfast.logs import current_invocation
from holdfast.protocol import messages as m
from holdfast.protocol.wire import Decoder, FrameTooLarge, MalformedFrame, text
from holdfast.runtime import traces

AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]
AsgiEvent = MutableMapping[str, Any]

_TERMINAL = frozenset((m.END, m.SUSPENSION, m.ERROR))
_END_OF_INPUT: AsgiEvent = {"type": "http.request", "body": b"", "more_body": False}


class Listener(Protocol):
    """What an attempt reports to."""

    def frames_received(self, attempt: Attempt, frames: list[tuple[int, bytes]]) -> None: ...
    def attempt_waits(self, attempt: Attempt) -> None:
        """It was asked with `probe` and does nothing but wait."""
        ...

    def attempt_ended(self, attempt: Attempt, failure: str | None) -> None:
        """The application returned. `failure` says why if it did so without a terminal frame."""
        ...


@dataclass(slots=True)
class Order:
    """What an attempt is to do."""

    seq: int
    number: int
    invocation_id: str
    service: str
    handler: str
    key: str | None
    deployment_id: str
    version: int
    """Of the protocol."""
    timeouts_ms: tuple[int, int]
    """(inactivity, abort)."""
    first_input: bytes
    """Start and the journal."""
    body_bytes_max: int
    """Of one frame."""

    @property
    def target(self) -> str:
        return f"{self.service}/{self.handler}"


class Attempt:
    """What all attempts share: the frames that come back, and the marks by which the invoker looks after them."""

    __slots__ = (
        "_decoder",
        "_input_ended",
        "_listener",
        "_loop",
        "aborted",
        "active_at_s",
        "closed_at_s",
        "deployment_id",
        "failure_code",
        "has_ended",
        "invocation_id",
        "number",
        "probed",
        "retry_after_ms",
        "seq",
        "status",
        "task",
        "terminal",
        "timeouts_ms",
        "version",
    )
    is_remote = False

    task: asyncio.Task[None]

    def __init__(self, listener: Listener, order: Order, loop: asyncio.AbstractEventLoop) -> None:
        self._listener = listener
        self._loop = loop
        self._decoder = Decoder(order.body_bytes_max)
        self._input_ended = False
        self.seq = order.seq
        self.number = order.number
        self.invocation_id = order.invocation_id
        self.deployment_id = order.deployment_id
        self.version = order.version
        self.timeouts_ms = order.timeouts_ms
        """(inactivity, abort)."""
        self.status = 0
        self.terminal = False
        self.has_ended = False
        self.aborted = False
        self.probed = False
        self.active_at_s = loop.time()
        self.closed_at_s: float | None = None
        self.failure_code = 500
        self.retry_after_ms: int | None = None
        """The endpoint asked to be left alone for so long."""

    # ---- the engine's side -------------------------------------------------------------------------------------------

    def feed(self, frames: bytes) -> None:
        """Send notifications to the handler."""
        raise NotImplementedError

    def probe(self) -> None:
        """Ask the SDK what it waits for."""
        raise NotImplementedError

    def close(self) -> None:
        """End the input. The SDK suspends at its next await."""
        raise NotImplementedError

    def abort(self) -> None:
        """Stop the handler. Whatever it still says is ignored."""
        raise NotImplementedError

    @property
    def is_closed(self) -> bool:
        return self._input_ended

    # ---- the SDK's side ------------------------------------------------------------------------------------------------

    def _received(self, body: bytes) -> None:
        """
        Raises:
            MalformedFrame: these are no frames of the protocol.
        """
        if self.aborted or self.terminal:
            return
        self.active_at_s = self._loop.time()
        frames = self._decoder.feed(body)
        if not frames:
            return
        last = frames[-1][0]
        if last in _TERMINAL:
            self.terminal = True
            self.has_ended = last == m.END
            if last == m.ERROR:
                frames[-1] = (m.ERROR, self._with_trace(frames[-1][1]))
            self.close()
        elif last == m.AWAITING_ON and all(frame[0] == m.AWAITING_ON for frame in frames):
            # It says nothing unless asked for: the SDK sends it late, when the wait may be over already.
            if self.probed and not m.awaiting_on(frames[-1][1])[1]:
                self._listener.attempt_waits(self)
            return
        self.probed = False
        self._listener.frames_received(self, frames)

    def _with_trace(self, error: bytes) -> bytes:
        """The body of an Error, with the stack trace if it has none and one is known."""
        return error

    def _ended(self, failure: str | None) -> None:
        if not self.terminal and failure is None:
            if self.status not in (0, 200):
                failure = f"got status code {self.status} from the application [RT0012]"
            else:
                failure = "the handler's stream ended without End, Suspension or Error [RT0007]"
        self._listener.attempt_ended(self, None if self.terminal else failure)


def unreadable(error: MalformedFrame) -> str:
    """Why the attempt failed, for people."""
    if isinstance(error, FrameTooLarge):
        return f"{error} [RT0019]"
    return f"malformed message from the SDK: {error} [RT0012]"


class InProcessAttempt(Attempt):
    """One call of the application over ASGI, in this process, with no socket between.

    The application's task reads `Start`, the journal and later notifications through `receive`, and writes frames
    through `send`. Both are called by the SDK; what this class adds is the queue between and the rules of ending:
    the SDK waits for the end of its input before it finishes, so every terminal frame closes the input at once.
    """

    __slots__ = ("_app", "_broken", "_end_delivered", "_input", "_scope", "_target", "_trace", "_waiter")

    def __init__(
        self, listener: Listener, order: Order, app: AsgiApp, scope: dict[str, Any], loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(listener, order, loop)
        self._app = app
        self._scope = scope
        self._target = order.target
        self._input = [order.first_input]
        self._end_delivered = False
        self._waiter: asyncio.Future[None] | None = None
        self._trace: traces.Trace | None = None
        self._broken: str | None = None
        self.task = loop.create_task(self._run())

    def feed(self, frames: bytes) -> None:
        self._input.append(frames)
        self.probed = False
        self.active_at_s = self._loop.time()
        self._wake()

    def probe(self) -> None:
        """The SDK flushes its AwaitingOn (version 7) when an empty chunk arrives."""
        self.probed = True
        self._input.append(b"")
        self._wake()

    def close(self) -> None:
        if not self._input_ended:
            self._input_ended = True
            self.closed_at_s = self._loop.time()
            self._wake()

    def abort(self) -> None:
        """Stop the handler at its next await."""
        self.aborted = True
        # The SDK swallows the cancellation where a handler awaits it, and then waits for the end of its input.
        self.close()
        self.task.cancel()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def _receive(self) -> AsgiEvent:
        while True:
            pending = self._input
            if pending:
                self._input = []
                body = pending[0] if len(pending) == 1 else b"".join(pending)
                if body:
                    self.probed = False  # a probe that was joined to frames asks nothing; it is sent again
                return {"type": "http.request", "body": body, "more_body": True}
            if self._input_ended and not self._end_delivered:
                self._end_delivered = True
                return _END_OF_INPUT
            # After the end of input the SDK asks once more; it must block, not be told of a disconnect.
            self._waiter = waiter = self._loop.create_future()
            await waiter

    async def _send(self, event: AsgiEvent) -> None:
        body = event.get("body")
        if not body:
            if event["type"] == "http.response.start":
                self.status = event["status"]
                if self.status != 200:
                    self.close()
            return
        if self.status == 200 and self._broken is None:  # anything but 200 comes with text for people
            try:
                self._received(body)
            except MalformedFrame as error:  # not to be raised here, in the middle of the user's handler
                self._broken = unreadable(error)
                self.close()
                self.task.cancel()

    def _with_trace(self, error: bytes) -> bytes:
        known = self._trace.text if self._trace is not None else ""
        return error + text(3, known) if known and not m.attempt_error(error).stacktrace else error

    async def _run(self) -> None:
        failure: str | None = None
        current_invocation.set((self.invocation_id, self._target))
        self._trace = traces.begin()
        try:
            await self._app(self._scope, self._receive, self._send)
        except asyncio.CancelledError:
            failure = "the attempt was aborted"
        except Exception as error:  # noqa: BLE001 the SDK lets its own errors escape from the ASGI application
            failure = f"{type(error).__name__}: {error} [RT0012]"
        self._ended(self._broken or failure)
