"""Ask an engine by SQL: limits, errors, and the three steps of a query."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

from holdfast.errors import EngineError, QueryLimited, QueryRefused, SqlNotInstalled
from holdfast.query import workers
from holdfast.query.exchange import Answer, Form, Query
from holdfast.query.workers import WorkerEnded

if TYPE_CHECKING:
    from holdfast.runtime.engine import EngineRuntime

AT_A_TIME = 2
"""Queries of one engine that run at the same time; others wait."""
WAITING_MAX = 16
"""More are refused: they would only wait for their time to be over."""


class _Places:
    """Of one engine, for all who ask it."""

    def __init__(self) -> None:
        self.at_work = asyncio.Semaphore(AT_A_TIME)
        self.count = 0
        """Queries at work and waiting."""


_places: WeakKeyDictionary[EngineRuntime, _Places] = WeakKeyDictionary()


async def answer_query(engine: EngineRuntime, sql: str, form: Form) -> Answer:
    """The result of a query that reads, as the body of an HTTP answer.

    Raises:
        QueryRefused: DataFusion does not like it.
        QueryLimited: it takes too long, its result is too large, or too many others wait.
        SqlNotInstalled: the extra is not there.
        EngineStopped: the engine does not run.
    """
    engine.check_running()
    places = _places.setdefault(engine, _Places())
    if places.count >= AT_A_TIME + WAITING_MAX:
        raise QueryLimited(
            f"{WAITING_MAX} queries are waiting already", status=503, hint="ask again when they are done"
        )
    timeout_s = engine.config.query_timeout_ms / 1000
    places.count += 1
    try:
        async with asyncio.timeout(timeout_s), places.at_work:
            return _checked(await _ask(engine, sql, form, timeout_s))
    except TimeoutError:
        raise QueryLimited(
            f"the query did not end within {timeout_s:g} s",
            hint="narrow it, best by id or target_service_name, or raise query_timeout_ms",
        ) from None
    finally:
        places.count -= 1


async def _ask(engine: EngineRuntime, sql: str, form: Form, timeout_s: float) -> Answer:
    worker = workers.take()
    is_free = False
    try:
        snapshot = await engine.snapshot(worker.open)
        config = engine.config
        query = Query(sql, form, snapshot, config.query_rows_max, config.query_memory_bytes_max, timeout_s)
        answer = await worker.query(query)
        is_free = True
        return answer
    except WorkerEnded as ended:
        raise QueryLimited(
            f"the query ended the process that worked on it ({ended})",
            hint="it needs too much memory, or is nested too deeply; the engine was not touched",
        ) from None
    finally:
        if is_free:
            workers.give_back(worker)
        else:  # it failed, or it is still at work for somebody who waits no more
            worker.end()


def _checked(answer: Answer) -> Answer:
    match answer.outcome:
        case "done":
            return answer
        case "refused":
            raise QueryRefused(answer.text, status=answer.status)
        case "limited":
            raise QueryLimited(
                f"the query {answer.text}",
                hint="narrow it, add a LIMIT, or raise query_rows_max or query_memory_bytes_max",
            )
        case "missing":
            raise SqlNotInstalled(
                f"SQL needs DataFusion, which is not installed: {answer.text}", hint="pip install 'holdfast[sql]'"
            )
        case "failed":
            raise EngineError(f"the query failed: {answer.text}", hint="please report it, with the query")


async def query(engine: EngineRuntime, sql: str) -> list[dict[str, Any]]:
    """Rows of a query as dicts; columns that are null are None.

    Timestamps are RFC 3339 texts, durations ISO 8601, bytes hexadecimal, as in the HTTP API.

    Raises:
        QueryRefused, QueryLimited, SqlNotInstalled, EngineStopped: as `answer_query`.
    """
    answer = await answer_query(engine, sql, "json")
    rows = cast(list[dict[str, Any]], json.loads(answer.body)["rows"])
    return [{name: row.get(name) for name in answer.columns} for row in rows]
