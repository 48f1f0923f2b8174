"""Campaigns from outside: what they scan, what they say meanwhile, what is in the report, and how they end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from apps.recon.campaigns.findings import FindingStore
from apps.recon.campaigns.scanners import ScanFailed, ScanTimedOut
from tests.recon.campaigns.conftest import Side, until
from tests.recon.campaigns.world import listening, loopback, names


async def test_two_targets_give_two_results(side: Side, key: str) -> None:
    async with listening("127.0.0.2") as port:
        report = await side.run(["127.0.0.2", "127.0.0.3"], key=key, ports=[port])
    assert names(report["results"]) == ["127.0.0.2", "127.0.0.3"]
    assert [[one["number"] for one in row.get("ports", [])] for row in report["results"]] == [[port], []]
    assert report["campaign"]["status"] == "complete"
    assert report["next"] is None


async def test_targets_are_cut_in_batches_of_fifty_and_the_status_names_each_step(
    side: Side, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, int]] = []

    async def look(*_: object) -> None:
        campaign = await side.get(f"/v1/campaigns/{key}/status")
        assert campaign["scanned"] <= campaign["total"] == 120
        if campaign["status"] not in [status for status, _ in seen]:
            seen.append((campaign["status"], campaign["scanned"]))

    addresses = FindingStore.addresses

    async def watched(self: FindingStore, *args: Any, **kwargs: Any) -> Any:
        await look()
        return await addresses(self, *args, **kwargs)

    monkeypatch.setattr(FindingStore, "addresses", watched)
    side.witness.look = look
    started = await side.start(loopback(120), key=key, ports=[9])
    assert (started["status"], started["scanned"], started["total"]) == ("initializing", 0, 120)
    done = await side.final(key)
    assert (done["status"], done["scanned"], done["total"]) == ("complete", 120, 120)
    assert seen == [
        ("scanning_batch_1", 0),
        ("scanning_batch_2", 50),
        ("scanning_batch_3", 100),
        ("correlating", 120),
    ]
    await until(lambda: side.call_is_over(key))  # the row is final a moment before the workflow has ended
    assert await side.call(f"/Campaign/{key}/status") == {"status": "complete", "scanned": 120, "total": 120}


async def test_a_batch_is_scanned_in_parallel_and_no_wider_than_allowed(side: Side, key: str) -> None:
    side.witness.gate.clear()
    await side.start(loopback(30), key=key, ports=[9])
    await until(lambda: side.witness.running == 8)
    side.witness.gate.set()
    await side.final(key)
    assert side.witness.most == 8
    assert sum(side.witness.calls.values()) == 30


async def test_the_same_campaign_sent_twice_is_the_same_campaign(side: Side, key: str) -> None:
    targets = loopback(5)
    side.witness.gate.clear()
    first = await side.start(targets, key=key, ports=[9])
    again = await side.start(targets, key=key, ports=[9])
    assert again["created_at"] == first["created_at"]
    side.witness.gate.set()
    await side.final(key)
    after = await side.start(targets, key=key, ports=[9])
    assert after["status"] == "complete"
    assert side.witness.calls == dict.fromkeys(targets, 1)
    other = await side.start(targets[:2], key=key, ports=[9], status=409)
    assert "other targets or options" in other["message"]


async def test_what_may_not_be_scanned_is_in_the_report_and_nothing_else_suffers(side: Side, key: str) -> None:
    bad = ["8.8.8.8", "10.0.0.0/30", "no such thing!", "", "0x7f.1", "::ffff:9.9.9.9", "127.0.0.0/8", "nobody.invalid"]
    report = await side.run(["127.0.0.2", *bad, "127.0.0.2", "localhost"], key=key, ports=[9])
    assert names(report["results"]) == ["127.0.0.2", "localhost"]
    reasons = {row["target"]: row["reason"] for row in report["rejected"]}
    forbidden = {target for target, reason in reasons.items() if "not in the allowed networks" in reason}
    assert forbidden == {"8.8.8.8", "10.0.0.1", "10.0.0.2", "9.9.9.9"}
    assert "at most 65536" in reasons["127.0.0.0/8"]
    assert "has no address" in reasons["nobody.invalid"] or "could not be resolved" in reasons["nobody.invalid"]
    assert set(reasons) - forbidden == {"no such thing!", "(empty)", "0x7f.1", "127.0.0.0/8", "nobody.invalid"}
    assert set(side.witness.calls) <= {"127.0.0.2", "127.0.0.1", "::1"}
    campaign = report["campaign"]
    assert (campaign["total"], campaign["rejected"], campaign["scanned"]) == (2, 9, 2)


async def test_a_scan_that_fails_is_tried_again_and_one_that_cannot_succeed_is_a_result(side: Side, key: str) -> None:
    flaky, broken, slow, fine = loopback(4)
    side.witness.faults = {
        flaky: [ScanFailed("no luck"), ScanFailed("no luck")],
        broken: [ScanFailed(f"broken {number}") for number in range(9)],
        slow: [ScanTimedOut("too slow")] * 9,
    }
    report = await side.run([flaky, broken, slow, fine], key=key, ports=[9])
    states = {row["target"]: row["state"] for row in report["results"]}
    assert states == {flaky: "scanned", broken: "failed", slow: "failed", fine: "scanned"}
    reasons = {row["target"]: row.get("reason") for row in report["results"]}
    assert "broken 2" in reasons[broken]
    assert reasons[slow] == "too slow"
    assert side.witness.calls == {flaky: 3, broken: 3, slow: 1, fine: 1}
    assert (report["campaign"]["status"], report["campaign"]["failed"]) == ("complete", 2)


async def test_a_cancel_stops_between_targets(side: Side, key: str) -> None:
    side.witness.gate.clear()
    await side.start(loopback(60), key=key, ports=[9], batch_size=20)
    await until(lambda: side.witness.running == 8)
    await side.post(f"/v1/campaigns/{key}/cancel", status=202)
    await until(lambda: side.call_is_over(key))
    side.witness.gate.set()
    done = await side.final(key)
    assert done["status"] == "cancelled"
    assert sum(side.witness.calls.values()) == 8
    assert (await side.call(f"/Campaign/{key}/status"))["status"] == "cancelled"
    refused = await side.post(f"/v1/campaigns/{key}/cancel", status=409)
    assert "is cancelled" in refused["message"]
    session = await until(lambda: side.session(key, "cancelled"))
    assert session["total"] == 0


async def test_the_services_of_a_campaign_are_in_its_journal(side: Side, key: str) -> None:
    campaign = await side.run(["127.0.0.2"], key=key, ports=[9])
    invocation = campaign["campaign"]["invocation_id"]
    called = {
        row["target_service_name"]
        for row in await side.rows(
            f"SELECT target_service_name FROM sys_invocation WHERE invoked_by_id = '{invocation}'"
        )
    }
    assert {"TargetValidator", "CampaignBatch", "Correlator", "ThreatPublisher"} <= called
    [session] = [await until(lambda: side.session(key, "completed"))]
    assert (session["done"], session["total"], session["result"]["campaign_id"]) == (1, 1, key)


async def test_results_do_not_fill_the_journals(side: Side, key: str) -> None:
    """Six times the targets, and the campaign's journal grows by the batches only."""
    lengths: dict[int, dict[str, int]] = {}
    for count in (25, 150):
        report = await side.run(loopback(count), key=f"{key}-{count}", ports=[9], batch_size=25)
        lengths[count] = await journal_lengths(side, report["campaign"]["invocation_id"])
    assert (
        lengths[150]["Campaign"] - lengths[25]["Campaign"] <= 5 * 6
    )  # a state, a call and its answer, a report to the session
    assert lengths[150]["CampaignBatch"] == lengths[25]["CampaignBatch"] < 25 * 3 + 20
    assert lengths[150]["Correlator"] == lengths[25]["Correlator"]


async def journal_lengths(side: Side, invocation: str) -> dict[str, int]:
    """Entries of the campaign's journal and of the longest of each service that it called."""
    rows = await side.rows(
        "SELECT id, target_service_name FROM sys_invocation "
        f"WHERE id = '{invocation}' OR invoked_by_id = '{invocation}'"
    )
    longest: dict[str, int] = {}
    for row in rows:
        [counted] = await side.rows(f"SELECT count(*) AS entries FROM sys_journal WHERE id = '{row['id']}'")
        service = row["target_service_name"]
        longest[service] = max(longest.get(service, 0), counted["entries"])
    return longest


async def test_a_recent_result_is_taken_instead_of_a_new_scan_if_the_caller_wants_that(side: Side, key: str) -> None:
    async with listening("127.0.0.2") as port:
        await side.run(["127.0.0.2"], key=f"{key}-1", ports=[port])
        again = await side.run(["127.0.0.2"], key=f"{key}-2", ports=[port], reuse_s=3600)
        assert side.witness.calls["127.0.0.2"] == 1
        assert again["results"][0]["ports"][0]["number"] == port
        await side.run(["127.0.0.2"], key=f"{key}-3", ports=[port, 9], reuse_s=3600)  # other ports: another scan
        await side.run(["127.0.0.2"], key=f"{key}-4", ports=[port])
    assert side.witness.calls["127.0.0.2"] == 3


async def test_a_campaign_may_go_straight_to_the_engine(side: Side, key: str) -> None:
    result = await side.call(
        f"/Campaign/{key}/run", {"campaign_id": key, "targets": ["127.0.0.2", "8.8.8.8"], "options": {"ports": [9]}}
    )
    assert (result["total"], result["scanned"], result["rejected"]) == (1, 1, 1)
    assert (await side.get(f"/v1/campaigns/{key}"))["status"] == "complete"


async def test_a_campaign_that_the_engine_forgot_is_not_run_again(side: Side, key: str) -> None:
    report = await side.run(["127.0.0.2"], key=key, ports=[9])
    purged = await side.admin.patch(f"/invocations/{report['campaign']['invocation_id']}/purge")
    assert purged.status_code in (200, 202), purged.text

    async def forgotten() -> bool:
        return (await side.output("Campaign", key)).status_code == 404

    await until(forgotten)
    body = {"campaign_id": key, "targets": ["127.0.0.2"], "options": {"ports": [9]}}
    assert "is complete" in await side.call(f"/Campaign/{key}/run", body, status=400)
    assert (await side.start(["127.0.0.2"], key=key, ports=[9]))["status"] == "complete"
    assert side.witness.calls["127.0.0.2"] == 1


BAD_REQUESTS: dict[str, tuple[dict[str, Any], str]] = {
    "no targets": ({"targets": []}, "0 targets"),
    "too many": ({"targets": ["127.0.0.0/17"] * 3}, "98304 targets"),
    "a port out of range": ({"targets": ["127.0.0.1"], "options": {"ports": [0]}}, "ports"),
    "an unknown scanner": ({"targets": ["127.0.0.1"], "options": {"scanner": "zmap"}}, "zmap"),
    "an unknown option": ({"targets": ["127.0.0.1"], "options": {"speed": 1}}, "speed"),
    "a batch too large": ({"targets": ["127.0.0.1"], "options": {"batch_size": 5000}}, "batch_size"),
    "an id that is none": ({"targets": ["127.0.0.1"], "campaign_id": "../etc"}, "campaign_id"),
    "targets that are no list": ({"targets": "127.0.0.1"}, "targets"),
}


async def test_requests_that_are_none_are_refused_with_the_reason(side: Side, key: str) -> None:
    for what, (body, reason) in BAD_REQUESTS.items():
        refused = await side.post("/v1/campaigns", body, status=400)
        assert reason in refused["message"], what
    for path in (f"/v1/campaigns/{key}", f"/v1/campaigns/{key}/status", f"/v1/campaigns/{key}/report"):
        assert (await side.get(path, status=404))["error"] == "not_found"
    answer = await side.api.post("/v1/campaigns", json={"targets": ["127.0.0.1"]}, headers={"authorization": "x"})
    assert answer.status_code == 401
    assert await side.call(f"/Campaign/{key}/run", {"campaign_id": "another", "targets": ["::1"]}, status=400)
    assert (await side.get("/v1/campaigns"))["campaigns"] == []


async def test_a_report_comes_in_pages(side: Side, key: str) -> None:
    await side.run(loopback(25), key=key, ports=[9])
    found: list[str] = []
    after: str | None = ""
    while after is not None:
        page = await side.get(f"/v1/campaigns/{key}/report?limit=10&after={after}")
        found += names(page["results"])
        after = page["next"]
    assert found == sorted(loopback(25))


async def test_many_campaigns_run_beside_each_other(side: Side, key: str) -> None:
    reports = await asyncio.gather(
        *(side.run(loopback(6, third=number), key=f"{key}-{number}", ports=[9]) for number in range(10, 14))
    )
    assert [report["campaign"]["scanned"] for report in reports] == [6] * 4
    listed = await side.get("/v1/campaigns?limit=3")
    assert (len(listed["campaigns"]), listed["next_offset"]) == (3, 3)
    assert {one["scanned"] for one in listed["campaigns"]} == {6}
