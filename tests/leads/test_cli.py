"""The command line, against a server of its own: tables for people, JSON for scripts, an exit code for both."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pytest
from click.testing import CliRunner, Result

from apps.leads import client
from apps.leads.cli import main
from apps.leads.cli_output import client_of
from tests.leads.local_web import local_web
from tests.leads.ui import served
from tests.leads.world import PAGES
from tests.support.restate_server import free_ports

CONFIGURED = [name for name in os.environ if name.startswith(("LEADS_", "RESTATE_"))]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(tmp_path_factory.mktemp("leads"), "--demo-sites") as url:
        yield url


def leads(url: str, *arguments: str, user: str = "ada") -> Result:
    return CliRunner().invoke(main, ["--url", url, "--user", user, *arguments], env={"LEADS_API_KEY": None})


def ok(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def test_discover_enrich_look_and_export(url: str, tmp_path: Path) -> None:
    assert "booked $10.00" in ok(leads(url, "wallet", "top-up", "1000", "--payment", "p1"))
    assert "balance $10.00" in ok(leads(url, "wallet", "top-up", "1000", "--payment", "p1"))  # once

    found = ok(leads(url, "discover", "bakery", "Arlon"))
    assert found.splitlines()[0].split()[:2] == ["SCORE", "BUSINESS"]
    assert len(found.splitlines()) == 10  # the head, 8 bakeries, and how it ended
    assert "completed discovery-" in found
    assert "bakery in Arlon, $1.00" in found
    listed = json.loads(ok(leads(url, "jobs", "list", "--json")))["jobs"]
    discovery = listed[0]["job_id"]

    enriched = json.loads(ok(leads(url, "enrich", discovery, "--limit", "3", "--json")))
    assert enriched["job"]["status"] == "completed"
    scores = [one["lead"]["score"] for one in enriched["leads"]]
    assert scores == sorted(scores, reverse=True)
    job_id, lead_id = enriched["job"]["job_id"], enriched["leads"][0]["lead_id"]

    shown = ok(leads(url, "jobs", "show", job_id))
    assert "deep-audit" in shown
    assert "enrichment completed" in shown
    assert ok(leads(url, "jobs", "cost", job_id)).splitlines()[-1].split() == ["all", "6", "$0.0000"]
    assert ok(leads(url, "jobs", "watch", job_id)).startswith(f"completed {job_id}")
    assert discovery in ok(leads(url, "jobs", "list", "--status", "completed"))
    assert len(json.loads(ok(leads(url, "leads", job_id, "--json")))) == 3
    assert "SCORE" in ok(leads(url, "leads"))

    again = leads(url, "enrich", "--limit", "1", "--no-wait")  # of the newest discovery, which there is
    assert (again.exit_code, "insufficient funds" in again.stderr) == (1, True)
    report = tmp_path / "report.html"
    assert "wrote" in ok(leads(url, "report", lead_id, "-o", str(report)))
    assert "Why this score" in report.read_text()
    assert "Why this score" in ok(leads(url, "report"))
    parquet = tmp_path / "leads.parquet"
    ok(leads(url, "export", job_id, "-o", str(parquet)))
    with duckdb.connect() as database:
        assert database.execute("SELECT count(*) FROM read_parquet(?)", [str(parquet)]).fetchall() == [(3,)]
    assert ok(leads(url, "export", job_id, "--format", "csv")).startswith("lead_id,job_id,")

    lines = json.loads(ok(leads(url, "wallet", "ledger", "--json")))
    assert [line["kind"] for line in lines] == ["top_up", "charge", "hold", "capture"]
    assert sum(line["amount_cents"] for line in lines) == 400
    assert "capture" in ok(leads(url, "wallet", "ledger"))
    assert ok(leads(url, "wallet", "show")).startswith("ada: $4.00")


def test_the_same_client_key_is_the_same_job(url: str) -> None:
    ok(leads(url, "wallet", "top-up", "100", user="eve"))
    order = ("discover", "butcher", "Arlon", "--no-scan", "--client-key", "k", "--json")
    first, again = (json.loads(ok(leads(url, *order, user="eve")))["job"]["job_id"] for _ in range(2))
    assert first == again


def test_a_payment_that_is_told_again_shows_the_balance_of_now(url: str) -> None:
    answers = [ok(leads(url, "wallet", "top-up", "100", "--payment", name, user="kim")) for name in ("a", "b", "a")]
    assert [answer.split()[-1] for answer in answers] == ["$1.00", "$2.00", "$2.00"]


def test_businesses_can_come_from_a_file(url: str, tmp_path: Path) -> None:
    path = tmp_path / "businesses.json"
    path.write_text('[{"place_id": "mine/1", "name": "Mine", "website": "http://mine.example"}]')
    ok(leads(url, "wallet", "top-up", "500", user="joe"))
    found = json.loads(ok(leads(url, "enrich", "--file", str(path), "--json", user="joe")))
    assert [one["lead"]["business"]["name"] for one in found["leads"]] == ["Mine"]
    path.write_text('[{"name": "Mine"}]')
    refused = leads(url, "enrich", "--file", str(path), user="joe")
    assert (refused.exit_code, "place_id" in refused.stderr) == (1, True)


def test_without_a_discovery_there_is_nothing_to_enrich(url: str) -> None:
    refused = leads(url, "enrich", user="new")
    assert (refused.exit_code, "no completed discovery" in refused.stderr) == (1, True)


def test_without_money_it_says_how_much_is_missing_and_what_to_do(url: str) -> None:
    refused = leads(url, "discover", "bakery", "Arlon", user="poor")
    assert refused.exit_code == 1
    assert refused.stderr == (
        "error: insufficient funds: 100 cents required, 0 available\nnext: `leads wallet top-up CENTS`\n"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("jobs", "show", "nope"), 1, "there is no job nope"),
        (("jobs", "cancel", "nope", "--yes"), 1, "there is no job nope"),
        (("jobs", "cancel", "nope"), 1, "Cancel nope and give its money back? [y/N]"),
        (("jobs", "resume", "nope"), 1, "there is no job nope"),
        (("report", "nope"), 1, "404"),
        (("discover", "nothing like it", "Arlon"), 1, "niche"),
        (("discover", "bakery"), 2, "LOCATION"),
        (("discover", "bakery", "Arlon", "--limit", "0"), 2, "limit"),
        (("enrich", "job", "--file", __file__), 2, "either"),
        (("export", "-o", "leads.xlsx"), 2, "csv, json, parquet"),
        (("wallet", "top-up", "0"), 2, "CENTS"),
        (("scan-website",), 2, "--file"),
    ],
)
def test_a_mistake_is_one_line(url: str, arguments: tuple[str, ...], code: int, says: str) -> None:
    result = leads(url, *arguments)
    assert result.exit_code == code
    assert says in result.stderr
    assert "Traceback" not in result.output


def test_a_job_that_fails_is_exit_code_1_and_resumes_by_one_command(tmp_path: Path) -> None:
    extract = tmp_path / "arlon_2020-01-01.geojson"
    extract.write_text("{")
    with served(tmp_path, LEADS_OSM_FILES=str(tmp_path)) as url:
        ok(leads(url, "wallet", "top-up", "100"))
        failed = leads(url, "discover", "bakery", "Arlon", "--no-scan")
        assert failed.exit_code == 1
        assert failed.stderr.startswith("failed discovery-")
        job_id = failed.stderr.split()[1].rstrip(",")
        assert "$1.00, $0.00 of it held" in ok(leads(url, "wallet", "show"))
        extract.write_text('{"type": "FeatureCollection", "features": []}')
        assert ok(leads(url, "jobs", "resume", job_id)).startswith(f"completed {job_id}")
        assert "$0.00" in ok(leads(url, "wallet", "show"))


def test_a_job_is_followed_through_a_restart_of_the_server(tmp_path: Path) -> None:
    """Killed while the search waits, started again on the same port: who watches sees the end."""
    [port] = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    with local_web() as web, client_of({"url": url, "key": None}) as client, ThreadPoolExecutor(1) as thread:
        web.route("/search", web.hold())
        variables = {"LEADS_OVERPASS_URL": f"{web.url}/search", "LEADS_BUSINESS_DIRECTORY": "overpass"}
        with served(tmp_path, "--port", str(port), is_killed=True, **variables):
            ok(leads(url, "wallet", "top-up", "100"))
            line = ok(leads(url, "discover", "bakery", "Arlon", "--no-scan", "--no-wait"))
            watching = client.follow(line.split()[1].rstrip(","))
            assert next(watching)[0].status in ("pending", "running")
            last = thread.submit(lambda: [job.status for job, _ in watching][-1])
        assert not last.done()
        web.answers("/search", [{"elements": []}])
        web.let_go()
        with served(tmp_path, "--port", str(port), is_killed=False, **variables):
            assert last.result(60) == "completed"


def test_nobody_there_is_said_in_one_line() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "CONNECTION_ATTEMPTS", 0)
        result = leads("http://127.0.0.1:1", "jobs", "list")
    assert result.exit_code == 1
    assert "no answer from http://127.0.0.1:1" in result.stderr
    assert "python -m apps.leads serve" in result.stderr


def test_the_scanner_can_be_tried_alone() -> None:
    page = str(PAGES / "bakery.html")
    result = CliRunner().invoke(main, ["scan-website", "--file", page])
    assert result.exit_code == 0
    assert "Boulangerie Exemple" in result.stdout
    scan = json.loads(CliRunner().invoke(main, ["scan-website", "--file", page, "--json"]).stdout)
    assert scan["contact"]["emails"]
    assert CliRunner().invoke(main, ["scan-website", "--file", "nope.html"]).exit_code == 2


@pytest.mark.parametrize(
    ("options", "variables", "says"),
    [
        (("--host", "0.0.0.0"), {}, "LEADS_API_MASTER_KEY is required"),
        (("--keys", "{"), {}, "LEADS_API_KEYS"),
        (("--keys", '{"": "ada"}'), {}, "LEADS_API_KEYS"),
        (("--discord-public-key", "zz"), {}, "LEADS_API_DISCORD_PUBLIC_KEY"),
        (("--engine", "restate"), {}, "RESTATE_INGRESS_URL"),
        ((), {"LEADS_COLOUR": "red"}, "LEADS_COLOUR"),
        (("--engine", "restate"), {"RESTATE_INGRESS_URL": "http://127.0.0.1:1"}, "127.0.0.1"),
    ],
)
def test_serve_refuses_what_makes_no_sense(
    tmp_path: Path, options: tuple[str, ...], variables: dict[str, str | None], says: str
) -> None:
    result = CliRunner().invoke(
        main, ["serve", "--port", "0", "--dir", str(tmp_path), *options], env=dict.fromkeys(CONFIGURED) | variables
    )
    assert result.exit_code == 1, result.output
    assert says in result.stderr
    assert "next: " in result.stderr
    assert "Traceback" not in result.stderr
