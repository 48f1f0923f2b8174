"""The provider for a Restate server: what it sends, and what it says when something is in the way."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from holdfast import providers
from holdfast.providers import (
    ExecutionState,
    InvalidConfiguration,
    InvalidSpec,
    ProviderConflict,
    ProviderUnauthorized,
    ProviderUnavailable,
    RegistrationFailed,
    WorkflowSpec,
)
from holdfast.providers.configuration import variable_for
from holdfast.providers.restate import RestateProvider, default_admin_endpoint, kill_configured
from tests.providers import flows
from tests.providers.proxy import Passed, Proxy, running_proxy
from tests.support.restate_server import RunningRestate, free_ports, running_server, serving_h2c

pytestmark = pytest.mark.restate_server

HERE = "tests.providers.flows"
TOKEN = "a-token-that-nobody-may-see"

DOCUMENTED = [
    r"GET /restate/health",
    r"GET /restate/invocation/inv_\w+/attach",
    r"POST /[\w.-]+/[\w.-]+/[\w.-]+/send",
    r"GET /health",
    r"POST /query",
    r"POST /deployments",
    r"GET /deployments/dp_\w+",
    r"PATCH /deployments/dp_\w+",
    r"DELETE /deployments/dp_\w+\?force=true",
    r"GET /services/[\w.-]+",
    r"PATCH /invocations/inv_\w+/(cancel|kill)",
]
"""What a provider may send; all of it is in Restate's documentation of ingress and admin API."""


@asynccontextmanager
async def opened(server: RunningRestate | None, **settings: Any) -> AsyncIterator[RestateProvider]:
    urls = {} if server is None else {"endpoint": server.ingress_url, "admin_endpoint": server.admin_url}
    given = {**urls, **settings}
    async with await providers.open("restate", **given) as provider:
        assert isinstance(provider, RestateProvider)
        yield provider


def behind(proxies: tuple[Proxy, Proxy]) -> AbstractAsyncContextManager[RestateProvider]:
    """A provider that knows the proxies only."""
    ingress, admin = proxies
    return opened(None, endpoint=ingress.url, admin_endpoint=admin.url)


@asynccontextmanager
async def workflow(provider: RestateProvider, workflow_id: str, **changes: Any) -> AsyncIterator[str]:
    given = {"name": workflow_id, "definition": f"{HERE}:plain", **changes}
    await provider.create_workflow(WorkflowSpec(workflow_id=workflow_id, **given))
    try:
        yield workflow_id
    finally:
        await provider.delete_workflow(workflow_id, force=True)


async def ran(provider: RestateProvider, workflow_id: str, value: Any = 1) -> Any:
    started = await provider.start_execution(workflow_id, value)
    status = await provider.wait(started.execution_id, timeout=60)
    assert status.state == ExecutionState.SUCCEEDED
    return status.output


def answer_of(server: RunningRestate, path: str) -> httpx.Response:
    """What the admin API answers to somebody else."""
    return httpx.get(f"{server.admin_url}{path}")


def rows_of(server: RunningRestate, sql: str) -> list[dict[str, Any]]:
    return httpx.post(f"{server.admin_url}/query", json={"query": sql}, headers={"accept": "application/json"}).json()[
        "rows"
    ]


def unregister(server: RunningRestate, deployment_id: str) -> None:
    httpx.delete(f"{server.admin_url}/deployments/{deployment_id}?force=true").raise_for_status()


@pytest.fixture
def proxies(restate_server: RunningRestate) -> Iterator[tuple[Proxy, Proxy]]:
    """In front of ingress and admin API."""
    with running_proxy(restate_server.ingress_url) as ingress, running_proxy(restate_server.admin_url) as admin:
        yield ingress, admin


# ---- what is sent --------------------------------------------------------------------------------------------------------


async def test_only_documented_paths_and_the_token_with_every_request(
    restate_server: RunningRestate, proxies: tuple[Proxy, Proxy], caplog: pytest.LogCaptureFixture
) -> None:
    ingress, admin = proxies
    ingress.required_token = admin.required_token = TOKEN
    caplog.set_level(logging.DEBUG)
    settings = {"endpoint": ingress.url, "admin_endpoint": admin.url, "auth_type": "api_key", "api_key": TOKEN}
    async with (
        opened(restate_server, **settings) as provider,
        workflow(provider, "recorded"),
        workflow(provider, "sleepy", definition=f"{HERE}:asleep"),
    ):
        assert await ran(provider, "recorded") == 1
        started = await provider.start_execution("sleepy", {"seconds": 3600})
        await provider.stop_execution(started.execution_id, "x", kill=True, grace=timedelta(milliseconds=1))
        await provider.list_workflows()
        await provider.list_executions()
    requests = [f"{each.method} {each.path}" for each in [*ingress.passed, *admin.passed]]
    undocumented = [each for each in requests if not any(re.fullmatch(path, each) for path in DOCUMENTED)]
    assert undocumented == []
    assert any(re.fullmatch(r"PATCH /invocations/inv_\w+/cancel", each) for each in requests)
    tokens = {each.headers.get("authorization") for each in [*ingress.passed, *admin.passed]}
    assert tokens == {f"Bearer {TOKEN}"}
    assert TOKEN not in caplog.text
    assert TOKEN not in repr(provider._settings)


async def test_the_first_request_goes_to_the_configured_endpoint(restate_server: RunningRestate) -> None:
    with running_proxy(restate_server.ingress_url) as other:
        async with opened(restate_server, endpoint=other.url):
            assert [each.path for each in other.passed][:1] == ["/restate/health"]


def test_the_admin_endpoint_belongs_to_the_endpoint_by_default() -> None:
    assert default_admin_endpoint("http://localhost:8080") == "http://localhost:9070"
    assert default_admin_endpoint("https://[::1]:8080") == "https://[::1]:9070"


async def test_without_authentication_nothing_is_sent(
    restate_server: RunningRestate, proxies: tuple[Proxy, Proxy]
) -> None:
    ingress, admin = proxies
    async with opened(restate_server, endpoint=ingress.url, admin_endpoint=admin.url, auth_type=""):
        pass
    assert all("authorization" not in each.headers for each in [*ingress.passed, *admin.passed])


async def test_an_https_endpoint_with_a_certificate_of_ones_own(restate_server: RunningRestate, tmp_path: Path) -> None:
    authority = trustme.CA()
    pem, ca_file = tmp_path / "server.pem", tmp_path / "ca.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(pem)
    authority.cert_pem.write_to_path(ca_file)
    with (
        running_proxy(restate_server.ingress_url, certificate=pem) as ingress,
        running_proxy(restate_server.admin_url, certificate=pem) as admin,
    ):
        urls = {"endpoint": ingress.url, "admin_endpoint": admin.url}
        async with opened(restate_server, **urls, ca_file=ca_file) as provider, workflow(provider, "over-tls"):
            assert await ran(provider, "over-tls") == 1
        async with opened(restate_server, **urls, request_attempts=1) as provider:  # it does not know the authority
            with pytest.raises(ProviderUnavailable, match="certificate") as refusal:
                await provider.list_workflows()
            assert refusal.value.endpoint == admin.url
    with pytest.raises(InvalidConfiguration, match="ca_file"):
        await providers.open("restate", endpoint="https://localhost:1", ca_file=tmp_path / "nowhere.pem")


# ---- what is in the way --------------------------------------------------------------------------------------------------


async def test_an_unreachable_server_is_a_warning_at_start_and_an_error_in_use(
    restate_server: RunningRestate, caplog: pytest.LogCaptureFixture
) -> None:
    closed, closed_too = (f"http://127.0.0.1:{port}" for port in free_ports(2))
    async with opened(restate_server, endpoint=closed, admin_endpoint=closed_too, request_attempts=2) as provider:
        [warning] = [each for each in caplog.records if each.levelno == logging.WARNING]
        assert vars(warning)["endpoint"] == closed
        assert (
            f"the Restate server at {closed} does not answer" in warning.getMessage()
        )  # also where fields are not shown
        with pytest.raises(ProviderUnavailable, match=re.escape(closed_too)) as refusal:
            await provider.get_workflow("any")
        assert (refusal.value.status_code, refusal.value.endpoint) == (None, closed_too)
        assert "curl" in refusal.value.hint


async def test_wrong_credentials(restate_server: RunningRestate, proxies: tuple[Proxy, Proxy]) -> None:
    ingress, admin = proxies
    ingress.required_token = admin.required_token = TOKEN
    urls = {"endpoint": ingress.url, "admin_endpoint": admin.url}
    async with opened(restate_server, **urls, auth_type="api_key", api_key="wrong") as provider:
        with pytest.raises(ProviderUnauthorized, match=r"answered 401 .* who are you") as refusal:
            await provider.get_workflow("any")
        assert (refusal.value.status_code, refusal.value.body) == (401, '{"message":"who are you?"}')
        assert "api_key" in refusal.value.hint
        with pytest.raises(ProviderUnauthorized):
            await provider.wait("any.x", timeout=60)


async def test_a_server_error_is_told_with_status_and_body(
    restate_server: RunningRestate, proxies: tuple[Proxy, Proxy], caplog: pytest.LogCaptureFixture
) -> None:
    ingress, _ = proxies
    async with behind(proxies) as provider, workflow(provider, "broken-server"):
        ingress.fault = lambda request: (500, '{"message":"the disk is full"}')
        with pytest.raises(ProviderUnavailable, match=r"answered 500 .*the disk is full") as refusal:
            await provider.start_execution("broken-server", 1)
        assert (refusal.value.status_code, refusal.value.body) == (500, '{"message":"the disk is full"}')
        [line] = [each for each in caplog.records if each.levelno == logging.ERROR]
        fields = vars(line)
        assert (fields["operation"], fields["workflow_id"]) == ("start_execution", "broken-server")
        assert (fields["server_status"], fields["server_body"]) == (500, '{"message":"the disk is full"}')
        assert fields["endpoint"] == ingress.url
        ingress.fault = None


async def test_a_request_is_repeated_while_the_server_says_try_later(
    restate_server: RunningRestate, proxies: tuple[Proxy, Proxy]
) -> None:
    ingress, _ = proxies
    answers = iter([(503, "starting"), (503, "starting")])
    async with behind(proxies) as provider, workflow(provider, "patient"):
        ingress.fault = lambda request: next(answers, None)
        assert await ran(provider, "patient") == 1
        ingress.fault = lambda request: (503, "for ever")
        before = len(ingress.passed)
        with pytest.raises(ProviderUnavailable, match="answered 503"):
            await provider.start_execution("patient", 1)
        assert len(ingress.passed) - before == 3  # request_attempts
        ingress.fault = None


async def test_a_lost_answer_does_not_start_twice(restate_server: RunningRestate, proxies: tuple[Proxy, Proxy]) -> None:
    ingress, _ = proxies
    forwarded: list[Passed] = []
    async with behind(proxies) as provider, workflow(provider, "lost-answer"):

        def lose_the_first_answer(request: Passed) -> tuple[int, str] | None:
            if request.path.endswith("/run/send") and not forwarded:
                forwarded.append(request)
                sent = httpx.post(
                    f"{restate_server.ingress_url}{request.path}",
                    content=request.body,
                    headers={"content-type": "application/json"},
                )
                assert sent.status_code == 202
                return 502, "the answer was lost"
            return None

        ingress.fault = lose_the_first_answer
        started = await provider.start_execution("lost-answer", 1, execution_name="once")
        assert (started.is_new, len(forwarded)) == (False, 1)
        await provider.wait(started.execution_id, timeout=60)
        assert len(await provider.list_executions(workflow_id="lost-answer")) == 1


async def test_a_slow_server_is_named_when_the_time_is_over(
    restate_server: RunningRestate, proxies: tuple[Proxy, Proxy]
) -> None:
    _, admin = proxies
    async with opened(
        restate_server, admin_endpoint=admin.url, request_timeout="200ms", request_attempts=1
    ) as provider:
        admin.delay_s = 5.0
        with pytest.raises(ProviderUnavailable, match=r"gave no answer within 0\.2 s") as refusal:
            await provider.get_workflow("any")
        assert refusal.value.endpoint == admin.url


# ---- registration --------------------------------------------------------------------------------------------------------


async def test_creation_registers_a_deployment_and_deletion_removes_it(restate_server: RunningRestate) -> None:
    def services() -> set[str]:
        listed = answer_of(restate_server, "/deployments").json()["deployments"]
        return {service["name"] for deployment in listed for service in deployment["services"]}

    async with opened(restate_server) as provider:
        created = await provider.create_workflow(
            WorkflowSpec(workflow_id="2-register", name="R", definition=f"{HERE}:plain")
        )
        assert created.service_name == "W2-register"
        assert "W2-register" in services()
        assert answer_of(restate_server, "/services/W2-register").status_code == 200
        started = await provider.start_execution("2-register", 1, execution_name="n")
        status = await provider.wait(started.execution_id, timeout=60)
        sql = f"SELECT target FROM sys_invocation WHERE id = '{status.metadata['invocation_id']}'"
        assert rows_of(restate_server, sql) == [{"target": "W2-register/n/run"}]
        await provider.delete_workflow("2-register")
        deployment = answer_of(restate_server, f"/deployments/{created.deployment_id}")
        assert deployment.status_code == 404


async def test_a_configured_service_name_is_used(restate_server: RunningRestate) -> None:
    async with opened(restate_server, service_name="Configured") as provider, workflow(provider, "named"):
        assert answer_of(restate_server, "/services/Configured").status_code == 200
        assert await ran(provider, "named") == 1
        spec = WorkflowSpec(workflow_id="named-too", name="N", definition=f"{HERE}:plain")
        with pytest.raises(ProviderConflict, match="service name 'Configured' belongs to workflow 'named'"):
            await provider.create_workflow(spec)


async def test_somebody_elses_service_is_not_taken_over(restate_server: RunningRestate) -> None:
    with serving_h2c(flows.app) as url:
        deployment_id = restate_server.register(url)
        async with opened(restate_server) as provider:
            config = {"service_name": "Greeter"}
            spec = WorkflowSpec(workflow_id="thief", name="T", definition=f"{HERE}:plain", provider_config=config)
            with pytest.raises(
                ProviderConflict, match=f"has a service 'Greeter' already, in deployment {deployment_id}"
            ):
                await provider.create_workflow(spec)
        unregister(restate_server, deployment_id)


async def test_a_refused_registration_is_told_as_the_server_tells_it(restate_server: RunningRestate) -> None:
    [dead] = free_ports(1)
    settings = {"execution_mechanism": "self-hosted", "deployment_url": f"http://127.0.0.1:{dead}"}
    async with opened(restate_server, **settings) as provider:
        spec = WorkflowSpec(workflow_id="dead-port", name="D", definition=f"{HERE}:order")
        with pytest.raises(RegistrationFailed, match=rf"refused http://127\.0\.0\.1:{dead}: 500 META0003: ") as refusal:
            await provider.create_workflow(spec)
        assert (refusal.value.status_code, refusal.value.server_code) == (500, "META0003")
        assert json.loads(refusal.value.body)["message"] in str(refusal.value)


async def test_a_deployed_application_is_registered_by_its_url() -> None:
    # What an image serves: its workflows, and the system services. This process serves nothing.
    app = providers.app({"deployed-order": flows.order, "deployed-plain": flows.plain}, services=[flows.counter])
    with running_server() as server, serving_h2c(app) as url:
        settings = {"execution_mechanism": "self-hosted", "deployment_url": url}
        async with opened(server, serve=False, **settings) as provider:
            spec = WorkflowSpec(workflow_id="deployed-order", name="O", definition="not_here.at_all:order")
            created = await provider.create_workflow(spec)
            assert (created.service_name, created.is_new) == ("deployed-order", True)
            assert str(await ran(provider, "deployed-order", "tea")).startswith("tea for ")
            # By the object's own name, and by a configured one.
            async with workflow(
                provider, "tally", definition={"reference": f"{HERE}:counter", "handler": "add"}
            ) as tally:
                assert (await provider.get_workflow(tally)).service_name == "Counter"
                assert await ran(provider, tally, 3) == 3
            with pytest.raises(InvalidSpec, match=r"has no service 'nope'; it has: .*Counter"):
                await provider.create_workflow(WorkflowSpec(workflow_id="nope", name="N", definition="not_here:x"))
            await provider.delete_workflow("deployed-order")
            # Others use the deployment, the system services among them: it stays.
            assert answer_of(server, f"/deployments/{created.deployment_id}").status_code == 200


async def test_a_mechanism_needs_its_address(restate_server: RunningRestate) -> None:
    spec = WorkflowSpec(workflow_id="placed", name="P", definition=f"{HERE}:order")
    for mechanism, field in (
        ("lambda", "deployment_arn"),
        ("fargate", "deployment_url"),
        ("kubernetes", "deployment_url"),
        ("self-hosted", "deployment_url"),
    ):
        async with opened(restate_server, execution_mechanism=mechanism) as provider:
            with pytest.raises(InvalidSpec, match=f"is required with execution_mechanism {mechanism}") as refusal:
                await provider.validate(spec)
            assert refusal.value.field == f"provider_config.{field}"


async def test_a_lambda_registration_carries_arn_and_role(
    restate_server: RunningRestate, proxies: tuple[Proxy, Proxy]
) -> None:
    _, admin = proxies
    arn, role = "arn:aws:lambda:eu-central-1:123456789012:function:f:1", "arn:aws:iam::123456789012:role/invoker"
    settings = {
        "execution_mechanism": "lambda",
        "auth_type": "iam",
        "deployment_arn": arn,
        "assume_role_arn": role,
        "request_attempts": 1,
    }
    admin.fault = lambda request: (500, '{"message":"no AWS here","restate_code":"META0003"}') if (
        request.path == "/deployments"
    ) else None  # fmt: skip
    async with opened(restate_server, admin_endpoint=admin.url, **settings) as provider:
        with pytest.raises(RegistrationFailed, match=f"refused {arn}: 500 META0003: no AWS here"):
            await provider.create_workflow(WorkflowSpec(workflow_id="on-lambda", name="L", definition="a.b:c"))
    [registration] = [each for each in admin.passed if each.path == "/deployments"]
    assert registration.json == {"arn": arn, "assume_role_arn": role, "dry_run": True}


async def test_a_deployed_supervisor_kills_by_the_configuration_of_its_process(
    restate_server: RunningRestate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(restate_server) as provider, workflow(provider, "to-kill", definition=f"{HERE}:asleep"):
        started = await provider.start_execution("to-kill", {"seconds": 3600})
        while (found := await provider.get_execution_status(started.execution_id)).start_time is None:
            await asyncio.sleep(0.05)
        invocation_id = found.metadata["invocation_id"]
        monkeypatch.delenv(variable_for("workflow.restate.drain"))
        await kill_configured(invocation_id)  # nothing is configured here
        assert "cannot kill: no admin API is configured" in caplog.text
        monkeypatch.setenv(variable_for("workflow.restate.endpoint"), restate_server.ingress_url)
        monkeypatch.setenv(variable_for("workflow.restate.admin_endpoint"), restate_server.admin_url)
        await kill_configured(invocation_id)
        status = await provider.wait(started.execution_id, timeout=60)
        assert (status.state, status.reason) == (ExecutionState.STOPPED, "killed at the engine")
        await kill_configured(invocation_id)  # once more: it is over already


# ---- processes that come and go ------------------------------------------------------------------------------------------


async def test_a_process_that_may_not_serve_says_what_is_missing() -> None:
    with running_server() as fresh:
        async with opened(fresh, serve=False) as provider:
            with pytest.raises(ProviderUnavailable, match="has no holdfast services") as refusal:
                await provider.create_workflow(WorkflowSpec(workflow_id="w", name="W", definition=f"{HERE}:plain"))
            assert "system_services()" in refusal.value.hint


async def test_the_next_process_serves_what_the_last_one_left(restate_server: RunningRestate, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    async with opened(restate_server) as first:
        spec = WorkflowSpec(workflow_id="handed-over", name="H", definition=f"{HERE}:asleep")
        created = await first.create_workflow(spec)
        started = await first.start_execution("handed-over", {"seconds": 1, "marks": str(marks)})
        while not marks.exists():
            await asyncio.sleep(0.02)
    async with opened(restate_server) as second:
        # Another port, the same deployment: what is bound to it goes on.
        status = await second.wait(started.execution_id, timeout=90)
        assert (status.state, status.output) == (ExecutionState.SUCCEEDED, "slept")
        assert marks.read_text().split() == ["before", "after"]
        assert (await second.get_workflow("handed-over")).deployment_id == created.deployment_id
        again = await second.create_workflow(spec)
        assert not again.is_new
        await second.delete_workflow("handed-over")


async def test_two_processes_share_the_work(restate_server: RunningRestate) -> None:
    async with opened(restate_server) as one, opened(restate_server) as two, workflow(one, "shared-work"):
        # The second one finds the workflow, and leaves serving it to the first one, which lives.
        assert await ran(two, "shared-work", "x") == "x"
        await two._serve_stored()
        assert not two._local.has("shared-work")
