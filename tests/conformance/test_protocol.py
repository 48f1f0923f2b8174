"""Failure paths of the protocol, versions 5 to 7: holdfast in process, holdfast over HTTP/2, and a real server, all alike."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conformance import exchanges  # noqa: F401 - registers them
from tests.conformance.backends import Backend, holdfast_backend, restate_backend
from tests.conformance.harness import Run
from tests.conformance.raw import EXCHANGES, Exchange, raw_application, serving_raw
from tests.support.restate_server import running_server, skip_without_server

VERSIONS = (5, 6, 7)
IN_PROCESS, OVER_HTTP, RESTATE = "in-process", "http2", "restate"
EXCHANGE_TIMEOUT_S = 15.0
AT_ONCE = 8
"""Exchanges on one engine."""


def cases(engine: str) -> list[Any]:
    return [
        pytest.param(engine, version, name, id=f"{engine}-v{version}-{name}")
        for version in VERSIONS
        for name, one in EXCHANGES.items()
        if not (one.over_http and engine == IN_PROCESS) and not (one.breaks_server and engine == RESTATE)
    ]


class Outcomes:
    """Played on demand, all of one engine and version together."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._played: dict[tuple[str, int], dict[str, Any]] = {}

    def of(self, engine: str, version: int, name: str) -> Any:
        if (engine, version) not in self._played:
            self._played[engine, version] = asyncio.run(self._play_all(engine, version))
        return self._played[engine, version][name]

    async def _play_all(self, engine: str, version: int) -> dict[str, Any]:
        names = [str(case.values[2]) for case in cases(engine) if case.values[1] == version]
        at_once = asyncio.Semaphore(AT_ONCE)

        async def one(name: str, backend: Backend) -> Any:
            async with at_once:
                return await play(name, backend)

        async with self._engine(engine, version) as backend:
            found = await asyncio.gather(*(one(name, backend) for name in names))
        return dict(zip(names, found, strict=True))

    @asynccontextmanager
    async def _engine(self, engine: str, version: int) -> AsyncIterator[Backend]:
        app = raw_application(max_version=version)
        settings = {"protocol_version_max": version, "pause_on_mismatch": False}
        db = self._home / f"{engine}-{version}.db"
        if engine == IN_PROCESS:
            async with holdfast_backend(app, db, **settings) as backend:
                yield backend
        elif engine == OVER_HTTP:
            with serving_raw(app) as url:
                async with holdfast_backend(None, db, **settings) as backend:
                    answer = await backend.admin.post("/deployments", json={"uri": url})
                    assert answer.status_code == 201, answer.text
                    yield backend
        else:
            env = {"RESTATE_EXPERIMENTAL_ENABLE_PROTOCOL_V7": "true"} if version == 7 else {}
            with running_server(env=env) as server, serving_raw(app) as url:
                server.register(url)
                async with restate_backend(server.ingress_url, server.admin_url) as backend:
                    yield backend


async def play(name: str, backend: Backend) -> Any:
    """Start an invocation of this exchange; wait until it has ended or waits for something that the script never does."""
    run = Run(backend, "any")
    try:
        async with asyncio.timeout(EXCHANGE_TIMEOUT_S):
            invocation = await run.send(f"Raw/{name}", run.key())
            status = await _rest(run, invocation)
            answer: Any = await run.attach(invocation) if status == "completed" else status
            if isinstance(answer, dict) and _is_engines_own(name, answer):
                answer = {"status": answer["status"], "code": answer["error"]["code"]}
            attempts = [entry for entry in run.entries() if "; failed" in entry]
            if not EXCHANGES[name].has_counts:
                attempts = [entry.partition(";")[0] for entry in attempts]
            if status != "completed":
                await run.operate("kill", invocation)
            outcome = {"answer": answer, "attempts": attempts}
            if "events" in EXCHANGES[name].outcome(7):
                outcome["events"] = [_event(one) for one in await backend.events(invocation)]
            return outcome
    except Exception as error:  # noqa: BLE001 - what goes wrong is an outcome
        return f"{type(error).__name__}: {error}; {run.entries()}"
    finally:
        await run.close()


def _event(event: dict[str, Any]) -> list[Any]:
    """`Paused`, or code, message, stack trace and the command of a failure; then what it says of the last failure."""
    last = event.get("last_failure")
    names = ("error_code", "error_message", "error_stacktrace")
    related = [event.get(f"related_command_{name}") for name in ("index", "name", "type")]
    shown = [event["ty"]] if event["ty"] == "Paused" else [event.get(name) for name in names] + related
    return [*shown, last["error_message"]] if last else shown


async def _rest(run: Run, invocation: str) -> str:
    """The status in which it stays."""
    status = await run.status(invocation, "completed", "paused", "suspended")
    looks = 0
    while status == "suspended" and looks < 15:  # a timer may be about to wake it
        await asyncio.sleep(0.02)
        looks += 1
        status = await run.status(invocation, "completed", "paused", "suspended", "running", "backing-off", "ready")
    if status in ("running", "backing-off", "ready"):
        return await _rest(run, invocation)
    return status


def _is_engines_own(name: str, answer: dict[str, Any]) -> bool:
    """Whether the error is worded by the engine: only its code is compared."""
    expected: Exchange = EXCHANGES[name]
    return "error" in answer and "error" not in expected.outcome(7)["answer"]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcomes]:
    loggers = [logging.getLogger(name) for name in ("holdfast", "hypercorn", "asyncio")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    yield Outcomes(tmp_path_factory.mktemp("protocol"))
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.mark.parametrize(("engine", "version", "name"), [*cases(IN_PROCESS), *cases(OVER_HTTP)])
def test_on_holdfast(outcomes: Outcomes, engine: str, version: int, name: str) -> None:
    assert outcomes.of(engine, version, name) == EXCHANGES[name].outcome(version)


@pytest.mark.restate_server
@pytest.mark.parametrize(("engine", "version", "name"), cases(RESTATE))
def test_on_restate(outcomes: Outcomes, engine: str, version: int, name: str) -> None:
    skip_without_server()
    assert outcomes.of(engine, version, name) == EXCHANGES[name].outcome(version)
