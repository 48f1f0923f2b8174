"""The figures of apps/recon/README.md, measured on this machine.

    python -m apps.recon.figures [100 | 10000 | 100000 | submissions ...]

Each runs the service as a process of its own, with everything durable on disk, and checks every count afterwards.
"""

from __future__ import annotations

import asyncio
import os
import platform
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx
from nacl.signing import SigningKey

from apps.recon.demo_campaign import until
from apps.recon.demo_child import Child
from apps.recon.demo_scans import DemoFailed
from apps.recon.demo_tally import count
from apps.recon.envelope import seal
from apps.recon.generator import naabu_scan
from apps.recon.settings import Settings
from apps.recon.store import Store

SUBMISSIONS = 1000
IN_FLIGHT = 100
"""Requests on their way at the same time; the rest waits at the client."""

_PATIENCE_S = 900
_LIMITS_AWAY = {
    "RECON_INGEST_PER_MINUTE": "1000000",
    "RECON_ADDRESS_PER_MINUTE": "1000000",
    "RECON_READ_PER_MINUTE": "1000000",
}


async def one_scan(directory: Path, hosts: int) -> str:
    """From the request to `completed`, and the service's largest memory on the way."""
    mean_ports = 3.0 if hosts <= 10_000 else 1.0
    scan = compact(hosts) if hosts > 10_000 else naabu_scan("figures", hosts, mean_ports=mean_ports)
    tally = count(scan)
    body = seal(scan, SigningKey.generate(), timestamp_s=int(time.time()))
    child = await Child.start(directory)
    try:
        before_mb = memory_mb(child.pid, "VmRSS")
        async with httpx.AsyncClient(base_url=child.url, timeout=60) as http:
            began_s = time.perf_counter()
            accepted = await http.post("/v1/mesh/ingest", content=body)
            answered_s = time.perf_counter()
            job_id = accepted.raise_for_status().json()["job_id"]
            job = await until_final(http, job_id)
            took_s = time.perf_counter() - began_s
        peak_mb = memory_mb(child.pid, "VmHWM")
        await child.stop()
    finally:
        child.discard()
    if (job["state"], job["host_count"], job["port_count"]) != ("completed", len(tally.hosts), len(tally.ports)):
        raise DemoFailed(f"the job is {job}, the scan has {len(tally.hosts)} hosts and {len(tally.ports)} ports")
    async with Store.from_settings(Settings.load({"directory": directory})) as store:
        if await store.edges() != tally.ports:
            raise DemoFailed("the graph is not what the scan says")
    return (
        f"{hosts} hosts, {len(tally.ports)} ports ({len(body) / 1e6:.1f} MB): answered in "
        f"{(answered_s - began_s) * 1000:.0f} ms, completed after {took_s:.2f} s; "
        f"memory {before_mb} MB at rest, {peak_mb} MB at most"
    )


async def many_submissions(directory: Path, jobs: int) -> str:
    """`jobs` scanners at once, one submission each: none lost."""
    bodies = [
        seal(naabu_scan(f"scanner-{n}", 3), SigningKey.generate(), timestamp_s=int(time.time())) for n in range(jobs)
    ]
    child = await Child.start(directory)
    took_ms: list[float] = []
    gate = asyncio.Semaphore(IN_FLIGHT)
    try:
        async with httpx.AsyncClient(base_url=child.url, timeout=120) as http:

            async def submit(body: bytes) -> str:
                async with gate:
                    began_s = time.perf_counter()
                    answer = await http.post("/v1/mesh/ingest", content=body)
                    took_ms.append((time.perf_counter() - began_s) * 1000)
                return answer.raise_for_status().json()["job_id"]

            began_s = time.perf_counter()
            accepted = set(await asyncio.gather(*map(submit, bodies)))
            answered_s = time.perf_counter() - began_s

            async def all_completed() -> bool:
                page = await http.get("/v1/jobs", params={"state": "completed", "limit": 1})
                return page.json()["total"] >= jobs

            await until(all_completed, "not all jobs were completed", patience_s=_PATIENCE_S)
            took_s = time.perf_counter() - began_s
        await child.stop()
    finally:
        child.discard()
    async with Store.from_settings(Settings.load({"directory": directory})) as store:
        steps = [(line.job_id, line.step) for line in await store.ledger()]
        known = set[str]()
        cursor: str | None = None
        while True:
            page = await store.jobs(limit=500, cursor=cursor)
            known |= {job.id for job in page.jobs}
            if (cursor := page.next_cursor) is None:
                break
    if len(accepted) != jobs or known != accepted or len(steps) != len(set(steps)):
        raise DemoFailed(f"{len(accepted)} accepted, {len(known)} in the database, {len(steps)} steps")
    took_ms.sort()
    return (
        f"{jobs} submissions, {IN_FLIGHT} at a time: none lost, none twice; all answered after {answered_s:.1f} s "
        f"(median {took_ms[jobs // 2]:.0f} ms, 99 % {took_ms[jobs * 99 // 100]:.0f} ms), all completed after {took_s:.1f} s"
    )


async def until_final(http: httpx.AsyncClient, job_id: str) -> dict[str, object]:
    async def look() -> dict[str, object] | None:
        job = (await http.get(f"/v1/jobs/{job_id}")).json()
        return job if job["state"] in ("completed", "failed") else None

    return await until(look, "the job was not finished", patience_s=_PATIENCE_S)


def compact(hosts: int) -> str:
    """As many hosts as fit into a submission: one port each, in naabu's shortest form."""
    return "\n".join(f'{{"ip":"10.{n >> 16}.{n >> 8 & 255}.{n & 255}","port":{n % 1000 + 1}}}' for n in range(hosts))


def memory_mb(pid: int, field: str) -> int:
    """Of a process: `VmRSS` now, `VmHWM` at most so far."""
    line = next(each for each in Path(f"/proc/{pid}/status").read_text().splitlines() if each.startswith(field))
    return int(line.split()[1]) // 1024


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def _measure(wanted: list[str]) -> None:
    load = os.getloadavg()[0]
    now = datetime.now(UTC).date()
    say(f"{now}, {platform.machine()}, {os.cpu_count()} cores, load {load:.1f}, Python {platform.python_version()}")
    for each in wanted:
        with tempfile.TemporaryDirectory(prefix="recon-figures-") as directory:
            if each == "submissions":
                say(await many_submissions(Path(directory), SUBMISSIONS))
            else:
                say(await one_scan(Path(directory), int(each)))


def main() -> int:
    """Entry point: 0 when every count was right."""
    os.environ.update(_LIMITS_AWAY, RECON_ENRICH="false", RECON_LOG_LEVEL="warning")
    try:
        asyncio.run(_measure(sys.argv[1:] or ["100", "10000", "100000", "submissions"]))
    except (DemoFailed, httpx.HTTPError, ValueError) as error:
        sys.stderr.write(f"error: {error!r}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
