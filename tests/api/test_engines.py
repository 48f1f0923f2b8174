"""The checks of a user with curl and jq, on the embedded engine and on a Restate server."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from holdfast import providers
from holdfast.api.app import create_api
from holdfast.providers.base import WorkflowProvider
from holdfast.providers.embedded import EmbeddedProvider
from tests.api.conftest import PATIENCE_S, Served
from tests.support.restate_server import RunningRestate

pytestmark = pytest.mark.skipif(not (shutil.which("curl") and shutil.which("jq")), reason="curl or jq is not installed")

FLOWS = "tests.api.flows"


@dataclass
class Place:
    """A served API, the engine behind it, and a shell that knows both."""

    provider: WorkflowProvider
    url: str
    admin_url: str
    folder: Path
    workflow_id: str = ""

    async def sh(self, command: str, expected_status: int = 0) -> str:
        """What a command prints. `$API`, `$ADM` and `$W` are known."""
        process = await asyncio.create_subprocess_shell(
            command,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=self.folder,
            env={"API": self.url, "ADM": self.admin_url, "W": self.workflow_id, "PATH": "/usr/bin:/bin:/usr/local/bin"},
        )
        output, _ = await asyncio.wait_for(process.communicate(), PATIENCE_S)
        assert process.returncode == expected_status, output.decode()
        return output.decode().strip()

    async def create(self, flow: str, **more: Any) -> dict[str, Any]:
        """A workflow, `$W` from now on; `spec.json` is what it was created from."""
        # Test sessions share a server, so every test has an id of its own.
        self.workflow_id = f"{flow}-{self.folder.name}".replace("_", "-").lower()[:128].strip("-")
        spec = {"workflow_id": self.workflow_id, "name": flow, "definition": f"{FLOWS}:{flow}"} | more
        (self.folder / "spec.json").write_text(json.dumps(spec))
        answer = json.loads(await self.sh("curl -s -X POST $API/v1/workflows -d @spec.json"))
        assert "workflow_id" in answer, answer
        return answer

    async def start(self, name: str, value: Any = None) -> str:
        """Start an execution; its id."""
        (self.folder / "in.json").write_text(json.dumps({"execution_name": name, "input": value}))
        answer = await self.sh("curl -s -X POST $API/v1/workflows/$W/executions -d @in.json")
        return json.loads(answer)["execution_id"]


@pytest.fixture(params=["embedded", pytest.param("restate", marks=pytest.mark.restate_server)])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    if request.param == "embedded":
        provider = await providers.open("embedded", db=str(tmp_path / "engine.db"), admin_port=0)
        assert isinstance(provider, EmbeddedProvider)
        admin_url = provider.admin_url or ""
    else:
        server: RunningRestate = request.getfixturevalue("restate")
        admin_url = server.admin_url
        provider = await providers.open("restate", endpoint=server.ingress_url, admin_endpoint=server.admin_url)
    async with provider, Served(create_api(provider)) as served:
        yield Place(provider, served.url, admin_url, tmp_path)


CODE = "curl -s -o answer.json -w '%{http_code}'"


async def test_a_workflow_is_created_at_the_engine(place: Place) -> None:
    created = await place.create("hello")
    assert created["workflow_id"] == place.workflow_id
    assert created["provider_type"] == place.provider.name
    assert created["is_new"]
    assert created["resource_ids"]["service"] == created["service_name"]
    assert await place.sh(f"{CODE} $ADM/services/{created['service_name']}") == "200"


async def test_a_workflow_is_created_once(place: Place) -> None:
    await place.create("hello", description="the first")
    (place.folder / "spec.json").write_text(
        json.dumps(json.loads((place.folder / "spec.json").read_text()) | {"description": "the second"})
    )
    assert await place.sh(f"{CODE} -X POST $API/v1/workflows -d @spec.json") == "200"
    assert await place.sh("curl -s $API/v1/workflows/$W | jq -r .description") == "the first"


async def test_a_new_workflow_is_answered_with_201(place: Place) -> None:
    await place.create("hello")
    await place.sh("curl -s -X DELETE $API/v1/workflows/$W")
    assert await place.sh(f"{CODE} -X POST $API/v1/workflows -d @spec.json") == "201"


async def test_the_definition_can_be_read_back(place: Place) -> None:
    await place.create("hello", timeout="30m", tags={"team": "a"})
    assert await place.sh("curl -s $API/v1/workflows/$W | jq -r .definition") == "tests.api.flows:hello"
    assert await place.sh("curl -s $API/v1/workflows/$W | jq -c '[.timeout, .tags.team]'") == '["30m","a"]'
    assert place.workflow_id in await place.sh("curl -s $API/v1/workflows?limit=1000 | jq -r '.items[].workflow_id'")


async def test_an_execution_is_started_and_ends(place: Place) -> None:
    await place.create("hello")
    (place.folder / "in.json").write_text('{"execution_name": "first", "input": "Ada"}')
    start = "-X POST $API/v1/workflows/$W/executions -d @in.json"
    assert await place.sh(f"{CODE} {start}") == "201"
    started = json.loads((place.folder / "answer.json").read_text())
    assert started["state"] in ("pending", "running")
    execution_id = started["execution_id"]
    assert await place.sh(f"curl -s $API/v1/executions/{execution_id}/wait?timeout=20s | jq -r .output") == "Hello Ada"
    assert await place.sh(f"{CODE} {start}") == "200"
    assert json.loads((place.folder / "answer.json").read_text())["is_new"] is False
    has = """jq -c '[has("state","input","output","history")]'"""
    assert await place.sh(f"curl -s $API/v1/executions/{execution_id} | {has}") == "[true,true,true,true]"
    status = json.loads(await place.sh(f"curl -s $API/v1/executions/{execution_id}"))
    assert (status["state"], status["input"], status["output"]) == ("succeeded", "Ada", "Hello Ada")
    assert status["progress"] == {"completed": 1, "total": 1}
    assert [each["name"] for each in status["history"] if each["type"] == "Command: Run"] == ["greet"]
    assert [each["type"] for each in status["history"] if each["type"].startswith("state: ")] == [
        "state: pending",
        "state: running",
        "state: succeeded",
    ]


async def test_an_execution_is_stopped_once(place: Place) -> None:
    await place.create("approval")
    execution_id = await place.start("first", {"n": 1})
    stop = f"""curl -s -X POST $API/v1/executions/{execution_id}/stop -d '{{"reason":"x"}}'"""
    assert await place.sh(f"{stop} | jq -c '[.state, .reason]'") == '["stopped","x"]'
    stop_time = await place.sh(f"curl -s $API/v1/executions/{execution_id} | jq -r .stop_time")
    again = f"""{CODE} -X POST $API/v1/executions/{execution_id}/stop -d '{{"reason":"y"}}'"""
    assert await place.sh(again) == "200"
    after = json.loads((place.folder / "answer.json").read_text())
    assert (after["state"], after["reason"], after["stop_time"]) == ("stopped", "x", stop_time)


async def test_a_workflow_is_deleted(place: Place) -> None:
    await place.create("hello")
    for _ in range(2):
        assert await place.sh(f"{CODE} -X DELETE $API/v1/workflows/$W") == "204"
    assert await place.sh(f"{CODE} -X POST $API/v1/workflows/$W/executions -d '{{}}'") == "404"
    problem = json.loads((place.folder / "answer.json").read_text())
    assert (problem["code"], problem["workflow_id"]) == ("HF0402", place.workflow_id)
    assert place.workflow_id in problem["detail"]


async def test_a_workflow_with_running_executions_is_kept(place: Place) -> None:
    await place.create("approval")
    execution_id = await place.start("first", {})
    assert await place.sh(f"{CODE} -X DELETE $API/v1/workflows/$W") == "409"
    assert json.loads((place.folder / "answer.json").read_text())["execution_ids"] == [execution_id]
    assert (
        await place.sh(f"{CODE} -X DELETE '$API/v1/workflows/$W?force=true'".replace("'$", '"$').replace("e'", 'e"'))
        == "204"
    )
    assert await place.sh(f"curl -s $API/v1/executions/{execution_id} | jq -r .state") == "stopped"


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        ({"definition": "{"}, "definition"),
        ({"definition": "tests.api.flows:nowhere"}, "definition"),
        ({"definition": "tests.api.nowhere:hello"}, "definition"),
        ({"definition": {"reference": "tests.api.flows:hello", "handler": "nowhere"}}, "definition.handler"),
        ({"name": ""}, "name"),
        ({"workflow_id": "Big"}, "workflow_id"),
        ({"provider_config": {"colour": "red"}}, "provider_config.colour"),
        ({"timeout": "0s"}, "timeout"),
    ],
)
async def test_what_cannot_be_created_is_told_before(place: Place, bad: dict[str, Any], field: str) -> None:
    spec = {"workflow_id": "hello", "name": "Hello", "definition": "tests.api.flows:hello"} | bad
    (place.folder / "bad.json").write_text(json.dumps(spec))
    for path in ("workflows/validate", "workflows"):
        assert await place.sh(f"{CODE} -X POST $API/v1/{path} -d @bad.json") == "422"
        assert await place.sh("jq -r .field answer.json") == field


async def test_a_good_spec_is_told_as_well(place: Place) -> None:
    spec = {"workflow_id": "hello", "name": "Hello", "definition": "tests.api.flows:plain"}
    (place.folder / "good.json").write_text(json.dumps(spec))
    assert await place.sh("curl -s -X POST $API/v1/workflows/validate -d @good.json | jq .valid") == "true"


async def test_a_failure_is_told(place: Place) -> None:
    await place.create("failing")
    execution_id = await place.start("first", "no tea")
    status = json.loads(await place.sh(f"curl -s $API/v1/executions/{execution_id}/wait"))
    assert (status["state"], status["error"]["code"], status["error"]["message"]) == ("failed", 418, "no tea")


async def test_a_time_limit_ends_an_execution(place: Place) -> None:
    await place.create("sleepy", timeout="300ms")
    execution_id = await place.start("first", 600)
    status = json.loads(await place.sh(f"curl -s $API/v1/executions/{execution_id}/wait?timeout=20"))
    assert (status["state"], status["error"]["code"]) == ("timeout", 408)


async def test_an_execution_is_told_something(place: Place) -> None:
    await place.create("approval")
    execution_id = await place.start("first", {"n": 1})
    ask = '{"name": "ask", "payload": "well"}'
    # The handler may not have set its progress yet.
    answers = {'"well? None"', '"well? waiting for approval"'}
    signal = f"curl -s -X POST $API/v1/executions/{execution_id}/signal"
    assert await place.sh(f"{signal} -d '{ask}' | jq .answer") in answers
    forbidden = '{"name": "ask", "payload": "forbidden"}'
    code = await place.sh(f"{CODE} -X POST $API/v1/executions/{execution_id}/signal -d '{forbidden}'")
    assert code == "403", (place.folder / "answer.json").read_text()
    assert await place.sh("jq -c '[.code, .detail]' answer.json") == '["HF0106","not your business"]'
    approve = '{"name": "approved", "payload": true}'
    assert await place.sh(f"{signal} -d '{approve}' | jq .answer") == "null"
    output = await place.sh(f"curl -s $API/v1/executions/{execution_id}/wait | jq -c .output")
    assert json.loads(output) == {"document": {"n": 1}, "approved": True}
    assert await place.sh(f"{CODE} -X POST $API/v1/executions/{execution_id}/signal -d '{approve}'") == "422"


async def test_an_execution_is_watched(place: Place) -> None:
    await place.create("approval")
    execution_id = await place.start("first", {})
    watching = asyncio.create_task(place.sh(f"curl -sN $API/v1/executions/{execution_id}/watch"))
    async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
        body = {"name": "approved", "payload": True}
        assert (await client.post(f"{place.url}/v1/executions/{execution_id}/signal", json=body)).status_code == 200
    lines = (await watching).splitlines()
    changes = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert changes[0]["from_state"] is None
    assert changes[-1]["to_state"] == "succeeded"
    assert changes[-1]["progress"] == "decided"
    states = [change["to_state"] for change in changes]
    assert states == sorted(states, key=["pending", "running", "succeeded"].index)


async def test_executions_are_listed(place: Place) -> None:
    await place.create("hello")
    names = [f"n{number}" for number in range(5)]
    ids = [await place.start(name, name) for name in names]
    for execution_id in ids:
        await place.sh(f"curl -s $API/v1/executions/{execution_id}/wait")
    listed = "curl -s $API/v1/workflows/$W/executions"
    assert (await place.sh(f"{listed} | jq -r '.items[].execution_name'")).split() == names[::-1]
    assert await place.sh(f"{listed}?state=failed | jq -c .items") == "[]"
    succeeded = 'curl -s "$API/v1/executions?workflow_id=$W&state=succeeded&state=failed"'
    assert (await place.sh(f"{succeeded} | jq -r '.items[].execution_id'")).split() == ids[::-1]
    assert (
        await place.sh('curl -s "$API/v1/executions?workflow_id=$W&created_after=2100-01-01T00:00:00Z" | jq -c .items')
        == "[]"
    )
    assert await place.sh("curl -s $API/v1/workflows/nowhere/executions | jq -r .code") == "HF0402"


async def test_what_only_python_reads_as_json_is_json_for_all(place: Place) -> None:
    await place.create("odd")
    execution_id = await place.start("first")
    assert await place.sh(f"curl -s $API/v1/executions/{execution_id}/wait | jq -c .output") == (
        '{"ratio":"nan","most":"inf","half":"\ufffd"}'
    )


async def test_a_hundred_starts_of_one_name_are_one_execution(place: Place) -> None:
    await place.create("hello")
    path = f"{place.url}/v1/workflows/{place.workflow_id}/executions"
    async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
        starts = [client.post(path, json={"execution_name": f"n{number % 20}", "input": "x"}) for number in range(100)]
        answers = await asyncio.gather(*starts)
        assert {each.status_code for each in answers} == {200, 201}
        assert sum(each.status_code == 201 for each in answers) == 20
        listed = (await client.get(path, params={"limit": 1000})).json()["items"]
    assert sorted(each["execution_name"] for each in listed) == sorted(f"n{number}" for number in range(20))


@pytest.mark.restate_server
async def test_a_refused_registration_has_the_servers_own_answer(restate: RunningRestate, tmp_path: Path) -> None:
    provider = await providers.open("restate", endpoint=restate.ingress_url, admin_endpoint=restate.admin_url)
    async with provider, Served(create_api(provider)) as served:
        place = Place(provider, served.url, restate.admin_url, tmp_path)
        config = {"execution_mechanism": "self-hosted", "deployment_url": "http://127.0.0.1:1"}
        spec = {"workflow_id": "dead", "name": "Dead", "definition": f"{FLOWS}:hello", "provider_config": config}
        (tmp_path / "spec.json").write_text(json.dumps(spec))
        assert await place.sh(f"{CODE} -X POST $API/v1/workflows -d @spec.json") == "502"
        problem = json.loads((tmp_path / "answer.json").read_text())
        assert problem["code"] == "HF0410"
        answer = json.loads(problem["server"]["body"])
        assert problem["server"]["code"] == answer["restate_code"] == "META0003"
        assert answer["message"] in problem["detail"]
        assert await place.sh(f"{CODE} $API/v1/workflows/dead") == "404"


async def test_everything_survives_a_restart(tmp_path: Path) -> None:
    before: dict[str, Any] = {}
    for is_restarted in (False, True):
        provider = await providers.open("embedded", db=str(tmp_path / "engine.db"))
        async with provider, Served(create_api(provider)) as served:
            place = Place(provider, served.url, "", tmp_path, workflow_id="hello")
            if not is_restarted:
                (tmp_path / "spec.json").write_text(
                    '{"workflow_id": "hello", "name": "Hello", "definition": "tests.api.flows:hello"}'
                )
                await place.sh("curl -s -X POST $API/v1/workflows -d @spec.json")
                await place.start("first", "Ada")
                await place.sh("curl -s $API/v1/executions/hello.first/wait")
            now = {
                path: json.loads(await place.sh(f"curl -s $API/v1/{path}"))
                for path in ("workflows/hello", "executions/hello.first")
            }
            assert now == (before or now)
            before = now
