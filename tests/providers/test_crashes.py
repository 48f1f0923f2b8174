"""Whatever dies in the middle, every execution ends once, and no step that was recorded runs again."""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from holdfast import providers
from holdfast.providers import ExecutionState, WorkflowProvider, WorkflowSpec
from tests.providers.proxy import Proxy, running_proxy
from tests.support.processes import REPOSITORY
from tests.support.restate_server import RunningRestate, running_server, skip_without_server

HERE = "tests.providers.flows"
EXECUTIONS = 50
STEPS = [f"step {number}" for number in range(1, 6)]

pytestmark = pytest.mark.timeout(240)


@contextmanager
def child(order: dict[str, Any]) -> Iterator[subprocess.Popen[str]]:
    """A process that has started everything it was told to."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.providers.child", json.dumps(order)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture(params=["embedded", pytest.param("restate", marks=pytest.mark.restate_server)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, dict[str, Any]]:
    """A provider's name and settings that one process after the other can use."""
    if request.param == "embedded":
        return "embedded", {"db": str(tmp_path / "crash.db")}
    server: RunningRestate = request.getfixturevalue("restate_server")
    return "restate", {"endpoint": server.ingress_url, "admin_endpoint": server.admin_url}


async def until(ready: Callable[[], bool]) -> None:
    while not ready():
        await asyncio.sleep(0.02)


def steps_of(marks: Path) -> list[str]:
    """Steps in order. The one that ran when the process died may be there twice: it was not recorded yet."""
    ran = marks.read_text().splitlines()
    found = [step for step, _ in itertools.groupby(ran)]
    assert len(ran) <= len(found) + 1, ran
    return found


@asynccontextmanager
async def opened(name: str, settings: dict[str, Any]) -> AsyncIterator[WorkflowProvider]:
    async with await providers.open(name, **settings) as provider:
        yield provider


async def test_fifty_executions_survive_the_death_of_their_process(
    place: tuple[str, dict[str, Any]], tmp_path: Path
) -> None:
    name, settings = place
    workflow = {"workflow_id": f"five-{tmp_path.name[:40].lower().replace('_', '-')}", "name": "F"}
    workflow["definition"] = f"{HERE}:five_steps"
    marks = {f"n{number}": tmp_path / f"marks-{number}" for number in range(EXECUTIONS)}
    inputs = [[each, {"marks": str(path), "pause_ms": 100}] for each, path in marks.items()]
    with child({"provider": name, "settings": settings, "workflow": workflow, "inputs": inputs}):
        await until(lambda: all(path.exists() for path in marks.values()))
        # Dies here, by SIGKILL, with executions in every step.
    async with opened(name, settings) as provider:
        ids = [f"{workflow['workflow_id']}.{each}" for each in marks]
        ended = await asyncio.gather(*(provider.wait(each, timeout=180) for each in ids))
        assert {each.state for each in ended} == {ExecutionState.SUCCEEDED}
        assert [each.output for each in ended] == [STEPS] * EXECUTIONS
        assert [steps_of(path) for path in marks.values()] == [STEPS] * EXECUTIONS
        listed = await provider.list_executions(workflow_id=workflow["workflow_id"])
        assert sorted(each.execution_id for each in listed) == sorted(ids)
        again = await provider.start_execution(workflow["workflow_id"], inputs[0][1], execution_name="n0")
        assert (again.is_new, again.state) == (False, ExecutionState.SUCCEEDED)


async def test_a_time_limit_is_kept_when_the_process_is_gone(place: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    name, settings = place
    marks = tmp_path / "marks"
    workflow = {"workflow_id": "limited", "name": "L", "definition": f"{HERE}:asleep", "timeout": "500ms"}
    inputs = [["n", {"marks": str(marks), "seconds": 3600}]]
    with child({"provider": name, "settings": settings, "workflow": workflow, "inputs": inputs}):
        await until(marks.exists)
    # The limit passes about now, with nobody there.
    async with opened(name, settings) as provider:
        status = await provider.wait("limited.n", timeout=120)
        assert status.state == ExecutionState.TIMEOUT
        assert steps_of(marks) == ["before"]
        await provider.delete_workflow("limited")


async def test_a_stop_that_was_accepted_is_carried_out_by_the_next_process(
    place: tuple[str, dict[str, Any]], tmp_path: Path
) -> None:
    name, settings = place
    marks = tmp_path / "marks"
    workflow = {"workflow_id": "to-stop", "name": "S", "definition": f"{HERE}:asleep"}
    inputs = [["n", {"marks": str(marks), "seconds": 3600}]]
    with child({"provider": name, "settings": settings, "workflow": workflow, "inputs": inputs}):
        await until(marks.exists)
    if name == "restate":  # nobody serves the handler; the server takes the stop all the same
        async with await providers.open(name, serve=False, **settings) as client:
            status = await client.stop_execution("to-stop.n", "while nobody was there")
            assert not status.state.is_final
            late = await client.start_execution("to-stop", {"marks": str(tmp_path / "late"), "seconds": 0})
            assert late.state == ExecutionState.PENDING
    async with opened(name, settings) as provider:
        if name == "embedded":
            await provider.stop_execution("to-stop.n", "while nobody was there")
        status = await provider.wait("to-stop.n", timeout=120)
        assert (status.state, status.reason) == (ExecutionState.STOPPED, "while nobody was there")
        for each in await provider.list_executions(workflow_id="to-stop", states=["pending", "running"]):
            assert (await provider.wait(each.execution_id, timeout=60)).output == "slept"
        assert steps_of(marks) == ["before"]
        await provider.delete_workflow("to-stop")


@pytest.mark.restate_server
async def test_executions_go_on_when_the_server_is_restarted(tmp_path: Path) -> None:
    skip_without_server()
    data = tmp_path / "server"
    data.mkdir()
    marks = tmp_path / "marks"
    with ExitStack() as stack:
        first = stack.enter_context(ExitStack())
        server = first.enter_context(running_server(base_dir=data))
        ingress = stack.enter_context(running_proxy(server.ingress_url))
        admin = stack.enter_context(running_proxy(server.admin_url))
        async with await providers.open("restate", endpoint=ingress.url, admin_endpoint=admin.url) as provider:
            await provider.create_workflow(WorkflowSpec(workflow_id="five", name="F", definition=f"{HERE}:five_steps"))
            request = {"marks": str(marks), "pause_ms": 300}
            started = await provider.start_execution("five", request, execution_name="n")
            waiting = asyncio.create_task(provider.wait(started.execution_id, timeout=120))
            await until(lambda: marks.exists() and "step 2" in marks.read_text())
            await asyncio.to_thread(first.close)  # SIGKILL
            await _restarted(stack, data, ingress, admin)
            status = await waiting
            assert (status.state, status.output) == (ExecutionState.SUCCEEDED, STEPS)
            assert steps_of(marks) == STEPS
            again = await provider.start_execution("five", request, execution_name="n")
            assert not again.is_new


async def _restarted(stack: ExitStack, data: Path, ingress: Proxy, admin: Proxy) -> None:
    """The same server on the same data. Its clients do not notice that its ports are others."""
    server = await asyncio.to_thread(stack.enter_context, running_server(base_dir=data))
    ingress.target, admin.target = server.ingress_url, server.admin_url
