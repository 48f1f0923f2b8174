"""The process that is killed: `python -m tests.recon.campaigns.dying HOME KEY TARGETS`.

It runs one campaign on an engine of its own, unless the files already know it, and prints the report as JSON. Its
scanner writes a line before each scan, and the database one after each result that is kept.

DIE_AT=2 kills it with SIGKILL after the second write to the database, DIE_AT=-2 right before that write; 0 lets it
live. With REFUSE=publish publishing fails for good, and writes count from the correlation on only.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import restate
from restate import TerminalError

from apps.recon.api import create_api
from apps.recon.campaigns.assembly import assemble
from apps.recon.campaigns.model import Phase, ScanResult
from apps.recon.campaigns.scanners import Found, TcpScanner
from apps.recon.campaigns.store import CampaignStore
from apps.recon.settings import Settings
from apps.recon.store import Store
from apps.recon.surreal import Surreal
from apps.recon.workflow import ingest_workflow
from holdfast import Engine

SETTINGS = Settings(scan_concurrency=3, enrich_after_ingest=False, read_per_minute=1_000_000)
SIZES = {"batch_size": 10}


class Ledger:
    """Lines that are in the file, whatever happens next."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, what: str, address: str) -> None:
        os.write(self._fd, f"{what} {address}\n".encode())


class NotingScanner:
    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._scanner = TcpScanner(timedelta(seconds=10), timedelta(milliseconds=200))

    async def scan(self, address: str, ports: Sequence[int], *, limit_s: float) -> Found:
        self._ledger.note("scan", address)
        return await self._scanner.scan(address, ports, limit_s=limit_s)


class Death:
    """Kills this process at one of its writes."""

    def __init__(self, at: int, *, is_armed: bool) -> None:
        self._at = at
        self.is_armed = is_armed
        self._writes = 0
        write = Surreal.write

        async def watched(surreal: Surreal, sql: str, **params: Any) -> list[Any]:
            self._writes += self.is_armed
            number = self._writes
            if self.is_armed and -number == self._at:
                os.kill(os.getpid(), signal.SIGKILL)
            answer = await write(surreal, sql, **params)
            if self.is_armed and number == self._at:
                os.kill(os.getpid(), signal.SIGKILL)
            return answer

        Surreal.write = watched  # type: ignore[method-assign]


def watch(ledger: Ledger, refuse: str, death: Death) -> None:
    """Note what is kept, and refuse what the test wants refused."""
    save, publish, set_phase = CampaignStore.save_result, CampaignStore.set_published, CampaignStore.set_phase

    async def save_and_note(store: CampaignStore, campaign_id: str, result: ScanResult, scanned_with: str) -> None:
        await save(store, campaign_id, result, scanned_with)
        ledger.note("kept", result.address)

    async def publish_or_refuse(store: CampaignStore, campaign_id: str, is_published: bool) -> None:
        if is_published and refuse == "publish":
            raise TerminalError("refused", status_code=422)
        await publish(store, campaign_id, is_published)

    async def set_phase_and_arm(store: CampaignStore, campaign_id: str, phase: Phase, **params: Any) -> None:
        death.is_armed = death.is_armed or phase is Phase.CORRELATING
        await set_phase(store, campaign_id, phase, **params)

    CampaignStore.set_phase = set_phase_and_arm  # type: ignore[method-assign]
    CampaignStore.save_result = save_and_note  # type: ignore[method-assign]
    CampaignStore.set_published = publish_or_refuse  # type: ignore[method-assign]


async def main(home: Path, key: str, targets: list[str], port: int) -> None:
    ledger = Ledger(home / "ledger")
    refuse = os.environ.get("REFUSE", "")
    store = Store(home / "surreal")
    settings = replace(SETTINGS, directory=home)
    async with store:
        known = await CampaignStore(store).campaign(key)
        is_armed = not refuse or (known is not None and known.status == "correlating")
        watch(ledger, refuse, Death(int(os.environ.get("DIE_AT", "0")), is_armed=is_armed))
        parts = assemble(store, settings, scanners={"tcp": NotingScanner(ledger)})
        services = [ingest_workflow(store, settings), *parts.campaign_services(), *parts.threat_services()]
        async with Engine(restate.app(services), db=home / "engine.db") as engine:
            transport = httpx.ASGITransport(create_api(store, engine.client, settings))
            async with httpx.AsyncClient(transport=transport, base_url="http://recon", timeout=60) as api:
                if known is None or known.invocation_id is None:
                    body = {"campaign_id": key, "targets": targets, "options": {"ports": [port], **SIZES}}
                    started = await api.post("/v1/campaigns", json=body)
                    assert started.status_code == 202, started.text
                async with httpx.AsyncClient(
                    transport=httpx.ASGITransport(engine.ingress), base_url="http://engine", timeout=60
                ) as ingress:
                    await ingress.get(f"/restate/workflow/Campaign/{key}/attach")
                answers = {
                    name: (await api.get(path)).json()
                    for name, path in {
                        "report": f"/v1/campaigns/{key}/report",
                        "contributor": "/v1/contributors/local",
                        "threats": "/v1/threats",
                    }.items()
                }
    print(json.dumps(answers), flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3].split(","), int(sys.argv[4])))
