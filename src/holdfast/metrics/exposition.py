"""The text that Prometheus reads, and the endpoint that answers with it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import Response

from holdfast.errors import HoldfastError
from holdfast.metrics.tally import BUCKETS_S, Look, Source, Tally


class _Families:
    """The metrics of several engines as prometheus_client's collector."""

    def __init__(self, seen: list[tuple[str, Look | None, Tally]]) -> None:
        self._seen = seen

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("holdfast_engine_up", "1 if the engine answered this look.", labels=["engine"])
        for engine, look, _ in self._seen:
            up.add_metric([engine], float(look is not None))
        yield up
        yield from self._durations()
        yield from self._retries()
        yield self._gauge("invocations", "Invocations by status.", ("service", "status"), "counts")
        yield self._gauge(
            "journal_entries", "Journal entries of invocations that are not completed.", ("service",), "journal_entries"
        )
        yield self._gauge(
            "journal_entries_largest", "Entries of the longest such journal.", ("service",), "journal_entries_max"
        )
        yield self._gauge("state_keys", "Objects and workflows that have state.", ("service",), "state_keys")
        yield self._gauge("state_bytes", "Bytes of values in state.", ("service",), "state_bytes")

    def _durations(self) -> Iterator[Metric]:
        labels = ["engine", "service", "handler", "outcome"]
        took = HistogramMetricFamily(
            "holdfast_workflow_duration_seconds", "From acceptance, or when it was due, to completion.", labels=labels
        )
        failed = CounterMetricFamily(
            "holdfast_workflow_failed", "Invocations that ended in failure; a cancelled one did not.", labels=labels[:3]
        )
        for engine, _, tally in self._seen:
            failures: dict[tuple[str, str], int] = {}
            for (service, handler, outcome), histogram in sorted(tally.durations.items()):
                limits = [*(repr(limit) for limit in BUCKETS_S), "+Inf"]
                buckets = list(zip(limits, accumulate(histogram.counts), strict=True))
                took.add_metric([engine, service, handler, outcome], buckets, histogram.sum_s)
                count = sum(histogram.counts) if outcome == "failure" else 0
                failures[service, handler] = failures.get((service, handler), 0) + count
            for (service, handler), count in failures.items():
                failed.add_metric([engine, service, handler], count)
        yield took
        yield failed

    def _retries(self) -> Iterator[Metric]:
        retried = CounterMetricFamily(
            "holdfast_step_retries", "Attempts that failed and are repeated.", labels=["engine", "service", "handler"]
        )
        for engine, _, tally in self._seen:
            for (service, handler), count in sorted(tally.retries.items()):
                retried.add_metric([engine, service, handler], count)
        yield retried

    def _gauge(self, name: str, text: str, labels: tuple[str, ...], field: str) -> Metric:
        family = GaugeMetricFamily(f"holdfast_{name}", text, labels=["engine", *labels])
        for engine, look, _ in self._seen:
            values: dict[Any, int] = getattr(look, field) if look is not None else {}
            for key, value in sorted(values.items()):
                family.add_metric([engine, *([key] if isinstance(key, str) else key)], value)
        return family


async def render(
    sources: Iterable[Source], *, registry: CollectorRegistry | None = None, accept: str = ""
) -> tuple[bytes, str]:
    """Look at every engine; give the text and its content type.

    An engine that does not answer has `holdfast_engine_up` 0 and keeps its counters.

    Args:
        sources: Engines, one each.
        registry: An application's own metrics, to be in the same text.
        accept: The request's Accept header; OpenMetrics is given to who asks for it.
    """
    seen = await asyncio.gather(*(_looked(source) for source in sources))
    encode, content_type = choose_encoder(accept)
    merged = CollectorRegistry(auto_describe=False)
    merged.register(_Families(seen))
    if registry is not None:
        merged.register(registry)
    return encode(merged), content_type


async def _looked(source: Source) -> tuple[str, Look | None, Tally]:
    async with source.lock:  # a look that comes in after a later one would be counted again
        try:
            look = await source.look(source.tally.since_ms)
        except HoldfastError:
            return source.engine, None, source.tally
        source.tally.add(look)
    return source.engine, look, source.tally


def metrics_endpoint(*sources: Source, registry: CollectorRegistry | None = None) -> Any:
    """An ASGI application that answers a GET with the metrics of these engines.

    Args:
        sources: `EngineMetrics`, `RestateMetrics`. Each belongs to one endpoint: it counts what the endpoint has told.
        registry: An application's own metrics, for instance prometheus_client's REGISTRY.
    """

    return _Endpoint(sources, registry)


class _Endpoint:
    # A class: Starlette takes a function for something that is given a request.
    def __init__(self, sources: tuple[Source, ...], registry: CollectorRegistry | None) -> None:
        self._sources = sources
        self._registry = registry

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        if request.method not in ("GET", "HEAD"):
            await Response(status_code=405, headers={"allow": "GET, HEAD"})(scope, receive, send)
            return
        accept = request.headers.get("accept", "")
        body, content_type = await render(self._sources, registry=self._registry, accept=accept)
        await Response(body, headers={"content-type": content_type})(scope, receive, send)
