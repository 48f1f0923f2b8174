"""Several providers at once: routes, and calls from a workflow on one engine to one on another."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from holdfast import providers
from holdfast.providers import (
    Configuration,
    ExecutionNotFound,
    ExecutionState,
    InvalidConfiguration,
    InvalidInput,
    InvalidSpec,
    Router,
    WorkflowNotFound,
    WorkflowSpec,
)
from tests.support.processes import REPOSITORY
from tests.support.restate_server import RunningRestate

HERE = "tests.providers.flows"

pytestmark = pytest.mark.restate_server


def configured(server: RunningRestate, tmp_path: Path) -> dict[str, Any]:
    """Short jobs embedded, long ones on Restate."""
    return {
        "workflow.default_provider": "embedded",
        "workflow.embedded.db": str(tmp_path / "hybrid.db"),
        "workflow.restate.endpoint": server.ingress_url,
        "workflow.restate.admin_endpoint": server.admin_url,
        "workflow.routing.long-*": "restate",
    }


def spec(workflow_id: str, flow: str = "plain", **changes: Any) -> WorkflowSpec:
    return WorkflowSpec(workflow_id=workflow_id, name=flow, definition=f"{HERE}:{flow}", **changes)


@pytest_asyncio.fixture
async def router(restate_server: RunningRestate, tmp_path: Path) -> AsyncIterator[Router]:
    async with await providers.open_router(Configuration.load(configured(restate_server, tmp_path))) as opened:
        yield opened
        for workflow in await opened.list_workflows():
            await opened.delete_workflow(workflow.workflow_id, force=True)


async def test_a_workflow_goes_where_its_route_says(router: Router) -> None:
    assert router.opened == {}  # a provider is opened when it is needed
    assert (await router.create_workflow(spec("short-one"))).provider_type == "embedded"
    assert set(router.opened) == {"embedded"}
    assert (await router.create_workflow(spec("long-one"))).provider_type == "restate"
    chosen = await router.create_workflow(spec("short-elsewhere", provider_type="restate"))
    assert chosen.provider_type == "restate"
    with pytest.raises(InvalidSpec, match="provider_type: there is no provider 'mock'; known: embedded, restate"):
        await router.validate(spec("short-two", provider_type="mock"))
    with pytest.raises(InvalidSpec, match="provider_type: is 'restate', but this is the provider 'embedded'"):
        await router.opened["embedded"].create_workflow(spec("short-two", provider_type="restate"))
    for workflow_id in ("short-one", "long-one", "short-elsewhere"):
        started = await router.start_execution(workflow_id, workflow_id, execution_name="n")
        assert (await router.wait(started.execution_id, timeout=60)).output == workflow_id
        assert (await router.get_execution_status(started.execution_id)).provider_type == started.provider_type
        changes = [change async for change in router.watch(started.execution_id)]
        assert [change.to_state for change in changes] == [ExecutionState.SUCCEEDED]


async def test_lists_hold_what_all_providers_have(router: Router) -> None:
    names = [f"{kind}-{number}" for kind in ("short", "long") for number in range(3)]
    for name in names:
        await router.create_workflow(spec(name))
        started = await router.start_execution(name, name, execution_name="n")
        await router.wait(started.execution_id, timeout=60)
    workflows: list[str] = []
    executions: list[str] = []
    cursor: str | None = None
    while True:
        page = await router.list_workflows(limit=2, cursor=cursor)
        assert len(page) <= 2
        workflows += [each.workflow_id for each in page]
        cursor = page.next_cursor
        if cursor is None:
            break
    while True:
        found = await router.list_executions(limit=2, cursor=cursor, states=["succeeded"])
        executions += [each.execution_id for each in found]
        cursor = found.next_cursor
        if cursor is None:
            break
    assert sorted(workflows) == sorted(names)
    assert set(executions) >= {f"{name}.n" for name in names}
    with pytest.raises(InvalidInput, match="cursor"):
        await router.list_workflows(cursor="nonsense")


async def test_what_no_provider_knows_is_named(router: Router) -> None:
    with pytest.raises(WorkflowNotFound, match="nobody"):
        await router.start_execution("nobody", 1)
    with pytest.raises(ExecutionNotFound, match=r"nobody\.n"):
        await router.get_execution_status("nobody.n")
    with pytest.raises(ExecutionNotFound, match="nonsense"):
        await router.stop_execution("nonsense", "x")
    await router.delete_workflow("nobody")


async def test_a_stop_and_a_signal_find_their_execution(router: Router) -> None:
    await router.create_workflow(spec("long-sleep", "asleep"))
    started = await router.start_execution("long-sleep", {"seconds": 3600})
    await router.signal(started.execution_id, "anything", 1)
    stopped = await router.stop_execution(started.execution_id, "enough")
    assert (stopped.state, stopped.reason) == (ExecutionState.STOPPED, "enough")


async def test_a_provider_that_is_not_configured_is_no_provider_for_a_request(tmp_path: Path) -> None:
    async with await providers.open_router(Configuration.load(environ={})) as router:
        with pytest.raises(InvalidSpec, match=r"^provider_type: workflow\.restate\.endpoint: endpoint is required"):
            await router.validate(spec("any", provider_type="restate"))


async def test_a_wrong_configuration_is_refused_before_anything_is_opened() -> None:
    with pytest.raises(InvalidConfiguration, match="endpoint is required"):
        await providers.open_router(Configuration.load({"workflow.routing.a-*": "restate"}, environ={}))


# ---- from one engine to the other ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("caller", "callee"), [("short-caller", "long-callee"), ("long-caller", "short-callee")])
async def test_a_workflow_calls_one_on_the_other_engine(router: Router, caller: str, callee: str) -> None:
    await router.open_all()
    await router.create_workflow(spec(callee))
    await router.create_workflow(spec(caller, "far_away"))
    provider = (await router.get_workflow(callee)).provider_type
    request = {"provider": provider, "workflow_id": callee, "input": {"ids": [1, 2]}}
    started = await router.start_execution(caller, request)
    status = await router.wait(started.execution_id, timeout=60)
    assert (status.state, status.output) == (ExecutionState.SUCCEEDED, {"ids": [1, 2]})
    [called] = await router.list_executions(workflow_id=callee)
    assert (called.provider_type, called.trigger_source) == (provider, "workflow")


async def test_a_failure_over_there_is_a_terminal_error_here(router: Router) -> None:
    await router.open_all()
    await router.create_workflow(spec("long-limited", "asleep", timeout=timedelta(seconds=0.3)))
    await router.create_workflow(spec("short-caller", "far_away"))
    for request, code, message in (
        ({"workflow_id": "long-limited", "input": {"seconds": 3600}}, 408, "time limit of 300ms reached"),
        ({"workflow_id": "long-unknown"}, 404, "there is no workflow 'long-unknown'"),
        ({"workflow_id": "long-limited", "execution_name": "a b"}, 422, "execution_name: 'a b' is not"),
    ):
        started = await router.start_execution("short-caller", {"provider": "restate", **request})
        status = await router.wait(started.execution_id, timeout=60)
        assert status.state == ExecutionState.FAILED
        assert status.error is not None
        assert status.error.code == code
        assert message in status.error.message


async def test_a_stopped_caller_stops_what_it_called(router: Router) -> None:
    await router.open_all()
    await router.create_workflow(spec("long-sleep", "asleep"))
    await router.create_workflow(spec("short-caller", "far_away"))
    request = {
        "provider": "restate",
        "workflow_id": "long-sleep",
        "input": {"seconds": 3600},
        "execution_name": "there",
    }
    started = await router.start_execution("short-caller", request)
    while not len(await router.list_executions(workflow_id="long-sleep")):
        await asyncio.sleep(0.05)
    await router.stop_execution(started.execution_id, "enough")
    there = await router.wait("long-sleep.there", timeout=60)
    assert (there.state, there.reason) == (ExecutionState.STOPPED, "its caller was cancelled")
    assert (await router.wait(started.execution_id, timeout=60)).state == ExecutionState.STOPPED


def started(order: dict[str, Any]) -> subprocess.Popen[bytes]:
    """A process with both providers that does what it is told, until it is killed."""
    command = [sys.executable, "-m", "tests.providers.hybrid_child", json.dumps(order)]
    return subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


async def test_a_crash_between_the_engines_leaves_one_execution(restate_server: RunningRestate, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    configuration = configured(restate_server, tmp_path)
    request = {"provider": "restate", "workflow_id": "long-job", "input": {"seconds": 2, "marks": str(marks)}}
    order = {"configuration": configuration, "input": request}
    process = started(order)
    try:
        while not marks.exists():  # the remote execution runs; the caller waits for it, or has not noted its start yet
            assert process.poll() is None
            await asyncio.sleep(0.005)
    finally:
        process.kill()
        process.wait()
    async with await providers.open_router(Configuration.load(configuration)) as router:
        await router.open_all()
        status = await router.wait("discover.n", timeout=120)
        assert (status.state, status.output) == (ExecutionState.SUCCEEDED, "slept")
        [called] = await router.list_executions(workflow_id="long-job")
        assert called.state == ExecutionState.SUCCEEDED
        assert marks.read_text().splitlines().count("after") == 1
        await router.delete_workflow("long-job")
