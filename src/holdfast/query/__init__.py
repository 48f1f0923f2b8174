"""SQL introspection: Restate's `POST /query` over the rows of an engine. Needs the extra `holdfast[sql]`.

    rows = await query(engine, "SELECT id, status FROM sys_invocation WHERE status != 'completed'")

The engine's process only passes queries on: DataFusion runs in a worker process of its own (`worker`), which reads the
database file. Its start is paid by the first query, and nothing here imports DataFusion before.
"""

from holdfast.query.http import create_query_endpoint
from holdfast.query.queries import query

__all__ = ["create_query_endpoint", "query"]
