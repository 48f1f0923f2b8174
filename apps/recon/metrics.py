"""recon's own numbers beside those of the engine: jobs, rows, and what the parts count, read at each scrape.

They come from the database, so that they are the same whichever process is asked, and survive a restart.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from starlette.types import Receive, Scope, Send

from apps.recon import parts
from apps.recon.store import Store
from apps.recon.surreal import StoreError
from holdfast.metrics import Source, metrics_endpoint

logger = logging.getLogger("recon.api")

TABLES = ("host", "port", "service", "vuln")


class ReconMetrics:
    """An ASGI application for `/metrics`: reads the database, then answers with these numbers and the engine's."""

    def __init__(self, store: Store, *sources: Source) -> None:
        self._store = store
        self._families: list[Metric] = []
        registry = CollectorRegistry()
        registry.register(self)
        self._endpoint = metrics_endpoint(*sources, registry=registry)

    def collect(self) -> Iterable[Metric]:
        """What was read last; for the registry."""
        return self._families

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._families = await self._read()
        except StoreError as error:  # the engine's numbers are worth having all the more
            logger.warning("no metrics from the database: %s", error)
            self._families = []
        await self._endpoint(scope, receive, send)

    async def _read(self) -> list[Metric]:
        jobs = GaugeMetricFamily("recon_jobs", "Jobs by state.", labels=["state"])
        for state, count in (await self._store.state_counts()).items():
            jobs.add_metric([state.value], count)
        rows = GaugeMetricFamily("recon_rows", "Rows of the graph, by table.", labels=["table"])
        for table, count in (await self._store.row_counts(*TABLES)).items():
            rows.add_metric([table], count)
        of_parts = [each for offered in parts.offers("metrics") for each in await offered(self._store)]
        return [jobs, rows, *of_parts]
