"""All of recon on real inputs, killed in each of its parts, judged by what is on disk.

    python -m apps.recon.demo_all [--engine embedded|restate] [--keep-dir DIR] [--plain]

The service runs as a child process. It is killed with SIGKILL while it ingests, while it enriches, while a campaign
scans and while an approval is awaited, and started again on the same files each time. With `--engine restate` the
engine is a Restate server of its own, which lives on while recon dies.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import maxminddb
import uvicorn
from nacl.signing import SigningKey
from rich.table import Table

from apps.recon.demo import Screen, prepare
from apps.recon.demo_all_verify import Expected, Finding, verify_all
from apps.recon.demo_campaign import Listeners, campaign_over, campaign_status, listening, start_campaign, until
from apps.recon.demo_child import Child
from apps.recon.demo_scans import DATA, DemoFailed, Item, generated_items, real_items
from apps.recon.demo_tally import count
from apps.recon.enrich.mirror import PATH as NVD_PATH
from apps.recon.enrich.mirror import create_mirror
from apps.recon.envelope import seal
from apps.recon.surreal import StoreError
from apps.serving.demo import free_port, restate_server, run_demo, verdict
from holdfast import HoldfastError

ADMIN_TOKEN = "of-the-demo"  # noqa: S105 - of a service that lives for a minute, on loopback
CITY = DATA / "geoip" / "GeoLite2-City-Test.mmdb"
ASN = DATA / "geoip" / "GeoLite2-ASN-Test.mmdb"
KEV = DATA / "vuln" / "kev" / "known_exploited_vulnerabilities.json"

NETWORK = "127.44.0.0/25"
LISTENING = [f"127.44.0.{number}" for number in range(3, 120, 9)]
SENSITIVE = "127.66.0.0/16"
APPROVED, DENIED = "127.66.0.1", "127.66.0.2"


@dataclass
class Run:
    """The service that is killed, and what the demo knows of it."""

    directory: Path
    settings: dict[str, str]
    screen: Screen
    child: Child | None = None
    kills: int = 0
    recoveries_s: list[float] = field(default_factory=list[float])
    key: SigningKey = field(default_factory=SigningKey.generate)
    admin_url: str | None = None
    """Of the Restate server, when there is one."""

    async def start(self) -> None:
        self.child = await Child.start(self.directory, settings=self.settings)

    async def kill(self, what: str) -> None:
        """SIGKILL, then a start on the same files."""
        assert self.child is not None
        await self.child.kill()
        self.kills += 1
        self.screen.say(f" while {what}", label="kill -9", style="bold red")
        began_s = time.monotonic()
        await self.start()
        self.recoveries_s.append(time.monotonic() - began_s)

    @asynccontextmanager
    async def http(self) -> AsyncGenerator[httpx.AsyncClient]:
        assert self.child is not None
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
        async with httpx.AsyncClient(base_url=self.child.url, headers=headers, timeout=60) as http:
            yield http

    async def submit(self, item: Item) -> str:
        """Sign and send; again with the same envelope if the service died before it answered."""
        body = seal(item.text, self.key, timestamp_s=int(time.time()))
        async with self.http() as http:
            answer = await http.post("/v1/mesh/ingest", content=body)
        if answer.status_code != 202:
            raise DemoFailed(f"{item.name} was answered with {answer.status_code}: {answer.text}")
        return answer.json()["job_id"]

    async def wait(self, path: str, done: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        """Look at a resource until it is as it should be."""

        async def look() -> dict[str, Any] | None:
            async with self.http() as http:
                answer = await http.get(path)
            body: dict[str, Any] = answer.json() if answer.status_code == 200 else {}
            return body if body and done(body) else None

        return await until(look, what)


# -- the four parts ------------------------------------------------------------------------------------------------


async def ingest(run: Run, expected: Expected) -> None:
    """Every real file, a few larger generated ones, and the hosts that the place databases know; killed half-way."""
    items = [*real_items(), *generated_items(12, seed=11), known_places()]
    for item in items[: len(items) // 2]:
        expected.jobs[await run.submit(item)] = item
    await run.kill(f"{len(expected.jobs)} submitted scans are parsed and stored")
    for item in items[len(items) // 2 :]:
        expected.jobs[await run.submit(item)] = item
    for job_id, item in expected.jobs.items():
        job = await run.wait(
            f"/v1/jobs/{job_id}", lambda job: job["state"] in ("completed", "failed"), f"{item.name} was not finished"
        )
        if (job["state"] == "completed") != bool(item.tally.hosts):
            raise DemoFailed(f"{item.name} is {job['state']}: {job['error_message']}")


def known_places() -> Item:
    """One host in each network of the two MMDB files: made-up ports of real entries."""
    addresses = sorted({str(network.network_address) for path in (CITY, ASN) for network in networks(path)})
    text = "\n".join(f'{{"ip":"{address}","port":443}}' for address in addresses)
    return Item("geoip", text, count(text))


def networks(path: Path) -> list[Any]:
    with maxminddb.open_database(path) as reader:
        return [network for network, _ in reader if network.version == 4][:40]


async def enrichment(run: Run, expected: Expected) -> None:
    """Waits for the runs that every completed job started by itself; then one over all hosts, killed on its way."""
    [places] = [job_id for job_id, item in expected.jobs.items() if item.name == "geoip"]
    async with run.http() as http:
        asked = await http.post("/v1/enrich", json={"job_id": places, "force_refresh": True, "id": "again"})
        if asked.status_code != 202:
            raise DemoFailed(f"the enrichment was answered with {asked.status_code}: {asked.text}")
    await run.kill("hosts are looked up")
    names = ["again", *(f"job-{job_id}" for job_id, item in expected.jobs.items() if item.tally.hosts)]
    for name in names:
        done = await run.wait(
            f"/v1/enrich/{name}", lambda done: done["state"] != "running", f"enrichment {name} did not end"
        )
        if done["state"] != "completed":
            raise DemoFailed(f"enrichment {name} is {done['state']}: {done.get('error_message')}")
    expected.enrichments = names


async def campaign(run: Run, expected: Expected, listeners: Listeners) -> None:
    """A network of 128 addresses with a few listeners; killed while targets are scanned."""
    async with run.http() as http:
        await start_campaign(http, "demo", [NETWORK], listeners.port)

        async def scanning() -> bool:
            return (await campaign_status(http, "demo"))["scanned"] >= 20

        await until(scanning, "the campaign did not scan 20 targets")
        scanned = (await campaign_status(http, "demo"))["scanned"]
    await run.kill(f"a campaign scans, {scanned} targets done")
    async with run.http() as http:
        expected.campaigns["demo"] = await campaign_over(http, "demo")
    expected.open_ports |= {address: [listeners.port] for address in LISTENING}


async def approval(run: Run, expected: Expected, listeners: Listeners) -> None:
    """Two campaigns against a network that needs somebody's yes: killed while it waits; one gets it, one does not."""
    answers = {"asked-yes": (APPROVED, True), "asked-no": (DENIED, False)}
    async with run.http() as http:
        for name, (target, _) in answers.items():
            await start_campaign(http, name, [target], listeners.port)
    for name in answers:
        await run.wait(f"/v1/approvals/{name}", lambda one: one["state"] == "pending", f"{name} was not asked for")
    await run.kill("two approvals are awaited")
    async with run.http() as http:
        for name, (_, approved) in answers.items():

            async def answer(name: str = name, approved: bool = approved) -> bool:
                given = await http.post(f"/v1/approvals/{name}", json={"approved": approved, "by": "the demo"})
                return given.is_success

            await until(answer, f"the answer for {name} was not taken")
        for name in answers:
            expected.campaigns[name] = await campaign_over(http, name)
    expected.open_ports[APPROVED] = [listeners.port]


# -- around them ---------------------------------------------------------------------------------------------------


@asynccontextmanager
async def nvd_mirror() -> AsyncGenerator[str]:
    """The NVD's API with real answers, on a free port. Yields its URL."""
    config = uvicorn.Config(create_mirror(), port=0, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    try:

        async def started() -> bool:
            return server.started

        await until(started, "the mirror of the NVD did not start")
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}{NVD_PATH}"
    finally:
        server.should_exit = True
        await serving


@contextmanager
def engine_settings(name: str) -> Generator[dict[str, str]]:
    """Settings for the engine: none for the embedded one, the addresses of a fresh Restate server for the other.

    Raises:
        DemoFailed: no server is installed.
    """
    if name == "embedded":
        yield {}
        return
    with restate_server() as server:
        yield {
            "RECON_ENGINE": "restate",
            "RESTATE_INGRESS_URL": server.ingress_url,
            "RESTATE_ADMIN_URL": server.admin_url,
            "RECON_WORKER_PORT": str(free_port()),
        }


def recon_settings(nvd_url: str) -> dict[str, str]:
    return {
        "RECON_ADMIN_TOKEN": ADMIN_TOKEN,
        "RECON_INGEST_PER_MINUTE": "100000",
        "RECON_ADDRESS_PER_MINUTE": "100000",
        "RECON_READ_PER_MINUTE": "1000000",
        "RECON_GEOIP_CITY": str(CITY),
        "RECON_GEOIP_ASN": str(ASN),
        "RECON_KEV": str(KEV),
        "RECON_NVD": "true",
        "NVD_URL": nvd_url,
        "NVD_REQUESTS_PER_30S": "30000",
        "RECON_ALLOWED_NETWORKS": "127.0.0.0/8",
        "RECON_SENSITIVE_NETWORKS": SENSITIVE,
        "RECON_LOG_FORMAT": "json",
    }


async def demo(engine: str, directory: Path, screen: Screen) -> bool:
    """Everything; says what was compared, and returns whether all of it is right.

    Raises:
        DemoFailed: a part did not come to its end.
    """
    prepare(directory)
    expected = Expected()
    with engine_settings(engine) as settings:
        async with nvd_mirror() as nvd_url, listening([*LISTENING, APPROVED, DENIED]) as listeners:
            run = Run(directory, {**recon_settings(nvd_url), **settings}, screen)
            run.admin_url = settings.get("RESTATE_ADMIN_URL")
            began_s = time.monotonic()
            try:
                await run.start()
                parts: list[tuple[str, Callable[[], Awaitable[None]]]] = [
                    ("ingest", lambda: ingest(run, expected)),
                    ("enrichment", lambda: enrichment(run, expected)),
                    ("campaign", lambda: campaign(run, expected, listeners)),
                    ("approval", lambda: approval(run, expected, listeners)),
                ]
                for name, part in parts:
                    part_began_s = time.monotonic()
                    await part()
                    screen.say(f"{name}: done after {time.monotonic() - part_began_s:.1f} s")
                expected.connections = dict(listeners.connections)
                assert run.child is not None
                findings = await verify_all(directory, expected, child=run.child, admin_url=run.admin_url)
            finally:
                if run.child is not None:
                    run.child.discard()
    took_s = time.monotonic() - began_s
    recoveries = ", ".join(f"{each:.1f}" for each in run.recoveries_s)
    screen.say(f"{run.kills} kills; each start took {recoveries} s; all of it {took_s:.0f} s")
    show(screen, findings)
    wrong = [finding for finding in findings if not finding.is_right]
    return verdict(screen, len(wrong), f"{len(findings)} comparisons, all as they should be", directory)


def show(screen: Screen, findings: list[Finding]) -> None:
    table = Table(show_header=False, title="what is on disk", title_justify="left", title_style="bold")
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    for finding in findings:
        table.add_row(finding.what, finding.found, "ok" if finding.is_right else f"WRONG: {finding.expected}")
    screen.console.print(table)


def main() -> int:
    """Entry point: 0 if everything is as it should be, 1 if not, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m apps.recon.demo_all", description="All of recon, killed and judged."
    )
    parser.add_argument("--engine", choices=("embedded", "restate"), default="embedded")
    parser.add_argument("--keep-dir", type=Path, default=Path("demo-output/recon"), help="where files go")
    parser.add_argument("--plain", action="store_true", help="no colours")
    arguments = parser.parse_args()
    screen = Screen(plain=arguments.plain)
    screen.say(f"recon on the {'embedded engine' if arguments.engine == 'embedded' else 'real Restate server'}\n")
    running = demo(arguments.engine, arguments.keep_dir, screen)
    return run_demo(running, screen, arguments.keep_dir / "serve.log", (StoreError, HoldfastError, RuntimeError))


if __name__ == "__main__":
    sys.exit(main())
