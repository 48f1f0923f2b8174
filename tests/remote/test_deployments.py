"""Registering endpoints, and which deployment an invocation runs on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import restate

from holdfast import Engine
from holdfast.errors import DeploymentRefused, InvalidRequest
from tests.remote import programs
from tests.remote.wire import Wire
from tests.runtime.support import call, result, send, until
from tests.support.restate_server import free_ports, serving_h2c


async def test_new_invocations_go_to_the_newest_deployment() -> None:
    with serving_h2c(programs.application("v1")) as one, serving_h2c(programs.application("v2")) as two:
        async with Engine(None) as engine:
            first = await engine.register_deployment(one)
            assert await call(engine, "Orders/quick", "a") == "a by v1"
            second = await engine.register_deployment(two)
            assert await call(engine, "Orders/quick", "b") == "b by v2"
            assert (first.is_new, second.is_new) == (True, True)
            assert [d.revisions["Orders"] for d in engine.deployments.list()] == [1, 2]
            assert engine.deployments.latest("Orders") == second.deployment


async def test_an_invocation_stays_on_the_deployment_that_recorded_its_first_step(tmp_path: Path) -> None:
    with serving_h2c(programs.application("v1")) as one, serving_h2c(programs.application("v2")) as two:
        async with Engine(None, db=tmp_path / "a.db") as engine:
            first = (await engine.register_deployment(one)).deployment
            invocation_id = await send(engine, "Orders/place", "lamp")
            await until(lambda: "lamp" in programs.awakeables)
            await engine.register_deployment(two)
            assert engine.describe(invocation_id).pinned_deployment_id == first.id
        async with Engine(None, db=tmp_path / "a.db") as engine:
            await engine.resolve_awakeable(programs.awakeables["lamp"], b'"approved"')
            assert await result(engine, invocation_id) == "take lamp v1, approved by v1"
    assert programs.steps == {"take lamp v1": 1}


async def test_an_invocation_without_steps_moves_to_the_newest_deployment_at_its_next_attempt() -> None:
    programs.failing.add("shy")
    with serving_h2c(programs.application("v1")) as one, serving_h2c(programs.application("v2")) as two:
        async with Engine(None) as engine:
            await engine.register_deployment(one)
            invocation_id = await send(engine, "Orders/quick", "shy")
            await until(lambda: engine.describe(invocation_id).last_failure)
            programs.failing.clear()
            await engine.register_deployment(two)
            assert await result(engine, invocation_id) == "shy by v2"


async def test_a_known_address_is_not_asked_again_unless_forced() -> None:
    with serving_h2c(programs.application("v1")) as url:
        async with Engine(None) as engine:
            first = await engine.register_deployment(url)
            again = await engine.register_deployment(f"{url}/", use_http_11=True)
            assert (again.is_new, again.deployment) == (False, first.deployment)
            forced = await engine.register_deployment(url, force=True)
            assert (forced.is_new, forced.deployment.id) == (False, first.deployment.id)
            assert forced.deployment.revisions == {"Orders": 2, "Counter": 2}
            assert len(engine.deployments.list()) == 1


async def test_a_dry_run_changes_nothing() -> None:
    with serving_h2c(programs.application("v1")) as url:
        async with Engine(None) as engine:
            found = await engine.register_deployment(url, dry_run=True)
            assert [service.name for service in found.services] == ["Orders", "Counter"]
            assert found.deployment.revisions == {"Orders": 1, "Counter": 1}
            assert engine.deployments.list() == []
            assert engine.services == {}


async def test_a_service_keeps_its_type_unless_told_otherwise() -> None:
    other = restate.app([restate.VirtualObject("Orders")])
    with serving_h2c(programs.application("v1")) as one, serving_h2c(other) as two:
        async with Engine(None) as engine:
            await engine.register_deployment(one)
            with pytest.raises(DeploymentRefused, match="Service type cannot be changed") as caught:
                await engine.register_deployment(two)
            assert (caught.value.status, caught.value.restate_code) == (409, "META0006")
            assert engine.services["Orders"].ty == "SERVICE"
            await engine.register_deployment(two, breaking=True)
            assert engine.services["Orders"].ty == "VIRTUAL_OBJECT"


@pytest.mark.parametrize("uri", ["/relative", "ftp://host/", "http://", "http://host:port", "http://host/?q=1", ""])
async def test_an_address_that_is_none(uri: str) -> None:
    async with Engine(None) as engine:
        with pytest.raises(InvalidRequest, match="The request field 'uri' is invalid") as caught:
            await engine.register_deployment(uri)
        assert "http://localhost:9080" in caught.value.hint


async def test_nobody_answers() -> None:
    [port] = free_ports(1)
    async with Engine(None) as engine:
        with pytest.raises(DeploymentRefused, match=rf"unable to reach the remote endpoint http://127.0.0.1:{port}/"):
            await engine.register_deployment(f"http://127.0.0.1:{port}")


async def test_moving_a_deployment() -> None:
    """The services came to live elsewhere: invocations in flight follow."""
    with serving_h2c(programs.application("v1")) as new, serving_h2c(programs.application("v1")) as old:
        async with Engine(None) as engine, Wire(old) as wire:
            known = (await engine.register_deployment(wire.url)).deployment
            invocation_id = await send(engine, "Orders/place", "lamp")
            await until(lambda: "lamp" in programs.awakeables)
            await wire.cut()
            moved = await engine.update_deployment(known.id, uri=new)
            assert (moved.id, moved.uri, moved.revisions) == (known.id, f"{new}/", known.revisions)
            await engine.resolve_awakeable(programs.awakeables["lamp"], b'"approved"')
            await engine.resume(invocation_id)
            assert await result(engine, invocation_id) == "take lamp v1, approved by v1"
    assert programs.steps == {"take lamp v1": 1}


async def test_moving_to_an_address_that_lacks_a_handler_is_refused() -> None:
    other = restate.app([restate.Service("Orders"), programs.counter()])
    with serving_h2c(programs.application("v1")) as one, serving_h2c(other) as two:
        async with Engine(None) as engine:
            known = (await engine.register_deployment(one)).deployment
            with pytest.raises(
                DeploymentRefused, match=f"does not offer handler Orders/.*, which deployment {known.id}"
            ):
                await engine.update_deployment(known.id, uri=two)
            assert await call(engine, "Orders/quick", "a") == "a by v1"
            moved = await engine.update_deployment(known.id, uri=two, overwrite=True)
            assert [*moved.services["Orders"].handlers] == []


async def test_removing_a_deployment_strands_what_is_bound_to_it_visibly() -> None:
    with serving_h2c(programs.application("v1")) as one, serving_h2c(programs.application("v2")) as two:
        async with Engine(None) as engine, Wire(one) as wire:
            first = (await engine.register_deployment(wire.url)).deployment
            stranded = await send(engine, "Orders/place", "lamp")
            await until(lambda: "lamp" in programs.awakeables)
            await engine.register_deployment(two)
            await engine.remove_deployment(first.id)
            assert engine.services["Orders"] == engine.deployments.list()[0].services["Orders"]
            await wire.cut()
            failure = await until(lambda: _said(engine, stranded, "RT0011"))
            assert f"holdfast invocations resume {stranded} --deployment latest" in failure


def _said(engine: Engine, invocation_id: str, text: str) -> str | None:
    failure = engine.describe(invocation_id).last_failure
    return failure if failure is not None and text in failure else None


async def test_several_applications_in_one_process(tmp_path: Path) -> None:
    caller = restate.Service("Caller")
    orders = programs.orders("inside")

    @caller.handler()
    async def relay(ctx: restate.Context, name: str) -> str:
        return await ctx.service_call(orders.handlers["quick"].fn, name)

    async with Engine(restate.app([caller]), db=tmp_path / "a.db") as engine:
        await engine.register(restate.app([orders]), name="orders")
        assert await call(engine, "Caller/relay", "a") == "a by inside"
        assert [d.uri for d in engine.deployments.list()] == ["inprocess://app", "inprocess://orders"]
        invocation_id = await send(engine, "Orders/place", "lamp")
        await until(lambda: "lamp" in programs.awakeables)
    async with Engine(restate.app([caller]), db=tmp_path / "a.db") as engine:
        await engine.resolve_awakeable(programs.awakeables["lamp"], b'"approved"')
        await until(lambda: engine.describe(invocation_id).status == "ready")
        unchanged = await engine.register(restate.app([orders]), name="orders")
        assert unchanged.revisions == {"Orders": 1}
        assert await result(engine, invocation_id) == "take lamp inside, approved by inside"
    assert programs.steps == {"take lamp inside": 1}


async def test_what_failed_for_want_of_a_service_goes_on_when_it_is_registered() -> None:
    caller = restate.Service("Caller")
    orders = programs.orders("later")

    @caller.handler()
    async def relay(ctx: restate.Context, name: str) -> str:
        return await ctx.service_call(orders.handlers["quick"].fn, name)

    async with Engine(restate.app([caller])) as engine:
        waiting = asyncio.create_task(call(engine, "Caller/relay", "a"))
        await until(lambda: any("RT0018" in (info.last_failure or "") for info in engine.list_invocations()))
        with serving_h2c(restate.app([orders])) as url:
            await engine.register_deployment(url)
            assert await waiting == "a by later"
