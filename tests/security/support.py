"""`holdfast.server.serve` in a thread of this process, where a test can set what no flag sets."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any

from holdfast.config import EngineConfig, SecurityConfig
from holdfast.server import Serving, serve
from tests.ingress.sample_app import make_app
from tests.support.restate_server import START_TIMEOUT_S


@contextmanager
def serving_here(
    config: EngineConfig | None = None, security: SecurityConfig | None = None, **settings: Any
) -> Iterator[Serving]:
    """The sample application on free ports, in memory."""
    ready: Future[Serving] = Future()
    stop = asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def run() -> None:
        loops.append(asyncio.get_running_loop())
        task = asyncio.create_task(
            serve(
                make_app(),
                db=":memory:",
                ingress_port=0,
                admin_port=0,
                config=config or EngineConfig(drain_ms=0),
                security=security,
                on_ready=ready.set_result,
                **settings,
            )
        )
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([task, stopping], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    def thread_main() -> None:
        try:
            asyncio.run(run())
        except Exception as error:  # noqa: BLE001  # raised in the test's thread
            ready.set_exception(error)

    thread = threading.Thread(target=thread_main, name="holdfast", daemon=True)
    thread.start()
    try:
        yield ready.result(START_TIMEOUT_S)
    finally:
        with suppress(RuntimeError):  # it never started
            loops[0].call_soon_threadsafe(stop.set)
        thread.join()
