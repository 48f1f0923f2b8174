"""A Restate server as a source of metrics: what its SQL introspection tells."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, cast

import httpx

from holdfast.errors import EngineError
from holdfast.metrics.tally import Completion, Handler, Look, Tally

_COUNTS = "SELECT target_service_name, status, count(1) AS n FROM sys_invocation GROUP BY target_service_name, status"
# scheduled_at is not used: without it 1.7.12 leaves scheduled_start_at empty.
_COMPLETIONS = """
    SELECT id, target_service_name, target_handler_name, created_at, scheduled_at, scheduled_start_at, completed_at,
           completion_result, completion_failure
    FROM sys_invocation WHERE status = 'completed' AND completed_at >= '{since}'
"""
_RETRIES = """
    SELECT id, target_service_name, target_handler_name, retry_count FROM sys_invocation
    WHERE status <> 'completed' AND retry_count > 1
"""
_JOURNALS = """
    SELECT target_service_name, sum(journal_size) AS total, max(journal_size) AS largest FROM sys_invocation
    WHERE status <> 'completed' GROUP BY target_service_name
"""
_STATE = """
    SELECT service_name, count(DISTINCT service_key) AS n, sum(octet_length(encode(value, 'hex'))) / 2 AS size FROM state
    GROUP BY service_name
"""
_CANCELLED = "[409] cancelled"


class RestateMetrics:
    """Looks at a Restate server through its admin API; `RestateMetrics` of a holdfast engine elsewhere works as well.

    The server tells how often an invocation that runs now was tried: retries between two looks are counted, those of
    an invocation that came and went between them are not.

    Args:
        admin_url: The server's admin API, `http://localhost:9070`.
        headers: Sent with every request, such as `authorization`.
        timeout_s: For one query.
    """

    engine = "restate"

    def __init__(self, admin_url: str, *, headers: Mapping[str, str] | None = None, timeout_s: float = 10.0) -> None:
        self._url = admin_url.rstrip("/") + "/query"
        self._headers = {"accept": "application/json", **(headers or {})}
        self._timeout_s = timeout_s
        self.tally = Tally()
        self.lock = asyncio.Lock()

    async def look(self, since_ms: int) -> Look:
        """
        Raises:
            EngineError: the server does not answer, or refuses.
        """
        since = datetime.fromtimestamp(since_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        # A client per look: an application that is scraped every 15 s need not keep a connection, nor close one.
        async with httpx.AsyncClient(headers=self._headers, timeout=self._timeout_s) as http:
            counts = await self._rows(http, _COUNTS)
            completions = await self._rows(http, _COMPLETIONS.format(since=since))
            retries = await self._rows(http, _RETRIES)
            journals = await self._rows(http, _JOURNALS)
            state = await self._rows(http, _STATE)
        return Look(
            counts={(row["target_service_name"], row["status"]): row["n"] for row in counts},
            completions=[_completion(row) for row in completions],
            retries=dict(map(_retries, retries)),
            # The server leaves out what is NULL: a sum over scheduled invocations, which have no journal yet.
            journal_entries={row["target_service_name"]: row.get("total") or 0 for row in journals},
            journal_entries_max={row["target_service_name"]: row.get("largest") or 0 for row in journals},
            state_keys={row["service_name"]: row["n"] for row in state},
            state_bytes={row["service_name"]: row.get("size") or 0 for row in state},
        )

    async def _rows(self, http: httpx.AsyncClient, sql: str) -> Iterable[dict[str, Any]]:
        try:
            answer = await http.post(self._url, json={"query": sql})
        except httpx.HTTPError as error:
            raise EngineError(
                f"{self._url} does not answer: {error!r}", hint="start it, or give its admin URL"
            ) from None
        if answer.status_code != 200:
            raise EngineError(
                f"{self._url} answered {answer.status_code}: {answer.text[:200]}",
                hint="give the admin URL of a Restate server, and a token if it wants one",
            )
        return cast("Iterable[dict[str, Any]]", answer.json()["rows"])


def _retries(row: dict[str, Any]) -> tuple[tuple[str, Handler], int]:
    # The first attempt counts as one.
    return (row["id"], (row["target_service_name"], row["target_handler_name"])), row["retry_count"] - 1


def _completion(row: dict[str, Any]) -> Completion:
    outcome = "success" if row["completion_result"] == "success" else "failure"
    if row.get("completion_failure") == _CANCELLED:
        outcome = "cancelled"
    return Completion(
        row["id"],
        row["target_service_name"],
        row["target_handler_name"],
        _ms(row.get("scheduled_start_at") or row["created_at"]),
        _ms(row["completed_at"]),
        outcome,
    )


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)
