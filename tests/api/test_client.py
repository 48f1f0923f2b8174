"""`HttpProvider`: the interface on the other side of a network that may break."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from holdfast.api.app import create_api
from holdfast.api.client import HttpProvider
from holdfast.errors import EngineStopped, Forbidden, HoldfastError, InvalidRequest, Unauthorized
from holdfast.providers import (
    ExecutionNotFound,
    ExecutionState,
    InvalidInput,
    InvalidSpec,
    ProviderUnavailable,
    RetryPolicy,
    StateChange,
    WaitTimeout,
    WorkflowInUse,
    WorkflowNotFound,
    WorkflowSpec,
)
from tests.api.conftest import Served, becomes_true
from tests.api.memory import MemoryProvider
from tests.support.restate_server import free_ports

SPEC = WorkflowSpec(
    workflow_id="w",
    name="W",
    definition="app:flow",
    timeout=timedelta(minutes=90),
    retry_policy=RetryPolicy(max_attempts=0),
    tags={"a": "b"},
)


@pytest.fixture
async def remote(served: Served) -> AsyncIterator[HttpProvider]:
    async with HttpProvider(served.url) as provider:
        yield provider


async def test_a_workflow_is_the_same_on_both_sides(remote: HttpProvider, memory: MemoryProvider) -> None:
    created = await remote.create_workflow(SPEC)
    assert created.is_new
    assert not (await remote.create_workflow(SPEC)).is_new
    # Times travel with milliseconds.
    here, there = await remote.get_workflow("w"), await memory.get_workflow("w")
    assert here.to_json() == there.to_json()
    assert here.timeout == timedelta(minutes=90)
    assert here.retry_policy == RetryPolicy(max_attempts=0)


async def test_an_execution_is_the_same_on_both_sides(remote: HttpProvider, memory: MemoryProvider) -> None:
    await remote.create_workflow(SPEC)
    started = await remote.start_execution("w", [1], execution_name="e", tags={"t": "1"}, metadata={"m": 2}, key="k")
    assert (started.execution_id, started.is_new, started.state) == ("w.e", True, ExecutionState.PENDING)
    assert (await remote.get_execution_status("w.e")).to_json() == memory.executions["w.e"].to_json()
    assert await remote.signal("w.e", "go", {"x": None}, idempotency_key="i") == {"heard": {"x": None}}
    stopped = await remote.stop_execution("w.e", "enough", grace=timedelta(seconds=1.5), kill=True)
    assert (stopped.state, stopped.reason) == (ExecutionState.STOPPED, "enough")
    assert memory.stops == [("w.e", "enough", timedelta(seconds=1.5), True)]


async def test_lists_and_their_pages(remote: HttpProvider) -> None:
    await remote.create_workflow(SPEC)
    for number in range(5):
        await remote.start_execution("w", execution_name=f"e{number}")
    first = await remote.list_executions(workflow_id="w", states=["pending", ExecutionState.RUNNING], limit=3)
    second = await remote.list_executions(
        workflow_id="w", states=["pending", "running"], limit=3, cursor=first.next_cursor
    )
    assert [each.execution_name for each in (*first, *second)] == ["e4", "e3", "e2", "e1", "e0"]
    assert second.next_cursor is None
    assert len(await remote.list_executions(created_after=datetime.now(UTC) + timedelta(hours=1))) == 0
    assert len(await remote.list_executions(created_before=datetime.now(UTC) + timedelta(hours=1))) == 5
    assert [each.workflow_id for each in await remote.list_workflows(limit=1)] == ["w"]


async def test_errors_are_those_of_the_other_side(remote: HttpProvider) -> None:
    with pytest.raises(InvalidSpec, match="name: is required") as refusal:
        await remote.validate(WorkflowSpec(workflow_id="w", definition="a:b"))
    assert refusal.value.field == "name"
    with pytest.raises(WorkflowNotFound) as unknown:
        await remote.get_workflow("nowhere")
    assert unknown.value.workflow_id == "nowhere"
    with pytest.raises(ExecutionNotFound):
        await remote.get_execution_status("w.nowhere")
    with pytest.raises(ExecutionNotFound):
        await anext(aiter(remote.watch("w.nowhere")))
    with pytest.raises(InvalidInput) as limit:
        await remote.list_workflows(limit=0)
    assert limit.value.field == "limit"
    await remote.create_workflow(SPEC)
    await remote.start_execution("w", execution_name="e")
    with pytest.raises(WorkflowInUse) as in_use:
        await remote.delete_workflow("w")
    assert in_use.value.execution_ids == ("w.e",)
    await remote.delete_workflow("w", force=True)
    await remote.delete_workflow("w")


async def test_arguments_that_are_not_json_are_named(remote: HttpProvider) -> None:
    for name, arguments in {
        "input": {"input": {1, 2}},
        "metadata": {"metadata": {"a": float("nan")}},
        "tags": {"tags": {"a": "\ud83d"}},
    }.items():
        with pytest.raises(InvalidInput, match=f"{name}: is not JSON") as refusal:
            await remote.start_execution("w", **arguments)
        assert refusal.value.field == name


async def test_ids_that_are_no_part_of_a_path(remote: HttpProvider) -> None:
    for odd in ("a/b", "..", "a?b", "a#b", "ü", "a b", "%2e"):
        with pytest.raises(WorkflowNotFound):
            await remote.get_workflow(odd)


async def test_waiting_takes_several_requests(
    remote: HttpProvider, memory: MemoryProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.api.client.WAIT_SLICE_S", 0.01)
    await remote.create_workflow(SPEC)
    await remote.start_execution("w", execution_name="e")
    with pytest.raises(WaitTimeout, match=r"still pending after 0.05 s"):
        await remote.wait("w.e", timeout=0.05)
    waiting = asyncio.create_task(remote.wait("w.e"))
    await becomes_true(lambda: memory.waiters == 1, "nobody waits")
    await becomes_true(lambda: memory.waiters == 0, "the first request does not end")
    await memory.advance("w.e", ExecutionState.SUCCEEDED, output=7)
    assert (await waiting).output == 7


async def test_watching_ends_with_the_execution(remote: HttpProvider, memory: MemoryProvider) -> None:
    await remote.create_workflow(SPEC)
    await remote.start_execution("w", execution_name="e")
    seen: list[str] = []
    async for change in remote.watch("w.e"):
        seen.append(change.to_state)
        following = {"pending": ExecutionState.RUNNING, "running": ExecutionState.FAILED}.get(change.to_state)
        if following:
            await memory.advance("w.e", following)
    assert seen == ["pending", "running", "failed"]


async def test_who_looks_away_holds_nothing(remote: HttpProvider, memory: MemoryProvider) -> None:
    await remote.create_workflow(SPEC)
    await remote.start_execution("w", execution_name="e")
    async with aclosing(remote.watch("w.e")) as changes:  # type: ignore[type-var]
        await anext(changes)
    await becomes_true(lambda: memory.watchers == 0, "the watch goes on")


async def test_a_restart_of_the_server_is_not_noticed(memory: MemoryProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.api.client.RETRY_MS", 10)
    await memory.create_workflow(SPEC)
    await memory.start_execution("w", execution_name="e")
    changes: asyncio.Queue[StateChange] = asyncio.Queue()
    async with Served(create_api(memory)) as first:
        remote = HttpProvider(first.url)

        async def follow() -> None:
            async for change in remote.watch("w.e"):
                changes.put_nowait(change)

        following = asyncio.create_task(follow())
        waiting = asyncio.create_task(remote.wait("w.e"))
        assert (await changes.get()).to_state == "pending"
        await becomes_true(lambda: memory.waiters == 1, "nobody waits")
    assert not following.done()
    await memory.advance("w.e", ExecutionState.RUNNING)
    async with Served(create_api(memory), port=int(first.url.rpartition(":")[2])):
        change = await changes.get()
        assert (change.from_state, change.to_state) == ("pending", "running")
        await becomes_true(lambda: memory.waiters == 1, "nobody waits any more")
        await memory.advance("w.e", ExecutionState.SUCCEEDED)
        assert (await waiting).state == "succeeded"
        await following
        assert (await changes.get()).to_state == "succeeded"
    assert changes.empty()
    await remote.close()


@pytest.fixture
def closed_port() -> int:
    return free_ports(1)[0]


async def test_a_server_that_never_answered_is_an_error_at_once(closed_port: int) -> None:
    url = f"http://127.0.0.1:{closed_port}"
    async with HttpProvider(url) as remote:
        for asked in (remote.list_workflows(), remote.wait("w.e"), anext(aiter(remote.watch("w.e")))):
            with pytest.raises(ProviderUnavailable, match=f"no API answers at {url}") as gone:
                await asked
            assert "holdfast serve" in gone.value.hint


async def test_a_server_that_stays_away_is_given_up(memory: MemoryProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.api.client.RETRY_MS", 10)
    await memory.create_workflow(SPEC)
    await memory.start_execution("w", execution_name="e")
    async with Served(create_api(memory)) as served:
        remote = HttpProvider(served.url, patience_s=0.05)
        changes = aiter(remote.watch("w.e"))
        await anext(changes)
        waiting = asyncio.create_task(remote.wait("w.e"))
        await becomes_true(lambda: memory.waiters == 1, "nobody waits")
    with pytest.raises(HoldfastError) as gone:
        await waiting
    assert isinstance(gone.value, ProviderUnavailable | EngineStopped)
    with pytest.raises(ProviderUnavailable):
        await anext(changes)
    await remote.close()


OTHERS: dict[str, tuple[int, str, str, type[HoldfastError], str]] = {
    "no token": (401, "application/json", '{"message": "asks for a token"}', Unauthorized, "asks for a token"),
    "another page": (403, "application/json", '{"message": "not known"}', Forbidden, "not known"),
    "a proxy": (502, "text/html", "<h1>bad gateway</h1>", ProviderUnavailable, "was answered 502: <h1>bad gateway"),
    "nothing": (500, "text/plain", "", ProviderUnavailable, "was answered 500: Internal Server Error"),
    "another API": (200, "text/html", "<h1>hello</h1>", ProviderUnavailable, "did not answer with JSON"),
}


@pytest.mark.parametrize("case", OTHERS)
async def test_answers_of_somebody_else(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    status, kind, body, error_type, message = OTHERS[case]
    answer = httpx.MockTransport(lambda _: httpx.Response(status, headers={"content-type": kind}, content=body))
    async with HttpProvider("http://x") as remote:
        monkeypatch.setattr(remote, "_http", httpx.AsyncClient(transport=answer))
        with pytest.raises(error_type, match=message):
            await remote.list_workflows()


async def test_the_token_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    async with HttpProvider("http://x/v1/", token="secret") as remote:
        assert remote.url == "http://x"
        assert remote._http.headers["authorization"] == "Bearer secret"


@pytest.mark.parametrize("token", ["secret\n", "secret ", "sécret", "sec\x00ret"])
def test_a_token_that_no_header_can_carry_is_refused_and_not_repeated(token: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        HttpProvider("http://x", token=token)
    assert refusal.value.message == "the token has characters that no header can carry"


async def test_a_grace_time_that_is_none_is_refused_before_anything_is_sent(closed_port: int) -> None:
    async with HttpProvider(f"http://127.0.0.1:{closed_port}") as remote:
        with pytest.raises(InvalidInput, match="grace: must not be below zero"):
            await remote.stop_execution("w.n", grace=timedelta(seconds=-1), kill=True)
