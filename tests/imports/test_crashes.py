"""SIGKILL in the middle of every table: afterwards every row is there, once."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from apps.imports.settings import Settings
from apps.imports.store import Store
from apps.imports.verify import Expected, actual, differences
from tests.imports.conftest import Extracts
from tests.support.restate_server import REPOSITORY, RunningRestate, free_ports

PATIENCE_S = 180.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

# Every table, both operations, both places: within the transaction, and between its commit and the engine's record.
FULL = [
    "prepare:inside",
    "code-insert-1:inside",
    "enterprise-insert-1:after",
    "establishment-insert-1:inside",
    "denomination-insert-1:after",
    "address-insert-1:inside",
    "contact-insert-1:after",
    "activity-insert-2:inside",
    "branch-insert-1:inside",
    "finalize:inside",
    "finalize:after",
]
UPDATE = [
    "enterprise-delete-1:inside",
    "establishment-delete-1:after",
    "denomination-delete-2:inside",
    "address-insert-1:inside",
    "contact-delete-1:inside",
    "activity-insert-1:after",
]


def until_it_lives(folder: Path, zip_path: Path, deaths: list[str]) -> int:
    """Start it again and again on the embedded engine; how often it died."""
    command = [sys.executable, "-m", "tests.imports.dying", str(folder), "embedded", "0", str(zip_path), *deaths]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr
    ended, died = done.stdout.splitlines()
    assert json.loads(ended) == ["completed", None]
    return int(died)


@contextmanager
def kept_alive(folder: Path, port: int, deaths: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A worker for a Restate server."""
    command = [sys.executable, "-m", "tests.imports.dying", str(folder), "restate", str(port), "-", *deaths]
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()  # ready, or dead already
        try:
            yield process
        finally:
            process.kill()


def on_restate_until_it_lives(
    server: RunningRestate, folder: Path, zip_path: Path, deaths: list[str], port: int
) -> int:
    """The server keeps running, its worker dies and comes back; how often it died."""
    died, key = 0, f"{folder.name}-{zip_path.stem}"
    deadline = time.monotonic() + PATIENCE_S
    with httpx.Client(base_url=server.ingress_url, timeout=PATIENCE_S) as ingress:
        while True:
            with kept_alive(folder, port, deaths) as worker:
                if died == 0:
                    server.register(f"http://127.0.0.1:{port}", force=True)
                    ingress.post(f"/KboImport/{key}/run/send", json=str(zip_path)).raise_for_status()
                while worker.poll() is None:
                    assert time.monotonic() < deadline
                    answer = ingress.get(f"/restate/workflow/KboImport/{key}/output")
                    if answer.status_code != 470:  # not ready
                        assert answer.status_code == 200, answer.text
                        return died
                    time.sleep(0.05)  # between two looks
                assert worker.returncode == -9
                died += 1


def check(folder: Path, zips: list[Path]) -> None:
    """Every row of every table, now and after each extract, and every batch once."""

    async def look() -> None:
        states = Expected()
        async with Store(Settings.load(environ={}, database=str(folder / "kbo.duckdb"))) as store:
            for path in zips:
                states.apply(path)
                found = await actual(store, at_extract=states.extract_number)
                assert differences(states.fingerprints(), found) == []
            assert differences(states.fingerprints(), await actual(store)) == []
            assert await store.query("SELECT DISTINCT state FROM import_job_batches") == [("completed",)]
            for job in await store.history():
                assert job.completed_batches == job.total_batches
                counted = await store.query(
                    "SELECT count(*), sum(inserted_count) FROM import_job_batches WHERE job_id = $1", [job.job_id]
                )
                assert counted == [(job.total_batches, job.rows)]
        assert not list((folder / "files").rglob("*.csv"))

    asyncio.run(look())


def test_killed_in_every_table_of_a_full_extract_and_of_an_update(tmp_path: Path, extracts: Extracts) -> None:
    assert until_it_lives(tmp_path, extracts.full, FULL) == len(FULL)
    for marker in tmp_path.glob("died-*"):
        marker.unlink()
    assert until_it_lives(tmp_path, extracts.update, UPDATE) == len(UPDATE)
    check(tmp_path, [extracts.full, extracts.update])


@pytest.mark.restate_server
def test_killed_on_a_restate_server_that_keeps_running(
    tmp_path: Path, extracts: Extracts, imports_server: RunningRestate
) -> None:
    deaths = FULL[1::3]
    [port] = free_ports(1)
    assert on_restate_until_it_lives(imports_server, tmp_path, extracts.full, deaths, port) == len(deaths)
    check(tmp_path, [extracts.full])
