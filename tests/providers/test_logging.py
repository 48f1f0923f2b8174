"""Logs: each operation with its ids, each change of state once with its time, failures with the server's answer."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import Any

import pytest
import pytest_asyncio

from holdfast import logs, providers
from holdfast.providers import InvalidSpec, WorkflowNotFound, WorkflowProvider, WorkflowSpec
from tests.support.restate_server import RunningRestate

HERE = "tests.providers.flows"


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What the JSON log of a program holds."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    logs.configure("json", level="INFO", stream=stream)
    yield stream
    root.handlers[:], root.level = handlers, level


@pytest_asyncio.fixture(params=["embedded", pytest.param("restate", marks=pytest.mark.restate_server)])
async def provider(request: pytest.FixtureRequest, log: io.StringIO) -> AsyncIterator[WorkflowProvider]:
    settings: dict[str, Any] = {"db": ":memory:"}
    if request.param == "restate":
        server: RunningRestate = request.getfixturevalue("restate_server")
        settings = {"endpoint": server.ingress_url, "admin_endpoint": server.admin_url}
    async with await providers.open(request.param, **settings) as opened:
        yield opened


def lines(log: io.StringIO, **fields: Any) -> list[dict[str, Any]]:
    """Lines of the provider with these fields."""
    found = [json.loads(line) for line in log.getvalue().splitlines()]
    return [
        each
        for each in found
        if each.get("logger") == "holdfast.providers" and fields.items() <= each.items() and "operation" in each
    ]


async def test_every_operation_is_a_line_with_its_ids(provider: WorkflowProvider, log: io.StringIO) -> None:
    spec = WorkflowSpec(workflow_id="logged", name="L", definition=f"{HERE}:asleep")
    await provider.validate(spec)
    await provider.create_workflow(spec)
    started = await provider.start_execution("logged", {"seconds": 3600}, execution_name="n")
    await provider.get_execution_status(started.execution_id)
    await provider.stop_execution(started.execution_id, "seen enough")
    await provider.wait(started.execution_id, timeout=60)
    await provider.delete_workflow("logged")
    calls = {"validate", "create_workflow", "delete_workflow"}
    on_executions = {"start_execution", "get_execution_status", "stop_execution", "wait"}
    for operation in calls | on_executions:
        [line] = lines(log, operation=operation)
        assert line["workflow_id"] == "logged", operation
        assert line["execution_id"] == ("logged.n" if operation in on_executions else None), operation
        assert line["provider"] == provider.name
        assert line["duration_ms"] >= 0
    assert lines(log, operation="wait")[0]["state"] == "stopped"


async def test_every_change_of_state_is_one_line_with_its_time(provider: WorkflowProvider, log: io.StringIO) -> None:
    await provider.create_workflow(WorkflowSpec(workflow_id="changing", name="C", definition=f"{HERE}:asleep"))
    for name, seconds, last in (("long", 3600, "stopped"), ("short", 0.2, "succeeded")):
        started = await provider.start_execution("changing", {"seconds": seconds}, execution_name=name)
        if last == "stopped":
            await provider.stop_execution(started.execution_id, "x")
        await provider.wait(started.execution_id, timeout=60)
        found = lines(log, operation="transition", execution_id=f"changing.{name}")
        assert [(each["from"], each["to"]) for each in found] == [
            (None, "pending"),
            ("pending", "running"),
            ("running", last),
        ]
        assert {each["workflow_id"] for each in found} == {"changing"}
        times = [datetime.fromisoformat(each["ts"]) for each in found]
        assert times == sorted(times)
    await provider.delete_workflow("changing")


async def test_a_refused_request_is_told_with_its_code(provider: WorkflowProvider, log: io.StringIO) -> None:
    with pytest.raises(WorkflowNotFound):
        await provider.start_execution("nowhere", 1)
    with pytest.raises(InvalidSpec):
        await provider.validate(WorkflowSpec(workflow_id="x", name="X", definition="{"))
    [line] = lines(log, operation="start_execution")
    assert (line["workflow_id"], line["error_code"], line["level"]) == ("nowhere", "HF0402", "info")
    assert "nowhere" in line["error"]
    assert lines(log, operation="validate")[0]["error_code"] == "HF0400"
