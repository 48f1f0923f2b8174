"""SIGTERM belongs to the program that a provider is part of; the SDK would take it at its first request."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import REPOSITORY
from tests.support.restate_server import RunningRestate


@pytest.fixture(params=["embedded", pytest.param("restate", marks=pytest.mark.restate_server)])
def order(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    if request.param == "embedded":
        return {"provider": "embedded", "settings": {"db": str(tmp_path / "s.db")}}
    server: RunningRestate = request.getfixturevalue("restate_server")
    return {
        "provider": "restate",
        "settings": {"endpoint": server.ingress_url, "admin_endpoint": server.admin_url},
    }


@pytest.mark.parametrize(
    ("has_handler", "status", "printed"), [(False, -signal.SIGTERM, ""), (True, 0, "closed in order\n")]
)
def test_sigterm_does_what_the_program_wants(
    order: dict[str, Any], has_handler: bool, status: int, printed: str
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.providers.signalled_child", json.dumps({**order, "has_handler": has_handler})],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "started\n"
            process.terminate()
            assert process.wait(30) == status
            assert process.stdout.read() == printed
        finally:
            process.kill()
