"""Platforms that run an ASGI module by themselves, over HTTP/1.1: the rendered module, served as they serve it, called by a
real Restate server."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.deploy.support import PATIENCE_S, environment, greet, json_of, rendered
from tests.support.restate_server import RunningRestate, free_ports


@pytest.mark.restate_server
@pytest.mark.parametrize("reference", ["greeter:app", "greeter:greeter"])
def test_the_module_is_called_over_http_1(reference: str, restate: RunningRestate, project: Path) -> None:
    """Vercel imports `app` from api/index.py, and passes every path on to it."""
    (project / "api").mkdir()
    (project / "api" / "index.py").write_text(rendered("asgi", reference=reference)["vercel/api/index.py"])
    [port] = free_ports(1)
    line = [sys.executable, "-m", "uvicorn", "api.index:app", "--port", str(port), "--lifespan", "off"]
    process = subprocess.Popen(
        line, cwd=project, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + PATIENCE_S
        while not answers(url):
            assert process.poll() is None
            assert time.monotonic() < deadline
        more = ["--uri", url, "--http1", "--admin-url", restate.admin_url]
        told = json_of("deploy", "register", "--mechanism", "asgi", "greeter:app", *more)
        known = httpx.get(f"{restate.admin_url}/deployments/{told['id']}").json()
        assert (known["protocol_type"], known["http_version"]) == ("RequestResponse", "HTTP/1.1")
        assert greet(restate.ingress_url) == "Hello Ada!"
    finally:
        process.kill()
        process.wait()


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health").status_code == 200
    except httpx.HTTPError:
        return False
