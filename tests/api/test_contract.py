"""Every promise of `WorkflowProvider`, across the HTTP API: what is asked remotely is answered as it is at the engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from holdfast import providers
from holdfast.api.app import create_api
from holdfast.api.client import HttpProvider
from holdfast.providers.contract import CHECKS, Bench
from tests.api.conftest import Served

pytestmark = pytest.mark.asyncio(loop_scope="module")


class EmbeddedElsewhere(HttpProvider):
    """By the name of what is on the other side, which its answers have."""

    @property
    def name(self) -> str:
        return "embedded"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def provider(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[HttpProvider]:
    async with (
        await providers.open("embedded", db=tmp_path_factory.mktemp("api") / "engine.db") as embedded,
        Served(create_api(embedded)) as served,
        EmbeddedElsewhere(served.url) as provider,
    ):
        yield provider


@pytest.mark.parametrize("check", CHECKS)
async def test_a_remote_provider_keeps_its_promise(check: str, provider: HttpProvider, tmp_path: Path) -> None:
    await CHECKS[check](Bench(provider, tmp_path))
