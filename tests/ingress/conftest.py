from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from holdfast import Engine
from tests.ingress.backend import Backend, holdfast_backend, restate_backend
from tests.ingress.sample_app import make_app
from tests.support.restate_server import skip_without_server


@pytest.fixture(scope="module", params=["holdfast", pytest.param("restate", marks=pytest.mark.restate_server)])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Our engine and, where there is one, a real Restate server, each over HTTP."""
    if request.param == "restate":
        skip_without_server()
        with restate_backend() as running:
            yield running
    else:
        with holdfast_backend() as running:
            yield running


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[Engine]:
    """An engine with the sample application, in this process and in memory."""
    engine = Engine(make_app(), db=":memory:")
    await engine.start()
    yield engine
    await engine.stop()
