"""Fixtures: running engines, and ports nobody listens on."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from holdfast.admin.client import AdminClient
from tests.cli.support import ANY_PORTS, COMMAND, REPOSITORY, SAMPLE, Serve, Served, environment
from tests.support.restate_server import free_ports


@pytest.fixture(scope="package")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Starts `holdfast serve` on free ports and returns when it is ready. What still runs at the end is killed."""
    with ExitStack() as stack:

        def start(
            app: str | None = SAMPLE,
            *arguments: str,
            db: str | None = None,
            cwd: Path = REPOSITORY,
            file_bytes_max: int | None = None,
        ) -> Served:
            home = tmp_path_factory.mktemp("serve")
            log_path = home / "stderr.log"
            line = [
                *COMMAND,
                "serve",
                *filter(None, [app]),
                "--db",
                db or str(home / "engine.db"),
                *ANY_PORTS,
                "--json",
                *arguments,
            ]
            if file_bytes_max is not None:
                line = ["prlimit", f"--fsize={file_bytes_max}:unlimited", *line]
            log = stack.enter_context(log_path.open("w"))
            process = stack.enter_context(
                subprocess.Popen(
                    line,
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
            told = process.stdout.readline()
            assert told, log_path.read_text()
            ready = json.loads(told)
            assert ready["pid"] == process.pid
            admin = stack.enter_context(AdminClient(ready["admin_url"]))
            return Served(process, ready["ingress_url"], ready["admin_url"], ready["db"], log_path, admin)

        yield start


@pytest.fixture(scope="package")
def engine(serve: Serve) -> Served:
    """One engine for the tests that do not stop it."""
    return serve()


@pytest.fixture
def free_port() -> int:
    """A port that nobody listens on."""
    return free_ports(1)[0]
