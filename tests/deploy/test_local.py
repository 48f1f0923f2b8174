"""Mechanism local, and the Restate server of this machine: both as a person uses them, in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.deploy.support import GREETER, PATIENCE_S, cli, done, environment, greet, json_of, running
from tests.support.restate_server import RunningRestate, free_ports, server_binary, skip_without_server

pytestmark = pytest.mark.restate_server


@pytest.fixture
def server_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command finds the server that the tests compare with."""
    skip_without_server()
    monkeypatch.setenv("RESTATE_SERVER_BIN", str(server_binary()))


@pytest.fixture
def up(project: Path, server_program: None) -> Iterator[dict[str, str]]:
    """`holdfast restate up` on free ports; down at the end, whatever happens."""
    yield json_of("restate", "up", "--ingress-port", "0", "--admin-port", "0")
    cli("restate", "down")


def local(*more: str) -> list[str]:
    return ["deploy", "apply", "--mechanism", "local", "greeter:app", "--port", "0", *more]


def test_from_nothing_to_a_call(up: dict[str, str], project: Path) -> None:
    with running(*local("--admin-url", up["admin_url"]), cwd=project) as endpoint:
        assert [service["name"] for service in endpoint.ready["deployment"]["services"]] == ["Greeter"]
        assert greet(up["ingress_url"]) == "Hello Ada!"
        assert endpoint.stop() == 0


def test_without_a_mechanism_it_is_local(restate: RunningRestate, project: Path) -> None:
    line = ["deploy", "apply", "greeter:app", "--port", "0", "--admin-url", restate.admin_url]
    with running(*line, cwd=project) as endpoint:
        assert greet(restate.ingress_url) == "Hello Ada!"
        assert endpoint.stop(signal.SIGINT) == 0


def test_changed_code_is_discovered_at_the_next_start(restate: RunningRestate, project: Path) -> None:
    """The address stays the same; without force the server would not look again."""
    [port] = free_ports(1)
    line = ["deploy", "apply", "greeter:app", "--port", str(port), "--admin-url", restate.admin_url]
    with running(*line, cwd=project) as endpoint:
        endpoint.stop()
    (project / "greeter.py").write_text(GREETER.replace("async def greet(", "async def welcome("))
    with running(*line, cwd=project) as endpoint:
        [service] = endpoint.ready["deployment"]["services"]
        assert [handler["name"] for handler in service["handlers"]] == ["welcome"]
    (project / "greeter.py").write_text(GREETER)
    with running(*line, cwd=project) as endpoint:
        assert greet(restate.ingress_url) == "Hello Ada!"


def test_an_invocation_goes_on_after_its_endpoint_was_killed(restate: RunningRestate, project: Path) -> None:
    [port] = free_ports(1)
    line = ["deploy", "apply", "greeter:app", "--port", str(port), "--admin-url", restate.admin_url]
    with running(*line, cwd=project) as endpoint:
        assert greet(restate.ingress_url) == "Hello Ada!"
        endpoint.process.kill()
        endpoint.process.wait()
    sent = httpx.post(f"{restate.ingress_url}/Greeter/greet/send", json="Grace").json()["invocationId"]
    with running(*line, cwd=project):
        answer = httpx.get(f"{restate.ingress_url}/restate/invocation/{sent}/attach", timeout=PATIENCE_S)
        assert answer.json() == "Hello Grace!"


def test_without_a_server_the_endpoint_does_not_stay(project: Path) -> None:
    [port] = free_ports(1)
    result = cli(*local("--admin-url", f"http://127.0.0.1:{port}"))
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == "  next: start a server: holdfast restate up; or name another: --admin-url"


def test_a_port_in_use_is_told(restate: RunningRestate, project: Path) -> None:
    line = ["deploy", "apply", "greeter:app", "--port", "0", "--no-register"]
    with running(*line, cwd=project) as endpoint:
        port = endpoint.ready["url"].rpartition(":")[2]
        result = cli("deploy", "apply", "greeter:app", "--port", port, "--no-register")
    assert result.exit_code == 1
    assert f"error HF0305: cannot listen on 127.0.0.1:{port}: Address already in use" in result.stderr


# ---- holdfast restate ------------------------------------------------------------------------------------------------


def test_up_twice_is_one_server_and_down_stops_it(up: dict[str, str], project: Path) -> None:
    again = json_of("restate", "up")
    assert (again["pid"], again["is_new"]) == (up["pid"], False)
    assert json_of("restate", "status")["admin_url"] == up["admin_url"]
    assert httpx.get(f"{up['admin_url']}/version").json()["version"] == up["version"]
    assert json_of("restate", "down") == {"stopped": True}
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{up['admin_url']}/health")
    assert cli("restate", "status").exit_code == 1
    assert json_of("restate", "down") == {"stopped": False}


def test_a_server_of_another_folder_is_named_with_it(project: Path) -> None:
    told = cli("restate", "status", "--dir", "my data")
    assert told.exit_code == 1
    assert told.stderr == "no server runs from my data; start one: holdfast restate up --dir 'my data'\n"


def test_data_outlives_the_server(up: dict[str, str], project: Path) -> None:
    with running(*local("--admin-url", up["admin_url"]), cwd=project):
        pass
    done("restate", "down")
    again = json_of("restate", "up", "--ingress-port", "0", "--admin-port", "0")
    names = [service["name"] for service in httpx.get(f"{again['admin_url']}/services").json()["services"]]
    assert names == ["Greeter"]


def test_it_outlives_the_command_that_started_it(project: Path, server_program: None) -> None:
    line = [sys.executable, "-m", "holdfast.cli", "restate", "up", "--ingress-port", "0", "--admin-port", "0", "--json"]
    variables = environment({"RESTATE_SERVER_BIN": os.environ["RESTATE_SERVER_BIN"]})
    told = subprocess.run(
        line, cwd=project, env=variables, capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    try:
        assert httpx.get(f"{json.loads(told.stdout)['admin_url']}/health").status_code == 200
    finally:
        assert json_of("restate", "down") == {"stopped": True}


def test_another_process_with_its_pid_is_not_stopped(project: Path) -> None:
    """A machine was started again: the pid in the file is somebody else's by now."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        folder = project / ".restate"
        folder.mkdir()
        told = {
            "pid": other.pid,
            "started": "another time",
            "ingress_url": "",
            "admin_url": "",
            "version": "",
            "folder": "",
        }
        (folder / "running.json").write_text(json.dumps(told))
        assert json_of("restate", "down") == {"stopped": False}
        assert other.poll() is None


def test_a_server_that_was_killed_is_noticed(up: dict[str, str], project: Path) -> None:
    os.kill(int(up["pid"]), signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE_S
    while cli("restate", "status").exit_code == 0:
        assert time.monotonic() < deadline
    assert json_of("restate", "up", "--ingress-port", "0", "--admin-port", "0")["is_new"]


def test_a_port_in_use_is_told_before_anything_starts(up: dict[str, str], project: Path) -> None:
    port = up["ingress_url"].rpartition(":")[2]
    result = cli("restate", "up", "--dir", "other", "--ingress-port", port, "--admin-port", "0")
    assert result.exit_code == 1
    assert f"error HF0305: port {port} on 127.0.0.1 cannot be used: Address already in use" in result.stderr


def test_a_server_that_does_not_start_shows_its_last_words(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = project / "restate-server"
    program.write_text("#!/bin/sh\necho no room for logs >&2\nexit 7\n")
    program.chmod(0o755)
    monkeypatch.setenv("RESTATE_SERVER_BIN", str(program))
    result = cli("restate", "up", "--ingress-port", "0", "--admin-port", "0")
    assert result.exit_code == 1
    assert "the Restate server ended with 7: no room for logs" in result.stderr
    assert cli("restate", "status").exit_code == 1


def test_without_a_server_and_without_npm_it_says_what_to_install(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RESTATE_SERVER_BIN", raising=False)
    monkeypatch.setenv("PATH", str(project))
    result = cli("restate", "up")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "error HF0510: there is no Restate server here, and no npm to install it with",
        "  next: install Node.js, or set RESTATE_SERVER_BIN to a restate-server",
    ]


def test_npm_installs_the_pinned_server_into_the_folder(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """npm's part: what it is asked for, and that a failure of it is told. Its network is not here."""
    monkeypatch.delenv("RESTATE_SERVER_BIN", raising=False)
    npm = project / "npm"
    npm.write_text(f'#!/bin/sh\necho "$@" > {project}/asked\necho "npm error code E404" >&2\nexit 1\n')
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{project}:/usr/bin:/bin")
    result = cli("restate", "up")
    assert result.exit_code == 1
    assert "npm cannot install @restatedev/restate-server: npm error code E404" in result.stderr
    asked = (project / "asked").read_text().split()
    assert asked[-1] == "@restatedev/restate-server@1.7.12"
    assert "--ignore-scripts" in asked
    assert asked[asked.index("--prefix") + 1] == ".restate/npm"
