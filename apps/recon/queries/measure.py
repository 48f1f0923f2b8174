"""How long queries take: `python -m apps.recon.queries.measure --hosts 10000`.

Makes a report as nmap writes it, of hosts in the networks of the test databases, sends it through ingest and enrichment
as they are, with a mirror of the NVD, and asks every kind of query many times over HTTP in this process.
"""

# ruff: noqa: T201, ASYNC110 (a command that prints, and polls what it measures)
from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, cast

import httpx
import maxminddb
import uvicorn
from nacl.signing import SigningKey

from apps.recon.api import create_api
from apps.recon.application import create_app
from apps.recon.enrich.mirror import PATH, create_mirror
from apps.recon.envelope import seal
from apps.recon.settings import Settings
from apps.recon.store import Store
from holdfast import Engine

DATA = Path(__file__).resolve().parents[1] / "data"
ASN_FILE = DATA / "geoip" / "GeoLite2-ASN-Test.mmdb"
CITY_FILE = DATA / "geoip" / "GeoLite2-City-Test.mmdb"
KEV_FILE = DATA / "vuln" / "kev" / "known_exploited_vulnerabilities.json"
CHUNK_HOSTS = 2000
"""Per submission."""

_SERVICES = [
    (22, "ssh", "OpenSSH", "5.9p1"),
    (22, "ssh", "OpenSSH", "8.4p1"),
    (80, "http", "Apache httpd", "2.2.22"),
    (80, "http", "nginx", "1.18.0"),
    (443, "https", "nginx", "1.18.0"),
    (443, "https", "Apache httpd", "2.4.52"),
    (3306, "mysql", "MySQL", "5.7.16"),
    (25, "smtp", "Postfix smtpd", ""),
    (8080, "http-proxy", "Squid http proxy", "3.5.27"),
]


def addresses(count: int, seed: int) -> list[str]:
    """IPv4 addresses: half of them in networks of the test databases, half anywhere."""
    chosen = random.Random(seed)  # noqa: S311 the same hosts for the same seed
    networks: list[Any] = []
    for path in (ASN_FILE, CITY_FILE):
        with maxminddb.open_database(str(path)) as reader:
            for each in cast(Any, reader):
                network = ip_network(each[0])
                if network.version == 4 and network.prefixlen >= 8:
                    networks.append(network)
    found: set[str] = set()
    while len(found) < count:
        if len(found) % 2:
            network = chosen.choice(networks)
            found.add(str(network[chosen.randrange(network.num_addresses)]))
        else:
            found.add(str(ip_address(chosen.randrange(0x01000000, 0xDF000000))))
    return sorted(found)


def report(hosts: list[str], seed: int) -> str:
    """What nmap would write about these hosts: two services each, on the average."""
    chosen = random.Random(seed)  # noqa: S311 likewise
    return "".join(_report(hosts, chosen))


def _report(hosts: list[str], chosen: random.Random) -> Iterator[str]:
    yield '<?xml version="1.0"?><nmaprun scanner="nmap">'
    for address in hosts:
        services = {each[0]: each for each in chosen.sample(_SERVICES, chosen.randint(1, 4))}
        yield f'<host><status state="up"/><address addr="{address}" addrtype="ipv4"/><ports>'
        for number, name, product, version in services.values():
            yield f'<port protocol="tcp" portid="{number}"><state state="open"/>'
            yield f'<service name="{name}" product="{product}" version="{version}"/></port>'
        yield "</ports></host>"
    yield "</nmaprun>"


async def prepare(http: httpx.AsyncClient, hosts: list[str], seed: int) -> None:
    """Submit all hosts, and wait until they are in the graph and enriched."""
    key = SigningKey.generate()
    begun = time.perf_counter()
    jobs: list[str] = []
    for start in range(0, len(hosts), CHUNK_HOSTS):
        body = seal(report(hosts[start : start + CHUNK_HOSTS], seed + start), key, timestamp_s=int(time.time()))
        answer = await http.post("/v1/mesh/ingest", content=body)
        jobs.append(answer.raise_for_status().json()["job_id"])
    for job_id in jobs:
        while (await http.get(f"/v1/jobs/{job_id}")).json()["state"] != "completed":
            await asyncio.sleep(0.05)  # between two looks
    ingested_s = time.perf_counter() - begun
    print(f"{len(hosts)} hosts ingested in {ingested_s:.1f} s", flush=True)
    for job_id in jobs:
        while (answer := await http.get(f"/v1/enrich/job-{job_id}")).status_code == 404 or (
            answer.json()["state"] == "running"
        ):
            await asyncio.sleep(0.05)  # between two looks
    print(f"and enriched {time.perf_counter() - begun - ingested_s:.1f} s later", flush=True)


def questions(hosts: list[str]) -> dict[str, tuple[str, str, Any]]:
    """Name -> method, path, body. One of them is asked with another host each time."""
    graph = "/v1/query/graph"
    kinds: dict[str, dict[str, Any]] = {
        "by_asn": {"asn": 1221},
        "by_location, country": {"country": "GB"},
        "by_location, city": {"city": "London", "country": "GB"},
        "by_port": {"port": 443},
        "by_service, product": {"product": "OpenSSH"},
        "by_service, name": {"service": "http"},
        "by_vuln": {"cve": "CVE-2017-7679"},
        "neighbours, network": {"ip": "{host}", "via": ["asn"]},
        "neighbours, all": {"ip": "{host}"},
    }
    asked: dict[str, tuple[str, str, Any]] = {
        f"host, depth {depth}": ("GET", f"/v1/query/host/{{host}}?depth={depth}", None) for depth in range(6)
    }
    for name, body in kinds.items():
        asked[name] = ("POST", graph, {"query_type": name.partition(",")[0], **body})
    asked["new, hosts"] = ("GET", "/v1/query/new?since=2020-01-01T00:00:00Z&limit=100", None)
    asked["new, ports"] = ("GET", "/v1/query/new?since=2020-01-01T00:00:00Z&limit=100&kind=port", None)
    asked["similar"] = ("POST", "/v1/query/similar", {"query": "buffer over-read in a web server's mime module"})
    return asked


async def measure(http: httpx.AsyncClient, hosts: list[str], times: int, seed: int) -> None:
    """Ask everything and print a table in Markdown. Processor time as well: the machine may have other work."""
    chosen = random.Random(seed)  # noqa: S311 likewise
    print(f"\nload of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors\n")
    print("| Query | median ms | 95 % ms | median CPU ms | results | total |\n|---|---|---|---|---|---|")
    for name, (method, path, body) in questions(hosts).items():
        taken: list[float] = []
        worked: list[float] = []
        shown: dict[str, Any] = {}
        for _ in range(times):
            host = chosen.choice(hosts)
            filled = {key: host if value == "{host}" else value for key, value in body.items()} if body else None
            begun, began_work = time.perf_counter(), time.process_time()
            answer = await http.request(method, path.replace("{host}", host), json=filled)
            taken.append((time.perf_counter() - begun) * 1000)
            worked.append((time.process_time() - began_work) * 1000)
            if answer.status_code != 408:  # given up after the time limit, which is in the figures then
                shown = answer.raise_for_status().json()
        results = shown.get("results", [shown.get("host")])
        total = shown.get("pagination", {}).get("total", "")
        medians = f"{statistics.median(taken):.1f} | {statistics.quantiles(taken, n=20)[-1]:.1f}"
        print(f"| {name} | {medians} | {statistics.median(worked):.1f} | {len(results)} | {total} |", flush=True)


async def run(host_count: int, times: int, seed: int, directory: Path) -> None:
    """All of it in `directory`."""
    server = uvicorn.Server(
        uvicorn.Config(create_mirror(), host="127.0.0.1", port=0, log_level="error", lifespan="off")
    )
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)  # between two looks
    port = server.servers[0].sockets[0].getsockname()[1]
    settings = Settings(
        geoip_asn_path=ASN_FILE,
        geoip_city_path=CITY_FILE,
        kev_path=KEV_FILE,
        nvd_enabled=True,
        nvd_url=f"http://127.0.0.1:{port}{PATH}",
        nvd_requests_per_30s=3000,
        read_per_minute=10_000_000,
    )
    hosts = addresses(host_count, seed)
    async with (
        Store(directory / "surreal") as store,
        Engine(create_app(store, settings), db=directory / "e.db") as engine,
    ):
        transport = httpx.ASGITransport(app=create_api(store, engine.client, settings))
        async with httpx.AsyncClient(transport=transport, base_url="http://recon", timeout=60) as http:
            await prepare(http, hosts, seed)
            await measure(http, hosts, times, seed)
    server.should_exit = True
    await serving


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m apps.recon.queries.measure", description=__doc__)
    parser.add_argument("--hosts", type=int, default=10_000)
    parser.add_argument("--times", type=int, default=40, help="how often each query is asked")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="recon-measure-") as directory:
        asyncio.run(run(arguments.hosts, arguments.times, arguments.seed, Path(directory)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
