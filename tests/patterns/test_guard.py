"""The guard finds each pitfall, says where and what to do, and leaves handlers as they were."""

from __future__ import annotations

import inspect
import logging
from typing import Any

import pytest
from restate import Context, Service

from holdfast.patterns import guarded
from tests.patterns import guard_program as program
from tests.patterns import world
from tests.patterns.conftest import Side, until

HOUR_MS = 3_600_000


def found(rule: str, handler: str) -> list[str]:
    return [finding.message for finding in program.findings if (finding.rule, finding.handler) == (rule, handler)]


# --- by reading


def read(handler: str) -> list[tuple[str, str]]:
    """(rule, the call) of what was found in a handler's text."""
    return [(f.rule, f.message.partition(" in a handler")[0]) for f in program.READ if f.handler == handler]


def test_clocks() -> None:
    assert read("Dirty/clocks") == [("clock", "time.time()"), ("clock", "datetime.now()"), ("clock", "moment.now()")]


def test_chance() -> None:
    expected = ["random.choice()", "uuid.uuid4()", "secrets.token_hex()", "random.Random()"]
    assert read("Dirty/chances") == [("chance", call) for call in expected]


def test_waits_that_are_not_durable() -> None:
    assert read("Dirty/waits") == [("wait", "asyncio.sleep()")]


def test_tasks_that_only_asyncio_knows() -> None:
    assert read("Dirty/tasks") == [("task", "asyncio.gather()"), ("task", "asyncio.to_thread()")]


def test_functions_that_a_handler_calls_are_read_as_well() -> None:
    (finding,) = [f for f in program.READ if f.handler == "Dirty/helped"]
    assert finding.message.startswith("moment.today() in deeper(), which a handler calls; use `await ctx.time()`")
    line = int(finding.place.rpartition(":")[2])
    assert "moment.today()" in inspect.getsource(program).splitlines()[line - 1]


def test_steps_may_do_all_of_it() -> None:
    assert read("Clean/careful") == []


def test_a_finding_says_where_it_is() -> None:
    (finding,) = [f for f in program.READ if f.handler == "Dirty/waits"]
    file, _, line = finding.place.rpartition(":")
    source = inspect.getsource(program).splitlines()
    assert file == program.__file__
    assert "asyncio.sleep" in source[int(line) - 1]


def test_a_handler_without_source_is_not_read() -> None:
    service = Service("Typed")
    names: dict[str, Any] = {"service": service, "Context": Context}
    exec("@service.handler()\nasync def at_a_prompt(ctx: Context) -> None:\n    ...", names)
    assert guarded([service]) == [service]


# --- by running


async def test_a_task_that_goes_on_when_its_handler_is_over(side: Side, key: str) -> None:
    before = len(found("task", "Dirty/escapes"))
    assert await side.call("/Dirty/escapes", key) == "done"
    (message,) = found("task", "Dirty/escapes")
    assert "goes on after its handler" in message
    assert before <= 1, "reported once, however often it happens"
    world.gates[key] = True
    await until(lambda: world.effects[key] == ["escaped"])


async def test_what_the_sdk_does_for_a_handler_is_no_task_of_its_own(side: Side, key: str) -> None:
    await side.call("/Clean/careful", key)
    assert [finding for finding in program.findings if finding.handler.startswith("Clean/")] == []


async def test_a_long_sleep_that_locks_a_key(side: Side, key: str) -> None:
    await side.call(f"/PitfallLog/{key}/watch", HOUR_MS)
    await side.call(f"/PitfallFlow/{key}/run", HOUR_MS)
    assert found("sleep", "PitfallLog/watch") == found("sleep", "PitfallFlow/run") == []
    await side.call(f"/PitfallLog/{key}/nap", HOUR_MS)
    (message,) = found("sleep", "PitfallLog/nap")
    assert "send_delay" in message


async def test_state_that_grows(side: Side, key: str) -> None:
    await side.call(f"/PitfallLog/{key}/grow", {"name": f"small {key}", "size": 1, "items": 1000})
    await side.call(f"/PitfallLog/{key}/grow", {"name": f"long {key}", "size": 1, "items": 1001})
    await side.call(f"/PitfallLog/{key}/grow", {"name": f"wide {key}", "size": 70_000, "items": 1})
    mine = [message for message in found("state", "PitfallLog/grow") if key in message]
    assert ["entries" in message for message in mine] == [True, False]
    assert f"'long {key}' has more than 1000 entries" in mine[0]
    assert "BoundedLog" in mine[1]


async def test_what_a_handler_answers_and_keeps_is_the_same(side: Side, key: str) -> None:
    assert len(await side.call("/Clean/careful", key)) == 36
    assert await side.call(f"/PitfallLog/{key}/grown", "kept") is None
    await side.call(f"/PitfallLog/{key}/grow", {"name": "kept", "size": 3, "items": 2})
    assert await side.call(f"/PitfallLog/{key}/grown", "kept") == ["xxx", "xxx"]


def test_by_default_it_is_a_warning_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    service = Service("Logged")

    @service.handler()
    async def handle(ctx: Context) -> None:
        program.time.time()

    with caplog.at_level(logging.WARNING, "holdfast.guard"):
        guarded([service])
    (record,) = caplog.records
    assert record.getMessage().startswith("Logged/handle: program.time.time() in a handler; use `await ctx.time()`")
    assert f"{__file__}:" in record.getMessage()
    assert handle is not None
