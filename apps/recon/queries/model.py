"""What the query routes take and give."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

DEPTH_MAX = 5
LIMIT, LIMIT_MAX = 100, 1000
OFFSET_MAX = 10_000_000
QUERY_CHARS_MAX = 500
K, K_MAX = 10, 50

GraphKind = Literal["by_asn", "by_location", "by_vuln", "by_service", "by_port", "neighbours"]
Via = Literal["asn", "city", "service", "vuln"]


class GraphQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /v1/query/graph`. Which members count depends on `query_type`."""

    query_type: GraphKind
    asn: int | None = None
    city: str | None = None
    region: str | None = None
    """Name or code."""
    country: str | None = None
    """Two letters."""
    cve: str | None = None
    product: str | None = None
    service: str | None = None
    """Name, as `ssh`."""
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] | None = None
    protocol: Literal["tcp", "udp"] | None = None
    ip: str | None = None
    via: list[Via] | None = None
    """For neighbours: what they share with `ip`. None: any of it."""
    limit: int = LIMIT
    offset: int = 0


class SimilarQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /v1/query/similar`."""

    query: str
    k: int = K


class Pagination(msgspec.Struct):
    limit: int
    offset: int
    total: int
    """How many there are, not how many are on the page."""
    has_more: bool
    next_offset: int | None


class GraphAnswer(msgspec.Struct):
    query_type: str
    results: list[dict[str, Any]]
    pagination: Pagination
    query_time_ms: float


class NewAnswer(msgspec.Struct):
    """Answer of `GET /v1/query/new`."""

    kind: str
    results: list[dict[str, Any]]
    count: int
    next_cursor: str | None
    """For the page behind this one; also for what will be new later: asked again at the end, it gives what came since."""
    has_more: bool
    query_time_ms: float


class SimilarAnswer(msgspec.Struct):
    query: str
    method: str
    results: list[dict[str, Any]]
    count: int
    timestamp: datetime
    query_time_ms: float


class HostAnswer(msgspec.Struct):
    """Answer of `GET /v1/query/host/{ip}`."""

    depth: int
    host: dict[str, Any]
    query_time_ms: float


class QueryErrorBody(msgspec.Struct):
    error: str
    message: str
    code: int
    timestamp: datetime
