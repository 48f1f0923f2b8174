"""A real `holdfast serve` process and the real command, as a person at a terminal has them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from click.testing import CliRunner, Result

from holdfast.admin.client import AdminClient
from holdfast.cli.main import holdfast as command
from holdfast.runtime.introspect import InvocationInfo

REPOSITORY = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "holdfast.cli"]
SAMPLE = "tests.admin.sample_app:app"
ANY_PORTS = ["--ingress-port", "0", "--admin-port", "0"]
PATIENCE_S = 90
"""For what takes milliseconds on an idle machine."""


def environment(settings: Mapping[str, str] | None = None) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
    # The sample application is found from wherever a test starts the command.
    places = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    return inherited | {"PYTHONPATH": os.pathsep.join(places)} | dict(settings or {})


def run(
    *arguments: str, stdin: str = "", settings: Mapping[str, str] | None = None, cwd: Path = REPOSITORY
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, as a process."""
    return subprocess.run(
        [*COMMAND, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment(settings),
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

    @property
    def settings(self) -> dict[str, str]:
        """The environment in which the command finds this engine."""
        return {"HOLDFAST_INGRESS_URL": self.ingress_url, "HOLDFAST_ADMIN_URL": self.admin_url}

    def cli(self, *arguments: str, stdin: str = "") -> Result:
        """Run the command against this engine, in this process: an interpreter of its own costs a third of a second."""
        return CliRunner().invoke(command, arguments, input=stdin, env=self.settings, prog_name="holdfast")

    def done(self, *arguments: str, stdin: str = "") -> str:
        """Run the command, which must succeed; what it printed."""
        result = self.cli(*arguments, stdin=stdin)
        assert result.exit_code == 0, result.stderr
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
