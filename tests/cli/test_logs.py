"""Log lines: structured, with the invocation they belong to, and quiet on replay."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
import restate
import structlog
from restate.exceptions import RetryableError

from holdfast import Engine, logs

SERVICE = restate.Service("Logging")
ENTERED: list[str] = []


@SERVICE.handler()
async def speak(ctx: restate.Context, what: str) -> str:
    logging.getLogger("shop").info("before %s", what, extra={"amount": 3})
    await ctx.run_typed("step", lambda: logging.getLogger("shop").info("in a thread"))
    structlog.get_logger("shop").info("by structlog", amount=4)
    logging.getLogger("shop").info("elsewhere", extra={"invocation_id": "inv_1other"})
    return ctx.request().id


@SERVICE.handler()
async def replay(ctx: restate.Context, logger_name: str) -> None:
    """Logs before a step; its first attempt ends behind that step, its second replays it."""
    ENTERED.append(logger_name)
    logger = logging.getLogger(logger_name)
    logger.info("information")
    logger.warning("a warning")
    await ctx.run_typed("step", lambda: None)
    if ENTERED.count(logger_name) == 1:
        raise RetryableError("once more", retry_after=timedelta(milliseconds=1))


APP = restate.app([SERVICE])


@pytest.fixture
def configure() -> Iterator[Callable[..., io.StringIO]]:
    """`logs.configure` on a buffer, undone afterwards."""
    root = logging.getLogger()
    handlers = root.handlers[:]
    levels = {each: each.level for each in (root, logging.getLogger("uvicorn"), logging.getLogger("httpx"))}

    def start(log_format: logs.LogFormat = "json", level: str | int = "INFO") -> io.StringIO:
        stream = io.StringIO()
        logs.configure(log_format, level, stream)
        return stream

    yield start
    root.handlers[:] = handlers
    for each, level in levels.items():
        each.setLevel(level)
    structlog.reset_defaults()


def records(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


async def invoke(handler: str, argument: str) -> str:
    """Run a handler to its end; the invocation id."""
    async with Engine(APP) as engine:
        spec = engine.services["Logging"].handlers[handler]
        completion, _ = await asyncio.wait_for(engine.call(spec, None, json.dumps(argument).encode()), 30)
        assert completion.failure is None
        return completion.invocation_id


async def test_lines_of_a_handler_name_its_invocation(configure: Callable[..., io.StringIO]):
    stream = configure()
    invocation_id = await invoke("speak", "work")
    said = [record for record in records(stream) if record["logger"] == "shop"]
    marks = {"logger": "shop", "level": "info", "invocation_id": invocation_id, "handler": "Logging/speak"}
    assert [{name: value for name, value in record.items() if name != "timestamp"} for record in said] == [
        marks | {"event": "before work", "amount": 3},
        marks | {"event": "in a thread"},
        marks | {"event": "by structlog", "amount": 4},
        marks | {"event": "elsewhere", "invocation_id": "inv_1other"},
    ]
    assert all(record["timestamp"].endswith("Z") for record in said)


# logger -> what is heard of a handler that logs an information and a warning, twice, the second time replaying
REPLAYS = {
    "shop": ["information", "a warning"],
    "restate.server": ["information", "a warning", "a warning"],
    "holdfast.shop": ["information", "a warning", "information", "a warning"],
}


@pytest.mark.parametrize("logger_name", REPLAYS)
async def test_replay_is_quiet(configure: Callable[..., io.StringIO], logger_name: str):
    stream = configure()
    await invoke("replay", logger_name)
    events = [record["event"] for record in records(stream) if record["logger"] == logger_name]
    assert [event for event in events if event in ("information", "a warning")] == REPLAYS[logger_name]
    assert ENTERED.count(logger_name) == 2
    ENTERED.clear()


def test_outside_of_handlers_there_is_no_invocation(configure: Callable[..., io.StringIO]):
    stream = configure()
    logging.getLogger("shop").info("open")
    [record] = records(stream)
    assert {"invocation_id", "handler"}.isdisjoint(record)


def test_whoever_drives_attempts_can_name_the_invocation(configure: Callable[..., io.StringIO]):
    stream = configure()
    token = logs.current_invocation.set(("inv_1abc", "Shop/order"))
    logging.getLogger("restate.server").error("Exception in Restate handler")
    logs.current_invocation.reset(token)
    [record] = records(stream)
    assert (record["invocation_id"], record["handler"]) == ("inv_1abc", "Shop/order")


def test_levels(configure: Callable[..., io.StringIO]):
    stream = configure(level="warning")
    logging.getLogger("shop").info("quiet")
    structlog.get_logger("shop").info("quiet too")
    logging.getLogger("uvicorn.error").info("never")
    logging.getLogger("shop").warning("loud")
    assert [record["event"] for record in records(stream)] == ["loud"]
    with pytest.raises(ValueError, match="LOUD"):
        configure(level="loud")


def test_requests_of_our_own_are_no_news(configure: Callable[..., io.StringIO]):
    stream = configure("json", level="INFO")
    with httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200))) as http:
        http.get("http://x")
        assert stream.getvalue() == ""
        stream = configure("json", level="DEBUG")
        http.get("http://x")
    assert "HTTP Request: GET http://x" in stream.getvalue()


def test_configuring_again_replaces(configure: Callable[..., io.StringIO]):
    first = configure()
    second = configure()
    logging.getLogger("shop").info("once")
    assert first.getvalue() == ""
    assert [record["event"] for record in records(second)] == ["once"]


def test_tracebacks_carry_no_local_variables(configure: Callable[..., io.StringIO]):
    def fail(password: str) -> None:
        raise ValueError(f"{len(password)} characters are too few")

    secret = "hunter2"
    for log_format in ("json", "console"):
        stream = configure(log_format)
        try:
            fail(secret)
        except ValueError:
            logging.getLogger("shop").exception("refused")
        assert "7 characters are too few" in stream.getvalue()
        assert secret not in stream.getvalue()


def test_what_cannot_be_json_becomes_text(configure: Callable[..., io.StringIO]):
    stream = configure()
    logging.getLogger("shop").info("paid", extra={"by": {1, 2}.__class__})
    [record] = records(stream)
    assert record["by"] == "<class 'set'>"


def test_console_lines_are_for_people(configure: Callable[..., io.StringIO]):
    stream = configure("console")
    logging.getLogger("shop").info("sold %d", 3, extra={"price": 5})
    [line] = stream.getvalue().splitlines()
    assert "sold 3" in line
    assert "price=5" in line
    assert "\x1b" not in line  # no colours where there is no terminal
