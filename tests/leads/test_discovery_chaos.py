"""SIGKILL again and again, wherever the process happens to be: every job ends, and the money adds up to the cent.

In CI a few kills per engine. `CHAOS_KILLS=20 CHAOS_SEED=7` kills more, at other moments.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from apps.leads.booking import LedgerEntry
from apps.leads.model import Business, DiscoveryRequest, EnrichmentRequest, JobStatus, JobView
from apps.leads.settings import EngineName, Settings
from apps.leads.wallet import WalletView, balance_of
from tests.leads.dying import Order
from tests.leads.local_web import LocalWeb, Request
from tests.leads.world import settings_for
from tests.support.processes import REPOSITORY
from tests.support.restate_server import running_server, skip_without_server

KILLS = int(os.environ.get("CHAOS_KILLS", "2"))
SEED = int(os.environ.get("CHAOS_SEED", "0"))
PATIENCE_S = 60.0 + 10 * KILLS
DISCOVERIES, ENRICHMENTS, SITES = 4, 3, 4
TOP_UP_CENTS = 10_000
PAGE = "<!doctype html><title>A bakery</title><h1>Bread</h1>"
REPORT = {"score": 40, "issues": []}

# The load of a machine decides how long a start takes; the limit is there to end what hangs.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(120 + 30 * KILLS)]


class Summary(msgspec.Struct):
    jobs: list[JobView]
    wallet: WalletView
    ledger: list[LedgerEntry]


@contextmanager
def process(order: Order, settings: Settings) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.leads.dying", msgspec.json.encode(order).decode()]
    environ = {**os.environ, **settings.to_environment(), "HOLDFAST_WORKFLOW_RESTATE_DRAIN": "50ms"}
    with (settings.directory / "stderr").open("a") as errors:
        running = subprocess.Popen(
            command, cwd=REPOSITORY, env=environ, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        try:
            yield running
        finally:
            running.kill()
            running.communicate()


def killed_again_and_again(order: Order, settings: Settings, web: LocalWeb, chance: random.Random) -> Summary:
    """Kill the process each time the outside was asked a few more times, then let it finish."""
    hits = 0
    for _ in range(KILLS):
        limit = len(web.requests) + chance.randint(1, 8)
        deadline = time.monotonic() + PATIENCE_S
        with process(order, settings) as running:
            while len(web.requests) < limit and running.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.002)  # between two looks at what it asked
            time.sleep(chance.random() * 0.05)  # so that the kill is not always right after a request
            hits += running.poll() is None
    log = (settings.directory / "stderr").read_text()
    assert hits >= min(KILLS, 2), f"the work was done before it could be interrupted: {log[-2000:]}"
    with process(order, settings) as running:
        out, _ = running.communicate(timeout=PATIENCE_S)
        assert running.returncode == 0, (settings.directory / "stderr").read_text()[-2000:]
    return msgspec.json.decode(out.splitlines()[-1], type=Summary)


def the_outside(web: LocalWeb, chance: random.Random) -> None:
    """Searches that fail now and then, and for good in Town-3; sites; an audit that refuses one business; a webhook."""

    def search(request: Request) -> object:
        if b"Town-3" in request.body:
            return 400
        if chance.random() < 0.2:
            return 503
        [number] = [number for number in range(DISCOVERIES) if f"Town-{number}".encode() in request.body]
        return {
            "elements": [
                {
                    "type": "node",
                    "id": 100 * number + site,
                    "tags": {"shop": "bakery", "name": f"B{site}", "website": f"http://t{number}-{site}.example"},
                }
                for site in range(SITES)
            ]
        }

    def audit(request: Request) -> object:
        if request.json["business_name"].startswith("Refused"):
            return 400
        return 503 if chance.random() < 0.1 else REPORT

    web.route("/search", search)
    web.route("/api/public-audit", audit)
    web.sites(lambda _: PAGE)
    web.answers("/hook", [204])


def order_for(user: str) -> Order:
    def business(job: int, number: int) -> Business:
        name = "Refused" if job == 2 or number == 1 else "Bakery"
        return Business(place_id=f"p{number}", name=f"{name} {job}-{number}", website=f"http://e{job}-{number}.example")

    return Order(
        user=user,
        top_up_cents=TOP_UP_CENTS,
        discoveries=[
            DiscoveryRequest(
                user_id=user, niche="bakery", location=f"Town-{number}", client_key=f"d{number}", notify=["team"]
            )
            for number in range(DISCOVERIES)
        ],
        enrichments=[
            EnrichmentRequest(
                user_id=user,
                businesses=[business(job, number) for number in range(3)],
                client_key=f"e{job}",
                notify=["team"],
            )
            for job in range(ENRICHMENTS)
        ],
    )


def check_money(summary: Summary) -> None:
    """Every job is paid once if it succeeded, and not at all if it failed; the ledger says the same as the wallet."""
    kinds: dict[str, Counter[str]] = {}
    for line in summary.ledger:
        kinds.setdefault(line.job_id, Counter())[line.kind] += 1
    for job in summary.jobs:
        is_paid = job.status is JobStatus.COMPLETED
        take, settle, undo = (
            ("charge", "", "refund") if job.workflow_id == "discovery" else ("hold", "capture", "release")
        )
        expected = Counter({take: 1, settle if is_paid else undo: 1})
        del expected[""]
        assert kinds[job.job_id] == expected
        assert job.price_cents == (0 if not is_paid else 100 if job.workflow_id == "discovery" else 500)
    spent = sum(job.price_cents or 0 for job in summary.jobs)
    wallet = summary.wallet
    assert (wallet.balance_cents, wallet.held_cents) == (TOP_UP_CENTS - spent, 0)
    assert balance_of(summary.ledger) == (wallet.balance_cents, wallet.held_cents)
    assert [line.seq for line in summary.ledger] == [*range(wallet.booking_count)]


@pytest.mark.parametrize(
    ("discovery", "enrichment"),
    [
        ("embedded", "embedded"),
        pytest.param("restate", "restate", marks=pytest.mark.restate_server),
        pytest.param("embedded", "restate", marks=pytest.mark.restate_server),
    ],
)
def test_discovery_chaos(web: LocalWeb, tmp_path: Path, discovery: EngineName, enrichment: EngineName) -> None:
    chance = random.Random(f"{SEED} {discovery} {enrichment}")
    the_outside(web, chance)
    values: dict[str, Any] = {
        "discovery_engine": discovery,
        "enrichment_engine": enrichment,
        "overpass_url": f"{web.url}/search",
        "business_directory": "overpass",
        "audit_service_url": web.url,
        "webhooks": {"team": f"{web.url}/hook"},
    }
    order = order_for(uuid.uuid4().hex)
    if (discovery, enrichment) == ("embedded", "embedded"):
        summary = killed_again_and_again(order, settings_for(tmp_path, web, **values), web, chance)
    else:
        skip_without_server()
        with running_server() as server:
            values |= {"restate_ingress_url": server.ingress_url, "restate_admin_url": server.admin_url}
            summary = killed_again_and_again(order, settings_for(tmp_path, web, **values), web, chance)
    check_money(summary)
    statuses = [job.status for job in summary.jobs]
    completed, failed = JobStatus.COMPLETED, JobStatus.FAILED
    assert statuses[DISCOVERIES:] == [completed, completed, failed]
    assert statuses[3] is failed  # its search is refused; the others fail only by three 503 in a row
    for job in summary.jobs[:DISCOVERIES]:
        if job.status is completed:
            assert job.result is not None
            assert job.result["stats"]["scanned"] == SITES
    # What is paid for is asked again with the same key only: by a retry, or because the process died meanwhile.
    audits = {request.headers["idempotency-key"] for request in web.asked("/api/public-audit")}
    assert len(audits) == ENRICHMENTS * 3
    told = Counter(request.json["embeds"][0]["fields"][0]["value"] for request in web.asked("/hook"))
    assert all(count == 1 for count in told.values())
    assert set(told) <= {job.job_id for job in summary.jobs}
    searches = Counter(request.body for request in web.asked("/search"))
    assert all(count <= 3 + KILLS for count in searches.values())


def test_a_kill_after_the_search_repeats_neither_the_charge_nor_the_search(web: LocalWeb, tmp_path: Path) -> None:
    the_outside(web, random.Random(0))
    found = {
        "elements": [{"type": "node", "id": 1, "tags": {"shop": "bakery", "name": "B", "website": "http://b.example"}}]
    }
    web.answers("/search", [found])
    web.sites(web.hold())
    settings = settings_for(tmp_path, web, overpass_url=f"{web.url}/search", business_directory="overpass")
    request = DiscoveryRequest(user_id="ada", niche="bakery", location="Town-0", client_key="k")
    order = Order(user="ada", top_up_cents=100, discoveries=[request], enrichments=[])
    with process(order, settings) as running:
        deadline = time.monotonic() + PATIENCE_S
        while not web.asked("/sites/"):
            assert running.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.002)  # between two looks at what it asked
    web.sites(lambda _: PAGE)
    with process(order, settings) as running:
        out, _ = running.communicate(timeout=PATIENCE_S)
    summary = msgspec.json.decode(out.splitlines()[-1], type=Summary)
    assert [job.status for job in summary.jobs] == [JobStatus.COMPLETED]
    assert len(web.asked("/search")) == 1
    assert [line.kind for line in summary.ledger] == ["top_up", "charge"]
