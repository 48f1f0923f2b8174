"""Waiting for conditions, and calling handlers by name."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from holdfast import Engine
from holdfast.core.model import Completion

PATIENCE_S = 20.0
"""For what takes milliseconds on an idle machine."""


class ManualClock:
    """Time that only a test moves."""

    def __init__(self, now_ms: int | None = None) -> None:
        self.time_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms

    def now_ms(self) -> int:
        return self.time_ms

    def advance(self, ms: int) -> None:
        self.time_ms += ms


async def until(condition: Callable[[], Any], what: str = "the condition") -> Any:
    """Look again until the condition holds; returns what it returned."""
    deadline = time.monotonic() + PATIENCE_S
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"{what} did not come true"
        await asyncio.sleep(0.001)
    return answer


async def call(engine: Engine, target: str, argument: Any = None, *, idempotency_key: str | None = None) -> Any:
    """Call `Service/handler` or `Object/key/handler`; the decoded result."""
    completion = await complete(engine, target, argument, idempotency_key=idempotency_key)
    assert completion.failure is None, completion.failure
    return json.loads(completion.value) if completion.value else None


async def complete(
    engine: Engine, target: str, argument: Any = None, *, idempotency_key: str | None = None
) -> Completion:
    handler, key = _handler(engine, target)
    body = b"" if argument is None else json.dumps(argument).encode()
    completion, _ = await engine.call(handler, key, body, idempotency_key=idempotency_key)
    return completion


async def send(
    engine: Engine,
    target: str,
    argument: Any = None,
    *,
    delay_ms: int | None = None,
    idempotency_key: str | None = None,
) -> str:
    """Send; the invocation id."""
    handler, key = _handler(engine, target)
    body = b"" if argument is None else json.dumps(argument).encode()
    receipt = await engine.send(handler, key, body, delay_ms=delay_ms, idempotency_key=idempotency_key)
    return receipt.invocation_id


def _handler(engine: Engine, target: str) -> Any:
    service, *key, handler = target.split("/")
    return engine.services[service].handlers[handler], key[0] if key else None


async def result(engine: Engine, invocation_id: str) -> Any:
    completion = await asyncio.wait_for(engine.attach(invocation_id), PATIENCE_S)
    assert completion.failure is None, completion.failure
    return json.loads(completion.value) if completion.value else None


async def status(engine: Engine, invocation_id: str, *wanted: str) -> None:
    """Wait until the invocation has one of these public statuses."""
    await until(
        lambda: engine.describe(invocation_id).status in wanted, f"status {wanted}: {engine.describe(invocation_id)}"
    )


@contextlib.asynccontextmanager
async def ticking() -> AsyncIterator[list[float]]:
    """How long the event loop was held up at most while the block ran: yields a list with that figure, seconds."""
    longest = [0.0]

    async def tick() -> None:
        before = time.perf_counter()
        while True:
            await asyncio.sleep(0)
            now = time.perf_counter()
            longest[0] = max(longest[0], now - before)
            before = now

    task = asyncio.create_task(tick())
    try:
        yield longest
    finally:
        task.cancel()
