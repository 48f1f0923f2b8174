"""Every promise of `WorkflowProvider`, on the embedded engine and on a real Restate server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from holdfast import providers
from holdfast.providers import WorkflowProvider
from holdfast.providers.bench import Bench, BrokenPromise, equal
from holdfast.providers.contract import CHECKS
from tests.support.restate_server import RunningRestate

pytestmark = pytest.mark.asyncio(loop_scope="module")

RESTATE = pytest.param("restate", marks=pytest.mark.restate_server)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["embedded", RESTATE])
async def provider(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[WorkflowProvider]:
    settings: dict[str, Any]
    if request.param == "embedded":
        settings = {"db": tmp_path_factory.mktemp("provider") / "provider.db"}
    else:
        server: RunningRestate = request.getfixturevalue("restate_server")
        settings = {"endpoint": server.ingress_url, "admin_endpoint": server.admin_url}
    async with await providers.open(request.param, **settings) as opened:
        yield opened


@pytest.mark.parametrize("check", CHECKS)
async def test_a_provider_keeps_its_promise(check: str, provider: WorkflowProvider, tmp_path: Path) -> None:
    await CHECKS[check](Bench(provider, tmp_path))


async def test_a_broken_promise_is_noticed(provider: WorkflowProvider, tmp_path: Path) -> None:
    bench = Bench(provider, tmp_path)
    async with bench.workflow("failing") as workflow_id:
        started = await provider.start_execution(workflow_id, {"code": 400})
        state = (await bench.finished(started.execution_id)).state.value
    with pytest.raises(BrokenPromise, match="state is 'failed', not 'succeeded'"):
        equal("state", state, "succeeded")
