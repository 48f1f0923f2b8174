"""Every scenario on holdfast, and the same on a real Restate server, against the outcome the server gave.

The scenarios of one engine and mode run together, some at a time, when the first of them is asked for; each test then
compares one outcome. `pytest tests/conformance -k cancel` plays only the selected ones.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.conformance import scenarios  # noqa: F401 - registers them
from tests.conformance.backends import Backend, holdfast_backend, restate_backend
from tests.conformance.harness import MODES, SCENARIOS, Outcome, Scenario, play
from tests.conformance.programs import application
from tests.conformance.slow_disk import slow_disk
from tests.support.restate_server import running_server, serving_h2c, skip_without_server

INACTIVITY_TIMEOUTS: dict[str, timedelta | None] = {
    "streaming": None,
    # Longer than a loaded machine stalls, so that only what waits is suspended.
    "suspending": timedelta(milliseconds=150),
    "request-response": timedelta(0),
}


@dataclass(frozen=True, slots=True)
class Setup:
    """One way to run an engine."""

    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    has_slow_disk: bool = False
    without: tuple[str, ...] = ()
    """Scenarios that make no sense on it."""
    http: str | None = None
    """The application runs behind an endpoint that speaks this version, instead of in the engine's process."""
    modes: tuple[str, ...] = MODES
    at_once: int = 8
    """Scenarios. More make no progress on two cores, and stretch the waits of those that watch the clock."""


HOLDFAST = {
    "holdfast-v6": Setup({"protocol_version_max": 6}),  # what servers choose by default
    "holdfast-v7": Setup({"protocol_version_max": 7}),
    # Commits that leave the event loop's thread, and attempts that must make room for others: where races live.
    # Not fewer places: scenarios hold some until something else has run.
    "holdfast-strained": Setup(
        {"attempts_max": 16},
        has_slow_disk=True,
        without=("journal_of_two_thousand_entries", "waiting_stream_needs_one_attempt"),
        at_once=4,
    ),
    "holdfast-http2": Setup(http="2"),
    "holdfast-http11": Setup(http="1.1", modes=("request-response",)),  # there is no other mode
}
LAST_STEPS_S = 5.0
"""Longer than any task needs that has only to notice that it is over."""
RESTATE = "restate"
SETUPS = {**HOLDFAST, RESTATE: Setup()}


def cases(engine: str) -> list[Any]:
    """Parameters `(engine, mode, scenario name)`."""
    return [
        pytest.param(engine, mode, one.name, id=f"{engine}-{mode}-{one.area}-{one.name}")
        for mode in SETUPS[engine].modes
        for one in SCENARIOS.values()
        if mode in (one.server_modes if engine == RESTATE else one.modes) and one.name not in SETUPS[engine].without
    ]


class Outcomes:
    """What the selected scenarios gave, played on demand once for each engine and mode."""

    def __init__(self, selected: dict[tuple[str, str], list[Scenario]], home: Path) -> None:
        self._selected = selected
        self._home = home
        self._played: dict[tuple[str, str], dict[str, Outcome]] = {}
        self._left_over: dict[tuple[str, str], list[str]] = {}

    def of(self, engine: str, mode: str, name: str) -> Outcome:
        self._play(engine, mode)
        return self._played[engine, mode][name]

    def left_over(self, engine: str, mode: str) -> list[str]:
        """Tasks that were still pending when the scenarios were over and the engine was stopped."""
        self._play(engine, mode)
        return self._left_over[engine, mode]

    def _play(self, engine: str, mode: str) -> None:
        if (engine, mode) not in self._played:
            self._played[engine, mode] = asyncio.run(self._play_all(engine, mode))

    async def _play_all(self, engine: str, mode: str) -> dict[str, Outcome]:
        app, setup = application(INACTIVITY_TIMEOUTS[mode]), SETUPS[engine]
        if engine == RESTATE:
            starting = _server(app)
        elif setup.http is not None:
            starting = _with_endpoint(app, self._home / f"{engine}-{mode}.db", setup)
        else:
            starting = holdfast_backend(app, self._home / f"{engine}-{mode}.db", **setup.settings)
        at_once = asyncio.Semaphore(setup.at_once)

        async def play_one(one: Scenario, backend: Backend) -> Outcome:
            async with at_once:
                return await play(one, backend, mode)

        chosen = self._selected.get((engine, mode)) or [one for one in SCENARIOS.values() if mode in one.modes]
        disk = slow_disk() if setup.has_slow_disk else nullcontext()
        with disk:
            async with starting as backend:
                outcomes = await asyncio.gather(*(play_one(one, backend) for one in chosen))
        self._left_over[engine, mode] = await _pending_tasks()
        return {one.name: outcome for one, outcome in zip(chosen, outcomes, strict=True)}


async def _pending_tasks() -> list[str]:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    if tasks:
        _, tasks = await asyncio.wait(tasks, timeout=LAST_STEPS_S)
    return sorted(str(task.get_coro()) for task in tasks)


@asynccontextmanager
async def _server(app: Any) -> AsyncIterator[Backend]:
    # Starting blocks this loop, on which nothing else has to happen yet.
    with running_server() as server, serving_h2c(app) as url:
        server.register(url)
        async with restate_backend(server.ingress_url, server.admin_url) as backend:
            yield backend


@asynccontextmanager
async def _with_endpoint(app: Any, db: Path, setup: Setup) -> AsyncIterator[Backend]:
    """The engine of this process, the application behind a socket."""
    with serving_h2c(app) as url:
        async with holdfast_backend(None, db, **setup.settings) as backend:
            await backend.engine.register_deployment(url, use_http_11=setup.http == "1.1")
            yield backend


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcomes]:
    selected: dict[tuple[str, str], list[Scenario]] = {}
    for item in request.session.items:
        if isinstance(item, pytest.Function) and item.function in (test_on_holdfast, test_on_restate):
            engine, mode, name = (str(item.callspec.params[part]) for part in ("engine", "mode", "name"))
            selected.setdefault((engine, mode), []).append(SCENARIOS[name])
    # The SDK and the engine log every failed attempt, and failing is what many programs are for.
    loggers = [logging.getLogger(name) for name in ("restate", "holdfast", "hypercorn", "asyncio")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    yield Outcomes(selected, tmp_path_factory.mktemp("conformance"))
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.mark.parametrize(("engine", "mode", "name"), [case for engine in HOLDFAST for case in cases(engine)])
def test_on_holdfast(outcomes: Outcomes, engine: str, mode: str, name: str) -> None:
    assert _plain(outcomes.of(engine, mode, name)) == _plain(SCENARIOS[name].expected)


@pytest.mark.parametrize(("engine", "mode"), [(engine, mode) for engine in HOLDFAST for mode in SETUPS[engine].modes])
def test_no_attempt_is_left_behind(outcomes: Outcomes, engine: str, mode: str) -> None:
    """The SDK's task of an attempt only ends when its input does: also of those that were killed or aborted."""
    assert outcomes.left_over(engine, mode) == []


@pytest.mark.restate_server
@pytest.mark.parametrize(("engine", "mode", "name"), cases(RESTATE))
def test_on_restate(outcomes: Outcomes, engine: str, mode: str, name: str) -> None:
    skip_without_server()
    assert _plain(outcomes.of(engine, mode, name)) == _plain(SCENARIOS[name].expected)


def _plain(outcome: Outcome) -> Any:
    """As JSON has it, so that tuples equal lists."""
    return json.loads(json.dumps(outcome))
