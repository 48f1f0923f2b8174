"""A real `holdfast serve` process and the real command, as a person at a terminal has them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from holdfast.admin.client import AdminClient
from holdfast.runtime.introspect import InvocationInfo

REPOSITORY = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "holdfast.cli"]
SAMPLE = "tests.admin.sample_app:app"
ANY_PORTS = ["--ingress-port", "0", "--admin-port", "0"]
PATIENCE_S = 30
"""For what takes milliseconds on an idle machine."""


def environment(**settings: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
    # The sample application is found from wherever a test starts the command.
    places = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    return inherited | {"PYTHONPATH": os.pathsep.join(places)} | settings


def holdfast(
    *arguments: str, stdin: str = "", cwd: Path = REPOSITORY, **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment(**settings),
        timeout=PATIENCE_S,
        check=False,
    )


def poll(condition: Callable[[], bool], otherwise: str) -> None:
    """Look again until `condition` holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.01)  # between two looks


@dataclass(slots=True)
class Served:
    """A running `holdfast serve`."""

    process: subprocess.Popen[str]
    ingress_url: str
    admin_url: str
    db: str
    log_path: Path
    admin: AdminClient

    def cli(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run the command against this engine."""
        settings = {"HOLDFAST_INGRESS_URL": self.ingress_url, "HOLDFAST_ADMIN_URL": self.admin_url}
        return holdfast(*arguments, stdin=stdin, **settings)

    def done(self, *arguments: str, stdin: str = "") -> str:
        """Run the command, which must succeed; what it printed."""
        result = self.cli(*arguments, stdin=stdin)
        assert result.returncode == 0, result.stderr
        return result.stdout.removesuffix("\n")

    def json(self, *arguments: str, stdin: str = "") -> Any:
        """Run the command with `--json`, which must succeed; the document it printed."""
        return json.loads(self.done(*arguments, "--json", stdin=stdin))

    # What a test only needs around the command it is about goes over HTTP, which is a hundred times quicker.

    def post(self, path: str, body: Any = None) -> httpx.Response:
        """A request to the ingress; `body` becomes JSON."""
        content = {} if body is None else {"json": body}
        return httpx.post(f"{self.ingress_url}/{path}", timeout=PATIENCE_S, **content)

    def send(self, target: str, body: Any = None, delay: str | None = None) -> str:
        """Submit; the invocation id."""
        return self.post(f"{target}/send?delay={delay}" if delay else f"{target}/send", body).json()["invocationId"]

    def call(self, target: str, body: Any = None) -> str:
        """Call; the id of the invocation, which has completed."""
        return self.post(target, body).headers["x-restate-id"]

    def wait_for(self, invocation_id: str, status: str) -> InvocationInfo:
        """Look again until the invocation has `status`."""
        poll(lambda: self.admin.invocation(invocation_id).status == status, f"{invocation_id} is not {status}")
        return self.admin.invocation(invocation_id)

    def logs(self) -> str:
        return self.log_path.read_text()

    def stop(self, signal_number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit code."""
        self.process.send_signal(signal_number)
        return self.process.wait(PATIENCE_S)


Serve = Callable[..., Served]


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Starts `holdfast serve` on free ports and returns when it is ready. What still runs at the end is killed."""
    with ExitStack() as stack:

        def start(app: str = SAMPLE, *arguments: str, db: str | None = None, cwd: Path = REPOSITORY) -> Served:
            home = tmp_path_factory.mktemp("serve")
            log_path = home / "stderr.log"
            command = [*COMMAND, "serve", app, "--db", db or str(home / "engine.db"), *ANY_PORTS, "--json", *arguments]
            log = stack.enter_context(log_path.open("w"))
            process = stack.enter_context(
                subprocess.Popen(
                    command,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    stdin=subprocess.DEVNULL,
                    text=True,
                    cwd=cwd,
                    env=environment(),
                )
            )
            stack.callback(process.kill)
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, log_path.read_text()
            ready = json.loads(line)
            assert ready["pid"] == process.pid
            admin = stack.enter_context(AdminClient(ready["admin_url"]))
            return Served(process, ready["ingress_url"], ready["admin_url"], ready["db"], log_path, admin)

        yield start


@pytest.fixture(scope="session")
def engine(serve: Serve) -> Served:
    """One engine for the tests that do not stop it."""
    return serve()


@pytest.fixture
def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
