"""The embedded provider: files that are opened again, engines that exist already, ports."""

from __future__ import annotations

import asyncio
import logging
import socket
import textwrap
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import restate

from holdfast import Engine, providers
from holdfast.errors import CannotListen, DatabaseInUse
from holdfast.providers import (
    ExecutionState,
    InvalidInput,
    InvalidSpec,
    ProviderConflict,
    ProviderUnavailable,
    SubState,
    WorkflowSpec,
)
from holdfast.providers.embedded import EmbeddedProvider
from tests.providers import flows

HERE = "tests.providers.flows"
SPEC = WorkflowSpec(workflow_id="kept", name="Kept", description="the first", definition=f"{HERE}:asleep")


async def opened(**settings: Any) -> EmbeddedProvider:
    provider = await providers.open("embedded", **settings)
    assert isinstance(provider, EmbeddedProvider)
    return provider


async def test_definitions_and_executions_are_there_after_a_restart(tmp_path: Path) -> None:
    async with await opened(db=tmp_path / "p.db") as provider:
        await provider.create_workflow(SPEC)
        first = await provider.start_execution("kept", {"seconds": 0}, execution_name="done", tags={"a": "b"})
        done = await provider.wait(first.execution_id, timeout=30)
        second = await provider.start_execution("kept", {"seconds": 0.2}, execution_name="open")
    async with await opened(db=tmp_path / "p.db") as provider:
        assert (await provider.get_workflow("kept")).description == "the first"
        assert await provider.get_execution_status(first.execution_id) == done
        ended = await provider.wait(second.execution_id, timeout=30)
        assert (ended.state, ended.output) == (ExecutionState.SUCCEEDED, "slept")


async def test_a_definition_that_is_gone_is_told_and_its_executions_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "fleeting_flows.py"
    module.write_text(
        textwrap.dedent("""\
            import restate

            async def flow(ctx, request):
                return await ctx.promise("go")
        """)
    )
    async with await opened(db=tmp_path / "p.db") as provider:
        spec = WorkflowSpec(workflow_id="fleeting", name="F", definition="fleeting_flows:flow")
        await provider.create_workflow(spec)
        started = await provider.start_execution("fleeting", 1)
    monkeypatch.delitem(__import__("sys").modules, "fleeting_flows")
    text = module.read_text()
    module.unlink()
    async with await opened(db=tmp_path / "p.db") as provider:
        [line] = [each for each in caplog.records if each.levelno == logging.ERROR]
        assert (vars(line)["workflow_id"], "fleeting_flows" in vars(line)["error"]) == ("fleeting", True)
        assert not (await provider.get_execution_status(started.execution_id)).state.is_final
    module.write_text(text)
    __import__("importlib").invalidate_caches()
    async with await opened(db=tmp_path / "p.db") as provider:
        await provider.signal(started.execution_id, "go", "on")
        assert (await provider.wait(started.execution_id, timeout=30)).output == "on"


async def test_a_second_provider_on_the_file_is_refused(tmp_path: Path) -> None:
    async with await opened(db=tmp_path / "p.db"):
        with pytest.raises(DatabaseInUse):
            await opened(db=tmp_path / "p.db")


async def test_an_engine_that_runs_already_is_used_and_left_running() -> None:
    async with Engine(restate.app([flows.greeter])) as engine:
        async with await opened(engine=engine) as provider:
            await provider.create_workflow(SPEC)
            started = await provider.start_execution("kept", {"seconds": 0})
            assert (await provider.wait(started.execution_id, timeout=30)).output == "slept"
            # A service of the program itself is nobody's workflow.
            config = {"service_name": "Greeter"}
            theft = WorkflowSpec(workflow_id="x", name="X", definition=f"{HERE}:plain", provider_config=config)
            with pytest.raises(ProviderConflict, match="the engine has a service 'Greeter' already"):
                await provider.create_workflow(theft)
        assert await engine.client.service_call(flows.greet, arg="Ada") == "Hello Ada"


async def test_deletion_takes_the_service_away(tmp_path: Path) -> None:
    async with await opened(db=tmp_path / "p.db") as provider:
        await provider.create_workflow(SPEC)
        assert "kept" in provider.engine.services
        await provider.delete_workflow("kept")
        assert "kept" not in provider.engine.services
        assert len(provider.engine.deployments.list()) == 1


async def test_the_name_of_a_deleted_workflow_is_free_again() -> None:
    async with await opened(db=":memory:") as provider:
        config = {"service_name": "Wanted"}
        one = WorkflowSpec(workflow_id="one", name="1", definition=f"{HERE}:plain", provider_config=config)
        two = WorkflowSpec(workflow_id="two", name="2", definition=f"{HERE}:plain", provider_config=config)
        await provider.create_workflow(one)
        with pytest.raises(ProviderConflict, match="service name 'Wanted' belongs to workflow 'one'"):
            await provider.create_workflow(two)
        await provider.delete_workflow("one")
        assert (await provider.create_workflow(two)).service_name == "Wanted"


async def test_a_closed_provider_says_so() -> None:
    provider = await opened(db=":memory:")
    await provider.create_workflow(SPEC)
    started = await provider.start_execution("kept", {"seconds": 3600})
    waiting = asyncio.create_task(provider.wait(started.execution_id))
    await asyncio.sleep(0)
    await provider.close()
    with pytest.raises(ProviderUnavailable, match="embedded engine on"):
        await waiting
    with pytest.raises(ProviderUnavailable, match="stopped"):
        await provider.start_execution("kept", {})


async def test_both_apis_can_be_served(tmp_path: Path) -> None:
    async with await opened(db=tmp_path / "p.db", ingress_port=0, admin_port=0) as provider:
        await provider.create_workflow(SPEC)
        assert provider.ingress_url is not None
        assert provider.admin_url is not None
        async with httpx.AsyncClient(trust_env=False) as client:
            health = await client.get(f"{provider.ingress_url}/restate/health")
            assert "kept" in health.json()["services"]
            services = (await client.get(f"{provider.admin_url}/services")).json()["services"]
            assert "kept" in {service["name"] for service in services}
            strange = await client.get(f"{provider.admin_url}/services", headers={"host": "evil.example"})
            assert strange.status_code == 403


async def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotListen, match=f"port {port} on 127.0.0.1 is in use"):
            await opened(db=tmp_path / "p.db", admin_port=port)
    async with await opened(db=tmp_path / "p.db"):
        pass  # the file was let go of


async def test_payloads_have_a_limit(tmp_path: Path) -> None:
    async with await opened(db=":memory:", payload_bytes_max=100) as provider:
        await provider.create_workflow(SPEC)
        with pytest.raises(providers.InvalidInput, match=r"input: has 202 bytes, at most 100 are allowed"):
            await provider.start_execution("kept", "x" * 200)


NO_TIME = {
    "timeout": ({"timeout": 30}, "timeout: must be a timedelta, not 30"),
    "timeout as text": ({"timeout": "30s"}, "timeout: must be a timedelta, not '30s'"),
    "interval": (
        {"retry_policy": providers.RetryPolicy(initial_interval=cast(Any, 1))},
        r"retry_policy\.initial_interval: must be a timedelta, not 1",
    ),
}


@pytest.mark.parametrize("case", NO_TIME)
async def test_what_is_no_length_of_time_is_named(case: str) -> None:
    changes, text = NO_TIME[case]
    async with await opened(db=":memory:") as provider:
        with pytest.raises(InvalidSpec, match=text):
            await provider.validate(replace(SPEC, **changes))


@pytest.mark.parametrize(
    ("grace", "text"), [(5, "must be a timedelta, not 5"), (timedelta(-1), "must not be below zero")]
)
async def test_a_grace_time_that_is_none_is_refused_and_nothing_is_stopped(grace: Any, text: str) -> None:
    async with await opened(db=":memory:") as provider:
        await provider.create_workflow(SPEC)
        started = await provider.start_execution("kept", {"seconds": 3600})
        with pytest.raises(InvalidInput, match=f"grace: {text}"):
            await provider.stop_execution(started.execution_id, kill=True, grace=grace)
        status = await provider.get_execution_status(started.execution_id)
        assert status.sub_state != SubState.STOPPING


async def test_a_signal_that_is_not_json_is_named() -> None:
    async with await opened(db=":memory:") as provider:
        with pytest.raises(InvalidInput, match="payload: is not JSON"):
            await provider.signal("kept.n", "approved", object())


async def test_a_default_time_limit_and_default_retries() -> None:
    async with await opened(db=":memory:", timeout="300ms", retry_attempts=0) as provider:
        await provider.create_workflow(SPEC)
        started = await provider.start_execution("kept", {"seconds": 3600})
        assert (await provider.wait(started.execution_id, timeout=30)).state == ExecutionState.TIMEOUT
        failed = await provider.start_execution("kept", {})  # KeyError, at the first attempt
        status = await provider.wait(failed.execution_id, timeout=30)
        assert status.state == ExecutionState.FAILED
        assert status.error is not None
        assert "KeyError" in status.error.message
