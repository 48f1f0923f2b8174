"""What enrichment shows on the dashboard."""

from __future__ import annotations

from apps.recon.enrich import runs
from apps.recon.parts import ApiContext, Panel


async def panels(context: ApiContext) -> list[Panel]:
    """The latest runs."""
    found, total = await runs.latest(context.store, limit=5)
    counted = await context.store.read(
        "SELECT count() FROM vuln GROUP ALL; SELECT count() FROM vuln WHERE kev_flag = true GROUP ALL;"
    )
    vulnerabilities, exploited = (rows[0]["count"] if rows else 0 for rows in counted)
    return [
        Panel(
            "Enrichment",
            ["run", "state", "hosts", "started", "failed"],
            [
                [
                    each.id,
                    each.state,
                    each.host_count,
                    each.started_at,
                    sum(totals.failed for totals in each.result.totals.values()),
                ]
                for each in found
            ],
            note="none yet" if not found else "",
            facts={"enrichments": total, "vulnerabilities": vulnerabilities, "known exploited": exploited},
        )
    ]
