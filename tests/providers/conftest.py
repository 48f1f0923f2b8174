"""One Restate server for all tests of providers; each test module opens what it needs on it."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.support.restate_server import RunningRestate, running_server, skip_without_server


@pytest.fixture(scope="package")
def restate_server() -> Iterator[RunningRestate]:
    """A server without deployments of its own."""
    skip_without_server()
    with running_server() as server:
        yield server


@pytest.fixture(autouse=True)
def _quiet_sdk() -> Iterator[None]:
    # Handlers of these tests fail on purpose; the SDK logs each failure with its traceback.
    logger = logging.getLogger("restate")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)


@pytest.fixture(autouse=True)
def _quick_close(monkeypatch: pytest.MonkeyPatch) -> None:
    # Handlers that only wait would hold up every close for two seconds; the server tries them again anyway.
    monkeypatch.setenv("HOLDFAST_WORKFLOW_RESTATE_DRAIN", "50ms")
