"""Changed code, on both engines: who stays on the old deployment, who is moved, and who begins again."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import pytest
import restate

from tests.admin.conftest import System
from tests.support.restate_server import serving_h2c

PATIENCE_S = 20


def application(version: str) -> Any:
    """Two steps around something that somebody must resolve; each step says which code ran it."""
    versions = restate.VirtualObject("Versions")

    @versions.handler()
    async def work(ctx: restate.ObjectContext) -> str:
        before = await ctx.run_typed("before", lambda: version)
        name, go_on = ctx.awakeable(type_hint=str)
        ctx.set("awakeable", name)
        await go_on
        return f"{before} {await ctx.run_typed('after', lambda: version)}"

    @versions.handler()
    async def quick(ctx: restate.ObjectContext) -> str:
        return f"{await ctx.run_typed('one', lambda: version)} {await ctx.run_typed('two', lambda: version)}"

    @versions.handler(kind="shared")
    async def waits_for(ctx: restate.ObjectSharedContext) -> str:
        return await ctx.get("awakeable", type_hint=str) or ""

    return restate.app([versions])


async def register(system: System, url: str) -> str:
    answer = await system.admin.post("/deployments", json={"uri": url})
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


async def operate(system: System, invocation: str, what: str) -> httpx.Response:
    return await system.admin.patch(f"/invocations/{invocation}/{what}")


async def result(system: System, invocation: str) -> str:
    answer = await system.ingress.get(f"/restate/invocation/{invocation}/attach", timeout=PATIENCE_S)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def begin(system: System, key: str) -> tuple[str, str]:
    """(invocation, what it waits for): the first step has run."""
    invocation = (await system.ingress.post(f"/Versions/{key}/work/send")).json()["invocationId"]
    deadline = time.monotonic() + PATIENCE_S
    while not (awakeable := (await system.ingress.post(f"/Versions/{key}/waits_for")).json()):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)  # between two looks
    return invocation, awakeable


async def resolve(system: System, awakeable: str) -> None:
    assert (await system.ingress.post(f"/restate/awakeables/{awakeable}/resolve", json="go")).status_code == 202


async def pause(system: System, invocation: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while (await operate(system, invocation, "pause")).status_code != 200:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)  # between two looks


async def check_moves(system: System) -> None:
    with serving_h2c(application("old")) as old_url, serving_h2c(application("new")) as new_url:
        old = await register(system, old_url)
        staying, go_on = await begin(system, f"stay-{old}")
        moved, go_on_elsewhere = await begin(system, f"move-{old}")
        done = (await system.ingress.post(f"/Versions/done-{old}/quick")).headers["x-restate-id"]
        assert await result(system, done) == "old old"
        new = await register(system, new_url)

        await resolve(system, go_on)
        assert await result(system, staying) == "old old", "what is in flight stays on its deployment"

        await pause(system, moved)
        assert (await operate(system, moved, f"resume?deployment={new}")).status_code == 200
        await resolve(system, go_on_elsewhere)
        assert await result(system, moved) == "old new", "the recorded step is not run again"

        async def again(query: str) -> str:
            answer = await operate(system, done, f"restart-as-new{query}")
            assert answer.status_code == 200, answer.text
            return await result(system, answer.json()["new_invocation_id"])

        assert await again("") == "new new"
        assert await again("?deployment=keep") == "old old"
        assert await again("?from=2") == "old new"
        assert await again("?from=2&deployment=keep") == "old old"
        assert await again(f"?from=4&deployment={new}") == "old old"


async def test_holdfast_runs_it_where_it_is_told(holdfast_system: System):
    await check_moves(holdfast_system)


@pytest.mark.restate_server
async def test_restate_runs_it_where_it_is_told(restate_system: System):
    await check_moves(restate_system)
