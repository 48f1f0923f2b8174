"""The scanner service by itself: a plain handler that anybody may call, and what it writes into the log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from apps.recon.campaigns.scanners import ScanFailed, ScannerMissing
from holdfast.logs import InvocationFilter
from tests.recon.campaigns.conftest import Side
from tests.recon.campaigns.world import listening

SCAN = "/ScanService/scan_target"


async def test_a_text_is_a_request(side: Side) -> None:
    side.witness.look = None
    found = await side.call(SCAN, "127.0.0.2")
    assert (found["target"], found["address"], found["is_up"]) == ("127.0.0.2", "127.0.0.2", True)


async def test_a_name_is_scanned_at_the_address_it_had(side: Side) -> None:
    async with listening("127.0.0.1", "::1") as port:
        found = await side.call(SCAN, {"target": "localhost", "options": {"ports": [port]}})
    assert found["target"] == "localhost"
    assert found["address"] in ("127.0.0.1", "::1")
    assert [one["number"] for one in found["ports"]] == [port]


REFUSED: dict[str, tuple[Any, int, str]] = {
    "an address elsewhere": ("192.0.2.1", 403, "not in the allowed networks"),
    "the same in other clothes": ("::ffff:192.0.2.1", 403, "not in the allowed networks"),
    "a network": ("127.0.0.0/30", 400, "start a campaign"),
    "nothing": ("", 400, "empty"),
    "an option": ("-oN x", 400, "no address, no network and no host name"),
    "no target": ({"options": {}}, 400, "target"),
    "a port that is none": ({"target": "127.0.0.1", "options": {"ports": [70000]}}, 400, "ports"),
    "a number": (7, 400, "no scan request"),
}


async def test_what_cannot_be_scanned_is_refused_at_once(side: Side) -> None:
    for case, (body, status, reason) in REFUSED.items():
        assert reason in await side.call(SCAN, body, status=status), case
    assert not side.witness.calls


async def test_a_scan_that_fails_is_tried_again_and_then_given_up(side: Side) -> None:
    side.witness.faults["127.0.0.2"] = [ScanFailed("no luck"), ScanFailed("no luck")]
    assert (await side.call(SCAN, "127.0.0.2"))["is_up"] is True
    assert side.witness.calls["127.0.0.2"] == 3
    side.witness.faults["127.0.0.3"] = [ScanFailed("no luck")] * 9
    assert "no luck" in await side.call(SCAN, "127.0.0.3", status=500)
    assert side.witness.calls["127.0.0.3"] == 3
    side.witness.faults["127.0.0.4"] = [ScannerMissing("no nmap")]
    assert "no nmap" in await side.call(SCAN, "127.0.0.4", status=501)
    assert side.witness.calls["127.0.0.4"] == 1


async def test_an_idempotency_key_makes_two_calls_one_scan(side: Side, key: str) -> None:
    answers = await asyncio.gather(
        *(side.ingress.post(SCAN, json="127.0.0.2", headers={"idempotency-key": key}) for _ in range(5))
    )
    assert {answer.text for answer in answers} == {answers[0].text}
    assert side.witness.calls["127.0.0.2"] == 1


# -- the log ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def log() -> Iterator[list[dict[str, Any]]]:
    """The events of scans, as a JSON log shows them: the engine's filter drops what a replay says again."""
    events: list[dict[str, Any]] = []
    names = ("target", "request_id", "error", "services")

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            fields = {name: getattr(record, name) for name in names if hasattr(record, name)}
            events.append({"event": record.getMessage(), **fields})

    handler, logger = Collector(), logging.getLogger("recon.scan")
    handler.addFilter(InvocationFilter())
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.INFO)
    yield events
    logger.removeHandler(handler)
    logger.setLevel(level)


async def test_every_attempt_is_told_once(side: Side, key: str, log: list[dict[str, Any]]) -> None:
    side.witness.faults["127.0.0.3"] = [ScanFailed("no luck")] * 9
    async with listening("127.0.0.2") as port:
        await side.run(["127.0.0.2", "127.0.0.3"], key=key, ports=[port])
    told = {target: [one for one in log if one["target"] == target] for target in ("127.0.0.2", "127.0.0.3")}
    assert [one["event"] for one in told["127.0.0.2"]] == ["scan_started", "scan_completed"]
    assert told["127.0.0.2"][1]["services"] == 1
    assert all(one["request_id"].startswith("inv_") for one in log)
    assert [one["event"] for one in told["127.0.0.3"]] == ["scan_started", "scan_failed"] * 3
    assert {one["error"] for one in told["127.0.0.3"] if one["event"] == "scan_failed"} == {"no luck"}


async def test_a_replay_tells_nothing_again(side: Side, key: str, log: list[dict[str, Any]]) -> None:
    """The campaign's workflow is resumed after every batch; each scan is told of once all the same."""
    await side.run([f"127.0.5.{number}" for number in range(1, 7)], key=key, ports=[9], batch_size=2)
    started = [one["target"] for one in log if one["event"] == "scan_started"]
    assert sorted(started) == [f"127.0.5.{number}" for number in range(1, 7)]
