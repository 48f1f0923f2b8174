"""What lies between engine and SDK, made worse: chunks are cut anywhere and come late, and streams break.

It is an ASGI application around the SDK's own. What the SDK says of the real world is taken out of its messages, for a
seed must be a whole history: the time of its commands, which its native core takes from the real clock, is moved to the
virtual one, and stack traces lose what depends on where Python and this checkout are, and on the version of both. Such
text is stored; a longer path means more pages, more calls of the disk, and other trouble at the n-th of them.
"""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path
from random import Random
from typing import Any

from holdfast.protocol import messages as m
from holdfast.protocol.wire import Decoder, data, fields, frame, uint
from tests.simulation.loop import VirtualClock
from tests.simulation.program import STRETCH, TICK_MS

_TIME_FIELD = {m.SLEEP: 1, m.ONE_WAY_CALL: 4}
_TRACE_FIELD = 3
_FRAME = re.compile(rf'File "{re.escape(str(Path(__file__).parents[2]))}/(tests/[^"]+)", line \d+, in (\w+)'.encode())


class StreamBroke(ConnectionError):
    """The connection between engine and SDK is gone."""


class Wire:
    """`app` behind a bad network. All that happens is drawn from `random`."""

    def __init__(self, app: Any, random: Random, clock: VirtualClock) -> None:
        self._app = app
        self._random = random
        self._clock = clock
        self.delay_s = 0.0
        """Chunks come up to this late."""
        self.cuts = 0.0
        """Probability that a chunk arrives in several parts."""
        self.breaks = 0.0
        """Probability that a stream breaks at a chunk."""
        self.open_streams = 0
        self.broken_streams = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if not scope["path"].startswith("/invoke/"):
            await self._app(scope, receive, send)
            return
        stream = _Stream(self, self._random, receive, send)
        self.open_streams += 1
        try:
            await self._app(scope, stream.receive, stream.send)
        finally:
            self.open_streams -= 1

    async def pause(self) -> None:
        if self.delay_s:
            await asyncio.sleep(self._random.random() ** 3 * self.delay_s)

    def in_our_world(self, kind: int, body: bytes) -> bytes:
        """The frame without what differs from run to run, and from machine to machine."""
        if kind == m.ERROR:
            return frame(kind, _with_field(body, _TRACE_FIELD, _short_trace))
        number = _TIME_FIELD.get(kind)
        return frame(kind, body if number is None else _with_field(body, number, self._virtual_ms))

    def _virtual_ms(self, real_ms: int) -> int:
        """Programs ask for a multiple of a long time (`STRETCH`); what passed here since they asked is rounded off."""
        delay_ms = (real_ms - time.time_ns() // 1_000_000) / STRETCH
        return self._clock.now_ms() + round(delay_ms / TICK_MS) * TICK_MS if real_ms else 0


def _with_field(body: bytes, number: int, change: Any) -> bytes:
    out = b""
    for field, value in fields(body):
        new = change(value) if field == number else value
        out += uint(field, new) if isinstance(new, int) else data(field, new)
    return out


def _short_trace(trace: bytes) -> bytes:
    """The frames of this repository, by relative path and without line numbers."""
    return b"".join(b'  File "%s", line 1, in %s\n' % found.groups() for found in _FRAME.finditer(trace))


class _Stream:
    def __init__(self, wire: Wire, random: Random, receive: Any, send: Any) -> None:
        self._wire = wire
        self._random = random
        self._receive = receive
        self._send = send
        self._decoder = Decoder()
        self._waiting: list[dict[str, Any]] = []
        self._is_broken = False

    async def receive(self) -> Any:
        if self._is_broken:
            return {"type": "http.disconnect"}
        if not self._waiting:
            event = await self._receive()
            await self._wire.pause()
            for part in self._parts(event.get("body", b"")):
                self._waiting.append({**event, "body": part, "more_body": True})
            self._waiting[-1]["more_body"] = event["more_body"]
        return self._waiting.pop(0)

    def _check(self) -> None:
        if self._is_broken:  # once gone, gone for good
            raise StreamBroke("the stream broke")

    async def send(self, event: Any) -> None:
        self._check()
        body: bytes = event.get("body", b"")
        if event["type"] != "http.response.body" or not body:
            await self._send(event)
            return
        body = b"".join([self._wire.in_our_world(*one) for one in self._decoder.feed(body)])
        breaks = self._random.random() < self._wire.breaks
        parts = self._parts(body) if body else []
        if breaks:
            parts = parts[: self._random.randrange(len(parts) + 1)]
        for part in parts:
            await self._wire.pause()
            await self._send({**event, "body": part})
        if breaks:
            self._wire.broken_streams += 1
            self._is_broken = True
            self._check()

    def _parts(self, body: bytes) -> list[bytes]:
        if len(body) < 2 or self._random.random() >= self._wire.cuts:
            return [body]
        cuts = sorted(self._random.randrange(1, len(body)) for _ in range(self._random.randint(1, 3)))
        return [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True) if b > a]
