"""The same program, the same metrics: on the embedded engine and on a Restate server."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.routing import Route

from holdfast import Engine
from holdfast.metrics import EngineMetrics, RestateMetrics, Source, metrics_endpoint, render
from tests.metrics.program import UNFINISHED_ENTRIES, application
from tests.support.restate_server import RunningRestate, running_restate, skip_without_server

PATIENCE_S = 60.0
Samples = dict[tuple[str, ...], float]


class Side:
    """An engine, its ingress, and where its metrics come from."""

    def __init__(self, source: Source, ingress: httpx.AsyncClient, admin: httpx.AsyncClient) -> None:
        self.source = source
        self.ingress = ingress
        self.admin = admin

    async def call(self, path: str, json: object) -> int:
        return (await self.ingress.post(path, json=json)).status_code

    async def samples(self, name: str) -> Samples:
        """What a metric tells: its labels but `engine`, in the order of their names -> value."""
        text = (await render([self.source]))[0].decode()
        return samples_of(text, name)


def samples_of(text: str, name: str) -> Samples:
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == f"holdfast_{name}":
                found[tuple(value for label, value in sorted(sample.labels.items()) if label != "engine")] = (
                    sample.value
                )
    return found


@pytest.fixture(scope="module")
def restate() -> Iterator[RunningRestate]:
    skip_without_server()
    with running_restate(application()) as server:
        yield server


@pytest.fixture(params=["memory", "file", pytest.param("restate", marks=pytest.mark.restate_server)])
async def side(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Side]:
    if request.param == "restate":
        server: RunningRestate = request.getfixturevalue("restate")
        async with (
            httpx.AsyncClient(base_url=server.ingress_url, timeout=PATIENCE_S) as ingress,
            httpx.AsyncClient(base_url=server.admin_url, timeout=PATIENCE_S) as admin,
        ):
            yield Side(RestateMetrics(server.admin_url), ingress, admin)
        return
    async with (
        Engine(application(), db=":memory:" if request.param == "memory" else tmp_path / "engine.db") as engine,
        httpx.AsyncClient(transport=httpx.ASGITransport(engine.ingress), base_url="http://engine") as ingress,
        httpx.AsyncClient(transport=httpx.ASGITransport(engine.admin), base_url="http://engine") as admin,
    ):
        yield Side(EngineMetrics(engine), ingress, admin)


async def test_what_was_completed_is_counted_once_with_its_duration(side: Side) -> None:
    before = await side.samples("workflow_duration_seconds_count")
    for name in ("Ada", "Grace"):
        assert await side.call("/Greeter/greet", f"{name} {os.urandom(4).hex()}") == 200
    assert await side.call("/Greeter/refuse", "Mallory") == 403
    for _ in range(3):  # however often somebody looks
        counts = await side.samples("workflow_duration_seconds_count")
    assert counts["greet", "success", "Greeter"] - before.get(("greet", "success", "Greeter"), 0) == 2
    assert counts["refuse", "failure", "Greeter"] - before.get(("refuse", "failure", "Greeter"), 0) == 1
    took_s = await side.samples("workflow_duration_seconds_sum")
    assert took_s["greet", "success", "Greeter"] > 0.1, "each waited for its second attempt"
    failed = await side.samples("workflow_failed_total")
    assert failed["refuse", "Greeter"] == counts["refuse", "failure", "Greeter"]
    assert failed["greet", "Greeter"] == 0


async def test_a_delayed_one_takes_its_time_from_when_it_was_due(side: Side) -> None:
    before_s = (await side.samples("workflow_duration_seconds_sum")).get(("remember", "success", "Counter"), 0)
    key = os.urandom(4).hex()
    await side.ingress.post(f"/Counter/{key}/remember/send?delay=1500ms", json="x")
    labels = ("remember", "success", "Counter")
    count = (await side.samples("workflow_duration_seconds_count")).get(labels, 0)
    async with asyncio.timeout(PATIENCE_S):
        while (await side.samples("workflow_duration_seconds_count")).get(labels, 0) == count:
            await asyncio.sleep(0.05)
    assert (await side.samples("workflow_duration_seconds_sum"))[labels] - before_s < 1.5


async def test_buckets_add_up(side: Side) -> None:
    assert await side.call("/Greeter/greet", f"Ada {os.urandom(4).hex()}") == 200
    text = (await render([side.source]))[0].decode()
    (family,) = [f for f in text_string_to_metric_families(text) if f.name == "holdfast_workflow_duration_seconds"]
    buckets = [s for s in family.samples if s.name.endswith("_bucket") and s.labels["handler"] == "greet"]
    values = [sample.value for sample in buckets]
    assert values == sorted(values)
    assert buckets[-1].labels["le"] == "+Inf"
    assert values[-1] == samples_of(text, "workflow_duration_seconds_count")["greet", "success", "Greeter"]


async def test_a_retry_is_counted(side: Side) -> None:
    name = f"Ada {os.urandom(4).hex()}"
    calling = asyncio.create_task(side.call("/Greeter/greet", name))
    async with asyncio.timeout(PATIENCE_S):
        # A server tells retries of what runs now: between the looks of a test that is enough.
        while not (retries := await side.samples("step_retries_total")).get(("greet", "Greeter")):
            if calling.done():
                calling = asyncio.create_task(side.call("/Greeter/greet", f"Ada {os.urandom(4).hex()}"))
            await asyncio.sleep(0.02)
    assert retries["greet", "Greeter"] >= 1
    assert await calling == 200


async def test_what_waits_and_what_is_kept(side: Side) -> None:
    key = os.urandom(4).hex()
    bytes_before = (await side.samples("state_bytes")).get(("Counter",), 0)
    keys_before = (await side.samples("state_keys")).get(("Counter",), 0)
    sent = await side.ingress.post(f"/Sleeper/{key}/run/send")
    assert await side.call(f"/Counter/{key}/remember", "x" * 998) == 200  # two quotes more as JSON
    async with asyncio.timeout(PATIENCE_S):
        while (entries := await side.samples("journal_entries_largest")).get(("Sleeper",)) != UNFINISHED_ENTRIES:
            await asyncio.sleep(0.02)
    waiting = await side.samples("invocations")
    assert (
        sum(n for (service, status), n in waiting.items() if (service, status != "completed") == ("Sleeper", True)) == 1
    )
    assert "Greeter" not in {service for (service,) in entries}, "what is over has no journal to worry about"
    assert await side.samples("journal_entries") == {("Sleeper",): UNFINISHED_ENTRIES}
    assert await side.samples("state_bytes") == {("Counter",): bytes_before + 1000}
    assert await side.samples("state_keys") == {("Counter",): keys_before + 1}

    await side.admin.patch(f"/invocations/{sent.json()['invocationId']}/cancel")
    async with asyncio.timeout(PATIENCE_S):
        while ("run", "cancelled", "Sleeper") not in await side.samples("workflow_duration_seconds_count"):
            await asyncio.sleep(0.02)
    assert (await side.samples("workflow_failed_total")).get(("run", "Sleeper")) == 0, "a cancel is no failure"
    assert await side.samples("journal_entries") == {}


async def test_an_engine_that_is_away_is_down_and_keeps_its_counters(tmp_path: Path) -> None:
    away = RestateMetrics("http://127.0.0.1:1")
    async with Engine(application(), db=tmp_path / "engine.db") as engine:
        here = EngineMetrics(engine)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(engine.ingress), base_url="http://engine") as http:
            assert (await http.post("/Greeter/refuse", json="Mallory")).status_code == 403
        assert "holdfast_workflow_failed_total" in (await render([here]))[0].decode()
    text = (await render([here, away]))[0].decode()
    assert 'holdfast_engine_up{engine="embedded"} 0.0' in text
    assert 'holdfast_engine_up{engine="restate"} 0.0' in text
    assert samples_of(text, "workflow_failed_total") == {("refuse", "Greeter"): 1}


async def test_the_admin_port_has_them(tmp_path: Path) -> None:
    async with (
        Engine(application(), db=tmp_path / "engine.db") as engine,
        httpx.AsyncClient(transport=httpx.ASGITransport(engine.admin), base_url="http://engine") as admin,
    ):
        answer = await admin.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain")
        assert 'holdfast_engine_up{engine="embedded"} 1.0' in answer.text
        open_metrics = await admin.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
        assert open_metrics.text.endswith("# EOF\n")


async def test_an_application_mounts_them_beside_its_own(tmp_path: Path) -> None:
    from prometheus_client import CollectorRegistry, Counter

    registry = CollectorRegistry()
    Counter("scans", "Scans of this application.", registry=registry).inc(3)
    async with Engine(application(), db=tmp_path / "engine.db") as engine:
        app = Starlette(routes=[Route("/metrics", metrics_endpoint(EngineMetrics(engine), registry=registry))])
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as http:
            text = (await http.get("/metrics")).text
            assert "scans_total 3.0" in text
            assert "holdfast_engine_up" in text
            assert (await http.post("/metrics")).status_code == 405


@pytest.mark.restate_server
def test_the_command_serves_those_of_a_restate_server(restate: RunningRestate) -> None:
    command = [sys.executable, "-m", "holdfast.cli", "metrics", "--admin-url", restate.admin_url]
    printed = subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE_S)
    assert 'holdfast_engine_up{engine="restate"} 1.0' in printed.stdout, printed.stderr
    with subprocess.Popen([*command, "--port", "0"], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        answer = httpx.get(line.split()[-1], timeout=PATIENCE_S)
        process.terminate()
        process.stderr.read()
    assert 'holdfast_engine_up{engine="restate"} 1.0' in answer.text
    assert process.returncode == 0


def test_the_command_says_that_nobody_answers() -> None:
    command = [sys.executable, "-m", "holdfast.cli", "metrics", "--admin-url", "http://127.0.0.1:1"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 1
    assert "next: start it" in done.stderr
    assert "Traceback" not in done.stderr


def test_samples_as_json(tmp_path: Path) -> None:
    with running_engine(tmp_path) as admin_url:
        command = [sys.executable, "-m", "holdfast.cli", "metrics", "--json", "--admin-url", admin_url]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE_S)
    samples = json.loads(done.stdout)
    assert {"name": "holdfast_engine_up", "labels": {"engine": "embedded"}, "value": 1.0} in samples


@contextmanager
def running_engine(folder: Path) -> Iterator[str]:
    """`holdfast serve` in a process of its own; gives its admin URL."""
    command = [sys.executable, "-m", "holdfast.cli", "serve", "tests.metrics.served:app", "--json"]
    ports = ["--ingress-port", "0", "--admin-port", "0", "--db", str(folder / "engine.db")]
    with subprocess.Popen([*command, *ports], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["admin_url"]
        process.terminate()
        process.stdout.read()
