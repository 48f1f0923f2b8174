"""The same tests on two engines: embedded with a suspension at every wait, and a real Restate server."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.leads.local_web import LocalWeb, local_web
from tests.leads.world import World, open_world, settings_for
from tests.support.restate_server import RunningRestate, running_server, skip_without_server

OpenLeads = Callable[..., Awaitable[World]]


@pytest.fixture(autouse=True)
def _quiet_sdk() -> Iterator[None]:
    # Handlers of these tests fail on purpose; the SDK logs each failure with its traceback.
    logger = logging.getLogger("restate")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)


@pytest.fixture
def web() -> Iterator[LocalWeb]:
    with local_web() as running:
        yield running


@pytest.fixture(scope="package")
def leads_restate() -> Iterator[RunningRestate]:
    """A server; each test registers its own deployment."""
    skip_without_server()
    with running_server(env={"RESTATE_WORKER__INVOKER__INACTIVITY_TIMEOUT": "1s"}) as server:
        yield server


@pytest_asyncio.fixture(params=["holdfast", pytest.param("restate", marks=pytest.mark.restate_server)])
async def open_leads(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[OpenLeads]:
    """`await open_leads(web, **settings)`: leads on the engine of this parameter, in the test's own directory."""
    server = request.getfixturevalue("leads_restate") if request.param == "restate" else None
    async with AsyncExitStack() as stack:
        yield _opening(stack, tmp_path, server, is_suspending=server is None)


@pytest_asyncio.fixture
async def open_embedded(tmp_path: Path) -> AsyncIterator[OpenLeads]:
    """Likewise, embedded and without suspensions: for what no engine decides."""
    async with AsyncExitStack() as stack:
        yield _opening(stack, tmp_path, None, is_suspending=False)


def _opening(
    stack: AsyncExitStack, directory: Path, server: RunningRestate | None, *, is_suspending: bool
) -> OpenLeads:
    async def opened(web: LocalWeb | None = None, **settings: Any) -> World:
        return await open_world(stack, settings_for(directory, web, **settings), server, is_suspending=is_suspending)

    return opened
