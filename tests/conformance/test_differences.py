"""Where holdfast differs from a Restate server on purpose: what each of the two does. docs/compatibility.md says why.

A row that becomes equal on both fails here too, so that the documentation follows.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conformance.backends import Backend, holdfast_backend, restate_backend
from tests.conformance.harness import Outcome, Run
from tests.conformance.programs import application
from tests.support.restate_server import running_server, serving_h2c, skip_without_server

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 1.5
"""How long a server is watched that does nothing, or the same over and over."""


@dataclass(frozen=True, slots=True)
class Difference:
    play: Callable[[Run], Awaitable[Outcome]]
    restate: Outcome
    holdfast: Outcome


DIFFERENCES: dict[str, Difference] = {}


def difference(*, restate: Outcome, holdfast: Outcome) -> Callable[[Any], Any]:
    def register(play: Callable[[Run], Awaitable[Outcome]]) -> Callable[[Run], Awaitable[Outcome]]:
        DIFFERENCES[play.__name__] = Difference(play, restate, holdfast)
        return play

    return register


@difference(restate="waits", holdfast=409)
async def a_handler_that_calls_its_own_key(run: Run) -> Outcome:
    waiting = run.start("Diary/calls_itself", run.key(), body="line")
    done, _ = await asyncio.wait([waiting], timeout=WAIT_S)
    return waiting.result()["status"] if done else "waits"


@difference(restate=[570, "tried again"], holdfast=["paused", "tried once"])
async def a_journal_that_does_not_fit_the_code(run: Run) -> Outcome:
    """The second attempt finds it out. A server retries by the policy, which then kills it."""
    invocation = await run.send("Failing/nondeterministic")
    status = await run.status(invocation, "completed", "paused")
    tried = "tried again" if run.counts()["attempt"] > 2 else "tried once"
    return [(await run.attach(invocation))["status"] if status == "completed" else status, tried]


@difference(restate="over and over", holdfast="waits")
async def a_wait_after_a_cancel_that_was_consumed(run: Run) -> Outcome:
    invocation = await run.send("Failing/cancelled_twice")
    await run.seen("waiting 0")
    await run.status(invocation, "suspended")
    await run.operate("cancel", invocation)
    await run.seen("waiting 1")
    await asyncio.sleep(WAIT_S)
    attempts = run.counts()["waiting 1"]
    await run.operate("kill", invocation)
    return "over and over" if attempts > 3 else "waits"


@difference(restate={"status": 202}, holdfast={"status": 404})
async def editing_the_state_of_an_unknown_service(run: Run) -> Outcome:
    edit = {"object_key": "k", "new_state": {}}
    return {"status": (await run.backend.admin.post("/services/Nope/state", json=edit)).status_code}


@difference(restate=True, holdfast=False)
async def an_idempotency_key_that_nobody_sent(run: Run) -> Outcome:
    """Whether a plain call shows one."""
    invocation = await run.send("Callee/echo", value=1)
    await run.status(invocation, "completed")
    return await run.backend.idempotency_key(invocation) is not None


@difference(restate=True, holdfast=False)
async def state_of_a_workflow_that_keeps_nothing(run: Run) -> Outcome:
    """Whether it is there when the run of a workflow without retention is over."""
    answer = await run.call("ForgetfulFlow/forget", run.key(), body=None)
    assert answer["status"] == 200, answer
    return (await run.call("ForgetfulFlow/look", run.key(), body=None))["value"] == "still here"


@difference(restate=False, holdfast=True)
async def the_last_failure_of_a_paused_invocation(run: Run) -> Outcome:
    """Whether the invocation itself shows it; a server has it in the events only."""
    invocation = await run.send("Failing/paused_at_last", failures=2)
    await run.status(invocation, "paused")
    info = await run.backend.invocation(invocation)
    assert info is not None
    return "still broken" in (info.get("last_failure") or "")


@difference(restate="br", holdfast=None)
async def compression_of_the_admin_api(run: Run) -> Outcome:
    answer = await run.backend.admin.get("/openapi", headers={"accept-encoding": "br"})
    return answer.headers.get("content-encoding")


# --- playing ----------------------------------------------------------------------------------------------------------------


class Outcomes:
    def __init__(self, home: Path) -> None:
        self._home = home
        self._played: dict[str, dict[str, Outcome]] = {}

    def of(self, engine: str, name: str) -> Outcome:
        if engine not in self._played:
            self._played[engine] = asyncio.run(self._play_all(engine))
        return self._played[engine][name]

    async def _play_all(self, engine: str) -> dict[str, Outcome]:
        app = application(timedelta(milliseconds=150))
        if engine == "restate":
            with running_server() as server, serving_h2c(app) as url:
                server.register(url)
                async with restate_backend(server.ingress_url, server.admin_url) as backend:
                    return await _play(backend)
        settings = {"refuse_deadlocks": True, "pause_on_mismatch": True}
        async with holdfast_backend(app, self._home / "a.db", **settings) as backend:
            return await _play(backend)


async def _play(backend: Backend) -> dict[str, Outcome]:
    async def one(difference: Difference) -> Outcome:
        run = Run(backend, "suspending")
        try:
            return run.normal(await difference.play(run))
        except (AssertionError, httpx.HTTPError) as error:
            return f"{type(error).__name__}: {error}"
        finally:
            await run.close()

    found = await asyncio.gather(*(one(difference) for difference in DIFFERENCES.values()))
    return dict(zip(DIFFERENCES, found, strict=True))


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcomes]:
    loggers = [logging.getLogger(name) for name in ("restate", "holdfast", "hypercorn", "asyncio")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    yield Outcomes(tmp_path_factory.mktemp("differences"))
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.mark.parametrize("name", DIFFERENCES)
def test_holdfast(outcomes: Outcomes, name: str) -> None:
    assert outcomes.of("holdfast", name) == DIFFERENCES[name].holdfast


@pytest.mark.restate_server
@pytest.mark.parametrize("name", DIFFERENCES)
def test_restate(outcomes: Outcomes, name: str) -> None:
    skip_without_server()
    assert outcomes.of("restate", name) == DIFFERENCES[name].restate


def test_what_is_called_a_difference_is_one() -> None:
    assert [name for name, one in DIFFERENCES.items() if one.restate == one.holdfast] == []


# --- the documentation ------------------------------------------------------------------------------------------------------


def _rows() -> list[list[str]]:
    """The cells of docs/compatibility.md, one list for each row."""
    _, _, table = (ROOT / "docs" / "compatibility.md").read_text().partition("| Shown by |\n")
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_every_row_of_the_documentation_names_what_shows_it() -> None:
    """Last cell: `tests/x.py::name`, where the name is that of a test, of a row of its table, or of a difference here."""
    missing: list[str] = []
    for row in _rows():
        named = re.findall(r"`(tests/[\w/]+\.py)(?:::([^`]+))?`", row[-1])
        if not named:
            missing.append(f"{row[0]}: names no test")
        for path, name in named:
            file = ROOT / path
            if not file.is_file():
                missing.append(f"{row[0]}: {path} does not exist")
            elif name and name not in file.read_text():
                missing.append(f"{row[0]}: {path} has no {name!r}")
    assert missing == []


def test_every_difference_is_in_the_documentation() -> None:
    text = (ROOT / "docs" / "compatibility.md").read_text()
    assert [name for name in DIFFERENCES if name not in text] == []
