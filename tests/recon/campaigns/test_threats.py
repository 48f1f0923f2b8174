"""Threats and contributors as virtual objects: nothing lost, readers beside writers, and bounded, whatever comes."""

from __future__ import annotations

import asyncio
import base64
import time
import uuid
from typing import Any

import pytest
from nacl.signing import SigningKey

from apps.recon.threats import model
from apps.recon.threats.model import (
    REPUTATION_OPEN,
    REPUTATION_REGISTERED,
    Contributor,
    Credit,
    Penalty,
    Sighting,
    ThreatRecord,
    object_key,
    public_key,
)
from apps.recon.threats.store import ThreatStore
from tests.recon.campaigns.conftest import HISTORY_CHUNK, HISTORY_KEEP, Side, until


@pytest.fixture
def cve() -> str:
    """A threat that no other test uses."""
    return f"CVE-2026-{uuid.uuid4().int % 10**9}"


def a_key() -> str:
    return base64.b64encode(bytes(SigningKey.generate().verify_key)).decode()


async def test_a_threat_knows_its_id_and_grows_by_what_is_recorded(side: Side, cve: str) -> None:
    assert await side.call(f"/ThreatIntelligence/{cve}/get", status=404)
    path = f"/ThreatIntelligence/{cve}/record"
    first = await side.call(path, {"severity": "high", "title": "a hole", "hosts": ["192.0.2.1"], "source": "s1"})
    assert (first["threat_id"], first["updates"], first["severity"]) == (cve, 1, "high")
    second = await side.call(path, {"source": "s2", "host_count": 9})
    assert (second["updates"], second["severity"], second["title"], second["host_count"]) == (2, "high", "a hole", 9)
    assert second["last_seen_ms"] >= second["first_seen_ms"] == first["first_seen_ms"]
    again = await side.call(path, {"source": "s2", "host_count": 5})
    assert again == second

    known = await until(lambda: history_of(side, cve, 2))
    assert [(event["kind"], event["source"]) for event in known["history"]] == [("seen", "s1"), ("seen", "s2")]
    [row] = (await side.get("/v1/threats"))["threats"]
    assert (row["threat_id"], row["updates"], row["host_count"]) == (cve, 2, 9)


async def history_of(side: Side, cve: str, entries: int) -> dict[str, Any] | None:
    known = await side.get(f"/v1/threats/{cve}")
    return known if len(known["history"]) == entries else None


async def test_what_was_recorded_can_be_taken_back_once(side: Side, cve: str) -> None:
    await side.call(f"/ThreatIntelligence/{cve}/record", {"source": "s1"})
    taken = [await side.call(f"/ThreatIntelligence/{cve}/retract", source) for source in ("s1", "s1", "never")]
    assert [record["updates"] for record in taken] == [0, 0, 0]
    assert (await side.get("/v1/threats"))["threats"] == []
    assert (await side.get(f"/v1/threats/{cve}"))["threat"]["sources"] == []


async def test_of_a_hundred_writers_none_is_lost(side: Side, cve: str) -> None:
    await asyncio.gather(*(side.call(f"/ThreatIntelligence/{cve}/record", {}) for _ in range(100)))
    assert (await side.get(f"/v1/threats/{cve}"))["threat"]["updates"] == 100


async def test_readers_do_not_wait_for_a_writer_nor_for_each_other(
    side: Side, cve: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await side.call(f"/ThreatIntelligence/{cve}/record", {"source": "s1"})
    gate, begun = asyncio.Event(), asyncio.Event()
    put = ThreatStore.put

    async def slow(self: ThreatStore, record: ThreatRecord) -> None:
        begun.set()
        await gate.wait()
        await put(self, record)

    monkeypatch.setattr(ThreatStore, "put", slow)
    writing = asyncio.create_task(side.call(f"/ThreatIntelligence/{cve}/record", {"source": "s2"}))
    await begun.wait()
    read = await asyncio.gather(*(side.get(f"/v1/threats/{cve}") for _ in range(50)))
    assert not writing.done()
    assert {each["threat"]["threat_id"] for each in read} == {cve}
    gate.set()
    assert (await writing)["updates"] == 2


async def test_requests_that_are_none_are_refused_at_once(side: Side, cve: str) -> None:
    began_s = time.monotonic()
    for body in ({"severity": "awful"}, {"surprise": 1}, {"host_count": -1}, "text", {"title": "x" * 501}):
        assert "not valid" in await side.call(f"/ThreatIntelligence/{cve}/record", body, status=400)
    assert "not valid" in await side.call("/ThreatIntelligence/a%20b/record", {}, status=400)
    assert time.monotonic() - began_s < 10  # no retries
    await side.get("/v1/threats/CVE-0-0", status=404)


async def test_a_contributor_begins_low_unless_somebody_vouched_for_its_key(side: Side) -> None:
    stranger, known = a_key(), a_key()
    await side.post("/v1/keys", {"public_key": known, "name": "ours"})
    for key, reputation in ((stranger, REPUTATION_OPEN), (known, REPUTATION_REGISTERED)):
        answer = await side.get(f"/v1/contributors/{key}")
        assert (answer["key"], answer["reputation"]) == (key, reputation)
    await side.get("/v1/contributors/nonsense", status=400)


async def test_a_credit_counts_when_it_is_confirmed_and_can_be_taken_back(side: Side) -> None:
    path = f"/ContributorReputation/{object_key(a_key())}"
    reserved = await side.call(f"{path}/reserve", {"credit_id": "c1", "points": 5})
    assert (reserved["reputation"], reserved["contributions"]) == (REPUTATION_OPEN, 0)
    for _ in range(2):  # the second time changes nothing
        confirmed = await side.call(f"{path}/confirm", "c1")
        assert (confirmed["reputation"], confirmed["contributions"]) == (REPUTATION_OPEN + 5, 1)
    for _ in range(2):
        released = await side.call(f"{path}/release", "c1")
        assert (released["reputation"], released["contributions"], released["credits"]) == (REPUTATION_OPEN, 0, [])
    punished = await side.call(f"{path}/penalise", {"points": 100, "reason": "made it up"})
    assert punished["reputation"] == 0
    assert "no reputation left" in await side.call(f"{path}/reserve", {"credit_id": "c2", "points": 1}, status=403)


async def test_old_history_moves_to_the_database_and_nothing_is_lost(side: Side, cve: str) -> None:
    count = HISTORY_KEEP + HISTORY_CHUNK + 2
    for number in range(count):
        await side.call(f"/ThreatIntelligence/{cve}/record", {"source": f"s{number}"})

    async def look() -> dict[str, Any] | None:
        known = await side.get(f"/v1/threats/{cve}?history=1000")
        return known if known["archived"] + len(known["history"]) == count else None

    known = await until(look)
    assert known["archived"] == HISTORY_CHUNK
    chunk: list[dict[str, Any]] = await until(lambda: ThreatStore(side.store).read_chunk("ThreatHistory", f"{cve}:0"))
    assert [one["source"] for one in chunk + known["history"]] == [f"s{number}" for number in range(count)]
    assert await side.call(f"/ThreatHistoryArchive/{cve}:0/get") == chunk
    assert "no chunk" in await side.call(f"/ThreatHistoryArchive/{cve}:1/get", status=404)
    state = await side.rows(f"SELECT key FROM state WHERE service_key = '{cve}:0'")
    assert state == []


# -- what an event makes of a record -------------------------------------------------------------------------------


def test_time_never_goes_back_and_nothing_replaces_nothing() -> None:
    first = model.see(None, "T", Sighting("high", "a title", "s1", hosts=["h"] * 30), 1000)
    assert first is not None
    second = model.see(first, "T", Sighting("none", "", "s2"), 500)
    assert second is not None
    assert (second.severity, second.title, second.first_seen_ms, second.last_seen_ms) == ("high", "a title", 1000, 1000)
    assert (len(first.hosts), first.host_count) == (model.HOSTS_MAX, 30)


def test_a_contributor_remembers_no_more_credits_than_it_may() -> None:
    contributor = Contributor("k", 50)
    for number in range(3 * model.SOURCES_MAX):
        reserved = model.reserve(contributor, f"c{number}", 1)
        assert reserved is not None
        confirmed = model.confirm(reserved, f"c{number}")
        assert confirmed is not None
        contributor = confirmed
    assert len(contributor.credits) == model.SOURCES_MAX
    assert contributor.reputation == model.REPUTATION_MAX
    assert contributor.contributions == 3 * model.SOURCES_MAX
    assert model.reserve(contributor, contributor.credits[-1].credit_id, 1) is None


def test_open_credits_are_never_forgotten_but_limited() -> None:
    contributor = Contributor("k", 50, credits=[Credit(f"c{n}", 1) for n in range(model.SOURCES_MAX)])
    with pytest.raises(model.TooManyOpen):
        model.reserve(contributor, "one more", 1)


def test_reputation_stays_within_its_bounds() -> None:
    assert model.penalise(Contributor("k", 3), Penalty(10)).reputation == 0
    assert model.release(Contributor("k", 3, credits=[Credit("c", 9, is_confirmed=True)]), "c") is not None


def test_keys_survive_the_way_through_a_path() -> None:
    for _ in range(50):
        key = a_key()
        assert public_key(object_key(key)) == key
        assert not set(object_key(key)) & set("+/=")
    assert [public_key(text) for text in ("", "local", "ab", "é")] == [None] * 4
