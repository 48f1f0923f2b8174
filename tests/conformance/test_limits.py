"""Large values, large state, long journals: holdfast and a real server up to the limit and above it."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.backends import Backend, holdfast_backend, restate_backend
from tests.conformance.harness import Outcome, Run, ok
from tests.conformance.programs.bulky import application
from tests.support.restate_server import running_server, serving_h2c, skip_without_server

MIB = 1 << 20
OVER = 33 * MIB
"""Above what one journal entry may be: 32 MiB and a quarter."""
EAGER_KIB = 64

HOLDFAST, RESTATE = "holdfast", "restate"
SERVER = {
    "RESTATE_WORKER__INVOKER__EAGER_STATE_SIZE_LIMIT": f"{EAGER_KIB} KiB",
    # By default a server cannot run what it accepts: reading 32 MiB back takes more than its budget per invocation.
    "RESTATE_WORKER__INVOKER__PER_INVOCATION_MEMORY_LIMIT": "256 MiB",
    "RESTATE_WORKER__INVOKER__MEMORY_LIMIT": "512 MiB",
}
ENGINES = pytest.mark.parametrize(
    "engine", [pytest.param(HOLDFAST), pytest.param(RESTATE, marks=pytest.mark.restate_server)]
)
REFUSED = {"status": 500, "code": 500}
"""In the engine's own words, after two attempts."""


@asynccontextmanager
async def running(engine: str, home: Path) -> AsyncIterator[Run]:
    if engine == RESTATE:
        skip_without_server()
        with running_server(env=SERVER) as server, serving_h2c(application()) as url:
            server.register(url)
            async with restate_backend(server.ingress_url, server.admin_url) as backend:
                yield await _run(backend)
    else:
        settings = {"eager_state_bytes_max": EAGER_KIB << 10}
        async with holdfast_backend(application(), home / "a.db", **settings) as backend:
            yield await _run(backend)


async def _run(backend: Backend) -> Run:
    return Run(backend, "any")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("restate", "holdfast", "hypercorn", "asyncio")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


async def _body(run: Run, size_bytes: int = 31 * MIB) -> Outcome:
    return await run.call("Bulky/size", body=bytes(size_bytes), headers={"content-type": "application/octet-stream"})


async def _output(run: Run) -> Outcome:
    answer = await run.call("Bulky/output", bytes=31 * MIB)
    return {"status": answer["status"], "size": len(answer["value"])}


async def _state(run: Run) -> Outcome:
    return await run.call("BulkyStore/put", run.key(), names=["a"], bytes=31 * MIB)


async def _too_large(run: Run) -> list[Outcome]:
    answers = [await run.call(f"Bulky/{handler}", bytes=OVER) for handler in ("step", "output", "call", "failure")]
    answers.append(await run.call("BulkyStore/put", run.key("large"), names=["a"], bytes=OVER))
    return [{"status": answer["status"], "code": answer["error"]["code"]} for answer in answers]


async def _partial_state(run: Run) -> Outcome:
    """Larger than what is sent along: the handler asks for what it reads."""
    names = ["a", "b", "c"]
    await run.call("BulkyStore/put", run.key("partial"), names=names, bytes=EAGER_KIB << 9)
    return await run.call("BulkyStore/use", run.key("partial"), body=names)


USED = {
    "keys": ["a", "b", "c"],
    "sizes": [EAGER_KIB << 9] * 3,
    "new": 1,
    "cleared": None,
    "absent": None,
    "later keys": ["b", "c", "new"],
}

TABLE: dict[str, tuple[Callable[[Run], Awaitable[Any]], Any]] = {
    "a body of 31 MiB": (_body, ok(31 * MIB)),
    "a step of 31 MiB": (lambda run: run.call("Bulky/step", bytes=31 * MIB), ok(31 * MIB)),
    "an output of 31 MiB": (_output, {"status": 200, "size": 31 * MIB}),
    "an argument of 31 MiB": (lambda run: run.call("Bulky/call", bytes=31 * MIB), ok(31 * MIB)),
    "a state value of 31 MiB": (_state, ok(None)),
    "more than fits into an entry": (_too_large, [REFUSED] * 5),
    "state larger than the eager limit": (_partial_state, ok(USED)),
}


@pytest.mark.slow
@ENGINES
async def test_sizes(engine: str, tmp_path: Path) -> None:
    async with running(engine, tmp_path) as run:
        outcomes = {name: await play(run) for name, (play, _) in TABLE.items()}
    assert outcomes == {name: expected for name, (_, expected) in TABLE.items()}


async def test_a_body_as_large_as_may_be(tmp_path: Path) -> None:
    """A server accepts it, and then has not the memory for it."""
    async with running(HOLDFAST, tmp_path) as run:
        assert await _body(run, 32 * MIB) == ok(32 * MIB)
        assert (await run.call("Bulky/size", body=bytes(32 * MIB + 1)))["status"] == 413


async def test_what_is_too_large_is_said_to_be(tmp_path: Path) -> None:
    async with running(HOLDFAST, tmp_path) as run:
        answer = await run.call("Bulky/output", bytes=OVER)
    assert answer["error"]["message"] == (
        "message of 34603018 bytes, the limit is 33816576: keep large data elsewhere and pass a reference to it [RT0019]"
    )


@pytest.mark.slow
@ENGINES
async def test_a_journal_of_a_hundred_thousand_entries(engine: str, tmp_path: Path) -> None:
    count = 100_000 if engine == HOLDFAST else 20_000  # a server takes ten seconds for the whole
    async with running(engine, tmp_path) as run:
        answer = await run.call("BulkyStore/many", run.key("many"), body=count)
    assert answer == ok(sum(range(count - 10, count)))


@pytest.mark.slow
async def test_time_grows_with_the_journal_not_with_its_square(tmp_path: Path) -> None:
    took_s: list[float] = []
    async with running(HOLDFAST, tmp_path) as run:
        # Large values stand beside: see migration 0004.
        await run.call("BulkyStore/put", run.key("beside"), names=["a", "b"], bytes=8 * MIB)
        await run.call("BulkyStore/many", run.key("warm"), body=1_000)
        for count in (5_000, 50_000):
            started_s = time.perf_counter()
            await run.call("BulkyStore/many", run.key(f"{count}"), body=count)
            took_s.append(time.perf_counter() - started_s)
    assert took_s[1] < 40 * took_s[0], f"ten times the entries took {took_s}"
