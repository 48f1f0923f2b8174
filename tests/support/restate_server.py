"""A real Restate server for tests and benchmarks: the oracle that holdfast is compared with.

    with running_restate(app) as restate:           # an app object: served from a thread of this process
        httpx.post(f"{restate.ingress_url}/Greeter/greet", json="Ada")

    with running_restate("myapp:app") as restate:   # a reference: served by a process of its own
        ...

Everything is synchronous and lives outside the caller's event loop, so it fits a session-wide fixture as well as an
async test. The server is looked for in `RESTATE_SERVER_BIN`, then in `node_modules/.bin` of the repository (`npm
install @restatedev/restate-server`); tests call `skip_without_server()` first.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 60.0
"""A cold start takes half a second on two idle cores; the rest is for a loaded machine."""

_SERVER_ENV = {
    "RESTATE_NODE_NAME": "test",
    "RESTATE_LISTEN_MODE": "tcp",
    "RESTATE_DISABLE_TELEMETRY": "true",
    "RESTATE_ADMIN__DISABLE_WEB_UI": "true",
    # The default of 24 only spreads load over cores; fewer partitions start faster.
    "RESTATE_DEFAULT_NUM_PARTITIONS": "2",
    "RESTATE_LOG_FILTER": "warn",
    "RESTATE_LOG_DISABLE_ANSI_CODES": "true",
    "DO_NOT_TRACK": "1",
}


@dataclass(slots=True)
class RunningRestate:
    """Addresses of a running server. URLs have no trailing slash."""

    ingress_url: str
    admin_url: str
    app_url: str
    """Where the server reaches the application (HTTP/2 without TLS)."""
    base_dir: Path
    """The server's data; removed at the end."""
    log_path: Path
    pid: int

    def register(self, app_url: str, *, force: bool = False) -> str:
        """Register (or discover again) a deployment; returns its id, `dp_1…`."""
        answer = httpx.post(
            f"{self.admin_url}/deployments", json={"uri": app_url, "force": force}, timeout=START_TIMEOUT_S
        )
        if answer.status_code not in (200, 201):
            raise RuntimeError(f"cannot register {app_url}: {answer.status_code} {answer.text}")
        return str(answer.json()["id"])


def server_binary() -> Path | None:
    """The server to run, or None when this machine has none."""
    configured = os.environ.get("RESTATE_SERVER_BIN")
    launcher = Path(configured) if configured else REPOSITORY / "node_modules" / ".bin" / "restate-server"
    if not launcher.exists():
        return None
    # The npm package's launcher only starts a native program next to it. Started directly, it is our own child: when
    # it is killed and waited for, nobody writes to its files any more.
    packages = launcher.resolve().parent.parent.parent
    native = [*packages.glob("restate-server-*/bin/restate-server")]
    return native[0] if len(native) == 1 else launcher


def skip_without_server() -> None:
    """Skip the calling test, with the reason, when there is no Restate server to compare with."""
    if server_binary() is None:
        pytest.skip("no Restate server: set RESTATE_SERVER_BIN or run `npm install @restatedev/restate-server`")


@contextmanager
def running_restate(
    app: Any, *, env: Mapping[str, str] | None = None, base_dir: Path | None = None
) -> Iterator[RunningRestate]:
    """Start a server on free ports, serve `app` over HTTP/2, register it, stop and remove everything at the end.

    Args:
        app: an application made by `restate.app([...])`, or a reference `module:name` to one.
        env: server settings, e.g. `{"RESTATE_WORKER__INVOKER__INACTIVITY_TIMEOUT": "100ms"}`.
        base_dir: keep the server's data here instead of a temporary directory (to start again on the same data).
    Raises:
        RuntimeError: no server binary, the server or the application did not come up, or registration failed.
    """
    with ExitStack() as stack:
        app_url = stack.enter_context(serving_h2c(app))
        server = stack.enter_context(running_server(env=env, base_dir=base_dir))
        server.app_url = app_url
        server.register(app_url)
        yield server


@contextmanager
def running_server(*, env: Mapping[str, str] | None = None, base_dir: Path | None = None) -> Iterator[RunningRestate]:
    """Only the server, with no deployment registered. Arguments as in `running_restate`."""
    binary = server_binary()
    if binary is None:
        raise RuntimeError("no Restate server found; see the docstring of tests/support/restate_server.py")
    home = Path(tempfile.mkdtemp(prefix="restate-")) if base_dir is None else base_dir
    node, ingress, admin = free_ports(3)
    settings = {
        **os.environ,
        **_SERVER_ENV,
        "RESTATE_BASE_DIR": str(home),
        "RESTATE_BIND_ADDRESS": f"127.0.0.1:{node}",
        "RESTATE_ADVERTISED_ADDRESS": f"http://127.0.0.1:{node}/",
        "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{ingress}",
        "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{admin}",
        **(env or {}),
    }
    log_path = home / "server.log"
    with log_path.open("ab") as log:
        process = subprocess.Popen(  # a group of its own, in case the binary is a launcher script after all
            [str(binary), "--no-logo", "--base-dir", str(home)],
            env=settings,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    server = RunningRestate(
        ingress_url=f"http://127.0.0.1:{ingress}",
        admin_url=f"http://127.0.0.1:{admin}",
        app_url="",
        base_dir=home,
        log_path=log_path,
        pid=process.pid,
    )
    try:
        _wait_until(lambda: _answers(f"{server.admin_url}/health"), process, log_path)
        _wait_until(lambda: _answers(f"{server.ingress_url}/restate/health"), process, log_path)
        _wait_until(lambda: _tells(server.admin_url), process, log_path)
        yield server
    finally:
        _stop(process)
        if base_dir is None:
            shutil.rmtree(home, ignore_errors=True)


@contextmanager
def serving_h2c(
    app: Any,
    *,
    port: int | None = None,
    tls: tuple[Path, Path] | None = None,
    streams_max: int = 2**31 - 1,
    requests_max: int = 2**31 - 1,
) -> Iterator[str]:
    """Serve an ASGI application over HTTP/2 (and HTTP/1.1), without TLS unless given; yields its URL.

    An object is served from a thread with a loop of its own; a reference `module:name` from a process of its own,
    which is what a benchmark wants.

    Args:
        port: a free one by default.
        tls: files of a certificate and its key; the URL is then one of `https://localhost`.
        streams_max, requests_max: of one connection, at a time and altogether.
    """
    if port is None:
        [port] = free_ports(1)
    limits = (streams_max, requests_max)
    with _app_in_process(app, port) if isinstance(app, str) else _app_in_thread(app, port, tls, limits):
        yield f"http://127.0.0.1:{port}" if tls is None else f"https://localhost:{port}"


@contextmanager
def _app_in_thread(app: Any, port: int, tls: tuple[Path, Path] | None, limits: tuple[int, int]) -> Iterator[None]:
    from hypercorn.asyncio import serve

    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def run() -> None:
        config = _hypercorn_config(port)
        config.h2_max_concurrent_streams, config.keep_alive_max_requests = limits
        if tls is not None:
            config.certfile, config.keyfile = (str(file) for file in tls)
        await serve(app, config, mode="asgi", shutdown_trigger=stop.wait)

    failure: list[BaseException] = []

    def thread_main() -> None:
        try:
            loop.run_until_complete(run())
        except Exception as error:  # noqa: BLE001  # reported by the thread that waits for the port
            failure.append(error)
        finally:
            loop.close()

    thread = threading.Thread(target=thread_main, name=f"app-{port}", daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _listens(port):
            if failure or time.monotonic() > deadline:
                raise RuntimeError(f"the application did not start on port {port}") from (failure or [None])[0]
            time.sleep(0.01)
        yield
    finally:
        if not loop.is_closed():
            loop.call_soon_threadsafe(stop.set)
        thread.join(timeout=START_TIMEOUT_S)


def _hypercorn_config(port: int) -> Any:
    from hypercorn.config import Config

    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    # The server multiplexes every attempt over few connections, which must live as long as the test.
    config.h2_max_concurrent_streams = 2**31 - 1
    config.keep_alive_max_requests = 2**31 - 1
    config.keep_alive_timeout = float(2**31 - 1)
    config.graceful_timeout = 1.0
    config.accesslog = None
    config.errorlog = None
    return config


@contextmanager
def _app_in_process(reference: str, port: int) -> Iterator[None]:
    command = [sys.executable, "-m", __name__, reference, str(port)]
    path = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
    with tempfile.NamedTemporaryFile(prefix="app-", suffix=".log") as log:
        process = subprocess.Popen(
            command, env={**os.environ, "PYTHONPATH": path}, stdout=log, stderr=log, start_new_session=True
        )
        try:
            _wait_until(lambda: _listens(port), process, Path(log.name))
            yield
        finally:
            _stop(process)


def free_ports(count: int) -> list[int]:
    """Ports on the loopback interface that nobody uses, and that nobody else will be given while this process lives.

    They are held, bound without listening: Linux then refuses connections, keeps them out of what it hands out, and
    lets a server bind them that allows to reuse the address, as all of ours do. Elsewhere they are only probably free.
    """
    ports: list[int] = []
    with ExitStack() as stack:
        for _ in range(count):
            one = stack.enter_context(socket.socket())
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(("127.0.0.1", 0))
            ports.append(int(one.getsockname()[1]))
            if sys.platform == "linux":
                one.detach()
    return ports


def _wait_until(ready: Callable[[], bool], process: subprocess.Popen[bytes], log_path: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            tail = log_path.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{process.args!r} did not come up (exit code {process.poll()}):\n{tail}")
        time.sleep(0.05)  # between two looks at the condition


def _tells(admin_url: str) -> bool:
    """Does SQL work? It does not for a moment after health is fine, until the partitions are opened."""
    query = {"query": "SELECT count(1) FROM sys_invocation"}
    try:
        return httpx.post(f"{admin_url}/query", json=query, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _stop(process: subprocess.Popen[bytes]) -> None:
    # SIGKILL: the data is thrown away, and a graceful stop of the server takes seconds.
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=START_TIMEOUT_S)


async def _serve_reference(reference: str, port: int) -> None:
    """What the process behind `serving_h2c("module:name")` runs."""
    from hypercorn.asyncio import serve

    module, _, name = reference.partition(":")
    app = getattr(importlib.import_module(module), name)
    await serve(app, _hypercorn_config(port), mode="asgi")


if __name__ == "__main__":
    asyncio.run(_serve_reference(sys.argv[1], int(sys.argv[2])))
