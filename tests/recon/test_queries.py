"""Questions to the graph, over HTTP, against a graph made by real scans and real enrichment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from apps.recon.api import create_api
from apps.recon.enrich.findings import keep_vulnerabilities
from apps.recon.enrich.kev import read_catalogue
from apps.recon.http import ApiError
from apps.recon.queries import reading
from apps.recon.settings import Settings
from apps.recon.store import Store
from tests.recon.intel import FULLSCAN, KEV_FILE, Intel, intel, nvd_mirror
from tests.recon.test_cpe import RECORDS
from tests.recon.test_enrich import everything, nmap_report

LINKOPING = ["89.160.20.112", "89.160.20.115", "89.160.20.120"]
LONDON = ["81.2.69.142", "81.2.69.160"]
SSH_HOST = "192.168.1.4"
SCANS = {
    LINKOPING[0]: (22, "ssh", "OpenSSH", "7.2p2"),
    LINKOPING[1]: (80, "http", "Apache httpd", "2.4.25"),
    LINKOPING[2]: (22, "ssh", "OpenSSH", "8.4p1"),
    LONDON[0]: (22, "ssh", "OpenSSH", "7.2p2"),
    LONDON[1]: (8022, "ssh", "OpenSSH", "7.2p2"),
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five made hosts in known networks, and a real report, enriched."""
    directory = tmp_path_factory.mktemp("queries")

    async def prepare() -> None:
        async with nvd_mirror() as mirror, intel(directory, Settings(**everything(mirror))) as recon:
            job = await recon.ingest(FULLSCAN.read_bytes())
            await recon.enrich(job_id=job)
            for address, service in SCANS.items():
                await recon.ingest(nmap_report(address, *service))
            await recon.enrich(hosts=list(SCANS))

    asyncio.run(prepare())
    return directory


@pytest.fixture
async def recon(prepared: Path) -> AsyncIterator[Intel]:
    """The API on that; the tests only read, so there is no engine."""
    async with Store(prepared / "surreal") as store:
        yield reading_only(store, Settings())


def reading_only(store: Store, settings: Settings) -> Intel:
    api = create_api(store, None, settings)  # pyright: ignore[reportArgumentType] no query starts anything
    http = httpx.AsyncClient(transport=httpx.ASGITransport(app=api), base_url="http://recon", timeout=30)
    return Intel(http, store, settings)


async def ask(recon: Intel, query_type: str, **body: Any) -> dict[str, Any]:
    answer = await recon.http.post("/v1/query/graph", json={"query_type": query_type, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def found(recon: Intel, query_type: str, **body: Any) -> list[str]:
    """The addresses, in the order of the answer."""
    answer = await ask(recon, query_type, **body)
    assert answer["pagination"]["total"] == len(answer["results"])
    return [each["address"] for each in answer["results"]]


# -- one host --------------------------------------------------------------------------------------------------------


async def test_a_host_and_as_much_around_it_as_is_asked_for(recon: Intel):
    seen: list[dict[str, Any]] = []
    for depth in range(6):
        answer = await recon.http.get(f"/v1/query/host/{LINKOPING[0]}?depth={depth}")
        assert answer.status_code == 200, answer.text
        assert answer.json()["depth"] == depth
        seen.append(answer.json()["host"])
    assert (seen[0]["address"], seen[0]["asn"], seen[0]["city"]) == (LINKOPING[0], 29518, "Linköping")
    assert "ports" not in seen[0]
    [port] = seen[1]["ports"]
    assert (port["number"], port["protocol"], port["product"]) == (22, "tcp", "OpenSSH")
    assert "runs" not in port
    runs = seen[2]["ports"][0]["runs"]
    assert (runs["name"], runs["version"], runs["confidence"]) == ("ssh", "7.2p2", 1.0)
    assert runs["cpe"] == ["cpe:2.3:a:openbsd:openssh:7.2:p2:*:*:*:*:*:*"]
    assert "vulnerabilities" not in runs
    [vulnerability] = seen[3]["ports"][0]["runs"]["vulnerabilities"]
    assert (vulnerability["cve_id"], vulnerability["cvss"], vulnerability["severity"]) == (
        "CVE-2018-15473",
        5.3,
        "MEDIUM",
    )
    assert seen[4]["place"]["city"]["name"] == "Linköping"
    assert seen[4]["place"]["region"] == {"code": "E", "name": "Östergötland County"}
    assert seen[4]["place"]["country"] == {"cc": "SE", "name": "Sweden"}
    assert "autonomous_system" not in seen[4]
    assert seen[5]["autonomous_system"] == {"country": None, "number": 29518, "org": "Bredband2 AB"}


async def test_two_is_the_default_and_an_address_may_be_written_otherwise(recon: Intel):
    await recon.know("2001:218::1")
    answer = (await recon.http.get("/v1/query/host/2001:0218:0:0::1")).json()
    assert (answer["depth"], answer["host"]["address"], answer["host"]["ports"]) == (2, "2001:218::1", [])


async def test_services_of_one_host_are_not_shown_on_another(recon: Intel):
    """They share the service's record, but each has its own port."""
    [port] = (await recon.http.get(f"/v1/query/host/{LONDON[1]}?depth=3")).json()["host"]["ports"]
    assert (port["number"], port["runs"]["product"]) == (8022, "OpenSSH")
    [port] = (await recon.http.get(f"/v1/query/host/{LINKOPING[2]}?depth=3")).json()["host"]["ports"]
    assert (port["runs"]["version"], port["runs"]["vulnerabilities"]) == ("8.4p1", [])


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("203.0.113.1", 404, "not_found"),
        ("example.com", 400, "invalid_parameter"),
        ("81.2.69.142?depth=6", 400, "invalid_parameter"),
        ("81.2.69.142?depth=-1", 400, "invalid_parameter"),
        ("81.2.69.142?depth=two", 400, "invalid_parameter"),
        ("81.2.69.142'; DELETE host", 400, "invalid_parameter"),
    ],
)
async def test_what_cannot_be_asked_of_a_host(recon: Intel, path: str, status: int, error: str):
    answer = await recon.http.get(f"/v1/query/host/{path}")
    body = answer.json()
    assert (answer.status_code, body["error"], body["code"]) == (status, error, status)
    assert body.keys() == {"error", "message", "code", "timestamp"}


# -- hosts by what they have -----------------------------------------------------------------------------------------


async def test_by_network(recon: Intel):
    assert await found(recon, "by_asn", asn=29518) == LINKOPING
    assert await found(recon, "by_asn", asn=1) == []


async def test_by_place_the_most_precise_one_decides(recon: Intel):
    assert await found(recon, "by_location", country="se") == LINKOPING
    assert await found(recon, "by_location", country="GB") == LONDON
    assert await found(recon, "by_location", region="Östergötland County") == LINKOPING
    assert await found(recon, "by_location", region="e", country="SE") == LINKOPING
    assert await found(recon, "by_location", city="London") == LONDON
    assert await found(recon, "by_location", city="London", country="GB") == LONDON
    assert await found(recon, "by_location", city="London", country="SE") == []
    assert await found(recon, "by_location", city="London", region="England", country="GB") == LONDON
    assert await found(recon, "by_location", region="Nowhere") == []


async def test_by_vulnerability_with_the_port_that_has_it(recon: Intel):
    answer = await ask(recon, "by_vuln", cve="cve-2018-15473")
    hosts = {each["address"]: [port["number"] for port in each["ports"]] for each in answer["results"]}
    assert hosts == {SSH_HOST: [22], LINKOPING[0]: [22], LONDON[0]: [22], LONDON[1]: [8022]}
    assert await found(recon, "by_vuln", cve="CVE-1999-0001") == []


async def test_by_service_and_by_port(recon: Intel):
    ssh = sorted([SSH_HOST, LINKOPING[0], LINKOPING[2], *LONDON])
    assert await found(recon, "by_service", product="OpenSSH") == ssh
    assert await found(recon, "by_service", service="ssh") == ssh
    assert await found(recon, "by_service", product="OpenSSH", service="http") == []
    assert await found(recon, "by_service", product="openssh' OR true") == []
    assert await found(recon, "by_port", port=8022) == [LONDON[1]]
    assert await found(recon, "by_port", port=8022, protocol="udp") == []
    in_report = [LINKOPING[1]] + [
        each["address"] for each in await recon.rows("SELECT host.address AS address FROM port WHERE number = 80")
    ]
    assert await found(recon, "by_port", port=80, protocol="tcp") == sorted(set(in_report))


async def test_neighbours_share_something_and_the_closest_come_first(recon: Intel):
    answer = await ask(recon, "neighbours", ip=LINKOPING[0])
    shares = {each["address"]: each["shares"] for each in answer["results"]}
    assert shares == {
        LINKOPING[1]: ["asn", "city"],
        LINKOPING[2]: ["asn", "city"],
        LONDON[0]: ["service", "vuln"],
        LONDON[1]: ["service", "vuln"],
        SSH_HOST: ["vuln"],
    }
    assert answer["results"][-1]["address"] == SSH_HOST
    assert await found(recon, "neighbours", ip=LINKOPING[0], via=["city"]) == LINKOPING[1:]
    missing = await recon.http.post("/v1/query/graph", json={"query_type": "neighbours", "ip": "203.0.113.1"})
    assert (missing.status_code, missing.json()["error"]) == (404, "not_found")


async def test_pages_hold_everything_once(recon: Intel):
    whole = await found(recon, "by_service", product="OpenSSH")
    pages: list[str] = []
    offset: int | None = 0
    while offset is not None:
        answer = await ask(recon, "by_service", product="OpenSSH", limit=2, offset=offset)
        assert answer["pagination"]["total"] == len(whole)
        pages += [each["address"] for each in answer["results"]]
        offset = answer["pagination"]["next_offset"]
        assert answer["pagination"]["has_more"] == (offset is not None)
    assert pages == whole
    beyond = await ask(recon, "by_asn", asn=29518, offset=50)
    assert (beyond["results"], beyond["pagination"]["total"], beyond["pagination"]["has_more"]) == ([], 3, False)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"query_type": "by_asn"}, "needs asn"),
        ({"query_type": "by_location"}, "needs city, region or country"),
        ({"query_type": "by_vuln"}, "needs cve"),
        ({"query_type": "by_service"}, "needs product or service"),
        ({"query_type": "by_port"}, "needs port"),
        ({"query_type": "by_port", "port": 65536}, "65535"),
        ({"query_type": "neighbours"}, "needs ip"),
        ({"query_type": "neighbours", "ip": "x"}, "is not an IP address"),
        ({"query_type": "by_asn", "asn": 1, "limit": 0}, "limit must be from 1 to 1000"),
        ({"query_type": "by_asn", "asn": 1, "limit": 1001}, "limit must be from 1 to 1000"),
        ({"query_type": "by_asn", "asn": 1, "offset": -1}, "offset must be"),
        ({"query_type": "by_asn", "asn": "1; REMOVE TABLE host"}, "asn"),
        ({"query_type": "by_service", "product": "a\u0000b"}, "printable"),
        ({"query_type": "by_colour"}, "by_colour"),
        ({"query_type": "by_asn", "asn": 1, "colour": 1}, "colour"),
        ({}, "query_type"),
    ],
)
async def test_what_cannot_be_asked_of_the_graph(recon: Intel, body: dict[str, Any], message: str):
    answer = await recon.http.post("/v1/query/graph", json=body)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    assert message in answer.json()["message"]


async def test_a_body_that_is_no_json(recon: Intel):
    for path in ("graph", "similar"):
        answer = await recon.http.post(f"/v1/query/{path}", content=b"{")
        assert (answer.status_code, answer.json()["error"], answer.json()["code"]) == (400, "invalid_json", 400)


# -- what is new -----------------------------------------------------------------------------------------------------


async def test_what_is_new_comes_once_and_in_the_order_in_which_it_came(recon: Intel):
    """Also what was added in the same moment, as the hosts of one scan nearly are."""
    for kind in ("host", "port"):
        names = await recon.rows(_ALL[kind])
        everything_: list[str] = []
        query: dict[str, Any] = {"since": "2020-01-01T00:00:00Z"}
        while True:
            answer = await recon.http.get("/v1/query/new", params={**query, "kind": kind, "limit": 3})
            assert answer.status_code == 200, answer.text
            page = answer.json()
            everything_ += [name(each) for each in page["results"]]
            query = {"cursor": page["next_cursor"]}
            if not page["has_more"]:
                break
        assert len(everything_) == len(set(everything_))
        assert sorted(everything_) == sorted(names)


_ALL = {
    "host": "SELECT VALUE address FROM host",
    "port": "SELECT VALUE string::join(' ', host.address, protocol, <string>number) FROM port",
}


def name(row: dict[str, Any]) -> str:
    return f"{row['address']} {row['protocol']} {row['number']}" if "number" in row else row["address"]


async def test_the_first_and_the_last_moment_of_the_calendar_can_be_asked_for(recon: Intel):
    """What other languages take for "ever": no database counts that far in nanoseconds."""
    ever, never = [
        (await recon.http.get("/v1/query/new", params={"since": since})).json()["count"]
        for since in ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z")
    ]
    assert (ever, never) == (len(await recon.rows(_ALL["host"])), 0)
    jobs = [
        (await recon.http.get("/v1/jobs", params={which: "0001-01-01T00:00:00Z"})).json()["total"]
        for which in ("created_after", "created_before")
    ]
    assert jobs[0] > jobs[1] == 0


async def test_the_last_cursor_gives_what_comes_later_even_if_it_was_seen_before(tmp_path: Path):
    async with intel(tmp_path, Settings(enrich_after_ingest=False)) as recon:
        await recon.ingest(nmap_report("192.0.2.1", 22, "ssh"))
        first = (await recon.http.get("/v1/query/new?since=2020-01-01T00:00:00Z")).json()
        assert (first["count"], first["has_more"]) == (1, False)
        again = (await recon.http.get(f"/v1/query/new?cursor={first['next_cursor']}")).json()
        assert (again["count"], again["next_cursor"]) == (0, first["next_cursor"])
        # A scan of a minute ago that comes now; and the first host again, which is not new.
        await recon.ingest(nmap_report("192.0.2.2", 22, "ssh"), later_s=-60)
        await recon.ingest(nmap_report("192.0.2.1", 80, "http"))
        later = (await recon.http.get(f"/v1/query/new?cursor={first['next_cursor']}")).json()
        assert [each["address"] for each in later["results"]] == ["192.0.2.2"]
        since = datetime.now(UTC).isoformat()
        assert (await recon.http.get("/v1/query/new", params={"since": since})).json()["results"] == []


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "either since, or the cursor"),
        ("?since=2026-01-01T00:00:00Z&cursor=x", "either since, or the cursor"),
        ("?since=yesterday", "since must be a time"),
        ("?since=2026-01-01T00:00:00", "since must be a time"),
        ("?since=0001-01-01T00:00:00%2B14:00", "since must be a time"),
        ("?cursor=x", "the cursor is not one"),
        ("?cursor=WyJwb3J0IiwxNzY3MjI1NjAwMDAwMDAwMDAwLG51bGxd", "the cursor belongs to a list of ports"),
        ("?since=2026-01-01T00:00:00Z&kind=job", "kind must be one of host, port"),
        ("?since=2026-01-01T00:00:00Z&limit=1001", "limit must be"),
    ],
)
async def test_what_cannot_be_asked_of_what_is_new(recon: Intel, query: str, message: str):
    answer = await recon.http.get(f"/v1/query/new{query}")
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_parameter")
    assert message in answer.json()["message"]


# -- texts -----------------------------------------------------------------------------------------------------------


async def test_texts_that_fit_best_come_first(tmp_path: Path):
    """All real records, kept as enrichment keeps them."""
    async with intel(tmp_path, Settings()) as recon:
        await keep_vulnerabilities(recon.store, list(RECORDS.values()), read_catalogue(KEV_FILE, setting="x"))

        async def similar(query: str, k: int = 5) -> list[dict[str, Any]]:
            answer = await recon.http.post("/v1/query/similar", json={"query": query, "k": k})
            assert answer.status_code == 200, answer.text
            assert answer.json()["count"] == len(answer.json()["results"]) <= k
            return answer.json()["results"]

        assert (await similar("user enumeration in OpenSSH"))[0]["cve_id"] == "CVE-2018-15473"
        assert (await similar("read past the end of a buffer by mod_mime"))[0]["cve_id"] == "CVE-2017-7679"
        vim = (await similar("vim"))[0]
        assert (vim["cve_id"], vim["kev_flag"]) == ("CVE-2022-0554", False)
        assert vim["score"] > 0
        exchange = (await similar("something like CVE-2021-26855", 3))[0]
        assert (exchange["cve_id"], exchange["kev_flag"]) == ("CVE-2021-26855", True)
        scores = [each["score"] for each in await similar("attackers overflow the buffer of a router", 20)]
        assert scores == sorted(scores, reverse=True)
        assert len(scores) > 5
        assert await similar("zzzzz") == []
        assert await similar("?!") == []
        for hostile in ("'; REMOVE TABLE vuln_doc; --", "a) OR true", "@0@", "$t0", "é 中文"):
            await similar(hostile)
        assert len(await similar(" ".join(f"word{index}" for index in range(60)), 50)) == 0
        assert (await similar("vim"))[0]["cve_id"] == "CVE-2022-0554"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "query"),
        ({"query": "  "}, "1 to 500 characters"),
        ({"query": "x" * 501}, "1 to 500 characters"),
        ({"query": "x", "k": 0}, "k must be from 1 to 50"),
        ({"query": "x", "k": 51}, "k must be from 1 to 50"),
        ({"query": "a\u0000b"}, "printable"),
    ],
)
async def test_what_cannot_be_searched(recon: Intel, body: dict[str, Any], message: str):
    answer = await recon.http.post("/v1/query/similar", json=body)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    assert message in answer.json()["message"]


# -- limits ----------------------------------------------------------------------------------------------------------


async def test_a_query_that_takes_too_long_is_given_up(recon: Intel, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reading, "TIME_LIMIT_S", 0.0)
    for method, path, body in (
        ("GET", f"/v1/query/host/{LONDON[0]}", None),
        ("POST", "/v1/query/graph", {"query_type": "by_asn", "asn": 1}),
        ("POST", "/v1/query/similar", {"query": "x"}),
        ("GET", "/v1/query/new?since=2026-01-01T00:00:00Z", None),
    ):
        answer = await recon.http.request(method, path, json=body)
        assert (answer.status_code, answer.json()["error"], answer.json()["code"]) == (408, "query_timeout", 408), path


async def test_the_databases_own_time_limit_is_the_same_answer(recon: Intel, monkeypatch: pytest.MonkeyPatch):
    look = reading.Reading(recon.store, "a long look")
    with pytest.raises(ApiError) as caught:
        await look("SELECT * FROM host WHERE sleep(20ms) = NONE TIMEOUT 1ms")
    assert (caught.value.status, caught.value.code) == (408, "query_timeout")


async def test_a_slow_query_is_told_to_the_log(
    recon: Intel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(reading, "SLOW_S", 0.0)
    await found(recon, "by_asn", asn=29518)
    assert ("slow_query", "by_asn") in [(each.message, getattr(each, "query", "")) for each in caplog.records]


async def test_reads_are_limited_per_caller(tmp_path: Path):
    async with intel(tmp_path, Settings(read_per_minute=2)) as recon:
        answers = [await recon.http.get("/v1/query/host/192.0.2.1") for _ in range(3)]
        assert [each.status_code for each in answers] == [404, 404, 429]
        assert (answers[2].json()["code"], "retry-after" in answers[2].headers) == (429, True)


async def test_a_database_that_is_gone_is_503(tmp_path: Path):
    """A SurrealDB server that nobody runs."""
    settings = Settings(surrealdb_url="ws://127.0.0.1:9", surrealdb_user="recon", surrealdb_pass="secret")
    recon = reading_only(Store.from_settings(settings), settings)
    answer = await recon.http.get("/v1/query/host/192.0.2.1")
    assert (answer.status_code, answer.json()["error"]) == (503, "unavailable")
