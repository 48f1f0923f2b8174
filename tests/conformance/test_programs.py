"""Programs that Hypothesis draws, on holdfast in several forms and on a real Restate server: all must say the same.

Drawn the same way every time, so that a change is to blame when it fails. For more, and for others each time:

    HOLDFAST_PROGRAMS=5000 pytest tests/conformance/test_programs.py -s
    HOLDFAST_PROGRAMS=5000 HOLDFAST_PROGRAMS_SEED=7 pytest tests/conformance/test_programs.py
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.conformance.backends import Backend, holdfast_backend, restate_backend
from tests.conformance.drawing import Node, programs
from tests.conformance.playing import play_program
from tests.conformance.programs.interpreter import interpreter
from tests.conformance.slow_disk import slow_disk
from tests.support.restate_server import running_server, server_binary, serving_h2c

PROGRAMS = int(os.environ.get("HOLDFAST_PROGRAMS", "80"))
"""How many; the default takes half a minute on two cores."""
AT_ONCE = 4
SEED = int(os.environ.get("HOLDFAST_PROGRAMS_SEED", "0"))


@dataclass(frozen=True, slots=True)
class Setup:
    """One form of holdfast."""

    settings: dict[str, Any]
    has_slow_disk: bool = False
    is_remote: bool = False
    """The programs run in another thread, over HTTP/2."""


HOLDFAST = {
    "holdfast-v6": Setup({"protocol_version_max": 6}),
    "holdfast-http2": Setup({"protocol_version_max": 7, "suspend_after_ms": 20}, is_remote=True),
    # With hardly any places: attempts are suspended to let others run.
    "holdfast-strained": Setup({"protocol_version_max": 7, "attempts_max": 3}, has_slow_disk=True),
}


class Engines:
    """Every engine, kept running from program to program in one event loop."""

    def __init__(self, home: Path) -> None:
        self._runner = asyncio.Runner()
        self._home = home
        self._stack = AsyncExitStack()
        self._backends: list[Backend] = []

    def __enter__(self) -> Engines:
        self._runner.__enter__()
        self._runner.run(self._start())
        return self

    def __exit__(self, *exc: Any) -> None:
        self._runner.run(self._stack.aclose())
        self._runner.__exit__(*exc)

    async def _start(self) -> None:
        for name, setup in HOLDFAST.items():
            with slow_disk() if setup.has_slow_disk else nullcontext():
                backend = await self._stack.enter_async_context(_holdfast(self._home / f"{name}.db", setup))
            backend.name = name
            self._backends.append(backend)
        if server_binary() is not None:
            self._backends.append(await self._stack.enter_async_context(_server()))

    def play(self, batch: list[Node]) -> list[dict[str, Any]]:
        """Each program's outcomes, all programs at once: engine -> outcome. The last engine is the reference."""
        return self._runner.run(self._play_all(batch))

    async def _play_all(self, batch: list[Node]) -> list[dict[str, Any]]:
        return list(await asyncio.gather(*(self._play(program) for program in batch)))

    async def _play(self, program: Node) -> dict[str, Any]:
        outcomes = await asyncio.gather(*(play_program(program, backend) for backend in self._backends))
        return {backend.name: outcome for backend, outcome in zip(self._backends, outcomes, strict=True)}


@asynccontextmanager
async def _holdfast(db: Path, setup: Setup) -> AsyncIterator[Backend]:
    if not setup.is_remote:
        async with holdfast_backend(interpreter(), db, **setup.settings) as backend:
            yield backend
        return
    with serving_h2c(interpreter()) as url:
        async with holdfast_backend(None, db, **setup.settings) as backend:
            (await backend.admin.post("/deployments", json={"uri": url})).raise_for_status()
            yield backend


@asynccontextmanager
async def _server() -> AsyncIterator[Backend]:
    with running_server() as server, serving_h2c(interpreter()) as url:
        server.register(url)
        async with restate_backend(server.ingress_url, server.admin_url) as backend:
            yield backend


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    loggers = [logging.getLogger(name) for name in ("restate", "holdfast", "hypercorn", "asyncio")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    with Engines(tmp_path_factory.mktemp("programs")) as running:
        yield running
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.mark.timeout(120 + 2 * PROGRAMS)
@seed(SEED)
@settings(
    max_examples=max(1, PROGRAMS // AT_ONCE),
    deadline=None,
    database=None,
    derandomize=False,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    print_blob=True,
)
@given(batch=st.lists(programs(), min_size=AT_ONCE, max_size=AT_ONCE))
def test_every_engine_gives_the_same(engines: Engines, batch: list[Node]) -> None:
    for program, outcomes in zip(batch, engines.play(batch), strict=True):
        *others, reference = outcomes
        text = json.dumps(program, ensure_ascii=False)
        for other in others:
            assert outcomes[other] == outcomes[reference], f"{other} and {reference} differ on {text}"
        assert isinstance(outcomes[reference], dict), f"{outcomes[reference]} of {text}"
