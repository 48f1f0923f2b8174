"""What enrichment counts for `/metrics`: the totals of all its runs."""
# ruff: noqa: S608 (statements are put together from constants of this module)

from __future__ import annotations

from prometheus_client.metrics_core import CounterMetricFamily, Metric

from apps.recon.enrich.schema import KINDS
from apps.recon.store import Store

OUTCOMES = ("asked", "enriched", "from_cache", "not_found", "failed")

_SUMS = "SELECT {} FROM enrichment GROUP ALL".format(
    ", ".join(
        f"math::sum(totals.totals.{kind}.{outcome} ?? 0) AS {kind}_{outcome}" for kind in KINDS for outcome in OUTCOMES
    )
)


async def metrics(store: Store) -> list[Metric]:
    """`recon_enrichment_total{kind, outcome}`."""
    (rows,) = await store.read(_SUMS)
    lookups = CounterMetricFamily(
        "recon_enrichment", "What enrichment was asked for, and what came of it.", labels=["kind", "outcome"]
    )
    for kind in KINDS:
        for outcome in OUTCOMES:
            lookups.add_metric([kind, outcome], rows[0][f"{kind}_{outcome}"] if rows else 0)
    return [lookups]
