"""A campaign of many targets. RECON_CAMPAIGN_TARGETS=10000 runs it, which takes minutes."""

from __future__ import annotations

import os
import time

import pytest

from tests.recon.campaigns.conftest import Side
from tests.recon.campaigns.test_campaign import journal_lengths
from tests.recon.campaigns.world import loopback

TARGETS = int(os.environ.get("RECON_CAMPAIGN_TARGETS", "0"))
BATCH_SIZE = 100

pytestmark = [
    pytest.mark.skipif(not TARGETS, reason="set RECON_CAMPAIGN_TARGETS=10000: it takes minutes"),
    pytest.mark.timeout(1800),
]


async def test_many_targets_are_scanned_once_each_and_no_journal_gets_long(
    side: Side, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.recon.campaigns.conftest.PATIENCE_S", 1700.0)
    began_s = time.monotonic()
    report = await side.run(loopback(TARGETS), key=key, ports=[9], batch_size=BATCH_SIZE)
    took_s = time.monotonic() - began_s
    assert report["campaign"]["scanned"] == TARGETS
    assert set(side.witness.calls.values()) == {1}
    lengths = await journal_lengths(side, report["campaign"]["invocation_id"])
    print(f"{TARGETS} targets in {took_s:.0f} s; longest journals: {lengths}")
    assert lengths["Campaign"] <= 60 + 6 * (TARGETS // BATCH_SIZE)
    assert lengths["CampaignBatch"] <= 20 + 3 * BATCH_SIZE
