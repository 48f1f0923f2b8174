"""`Engine`: what an embedding program uses. The runtime with its two HTTP APIs as ASGI apps and a client in process."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import cached_property
from typing import TYPE_CHECKING, Any

from holdfast.admin.app import create_admin
from holdfast.admin.guarded import guarded
from holdfast.config import EngineConfig
from holdfast.errors import EngineStopped, InvalidRequest, InvocationFailed
from holdfast.ingress.app import create_ingress
from holdfast.runtime.clock import Clock
from holdfast.runtime.engine import EngineRuntime
from holdfast.security.guard import Guard, Origins

if TYPE_CHECKING:
    import httpx
    from restate.client import Client


class Engine(EngineRuntime):
    """Durable execution of a restate-sdk application inside this process.

        async with holdfast.Engine(restate.app([greeter]), db="app.db") as engine:
            await engine.client.service_call(greet, arg="Ada")

    Args:
        app: What `restate.app([...])` returns; None runs only what is registered later.
        db: SQLite file, made when missing; ":memory:" keeps nothing.
        config: Settings; single settings may be given as keyword arguments instead, e.g. `durability="relaxed"`.
        clock, entropy: Time and randomness, for tests.
    """

    def __init__(
        self,
        app: Any,
        *,
        db: str | os.PathLike[str] = ":memory:",
        config: EngineConfig | None = None,
        clock: Clock | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
        **settings: Any,
    ) -> None:
        if config is not None and settings:
            raise TypeError("give either config or single settings, not both")
        super().__init__(app, db=db, config=config or EngineConfig(**settings), clock=clock, entropy=entropy)
        self._http: httpx.AsyncClient | None = None

    @cached_property
    def ingress(self) -> Any:
        """The ingress HTTP API as an ASGI app: serve it, or mount it under another one.

        It refuses web pages of origins that are not its own or in `allowed_origins`. Who else may reach it is up to
        whoever mounts it: `serve`, which opens ports, asks for tokens and checks host names as well.
        """
        return create_ingress(self)

    @cached_property
    def admin(self) -> Any:
        """The admin HTTP API as an ASGI app, guarded like `ingress`. Who reaches it may do everything."""
        origins = Origins(self.config.allowed_origins, allow_links=True)
        return guarded(create_admin(self), Guard("admin", origins=origins), origins)

    @cached_property
    def client(self) -> Client:
        """The SDK's own client type, calling this engine in process."""
        import httpx  # here, because an engine that only serves need not wait for it at start
        from restate.client import Client

        self._http = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=self.ingress),
            base_url="http://engine",
            timeout=None,  # noqa: S113 a call takes as long as its handler; nothing can be lost on the way
        )
        return Client(self._http, {})

    async def stop(self, drain_ms: int | None = None) -> None:
        await super().stop(drain_ms)
        if self._http is not None:
            await self._http.aclose()

    async def __aenter__(self) -> Engine:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()


class SyncEngine:
    """An `Engine` for programs and tests without an event loop: it runs in a thread of its own.

        with holdfast.SyncEngine(app, db="app.db") as engine:
            engine.call("Greeter/greet", b'"Ada"')

    Args: as for `Engine`.
    """

    def __init__(self, app: Any, *, db: str | os.PathLike[str] = ":memory:", **settings: Any) -> None:
        self._make = lambda: Engine(app, db=db, **settings)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.engine: Engine

    def __enter__(self) -> SyncEngine:
        started: Future[None] = Future()

        leave = self._leave = asyncio.Event()

        async def main() -> None:
            self._loop = asyncio.get_running_loop()
            try:
                self.engine = self._make()
                await self.engine.start()
            except BaseException as error:  # noqa: BLE001 handed to the thread that waits for the start
                started.set_exception(error)
                return
            started.set_result(None)
            await leave.wait()

        self._thread = threading.Thread(target=lambda: asyncio.run(main()), name="holdfast-engine", daemon=True)
        self._thread.start()
        started.result()
        return self

    def __exit__(self, *exc_info: object) -> None:
        assert self._thread is not None
        try:
            self.run(self.engine.stop())
        finally:
            with self._lock:
                loop, self._loop = self._loop, None
            if loop is not None:
                loop.call_soon_threadsafe(self._leave.set)
            self._thread.join()

    def run(self, coroutine: Any) -> Any:
        """Run a coroutine in the engine's thread and wait: `engine.run(engine.engine.cancel(invocation_id))`."""
        with self._lock:  # a coroutine handed to a loop that is ending would never be answered
            if self._loop is None:
                coroutine.close()
                raise EngineStopped("the engine is not running", hint="use it inside its `with` block")
            answer = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        return answer.result()

    def call(self, target: str, body: bytes = b"", *, idempotency_key: str | None = None) -> bytes:
        """Invoke `Service/handler` or `Object/key/handler` with a serialised input; returns the serialised output.

        Raises:
            InvocationFailed: it ended with a terminal error.
            InvalidRequest: no such target.
        """
        return self.run(self._call(target, body, idempotency_key))

    async def _call(self, target: str, body: bytes, idempotency_key: str | None) -> bytes:
        service, _, rest = target.partition("/")
        key, _, handler = rest.rpartition("/")  # a key may hold slashes
        spec = self.engine.services.get(service)
        if spec is None or handler not in spec.handlers or bool(key) != spec.keyed:
            known = ", ".join(sorted(self.engine.services))
            raise InvalidRequest(
                f"there is no {target!r}; services: {known}", hint="Service/handler, or Object/key/handler", status=404
            )
        completion, _ = await self.engine.call(
            spec.handlers[handler], key or None, body, idempotency_key=idempotency_key
        )
        if completion.failure is not None:
            failure = completion.failure
            raise InvocationFailed(
                failure.message,
                failure_code=failure.code,
                invocation_id=completion.invocation_id,
                metadata=failure.metadata,
            )
        return completion.value or b""
