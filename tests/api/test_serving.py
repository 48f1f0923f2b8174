"""Where the API is served: on the admin port of `holdfast serve`, and alone by `holdfast api`."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from holdfast.api import mount
from holdfast.providers import system
from tests.api.conftest import PATIENCE_S
from tests.api.processes import Cli, Process, environment, running
from tests.support.restate_server import free_ports

ANY_PORTS = ("--ingress-port", "0", "--admin-port", "0")
APP = "tests.admin.sample_app:app"
SPEC = {"workflow_id": "approval", "name": "Approval", "definition": "tests.api.flows:approval"}
PAGE = {"origin": "https://evil.example"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A `holdfast serve`."""
    folder = tmp_path_factory.mktemp("serve")
    with running(folder, "serve", APP, "--db", str(folder / "engine.db"), *ANY_PORTS) as process:
        yield process


def test_a_start_does_not_wait_for_what_nobody_may_use() -> None:
    code = (
        "import holdfast.server, sys; print([name for name in sys.modules"
        " if name.startswith(('holdfast.providers', 'holdfast.api.'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True)
    assert done.stdout.strip() == "['holdfast.api.mount']"


def test_the_mount_knows_the_registry_by_its_name() -> None:
    assert mount.REGISTRY == system.REGISTRY


PATHS = {
    "/v1/workflows": True,
    "/v1/workflows/x": True,
    "/v1/executions/x.y/wait": True,
    "/v1/openapi.json": True,
    "/v1/workflowsx": False,
    "/v1/services": False,
    "/v1": False,
    "/workflows": False,
    "/v2/workflows": False,
}


@pytest.mark.parametrize("path", PATHS)
def test_paths_that_are_ours(path: str) -> None:
    assert mount.is_ours(path) is PATHS[path]


def test_it_is_beside_the_admin_api(served: Process) -> None:
    url = served.document["admin_url"]
    assert httpx.get(f"{url}/v1/workflows").json() == {"items": [], "next_cursor": None}
    assert httpx.get(f"{url}/services/Greeter").status_code == 200
    old = httpx.get(f"{url}/v1/services")
    assert (old.status_code, old.headers["content-type"]) == (400, "text/plain; charset=utf-8")
    created = httpx.post(f"{url}/v1/workflows", json=SPEC)
    assert (created.status_code, created.headers["location"]) == (201, "/v1/workflows/approval")
    assert httpx.get(f"{url}/services/approval").status_code == 200


def test_pages_of_others_are_refused_as_they_are_by_the_admin_api(served: Process) -> None:
    refused = httpx.get(f"{served.document['admin_url']}/v1/workflows", headers=PAGE)
    assert (refused.status_code, refused.headers["content-type"]) == (403, "application/problem+json")
    assert (refused.json()["code"], refused.json()["status"]) == ("HF0111", 403)


def test_it_asks_for_the_tokens_of_the_admin_api(tmp_path: Path) -> None:
    db = str(tmp_path / "engine.db")
    token = Cli((), "").done("tokens", "create", "--scope", "admin", "--db", db)
    with running(tmp_path, "serve", APP, "--db", db, *ANY_PORTS) as process:
        url = process.document["admin_url"]
        refused = httpx.get(f"{url}/v1/workflows")
        assert (refused.status_code, refused.json()["code"]) == (401, "HF0110")
        assert refused.headers["www-authenticate"].startswith("Bearer ")
        assert httpx.get(f"{url}/v1/workflows", headers={"authorization": f"Bearer {token}"}).status_code == 200
        command = Cli(("--url", url), "")
        without = command("workflows", "list")
        assert without.exit_code == 2
        assert "error HF0110: " in without.stderr
        assert "next: make one: holdfast tokens create" in without.stderr
        command.settings["HOLDFAST_ADMIN_TOKEN"] = token
        assert command.done("workflows", "list") == "no workflows"


def test_wrong_settings_are_told_at_the_start_and_handlers_do_not_mind(tmp_path: Path) -> None:
    (tmp_path / "holdfast.toml").write_text('[workflow.restate]\nexecution_mechanism = "vm"\n')
    with running(tmp_path, "serve", APP, "--db", ":memory:", *ANY_PORTS) as process:
        told = process.log_path.read_text()
        for problem in (
            "endpoint is required, e.g. http://localhost:8080",
            "'vm' is unknown; allowed: lambda, fargate,",
        ):
            assert problem in told
        refused = httpx.get(f"{process.document['admin_url']}/v1/workflows")
        assert (refused.status_code, refused.json()["code"]) == (500, "HF0408")
        assert httpx.get(f"{process.document['admin_url']}/services/Greeter").status_code == 200


def test_executions_go_on_after_a_restart_without_being_asked_for(tmp_path: Path) -> None:
    db = ("--db", str(tmp_path / "engine.db"))
    body = {"workflow_id": "sleepy", "name": "Sleepy", "definition": "tests.api.flows:sleepy"}
    with running(tmp_path, "serve", APP, *db, *ANY_PORTS) as first:
        url = f"{first.document['admin_url']}/v1/workflows"
        httpx.post(url, json=body)
        httpx.post(f"{url}/sleepy/executions", json={"execution_name": "e", "input": 0.2})
        first.popen.kill()
    with running(tmp_path, "serve", APP, *db, *ANY_PORTS) as second:
        url = second.document["admin_url"]
        deadline = time.monotonic() + PATIENCE_S
        # Looked at through the admin API alone.
        while httpx.get(f"{url}/invocations?service=sleepy&status=completed").json()["invocations"] == []:
            assert time.monotonic() < deadline, second.log_path.read_text()
            time.sleep(0.02)  # between two looks
        status = httpx.get(f"{url}/v1/executions/sleepy.e/wait").json()
        assert (status["state"], status["output"]) == ("succeeded", "awake")


def test_an_open_stream_does_not_delay_the_stop(tmp_path: Path) -> None:
    with running(tmp_path, "serve", APP, "--db", str(tmp_path / "engine.db"), *ANY_PORTS, "--drain", "60") as process:
        url = process.document["admin_url"]
        httpx.post(f"{url}/v1/workflows", json=SPEC)
        httpx.post(f"{url}/v1/workflows/approval/executions", json={"execution_name": "e", "input": {}})
        with httpx.stream("GET", f"{url}/v1/executions/approval.e/watch", timeout=PATIENCE_S) as stream:
            lines = stream.iter_lines()
            next(line for line in lines if line.startswith("data: "))
            assert process.stop() == 0
            assert not any(line.startswith("event: state") for line in lines)
    assert "Traceback" not in process.log_path.read_text()


# --- holdfast api


def test_alone_in_front_of_an_engine_of_its_own(tmp_path: Path) -> None:
    options = ("--provider", "embedded", "--set", f"workflow.embedded.db={tmp_path / 'engine.db'}", "--port", "0")
    with running(tmp_path, "api", *options, "--log-format", "json") as process:
        url = process.document["url"]
        assert process.document["pid"] == process.popen.pid
        assert httpx.get(f"{url}/health").json() == {"status": "ok"}
        assert httpx.post(f"{url}/v1/workflows", json=SPEC).status_code == 201
        assert httpx.get(f"{url}/v1/workflows/approval").json()["provider_type"] == "embedded"
        unknown = httpx.get(f"{url}/v1/services")
        assert (unknown.status_code, unknown.json()["code"]) == (404, "HF0105")
        assert httpx.get(f"{url}/").status_code == 404
        assert httpx.get(f"{url}/v1/workflows", headers=PAGE).status_code == 403
        assert process.stop() == 0
    records: list[dict[str, Any]] = [json.loads(line) for line in process.log_path.read_text().splitlines()]
    assert {"create_workflow", "get_workflow"} <= {record.get("operation") for record in records}
    assert records[-1]["event"] == "stopped"


def test_alone_with_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = "t" * 40
    monkeypatch.setattr("tests.api.processes.environment", lambda: environment() | {"HOLDFAST_ADMIN_TOKEN": token})
    options = ("--provider", "embedded", "--set", "workflow.embedded.db=:memory:", "--port", "0")
    with running(tmp_path, "api", *options) as process:
        url = process.document["url"]
        assert httpx.get(f"{url}/health").status_code == 200
        assert httpx.get(f"{url}/v1/workflows").status_code == 401
        assert httpx.get(f"{url}/v1/workflows", headers={"authorization": f"Bearer {token}"}).status_code == 200
    assert token not in process.log_path.read_text()


def test_a_restate_server_that_is_away_is_a_warning_with_its_address(tmp_path: Path) -> None:
    away = f"http://127.0.0.1:{free_ports(1)[0]}"
    settings = ("--set", f"workflow.restate.endpoint={away}", "--set", f"workflow.restate.admin_endpoint={away}")
    attempts = ("--set", "workflow.restate.request_attempts=1")
    with running(tmp_path, "api", "--provider", "restate", *settings, *attempts, "--port", "0") as process:
        answer = httpx.get(f"{process.document['url']}/v1/workflows", timeout=PATIENCE_S)
        assert answer.status_code == 503
        problem = answer.json()
        assert (problem["code"], problem["server"]["endpoint"]) == ("HF0420", away)
        assert away in problem["detail"]
        assert process.popen.poll() is None
    log = process.log_path.read_text()
    assert any("warning" in line and away in line for line in log.splitlines()), log


REFUSED: dict[str, tuple[list[str], int, str]] = {
    "a provider": (["--provider", "nowhere"], 2, "error HF0404: "),
    "a setting": (
        ["--provider", "restate", "--set", "workflow.restate.endpoint=htp:/x"],
        2,
        "workflow.restate.endpoint",
    ),
    "an address": (["--provider", "embedded", "--host", "0.0.0.0"], 1, "HOLDFAST_ADMIN_TOKEN"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_it_does_not_begin_with(case: str, tmp_path: Path) -> None:
    options, code, message = REFUSED[case]
    done = run(tmp_path, *options, "--port", "0")
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "holdfast.db").exists()


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        done = run(tmp_path, "--provider", "embedded", "--port", str(port))
    assert done.returncode == 1
    assert f"error HF0305: api port {port} on 127.0.0.1 is in use" in done.stderr
    assert f"--port {port + 1}" in done.stderr
    assert not (tmp_path / "holdfast.db").exists()


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "holdfast.cli", "api", *options, "--json"],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment(),
        timeout=60,
        check=False,
    )
