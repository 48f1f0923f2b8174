"""SQL introspection: Restate's `POST /query` over the rows of an engine. Needs the extra `holdfast[sql]`.

    rows = await query(engine, "SELECT id, status FROM sys_invocation WHERE status != 'completed'")

The engine's process only passes queries on: DataFusion runs in a worker process of its own (`worker`), which reads the
database file. Its start is paid by the first query.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.query.http import create_query_endpoint
    from holdfast.query.queries import query

__all__ = ["create_query_endpoint", "query"]

# Loaded when first asked for: the command line needs neither.
_HOMES = {"create_query_endpoint": "holdfast.query.http", "query": "holdfast.query.queries"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'holdfast.query' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
