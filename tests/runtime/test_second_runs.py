"""A workflow runs once: whoever comes second is told so, at whatever moment."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from holdfast import Engine
from holdfast.core.events import Event, Submitted
from tests.runtime import programs
from tests.runtime.support import call, complete, until


async def test_a_run_that_comes_in_while_the_first_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its caller waits already and is not decided yet: the end of the first run is none of its own."""
    async with Engine(programs.app) as engine:
        first = asyncio.create_task(complete(engine, "Signup/ada/run", "ada@example.com"))
        await until(lambda: engine.introspection.list_invocations(service="Signup"))
        processor, held = engine._processor, list[Event]()
        post = processor.post

        def hold(event: Event, **named: Any) -> None:
            if isinstance(event, Submitted) and event.id == engine.workflow_invocation_id("Signup", "ada"):
                held.append(event)
            else:
                post(event, **named)

        monkeypatch.setattr(processor, "post", hold)
        second = asyncio.create_task(complete(engine, "Signup/ada/run", "eve@example.com"))
        await until(lambda: held)
        await call(engine, "Signup/ada/confirm", "code")
        assert (await first).failure is None
        assert not second.done()
        post(held[0])
        failure = (await second).failure
    assert failure is not None
    assert (failure.code, failure.message) == (409, "the workflow method was already invoked")
