"""An engine in this process and, where there is one, a Restate server with the same application."""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import uvicorn

from holdfast import Engine
from tests.admin.sample_app import app
from tests.admin.zoo import app as zoo_app
from tests.support.restate_server import RunningRestate, running_restate, serving_h2c, skip_without_server

UNKNOWN = "inv_12kpUQONmeFb0f6RCQUL06M6iQaCnI02st"


@dataclass(slots=True)
class System:
    """The two HTTP APIs of whatever is tested."""

    ingress: httpx.AsyncClient
    admin: httpx.AsyncClient

    @property
    def apis(self) -> dict[str, httpx.AsyncClient]:
        return {"ingress": self.ingress, "admin": self.admin}

    async def invocation(self, status: str) -> str:
        """An invocation that has just been brought into `status`."""
        match status:
            case "unknown":
                return UNKNOWN
            case "malformed":
                return "inv_bad"
            case "completed":
                return (await self.ingress.post("/Greeter/greet", json="Ada")).headers["x-restate-id"]
            case "scheduled":
                return await self._sent("/Greeter/greet/send?delay=1h", "Ada")
            case "live":
                return await self._sent("/Greeter/wait/send", "me")
            case "pending":
                await self._sent("/Counter/busy/hold/send")
                return await self._sent("/Counter/busy/add/send", 1)
        raise ValueError(status)

    async def _sent(self, path: str, body: object = None) -> str:
        answer = await self.ingress.post(path, json=body) if body is not None else await self.ingress.post(path)
        return answer.json()["invocationId"]


@pytest.fixture(scope="package")
def zoo() -> Iterator[dict[str, str]]:
    """Where the endpoints of `zoo.py` are: `zoo` over HTTP/2, `zoo11` over HTTP/1.1 only."""
    with serving_h2c(zoo_app) as url, serving_http_11(zoo_app) as old_url:
        yield {"zoo": url, "zoo11": old_url}


@contextmanager
def serving_http_11(app: Any) -> Iterator[str]:
    """Serve an ASGI application from a thread with a loop of its own."""
    config = uvicorn.Config(app, port=0, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(timeout=10)


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    async with Engine(app) as engine:
        yield engine
        await engine.stop(drain_ms=0)


@pytest.fixture
async def holdfast_system(engine: Engine) -> AsyncIterator[System]:
    async with AsyncExitStack() as stack:
        ingress, admin = [
            await stack.enter_async_context(
                httpx.AsyncClient(transport=httpx.ASGITransport(app=asgi), base_url="http://holdfast")
            )
            for asgi in (engine.ingress, engine.admin)
        ]
        yield System(ingress, admin)


@pytest.fixture(scope="package")
def restate() -> Iterator[RunningRestate]:
    skip_without_server()
    with running_restate("tests.admin.sample_app:app") as server:
        yield server


@pytest.fixture
async def restate_system(restate: RunningRestate) -> AsyncIterator[System]:
    async with (
        httpx.AsyncClient(base_url=restate.ingress_url, timeout=30) as ingress,
        httpx.AsyncClient(base_url=restate.admin_url, timeout=30) as admin,
    ):
        yield System(ingress, admin)
