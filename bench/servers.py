"""Start and stop what is measured over HTTP: holdfast, and a real Restate server with its service on granian."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
APP = "bench.app:app"
START_TIMEOUT_S = 60.0


def restate_binary() -> Path | None:
    """The Restate server: `RESTATE_SERVER_BIN`, or the repository's node_modules. None when there is none."""
    configured = os.environ.get("RESTATE_SERVER_BIN")
    launcher = Path(configured) if configured else REPOSITORY / "node_modules" / ".bin" / "restate-server"
    if not launcher.exists():
        return None
    # The npm package's launcher starts a native program next to it; without the launcher, the process is our child.
    native = [*launcher.resolve().parent.parent.parent.glob("restate-server-*/bin/restate-server")]
    return native[0] if len(native) == 1 else launcher


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody used a moment ago.

    They lie below the range that the system gives to outgoing connections: whoever knocks at a port of that range
    before the server listens can be connected to himself, and then the server finds its port taken.
    """
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(15_000, 32_000)
        with socket.socket() as probe:
            if port not in found and probe.connect_ex(("127.0.0.1", port)) != 0:
                found.append(port)
    return found


def request(
    port: int, method: str, path: str, body: bytes | None = None, *, timeout_s: float = 30.0
) -> tuple[int, bytes]:
    """One HTTP request to the loopback interface; returns status and body."""
    connection = HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        headers = {"content-type": "application/json"} if body is not None else {}
        connection.request(method, path, body=body, headers=headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def is_ok(port: int, path: str) -> bool:
    """Whether a GET is answered with 200 now."""
    try:
        return request(port, "GET", path, timeout_s=2)[0] == 200
    except (OSError, HTTPException):
        return False


def is_listening(port: int) -> bool:
    """Whether somebody accepts connections on the port now."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def process(
    command: Sequence[str],
    log: Path,
    ready: Callable[[], bool],
    *,
    env: Mapping[str, str] | None = None,
    poll_s: float = 0.02,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until the block ends, entering it when `ready` says so.

    Raises:
        RuntimeError: it ended or was not ready in time; the message ends with its log.
    """
    with log.open("ab") as out:
        child = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env={**os.environ, **(env or {})},
            stdout=out,
            stderr=out,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not ready():
            if child.poll() is not None or time.monotonic() > deadline:
                tail = log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{command[0]} did not come up (exit code {child.poll()}):\n{tail}")
            time.sleep(poll_s)
        yield child
    finally:
        stop(child)


def stop(child: subprocess.Popen[bytes]) -> None:
    """Kill the process and its children; what they wrote is thrown away."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait(timeout=30)


def holdfast_command(directory: Path, ingress: int, admin: int) -> list[str]:
    """`holdfast serve` on a file in `directory`."""
    return [
        *(sys.executable, "-m", "holdfast.cli", "serve", APP, "--db", str(directory / "holdfast.db")),
        *("--ingress-port", str(ingress), "--admin-port", str(admin)),
    ]


@contextmanager
def holdfast(directory: Path) -> Iterator[int]:
    """Yields the ingress port."""
    ingress, admin = free_ports(2)
    command = holdfast_command(directory, ingress, admin)
    with process(command, directory / "holdfast.log", lambda: is_ok(ingress, "/restate/health")):
        yield ingress


@contextmanager
def restate(directory: Path, *, granian_workers: int = 1, env: Mapping[str, str] | None = None) -> Iterator[int]:
    """A Restate server with its defaults, and the application on granian over HTTP/2. Yields the ingress port."""
    binary = restate_binary()
    assert binary is not None, "the caller checks this first"
    node, ingress, admin, app = free_ports(4)
    settings = {
        "RESTATE_NODE_NAME": "bench",
        "RESTATE_BASE_DIR": str(directory),
        "RESTATE_BIND_ADDRESS": f"127.0.0.1:{node}",
        "RESTATE_ADVERTISED_ADDRESS": f"http://127.0.0.1:{node}/",
        "RESTATE_LISTEN_MODE": "tcp",
        "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{ingress}",
        "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{admin}",
        "RESTATE_ADMIN__DISABLE_WEB_UI": "true",
        "RESTATE_DISABLE_TELEMETRY": "true",
        "RESTATE_LOG_FILTER": "warn",
        "DO_NOT_TRACK": "1",
        **(env or {}),
    }
    serve = [
        *(sys.executable, "-m", "granian", "--interface", "asgi", "--http", "2", "--no-ws", "--loop", "uvloop"),
        *("--workers", str(granian_workers), "--host", "127.0.0.1", "--port", str(app), "--log-level", "warning", APP),
    ]
    server = [str(binary), "--no-logo", "--base-dir", str(directory)]
    with (
        process(serve, directory / "granian.log", lambda: is_listening(app)),
        process(server, directory / "restate.log", lambda: is_ok(admin, "/health"), env=settings),
    ):
        _register(admin, app)
        _wait_for(lambda: is_ok(ingress, "/restate/health"))
        yield ingress


def _register(admin: int, app: int) -> None:
    body = json.dumps({"uri": f"http://127.0.0.1:{app}"}).encode()
    status, answer = request(admin, "POST", "/deployments", body)
    if status not in (200, 201):
        raise RuntimeError(f"Restate refused the deployment: {status} {answer.decode(errors='replace')}")


def _wait_for(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not ready():
        if time.monotonic() > deadline:
            raise RuntimeError("Restate's ingress did not come up")
        time.sleep(0.02)
