"""Server-sent events: each change once, in order, whatever happens to the connection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from holdfast.api.events import Event, EventReader, encode
from holdfast.providers import ExecutionError, ExecutionState, ProviderUnavailable, WorkflowSpec
from tests.api.conftest import PATIENCE_S, Served, becomes_true
from tests.api.memory import MemoryProvider

URL = "/v1/executions/w.e/watch"


@pytest.fixture
async def memory() -> MemoryProvider:
    """With one execution, `w.e`."""
    memory = MemoryProvider()
    await memory.create_workflow(WorkflowSpec(workflow_id="w", name="W", definition="app:flow"))
    await memory.start_execution("w", execution_name="e")
    return memory


@dataclass
class Stream:
    """An open stream, read by hand."""

    answer: httpx.Response
    lines: AsyncIterator[str]

    async def line(self, beginning: str) -> str:
        """The next line that begins so; the rest of it."""
        async with asyncio.timeout(PATIENCE_S):
            async for line in self.lines:
                if line.startswith(beginning):
                    return line.removeprefix(beginning)
        raise AssertionError(f"the stream ended before a line {beginning!r}")

    async def change(self) -> dict[str, Any]:
        return json.loads(await self.line("data: "))

    async def until_end(self) -> list[str]:
        async with asyncio.timeout(PATIENCE_S):
            return [line async for line in self.lines]


@asynccontextmanager
async def watching(served: Served, last_event_id: str = "") -> AsyncIterator[Stream]:
    headers = {"last-event-id": last_event_id} if last_event_id else {}
    async with (
        httpx.AsyncClient(timeout=PATIENCE_S) as client,
        client.stream("GET", served.url + URL, headers=headers) as answer,
    ):
        assert answer.status_code == 200, await answer.aread()
        yield Stream(answer, answer.aiter_lines())


async def test_the_present_state_and_then_each_change(served: Served, memory: MemoryProvider) -> None:
    async with watching(served) as stream:
        assert stream.answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert stream.answer.headers["cache-control"] == "no-store"
        assert await stream.line("retry: ") == "1000"
        assert await stream.line("event: ") == "state"
        first = await stream.change()
        assert (first["from_state"], first["to_state"], first["execution_id"]) == (None, "pending", "w.e")
        await memory.advance("w.e", ExecutionState.RUNNING, progress={"completed": 1})
        second = await stream.change()
        assert (second["from_state"], second["to_state"]) == ("pending", "running")
        assert second["progress"] == {"completed": 1}
        await memory.advance("w.e", ExecutionState.FAILED, error=ExecutionError(code=418, message="teapot"))
        last = await stream.change()
        assert (last["to_state"], last["error"]["message"]) == ("failed", "teapot")
        assert last["at"].endswith("Z")
        assert [line for line in await stream.until_end() if line] == []
    assert memory.watchers == 0


async def test_a_stream_without_changes_shows_that_it_lives(served: Served, memory: MemoryProvider) -> None:
    async with watching(served) as stream:
        await stream.change()
        for _ in range(2):
            assert await stream.line(":") == " heartbeat"


async def test_a_client_that_goes_is_noticed(served: Served, memory: MemoryProvider) -> None:
    async with watching(served) as stream:
        await stream.change()
        assert memory.watchers == 1
    await becomes_true(lambda: memory.watchers == 0, "the watch goes on without a client")


async def test_many_watch_and_each_is_told(served: Served, memory: MemoryProvider) -> None:
    async def follow() -> list[str]:
        async with watching(served) as stream:
            seen = [(await stream.change())["to_state"]]
            ready.release()
            return [*seen, (await stream.change())["to_state"]]

    ready = asyncio.Semaphore(0)
    followers = [asyncio.create_task(follow()) for _ in range(20)]
    for _ in followers:
        await ready.acquire()
    await memory.advance("w.e", ExecutionState.SUCCEEDED)
    assert await asyncio.gather(*followers) == [["pending", "succeeded"]] * 20


async def test_closing_the_api_ends_the_streams(served: Served, memory: MemoryProvider) -> None:
    async with watching(served) as stream:
        await stream.change()
        await served.api.close()
        await stream.until_end()
    assert memory.watchers == 0


async def test_an_engine_that_fails_meanwhile_is_told_in_the_stream(served: Served, memory: MemoryProvider) -> None:
    async with watching(served) as stream:
        await stream.change()
        await memory.fail(ProviderUnavailable("gone", endpoint="http://r:8080"))
        assert await stream.line("event: ") == "problem"
        problem = await stream.change()
        assert (problem["code"], problem["server"], problem["instance"]) == (
            "HF0420",
            {"endpoint": "http://r:8080"},
            URL,
        )
        await stream.until_end()


# --- a stream that broke


async def test_what_a_client_has_seen_is_not_repeated(served: Served, memory: MemoryProvider) -> None:
    async with watching(served) as stream:
        seen = await stream.line("id: ")
    async with watching(served, seen) as stream:
        await memory.advance("w.e", ExecutionState.RUNNING)
        change = await stream.change()
    assert (change["from_state"], change["to_state"]) == ("pending", "running")


async def test_what_happened_meanwhile_is_told(served: Served, memory: MemoryProvider) -> None:
    async with watching(served) as stream:
        seen = await stream.line("id: ")
    await memory.advance("w.e", ExecutionState.RUNNING)
    await memory.advance("w.e", ExecutionState.SUCCEEDED)
    async with watching(served, seen) as stream:
        change = await stream.change()
    assert (change["from_state"], change["to_state"]) == ("pending", "succeeded")


async def test_progress_that_happened_meanwhile_is_told(served: Served, memory: MemoryProvider) -> None:
    async with watching(served) as stream:
        seen = await stream.line("id: ")
    await memory.advance("w.e", ExecutionState.PENDING, progress=1)
    async with watching(served, seen) as stream:
        assert (await stream.change())["progress"] == 1


async def test_who_has_seen_the_end_is_told_not_to_come_back(served: Served, memory: MemoryProvider) -> None:
    await memory.advance("w.e", ExecutionState.STOPPED)
    async with watching(served) as stream:
        seen = await stream.line("id: ")
    async with httpx.AsyncClient() as client:
        again = await client.get(served.url + URL, headers={"last-event-id": seen})
        unknown = await client.get(f"{served.url}/v1/executions/w.x/watch", headers={"last-event-id": seen})
    assert (again.status_code, again.content) == (204, b"")
    assert unknown.status_code == 404


async def test_an_id_of_somebody_else_is_ignored(served: Served, memory: MemoryProvider) -> None:
    async with watching(served, "17") as stream:
        change = await stream.change()
    assert (change["from_state"], change["to_state"]) == (None, "pending")


# --- the format


def test_an_event_is_read_back_as_it_was() -> None:
    event = Event("state", '{"a": "b: c"}\nsecond', "x.1")
    reader = EventReader()
    lines = encode(event).decode().split("\n")
    assert [read for line in lines for read in reader.feed(line)] == [event]


LINES: dict[str, tuple[list[str], list[Event]]] = {
    "a comment": ([": heartbeat", ""], []),
    "no data": (["event: state", ""], []),
    "no name": (["data: x", ""], [Event("message", "x")]),
    "no blank": (["data:x", "event:y", ""], [Event("y", "x")]),
    "two blanks": (["data:  x", ""], [Event("message", " x")]),
    "a field without value": (["data", "data", ""], [Event("message", "\n")]),
    "an unknown field": (["mood: good", "retry: 5", "data: x", ""], [Event("message", "x")]),
    "the id stays": (["id: 1", "data: x", "", "data: y", ""], [Event("message", "x", "1"), Event("message", "y", "1")]),
    "an event that is cut off": (["data: x"], []),
}


@pytest.mark.parametrize("case", LINES)
def test_lines_of_a_stream(case: str) -> None:
    lines, expected = LINES[case]
    reader = EventReader()
    assert [event for line in lines for event in reader.feed(line)] == expected
