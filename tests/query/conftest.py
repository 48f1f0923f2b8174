"""Two engines with the same history: a real Restate server, and `holdfast serve`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.query.history import Asked, asked, happen
from tests.support.restate_server import REPOSITORY, running_restate, skip_without_server

APP = "tests.query.sample_app:app"
_SERVER_SETTINGS = {
    # As holdfast does by default: idle attempts suspend soon, and tell what they wait for.
    "RESTATE_WORKER__INVOKER__INACTIVITY_TIMEOUT": "300ms",
    "RESTATE_EXPERIMENTAL_ENABLE_PROTOCOL_V7": "true",
}


@contextmanager
def served(db: Path, *arguments: str) -> Iterator[Asked]:
    """`holdfast serve` with the sample application."""
    ports = ["--ingress-port", "0", "--admin-port", "0"]
    line = [sys.executable, "-m", "holdfast.cli", "serve", APP, "--db", str(db), *ports, "--json", *arguments]
    log_path = db.with_suffix(".log")
    with (
        log_path.open("w") as log,
        subprocess.Popen(line, stdout=subprocess.PIPE, stderr=log, text=True, cwd=REPOSITORY) as process,
    ):
        try:
            assert process.stdout is not None
            told = process.stdout.readline()
            assert told, log_path.read_text()
            ready = json.loads(told)
            with asked(ready["ingress_url"], ready["admin_url"]) as side:
                yield side
        finally:
            process.kill()


@pytest.fixture(scope="package")
def holdfast_side(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    with served(tmp_path_factory.mktemp("query") / "engine.db") as side:
        happen(side)
        yield side


@pytest.fixture(scope="package")
def restate_side() -> Iterator[Asked]:
    skip_without_server()
    with (
        running_restate(APP, env=_SERVER_SETTINGS) as server,
        asked(server.ingress_url, server.admin_url) as side,
    ):
        happen(side)
        yield side
