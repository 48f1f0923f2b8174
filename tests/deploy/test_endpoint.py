"""`holdfast.endpoint`: an application where a Restate server can call it, and above all, how that ends."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from holdfast import endpoint as endpoint_module
from holdfast.endpoint import is_healthy, run_endpoint, serve_endpoint
from tests.deploy.support import GREETER, PATIENCE_S, environment, greet
from tests.support.restate_server import RunningRestate, free_ports
from tests.test_architecture import imported_modules

SLOW = '''
import asyncio

import restate

slow = restate.Service("Slow")


@slow.handler()
async def work(ctx: restate.Context, seconds: float) -> str:
    """Busy in a step, as far as the SDK can see."""

    async def sleep() -> str:
        await asyncio.sleep(seconds)
        return "done"

    return await ctx.run_typed("work", sleep)


@slow.handler()
async def stuck(ctx: restate.Context, seconds: float) -> str:
    """Waits for something that the SDK knows nothing of."""
    await asyncio.sleep(seconds)
    return "done"


@slow.handler()
async def echo(ctx: restate.Context, text: str) -> str:
    return text


app = restate.app([slow])
'''


def greeter() -> Any:
    module: dict[str, Any] = {"__name__": "greeter"}
    exec(compile(GREETER, "greeter.py", "exec"), module)  # the sample, as a module of its own
    return module["app"]


async def test_an_application_is_called_over_http_2_and_http_1(restate: RunningRestate) -> None:
    async with serve_endpoint(greeter()) as endpoint:
        assert endpoint.port > 0
        for body in ({"uri": endpoint.url}, {"uri": f"{endpoint.url}/", "use_http_11": True, "force": True}):
            async with httpx.AsyncClient(timeout=PATIENCE_S) as http:
                answer = await http.post(f"{restate.admin_url}/deployments", json=body)
                assert answer.status_code in (200, 201), answer.text
                deployment = (await http.get(f"{restate.admin_url}/deployments/{answer.json()['id']}")).json()
            expected = ("HTTP/1.1", "RequestResponse") if "use_http_11" in body else ("HTTP/2.0", "BidiStream")
            assert (deployment["http_version"], deployment["protocol_type"]) == expected
            assert await asyncio.to_thread(greet, restate.ingress_url) == "Hello Ada!"


async def test_it_is_healthy_while_it_is_open_and_gone_afterwards() -> None:
    async with serve_endpoint(greeter()) as endpoint:
        assert await asyncio.to_thread(is_healthy, endpoint.url)
    assert not await asyncio.to_thread(is_healthy, endpoint.url)


async def test_a_port_in_use_is_an_error_before_anything_starts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        async with serve_endpoint(greeter(), port=taken.getsockname()[1]):
            pytest.fail("it must not start")


async def test_an_application_with_a_lifespan_is_started_and_stopped() -> None:
    told: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for event in ("startup", "shutdown"):
                assert (await receive())["type"] == f"lifespan.{event}"
                told.append(event)
                await send({"type": f"lifespan.{event}.complete"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async with serve_endpoint(app):
        assert told == ["startup"]
    assert told == ["startup", "shutdown"]


async def test_a_start_up_that_fails_is_raised() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    with pytest.raises(Exception, match="no database"):
        async with serve_endpoint(app):
            pytest.fail("it must not start")


async def test_a_request_that_never_ends_is_cut_off_after_the_drain_time() -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] == "/health":
            raise ValueError(scope["type"])
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with serve_endpoint(app, drain_s=0.05) as endpoint, httpx.AsyncClient() as http:
        asking = asyncio.create_task(http.get(f"{endpoint.url}/wait", timeout=PATIENCE_S))
        await asyncio.wait_for(started.wait(), PATIENCE_S)
    assert ended.is_set()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


async def test_run_endpoint_stops_when_its_ready_hook_fails() -> None:
    async def refuse(endpoint: Any) -> None:
        raise RuntimeError(f"refused {endpoint.port}")

    with pytest.raises(RuntimeError, match="refused"):
        await run_endpoint(greeter(), port=0, on_ready=refuse)


@contextmanager
def process(folder: Path, *arguments: str, source: str = SLOW, **variables: str) -> Iterator[tuple[Any, str]]:
    """The file as rendered: a copy, run as a program next to the application, without holdfast on the path."""
    (folder / "endpoint.py").write_text(Path(endpoint_module.__file__).read_text())
    (folder / "application.py").write_text(source)
    [port] = free_ports(1)
    with (folder / "endpoint.log").open("w") as log, ExitStack() as stack:
        child = subprocess.Popen(
            [sys.executable, "endpoint.py", *(arguments or ("application:app",)), "--port", str(port)],
            cwd=folder,
            env=environment(variables),
            stdout=log,
            stderr=log,
        )
        stack.callback(child.wait)
        stack.callback(child.kill)
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + PATIENCE_S
        while not is_healthy(url):
            assert child.poll() is None, (folder / "endpoint.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)  # between two looks
        yield child, url


def is_running(restate: RunningRestate, target: str) -> bool:
    query = f"SELECT id FROM sys_invocation WHERE target = '{target}' AND status = 'running'"
    answer = httpx.post(f"{restate.admin_url}/query", json={"query": query}, headers={"accept": "application/json"})
    return bool(answer.json()["rows"])


def started(restate: RunningRestate, url: str, handler: str, body: Any) -> None:
    """A running invocation of the sample."""
    restate.register(url)
    httpx.post(f"{restate.ingress_url}/Slow/{handler}/send", json=body).raise_for_status()
    deadline = time.monotonic() + PATIENCE_S
    while not is_running(restate, f"Slow/{handler}"):
        assert time.monotonic() < deadline
        time.sleep(0.05)  # between two looks


@pytest.fixture
def own_restate() -> Iterator[RunningRestate]:
    """A server whose invocations nobody else makes: the attempts here are cut off and would be tried again for ever."""
    from tests.support.restate_server import running_server, skip_without_server

    skip_without_server()
    with running_server() as server:
        yield server


STOPS = {
    "idle: at once": (None, 0, 60),
    "a handler that ends in time: then": ("work", 1.5, 60),
    "a step that takes longer: after the drain time": ("work", 600, 1),
    "user code that the SDK cannot interrupt: after the drain time": ("stuck", 600, 1),
}
"""Handler, how long it takes, drain time, both in seconds."""
STOPPED_S = 40.0
"""Shorter than a drain time of a minute, and than hypercorn's patience."""


@pytest.mark.parametrize("case", STOPS)
def test_sigterm_ends_the_process(case: str, own_restate: RunningRestate, tmp_path: Path) -> None:
    """The SDK takes the signal at its first request, and hypercorn would wait for ever: neither may show."""
    handler, seconds, drain_s = STOPS[case]
    with process(tmp_path, "application:app", "--drain", str(drain_s)) as (child, url):
        if handler:
            started(own_restate, url, handler, seconds)
        child.send_signal(signal.SIGTERM)
        assert child.wait(STOPPED_S) == 0
    log = (tmp_path / "endpoint.log").read_text()
    assert "Traceback" not in log
    assert ("giving up 1 running requests" in log) is (seconds == 600)


async def test_a_thousand_requests_on_a_connection_do_not_end_the_others() -> None:
    """hypercorn's default closes the connection then, together with the attempts that are running on it."""
    release = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == "/wait":
            await release.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    async with (
        serve_endpoint(app) as endpoint,
        httpx.AsyncClient(http1=False, http2=True, timeout=PATIENCE_S, base_url=endpoint.url) as http,
    ):
        waiting = asyncio.create_task(http.get("/wait"))
        for _ in range(22):
            answers = await asyncio.gather(*(http.get("/quick") for _ in range(50)))
            assert {answer.http_version for answer in answers} == {"HTTP/2"}
        release.set()
        assert (await waiting).text == "ok"


def test_services_are_bound_with_the_identity_keys_of_the_environment(tmp_path: Path) -> None:
    key = "publickeyv1_AfQwmwfgEZhrWpvv8N52SHpRtZqGGaFr4AZN6qtYWSiY"
    with process(tmp_path, "application:slow", RESTATE_IDENTITY_KEYS=key) as (_, url):
        assert httpx.get(f"{url}/discover").status_code == 401
    with process(tmp_path, "application:slow") as (_, url):
        accepted = {"accept": "application/vnd.restate.endpointmanifest.v3+json"}
        assert httpx.get(f"{url}/discover", headers=accepted).status_code == 200


def test_an_application_that_ignores_the_identity_keys_is_not_served(tmp_path: Path) -> None:
    (tmp_path / "endpoint.py").write_text(Path(endpoint_module.__file__).read_text())
    (tmp_path / "application.py").write_text(SLOW)
    variables = environment({"RESTATE_IDENTITY_KEYS": "publickeyv1_AfQwmwfgEZhrWpvv8N52SHpRtZqGGaFr4AZN6qtYWSiY"})
    line = [sys.executable, "endpoint.py", "application:app", "--port", "0"]
    result = subprocess.run(
        line, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert result.returncode == 1
    assert "application:app answers anybody" in result.stderr


def test_the_health_check_of_an_image_says_no_when_nothing_answers(tmp_path: Path) -> None:
    [port] = free_ports(1)
    line = [sys.executable, str(endpoint_module.__file__), "--check", f"http://127.0.0.1:{port}"]
    assert subprocess.run(line, timeout=PATIENCE_S, check=False).returncode == 1


def test_the_file_stands_alone() -> None:
    """A copy of it goes into images that have no holdfast."""
    source = Path(endpoint_module.__file__).read_text()
    packages = {name.split(".")[0] for _, name in imported_modules(source, "holdfast.endpoint")}
    assert packages - sys.stdlib_module_names == {"hypercorn", "restate", "uvloop"}


async def test_a_request_that_comes_after_the_drain_is_told_that_its_caller_has_gone() -> None:
    """A kept connection brings requests until it is closed, and the SDK would wait for their input for ever."""
    heard: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        heard.append((await receive())["type"])

    async def silence() -> Any:
        await asyncio.Event().wait()

    tracked = endpoint_module._Tracked(app)
    await tracked.drain(0)
    await asyncio.wait_for(tracked({"type": "http"}, silence, silence), 5)
    assert heard == ["http.disconnect"]
