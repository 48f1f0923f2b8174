"""Prometheus metrics of the embedded engine and of a Restate server, under the same names.

    app.mount("/metrics", metrics_endpoint(EngineMetrics(engine)))
    app.mount("/metrics", metrics_endpoint(RestateMetrics("http://localhost:9070")))

`holdfast serve` has them on its admin port, `holdfast metrics` serves those of a Restate server. docs/metrics.md says
what each one means.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.metrics.engine import EngineMetrics
    from holdfast.metrics.exposition import metrics_endpoint, render
    from holdfast.metrics.restate import RestateMetrics
    from holdfast.metrics.tally import Source

__all__ = ["EngineMetrics", "RestateMetrics", "Source", "metrics_endpoint", "render"]

# Loaded when first asked for: an engine that nobody scrapes does not load the library.
_HOMES = {
    "EngineMetrics": "holdfast.metrics.engine",
    "RestateMetrics": "holdfast.metrics.restate",
    "Source": "holdfast.metrics.tally",
    "metrics_endpoint": "holdfast.metrics.exposition",
    "render": "holdfast.metrics.exposition",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'holdfast.metrics' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
