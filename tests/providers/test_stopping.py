"""Stops that meet each other, the end, and the time limit: one end each, and one cancellation at most."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio

from holdfast import providers
from holdfast.providers import ExecutionState, WorkflowProvider, WorkflowSpec
from tests.support.restate_server import RunningRestate

FLOW = "tests.providers.flows:counts_cancellations"


@pytest_asyncio.fixture(params=["embedded", pytest.param("restate", marks=pytest.mark.restate_server)])
async def provider(request: pytest.FixtureRequest) -> AsyncIterator[WorkflowProvider]:
    settings: dict[str, Any] = {"db": ":memory:"}
    if request.param == "restate":
        server: RunningRestate = request.getfixturevalue("restate_server")
        settings = {"endpoint": server.ingress_url, "admin_endpoint": server.admin_url}
    async with await providers.open(request.param, **settings) as opened:
        yield opened
        await opened.delete_workflow("stopping", force=True)


async def test_many_stops_at_any_moment_are_one_cancellation(provider: WorkflowProvider) -> None:
    draw = random.Random(7)
    spec = WorkflowSpec(workflow_id="stopping", name="S", definition=FLOW, timeout=timedelta(seconds=1))
    await provider.create_workflow(spec)

    async def one(number: int) -> tuple[ExecutionState, Any, str]:
        request = {"work_s": draw.choice([0.05, 0.5, 1, 60]), "tidy_s": 0.1}
        started = await provider.start_execution("stopping", request, execution_name=f"n{number}")
        pauses = [draw.uniform(0, 1.2) for _ in range(3)]

        async def stop(pause_s: float) -> None:
            await asyncio.sleep(pause_s)  # any moment: the race is the test
            await provider.stop_execution(started.execution_id, f"after {pause_s}")

        await asyncio.gather(*(stop(pause_s) for pause_s in pauses))
        status = await provider.wait(started.execution_id, timeout=60)
        if status.state == ExecutionState.STOPPED:
            # The first stop's reason, unless two came so close that either could be first.
            assert status.reason in {f"after {pause_s}" for pause_s in pauses}
        return status.state, status.output, status.reason

    ended = await asyncio.gather(*(one(number) for number in range(30)))
    for state, interrupted, reason in ended:
        assert state in (ExecutionState.SUCCEEDED, ExecutionState.STOPPED, ExecutionState.TIMEOUT), reason
        # None at all when the handler ended by itself at that very moment.
        assert interrupted <= (0 if state == ExecutionState.SUCCEEDED else 1), (state, reason)
    assert sum(interrupted for _, interrupted, _ in ended) > 0


async def test_a_cancel_at_the_engine_itself_is_a_stop(provider: WorkflowProvider) -> None:
    await provider.create_workflow(WorkflowSpec(workflow_id="stopping", name="S", definition=FLOW))
    access = provider._access  # type: ignore[attr-defined]
    for of_supervisor in (True, False):
        request = {"work_s": 60, "tidy_s": 0.01}
        started = await provider.start_execution("stopping", request)
        while (status := await provider.get_execution_status(started.execution_id)).start_time is None:
            await asyncio.sleep(0.02)
        supervisor = access.run_id("holdfast.executions", started.execution_id)
        await access.cancel(supervisor if of_supervisor else status.metadata["invocation_id"])
        ended = await provider.wait(started.execution_id, timeout=60)
        if of_supervisor:
            assert (ended.state, ended.reason) == (ExecutionState.STOPPED, "cancelled at the engine")
            assert ended.output == 1
        else:  # the handler caught it and finished: the engine does not say that anybody meant it to end
            assert (ended.state, ended.output) == (ExecutionState.SUCCEEDED, 1)


async def test_a_killed_supervisor_takes_its_handler_with_it(provider: WorkflowProvider) -> None:
    await provider.create_workflow(WorkflowSpec(workflow_id="stopping", name="S", definition=FLOW))
    access = provider._access  # type: ignore[attr-defined]
    started = await provider.start_execution("stopping", {"work_s": 60, "tidy_s": 60})
    while (status := await provider.get_execution_status(started.execution_id)).start_time is None:
        await asyncio.sleep(0.02)
    await access.kill(access.run_id("holdfast.executions", started.execution_id))
    ended = await provider.wait(started.execution_id, timeout=60)
    assert (ended.state, ended.reason) == (ExecutionState.STOPPED, "killed at the engine")
    invocation_id = status.metadata["invocation_id"]
    while (row := (await access.invocations([invocation_id])).get(invocation_id)) and row.status != "completed":
        await asyncio.sleep(0.02)
