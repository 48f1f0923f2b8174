"""imports as a user runs it: `python -m apps.imports serve` in a process of its own, on either engine."""

from __future__ import annotations

import itertools
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.imports.extracts import Gate, serving
from tests.support.restate_server import RunningRestate, free_ports, running_server, skip_without_server
from tests.support.served import environment_without, serving_process

PATIENCE_S = 60


def environment(**variables: str) -> dict[str, str]:
    """This process's, without settings of imports, plus `variables`."""
    kept = environment_without("IMPORTS_", "RESTATE_", "MOTHERDUCK_", "PORT")
    return kept | {"PYTHONUNBUFFERED": "1", "NO_COLOR": "1", "COLUMNS": "120"} | variables


@dataclass
class Running:
    """A running imports. Its database is shared by the tests of a module: each takes extract numbers of its own."""

    url: str
    http: httpx.Client
    folder: Path
    gate: Gate
    process: subprocess.Popen[str]
    server: RunningRestate | None
    """None when the engine is embedded."""
    _numbers: Iterator[int]

    def next_number(self) -> int:
        """A newer extract than any before."""
        return next(self._numbers)

    def start(self, source: str | Path, import_id: str) -> dict[str, Any]:
        answer = self.http.post("/api/imports/start", json={"fileUrl": str(source), "workflowId": import_id})
        assert answer.status_code == 202, answer.text
        return answer.json()

    def progress(self, import_id: str) -> dict[str, Any]:
        answer = self.http.get(f"/api/imports/{import_id}/progress")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def until(self, import_id: str, *statuses: str, completed: int = 0) -> dict[str, Any]:
        """Its progress, once it has one of these statuses and so many batches."""
        deadline = time.monotonic() + PATIENCE_S
        while (found := self.progress(import_id))["status"] not in statuses or found["completed"] < completed:
            assert time.monotonic() < deadline, found
            time.sleep(0.05)  # between two looks
        return found


def events(answer: httpx.Response) -> Iterator[tuple[str, dict[str, Any]]]:
    """The server-sent events of a streamed answer."""
    lines = answer.iter_lines()
    for line in lines:
        if line.startswith("event: "):
            yield line.removeprefix("event: "), json.loads(next(lines).removeprefix("data: "))


EITHER_ENGINE = ["embedded", pytest.param("restate", marks=pytest.mark.restate_server)]


@contextmanager
def on_engine(engine: str, folder: Path, *options: str, ready: bool = True, **variables: str) -> Iterator[Running]:
    """imports on a fresh engine: `embedded` or `restate`. Other arguments as for `running_imports`."""
    with ExitStack() as stack:
        server = None
        if engine == "restate":
            skip_without_server()
            server = stack.enter_context(running_server())
        yield stack.enter_context(running_imports(folder, server, *options, ready=ready, **variables))


@contextmanager
def running_imports(
    folder: Path,
    server: RunningRestate | None,
    *options: str,
    port: str = "0",
    ready: bool = True,
    **variables: str,
) -> Iterator[Running]:
    """Start imports on free ports, stop it at the end.

    Args:
        folder: For its data, and of the extracts that `gate` serves.
        server: The Restate server to run on; None embeds the engine.
        options: More for `serve`.
        port: Of the API; 0 takes a free one.
        ready: Wait until imports can be started.
        variables: More for its environment; `IMPORTS_TOKEN` is used for requests, too.
    """
    if server is not None:
        [worker_port] = free_ports(1)
        defaults = {
            "IMPORTS_ENGINE": "restate",
            "RESTATE_INGRESS_URL": server.ingress_url,
            "RESTATE_ADMIN_URL": server.admin_url,
            "IMPORTS_WORKER_PORT": str(worker_port),
        }
        variables = defaults | variables
    token = variables.get("IMPORTS_TOKEN")
    headers = {"authorization": f"Bearer {token}"} if token else {}
    command = ("apps.imports", "serve", "--child", "--port", port, "--dir", str(folder / "data"), *options)
    with (
        serving(folder) as gate,
        serving_process(*command, log=folder / "imports.log", env=environment(**variables)) as (url, process),
        httpx.Client(base_url=url, headers=headers, timeout=PATIENCE_S, trust_env=False) as http,
    ):
        running = Running(url, http, folder, gate, process, server, itertools.count(140))
        if ready and server is not None:
            wait_until_registered(server)
        yield running


def wait_until_registered(server: RunningRestate) -> None:
    """Until the server knows the workflow, of whatever worker."""
    deadline = time.monotonic() + PATIENCE_S
    while httpx.get(f"{server.admin_url}/services/KboImport", timeout=PATIENCE_S).status_code != 200:
        assert time.monotonic() < deadline, "the worker was not registered"
        time.sleep(0.05)  # between two looks
