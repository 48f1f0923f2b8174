"""The process that is killed: `python -m tests.leads.dying ORDER`, settings in the environment.

It opens leads, asks for the jobs of the order (each by its client key, so a repetition is the same job), waits for their
end and prints what became of them. Killed at any moment and started again, it goes on.
"""

from __future__ import annotations

import asyncio
import sys

import msgspec

from apps.leads.jobs import until_over
from apps.leads.model import DiscoveryRequest, EnrichmentRequest
from apps.leads.running import open_leads
from apps.leads.settings import Settings

PATIENCE_S = 90.0


class Order(msgspec.Struct, kw_only=True):
    user: str
    top_up_cents: int
    discoveries: list[DiscoveryRequest]
    enrichments: list[EnrichmentRequest]


async def main(order: Order) -> None:
    async with open_leads(Settings.from_environment()) as leads:
        sys.stdout.write("open\n")
        sys.stdout.flush()
        await leads.wallets.top_up(order.user, order.top_up_cents, key="the only one")
        started = [await leads.jobs.start_discovery(request) for request in order.discoveries]
        started += [await leads.jobs.start_enrichment(request) for request in order.enrichments]
        jobs = [await until_over(leads.jobs, job.job_id, patience_s=PATIENCE_S) for job in started]
        wallet = await leads.wallets.get(order.user)
        while len(lines := await leads.wallets.ledger(order.user, 1000)) < wallet.booking_count:
            await asyncio.sleep(0.05)  # a line of the ledger is on its way
        summary = {
            "jobs": [msgspec.to_builtins(job) for job in jobs],
            "wallet": msgspec.to_builtins(wallet),
            "ledger": [msgspec.to_builtins(line) for line in lines],
        }
        sys.stdout.write(msgspec.json.encode(summary).decode() + "\n")


if __name__ == "__main__":
    asyncio.run(main(msgspec.json.decode(sys.argv[1], type=Order)))
