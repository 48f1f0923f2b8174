"""The ceiling: the SDK driven in this process by the least code that can, with nothing stored anywhere.

No engine that runs unmodified applications over the SDK's ASGI interface can be faster than this; what it is slower by
is the price of its journal, its locks and its callers. Not an engine: nothing survives, nothing is retried, keys are
not locked, and frames are taken apart with just enough care for the five workloads here.
"""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import Callable, Coroutine
from itertools import count
from typing import Any

from bench.app import app
from bench.load import KEYS

_FRAME = struct.Struct(">HHI")
_START, _END, _PROPOSE_RUN, _RUN_ACK = 0x0000, 0x0003, 0x0005, 0x0007
_INPUT, _OUTPUT, _SET_STATE, _RUN_COMPLETION = 0x0400, 0x0401, 0x0403, 0x8011
_TERMINAL = (0x0001, 0x0002, _END)


def _frame(kind: int, body: bytes) -> bytes:
    return _FRAME.pack(kind, 0, len(body)) + body


def _varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def _field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


class Driver:
    """Sends invocations to the application over ASGI, speaking one version of the service protocol."""

    def __init__(self, version: int) -> None:
        self._acks_runs = version >= 7
        media_type = b"application/vnd.restate.invocation.v%d" % version
        self._headers = [(b"content-type", media_type), (b"accept", media_type)]
        self._state: dict[bytes, bytes] = {}

    async def invoke(self, path: str, body: bytes, key: bytes = b"") -> bytes:
        """Run one attempt to its end; returns the output's frame body.

        Raises:
            RuntimeError: the attempt did not end with an output.
        """
        attempt = _Attempt(self._acks_runs, self._opening(body, key), key, self._state)
        scope = {"type": "http", "path": path, "http_version": "2", "headers": self._headers}
        await asyncio.create_task(app(scope, attempt.receive, attempt.send))
        if attempt.output is None:
            raise RuntimeError(f"{path} did not end with an output")
        return attempt.output

    def _opening(self, body: bytes, key: bytes) -> bytes:
        start = _field(1, b"x" * 24) + _field(2, b"inv_1") + b"\x18\x01"
        if (value := self._state.get(key)) is not None:
            start += _field(4, _field(1, b"value") + _field(2, value))
        if key:
            start += _field(6, key)
        start += b"\x48\x05"  # random_seed
        return _frame(_START, start) + _frame(_INPUT, _field(14, _field(1, body)))


class _Attempt:
    __slots__ = ("_acks_runs", "_incoming", "_key", "_state", "_waiting", "output")

    def __init__(self, acks_runs: bool, opening: bytes, key: bytes, state: dict[bytes, bytes]) -> None:
        self._acks_runs = acks_runs
        self._incoming: list[bytes | None] = [opening]
        self._key = key
        self._state = state
        self._waiting: asyncio.Future[None] | None = None
        self.output: bytes | None = None

    async def receive(self) -> dict[str, Any]:
        if not self._incoming:
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
            self._waiting = None
        chunk = self._incoming.pop(0)
        return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

    async def send(self, event: dict[str, Any]) -> None:
        data = event.get("body")
        if not data:
            return
        at = 0
        while at < len(data):
            kind, _, size = _FRAME.unpack_from(data, at)
            self._on_frame(kind, bytes(data[at + 8 : at + 8 + size]))
            at += 8 + size

    def _on_frame(self, kind: int, body: bytes) -> None:
        if kind == _PROPOSE_RUN:
            # body: 08 <completion id, below 128 here> 72 <length> <value>
            if self._acks_runs:
                self._push(_frame(_RUN_ACK, body[:2]))
            else:
                self._push(_frame(_RUN_COMPLETION, body[:2] + _field(5, b"\x0a" + body[3:])))
        elif kind == _OUTPUT:
            self.output = body
        elif kind == _SET_STATE:
            # body: 0a 05 "value" 1a <length> 0a <length> <value>
            self._state[self._key] = body[11:]
        elif kind in _TERMINAL:
            self._push(None)

    def _push(self, chunk: bytes | None) -> None:
        self._incoming.append(chunk)
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


def workloads(version: int) -> dict[str, Callable[[], Coroutine[Any, Any, bytes]]]:
    """The workloads, each a function that makes one call."""
    driver, keys = Driver(version), count()

    def workflow_key() -> bytes:
        return b"w%d" % next(keys)

    return {
        "empty": lambda: driver.invoke("/invoke/Empty/call", b'"hi"'),
        "steps": lambda: driver.invoke("/invoke/FiveSteps/run", b'"hi"', workflow_key()),
        "sync-steps": lambda: driver.invoke("/invoke/FiveSyncSteps/run_sync", b'"hi"', workflow_key()),
        "counter": lambda: driver.invoke("/invoke/Counter/add", b"1", b"%d" % random.randrange(KEYS)),
    }
