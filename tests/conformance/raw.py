"""A service without an SDK: handlers that speak frames, so that they can break every rule of the protocol.

The same ASGI application is called by holdfast in process, by holdfast over HTTP/2, and by a Restate server. Each handler
is a script for the attempts of one invocation; what the engine sent to it goes into the ledger.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn

from holdfast.config import SecurityConfig
from holdfast.protocol import messages as m
from holdfast.protocol.wire import Decoder, data, frame, message, text, uint
from holdfast.serving.connection import protocol_class
from holdfast.serving.limits import Limits
from tests.conformance import ledger

Script = Callable[["Conversation"], Awaitable[None]]
Outcome = dict[str, Any]

RETRY = {
    "retryPolicyInitialInterval": 20,
    "retryPolicyMaxInterval": 20,
    "retryPolicyExponentiationFactor": 1.0,
    "retryPolicyMaxAttempts": 3,
    "retryPolicyOnMaxAttempts": "KILL",
}
_MANIFEST_TYPE = "application/vnd.restate.endpointmanifest.v4+json"


@dataclass(frozen=True, slots=True)
class Exchange:
    """A script, and what comes of it."""

    play: Script
    expected: Outcome | Callable[[int], Outcome]
    """Of every engine; by protocol version where versions differ."""
    settings: dict[str, Any]
    over_http: bool
    """Needs a real connection: it is about responses, not frames."""
    has_counts: bool
    """The failures that Start counts are compared too."""
    breaks_server: str
    """Why a Restate server 1.7 cannot be asked."""

    def outcome(self, version: int) -> Outcome:
        return self.expected(version) if callable(self.expected) else self.expected


_memory: dict[str, dict[str, Any]] = {}
EXCHANGES: dict[str, Exchange] = {}


def exchange(
    expected: Outcome | Callable[[int], Outcome],
    *,
    over_http: bool = False,
    has_counts: bool = True,
    breaks_server: str = "",
    **settings: Any,
) -> Callable[[Script], Script]:
    """Register a handler of the object `Raw` with the outcome that a real server gives.

    Args:
        settings: of the handler's manifest, besides `RETRY`.
    """

    def register(play: Script) -> Script:
        EXCHANGES[play.__name__] = Exchange(play, expected, settings, over_http, has_counts, breaks_server)
        return play

    return register


class Conversation:
    """One attempt, seen from the endpoint."""

    def __init__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.content_type = headers["content-type"]
        self.version = int(self.content_type.rpartition(".v")[2])
        self.t = ""
        self.attempt = 0
        """1 for the first of the invocation."""
        self.input: Any = None
        self.start: dict[int, Any] = {}
        self.known: list[tuple[int, bytes]] = []
        """The journal, Input included."""
        self.is_open = False
        self.memory = _memory.setdefault(headers["x-restate-invocation-id"], {})
        """Shared by the attempts of the invocation."""
        self._receive, self._send = receive, send
        self._decoder = Decoder(1 << 26)
        self._waiting: list[tuple[int, bytes]] = []
        self._input_ended = False
        self._is_over = False

    async def begin(self) -> None:
        """Read Start and the journal."""
        _, start = await self.next_frame()
        self.start = message(start)
        self.known = [await self.next_frame() for _ in range(self.start[3])]
        self.input = json.loads(message(message(self.known[0][1])[14])[1])  # type: ignore[arg-type]
        self.t = self.input["t"]
        self.attempt = ledger.record(self.t, "attempt")
        self.note_known()

    async def next_frame(self) -> tuple[int, bytes]:
        """The next frame of the engine; type -1 when there are no more."""
        while not self._waiting and not self._input_ended:
            event = await self._receive()
            self._waiting += self._decoder.feed(event.get("body", b""))
            self._input_ended = event["type"] == "http.disconnect" or not event.get("more_body", False)
        return self._waiting.pop(0) if self._waiting else (-1, b"")

    async def respond(self, status: int = 200, **headers: str) -> None:
        """The response's head; by itself at the first `say`."""
        self.is_open = True
        raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def say(self, *frames: bytes) -> None:
        if not self.is_open:
            await self.respond(content_type=self.content_type, x_restate_server="raw/1")
        await self._send({"type": "http.response.body", "body": b"".join(frames), "more_body": True})

    async def over(self) -> None:
        """End the response without waiting for anything."""
        if not self.is_open:
            await self.say()
        self._is_over = True
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def finish(self) -> None:
        """Wait for the end of the request, as SDKs do, then end the response."""
        while not self._input_ended and not self._is_over:
            await self.next_frame()
        if not self._is_over:
            await self.over()

    def note(self, entry: str) -> None:
        ledger.record(self.t, entry)

    def note_known(self) -> None:
        """Put the journal as it was sent, and the count of failures in Start, into the ledger."""
        self.note(f"{' '.join(_entry(kind) for kind, _ in self.known)}; failed {self.start.get(7, 0)}")


def _entry(kind: int) -> str:
    """`Run` for the command, `=Run` for its completion."""
    command, _, name = m.entry_type_name(kind).partition(": ")
    return name if command == "Command" else f"={name}"


# --- frames ---------------------------------------------------------------------------------------------------------------

END = frame(m.END, b"")


def output(value: Any) -> bytes:
    return frame(m.OUTPUT, data(14, data(1, json.dumps(value).encode())))


def run(completion_id: int, name: str = "step") -> bytes:
    return frame(m.RUN, uint(11, completion_id) + text(12, name))


def proposal(completion_id: int, value: bytes) -> bytes:
    return frame(m.PROPOSE_RUN_COMPLETION, uint(1, completion_id) + data(14, value))


def sleep(completion_id: int, wake_up_ms: int) -> bytes:
    return frame(m.SLEEP, uint(1, wake_up_ms) + uint(11, completion_id))


def error(code: int, text_: str, *more: bytes) -> bytes:
    return frame(m.ERROR, uint(1, code) + text(2, text_) + b"".join(more))


def suspension(version: int, *completion_ids: int, signals: tuple[int, ...] = ()) -> bytes:
    """Wait for any of these; the field of version 7 is a tree."""
    leaves = b"".join([*(uint(1, one) for one in completion_ids), *(uint(2, one) for one in signals)])
    return frame(m.SUSPENSION, data(4, leaves + uint(5, 1)) if version >= 7 else leaves)


# --- the application --------------------------------------------------------------------------------------------------------


def raw_application(min_version: int = 5, max_version: int = 6, mode: str = "BIDI_STREAM") -> Any:
    """An ASGI application with one handler for each script."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise ValueError("only HTTP is served here")
        path = scope["path"].split("/")
        if path[-1] == "discover":
            await _answer(send, json.dumps(_manifest(min_version, max_version, mode)).encode())
            return
        conversation = Conversation(scope, receive, send)
        await conversation.begin()
        await EXCHANGES[path[-1]].play(conversation)
        await conversation.finish()

    return app


@contextmanager
def serving_raw(app: Any) -> Iterator[str]:
    """Serve it over HTTP/2 from a thread; yields its URL.

    With holdfast's own server: hypercorn closes the whole connection when a response ends before its request does, and
    with it the attempts of all others.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, http=protocol_class(Limits.of(SecurityConfig())), ws="none", lifespan="off", log_config=None,
        timeout_graceful_shutdown=1,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=asyncio.run, args=(server.serve([listener]),), name="raw", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        listener.close()


async def _answer(send: Any, body: bytes) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", _MANIFEST_TYPE.encode())]})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _manifest(min_version: int, max_version: int, mode: str) -> dict[str, Any]:
    handlers = [
        {"name": name, **RETRY, "inactivityTimeout": 60_000, "abortTimeout": 60_000, **one.settings}
        for name, one in EXCHANGES.items()
    ]
    return {
        "protocolMode": mode,
        "minProtocolVersion": min_version,
        "maxProtocolVersion": max_version,
        "services": [{"name": "Raw", "ty": "VIRTUAL_OBJECT", "handlers": handlers}],
    }
