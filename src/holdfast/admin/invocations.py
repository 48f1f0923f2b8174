"""Invocations and state: look, stop, go on, restart, forget; one by one, and many in one request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from holdfast.admin.api import BATCH_MAX, LIST_LIMIT_DEFAULT, LIST_LIMIT_MAX
from holdfast.admin.registry import BODY_BYTES_MAX, known_service
from holdfast.admin.render import encoded_bytes, state_values
from holdfast.admin.requests import Fields, Query, json_fields, path_text, wrong_shape
from holdfast.core import ids
from holdfast.errors import CallerError, InvalidRequest, InvocationConflict, InvocationNotFound

if TYPE_CHECKING:
    from holdfast.runtime.engine import EngineRuntime


class Invocations:
    """One method per endpoint."""

    def __init__(self, engine: EngineRuntime) -> None:
        self._engine = engine

    # --- looking (ours alone: Restate answers these by SQL)

    async def list_invocations(self, request: Request) -> Response:
        query = request.query_params
        limit = _limit(query.get("limit"))
        found = self._engine.list_invocations(
            statuses=query.getlist("status") or None,
            service=query.get("service"),
            handler=query.get("handler"),
            key=query.get("key"),
            deployment=query.get("deployment"),
            limit=limit,
            before=query.get("before"),
            oldest_first=_flag("oldest_first", query.get("oldest_first")),
        )
        # A full page may be the last one; then the next is empty, which costs less than counting.
        next_before = found[-1].id if len(found) == limit else None
        return JSONResponse({"invocations": [asdict(info) for info in found], "next_before": next_before})

    async def invocation(self, request: Request) -> Response:
        invocation_id = _id(request)
        document = asdict(self._engine.describe(invocation_id))
        body = self._engine.input_preview(invocation_id)
        return JSONResponse(document | {"input": None if body is None else encoded_bytes(body)})

    async def journal(self, request: Request) -> Response:
        invocation_id = _id(request)
        entries, events = self._engine.journal(invocation_id), self._engine.journal_events(invocation_id)
        return JSONResponse({"entries": [asdict(entry) for entry in entries], "events": events})

    # --- one

    async def cancel(self, request: Request) -> Response:
        outcome = await self._engine.cancel(_id(request))
        return Response(status_code=202 if outcome == "appended" else 200)

    async def kill(self, request: Request) -> Response:
        await self._engine.kill(_id(request))
        return Response()

    async def pause(self, request: Request) -> Response:
        outcome = await self._engine.pause(_id(request))
        return Response(status_code=202 if outcome == "accepted" else 200)

    async def resume(self, request: Request) -> Response:
        deployment = Query(request).text("deployment")
        await self._engine.resume(_id(request), "keep" if deployment is None else deployment)
        return Response()

    async def restart_as_new(self, request: Request) -> Response:
        query = Query(request)
        from_index, deployment = query.index("from"), query.text("deployment")
        new_id = await self._engine.restart_as_new(
            _id(request), from_index=from_index, deployment="latest" if deployment is None else deployment
        )
        return JSONResponse({"new_invocation_id": new_id})

    async def purge(self, request: Request) -> Response:
        await self._engine.purge(_id(request))
        return Response()

    async def purge_journal(self, request: Request) -> Response:
        await self._engine.purge_journal(_id(request))
        return Response()

    async def delete(self, request: Request) -> Response:
        """Deprecated by Restate in favour of PATCH. It reports nothing: 202 whatever became of it."""
        mode = Query(request).choice("mode", ("cancel", "kill", "purge"))
        operations = {"cancel": self._engine.cancel, "kill": self._engine.kill, "purge": self._engine.purge}
        try:
            await operations[mode](_id(request))
        except (InvocationNotFound, InvocationConflict):
            pass  # as Restate: the answer does not tell
        return Response(status_code=202)

    # --- many

    async def batch_cancel(self, request: Request) -> Response:
        return await self._batch(request, self._engine.cancel)

    async def batch_kill(self, request: Request) -> Response:
        return await self._batch(request, self._engine.kill)

    async def batch_pause(self, request: Request) -> Response:
        return await self._batch(request, self._engine.pause)

    async def batch_purge(self, request: Request) -> Response:
        return await self._batch(request, self._engine.purge)

    async def batch_purge_journal(self, request: Request) -> Response:
        return await self._batch(request, self._engine.purge_journal)

    async def batch_resume(self, request: Request) -> Response:
        return await self._batch(request, self._engine.resume, "keep")

    async def batch_restart_as_new(self, request: Request) -> Response:
        async def restart(invocation_id: str, deployment: str) -> dict[str, str]:
            new_id = await self._engine.restart_as_new(invocation_id, deployment=deployment)
            return {"old_invocation_id": invocation_id, "new_invocation_id": new_id}

        return await self._batch(request, restart, "latest")

    async def _batch(
        self, request: Request, operate: Callable[..., Awaitable[Any]], deployment: str | None = None
    ) -> Response:
        """Operate on many. All are applied in one turn of the engine: one commit, however many there are.

        Args:
            deployment: The default of the request's `deployment`; None where it has none.
        """
        fields = await json_fields(request, BODY_BYTES_MAX)
        invocation_ids = _batch_ids(fields)
        arguments: tuple[str, ...] = ()
        if deployment is not None:
            arguments = (_deployment(fields, deployment),)
        self._engine.check_running()
        results = await asyncio.gather(
            *(operate(invocation_id, *arguments) for invocation_id in invocation_ids), return_exceptions=True
        )
        succeeded: list[Any] = []
        failed: list[dict[str, str]] = []
        for invocation_id, result in zip(invocation_ids, results, strict=True):
            if isinstance(result, CallerError):
                failed.append({"invocation_id": invocation_id, "error": _batch_error(invocation_id, result)})
            elif isinstance(result, BaseException):
                raise result
            else:
                succeeded.append(result if isinstance(result, dict) else invocation_id)
        return JSONResponse({"succeeded": succeeded, "failed": failed})

    # --- state

    async def state(self, request: Request) -> Response:
        service = known_service(self._engine, path_text(request, "service"))
        return JSONResponse(state_values(self._engine.state(service.name, path_text(request, "key"))))

    async def modify_state(self, request: Request) -> Response:
        # A byte takes up to four characters in a list of numbers.
        fields = await json_fields(request, 4 * self._engine.config.body_bytes_max + BODY_BYTES_MAX)
        key, version = fields.required_text("object_key"), fields.text("version")
        new_state = _new_state(fields)
        await self._engine.mutate_state(path_text(request, "service"), key, new_state, version)
        return Response(status_code=202)


def _id(request: Request) -> str:
    return path_text(request, "invocation_id")


def _batch_ids(fields: Fields) -> list[str]:
    found = fields.list("invocation_ids")
    if found is None:
        raise wrong_shape("missing field `invocation_ids`")
    for index, invocation_id in enumerate(found):
        if not isinstance(invocation_id, str):
            raise wrong_shape(f"invocation_ids[{index}]: expected a string")
        try:
            ids.invocation_bytes(invocation_id)
        except ids.MalformedId as error:
            raise wrong_shape(f"invocation_ids[{index}]: {error}") from None
    if len(found) > BATCH_MAX:
        raise InvalidRequest(f"Batch size {len(found)} exceeds maximum allowed size of {BATCH_MAX}")
    return cast(list[str], found)


def _deployment(fields: Fields, default: str) -> str:
    deployment = fields.text("deployment")
    if deployment is None or deployment in ("keep", "Keep", "latest", "Latest"):
        return deployment or default
    try:
        ids.check_resource(deployment, "dp")
    except ids.MalformedId as error:
        raise InvalidRequest(f"The request field 'deployment' is invalid. Reason: {error}") from None
    return deployment


def _batch_error(invocation_id: str, error: CallerError) -> str:
    """As Restate words it in batches, a little different from the same refusal of a single request."""
    if isinstance(error, InvocationNotFound):
        return f"Invocation '{invocation_id}' not found"
    text = error.message.removesuffix(".")
    return f"I{text[5:]}" if text.startswith("The invocation ") else text


def _new_state(fields: Fields) -> dict[str, bytes]:
    """`{"n": [52, 50]}` -> `{"n": b"42"}`; text is taken as its UTF-8."""
    raw = fields.object("new_state")
    if raw is None:
        raise wrong_shape("missing field `new_state`")
    state: dict[str, bytes] = {}
    for name, value in raw.items():
        if isinstance(value, str):
            state[name] = value.encode()
            continue
        if not isinstance(value, list) or any(type(byte) is not int for byte in cast(list[Any], value)):
            raise wrong_shape(f"new_state.{name}: expected a list of bytes")
        try:
            state[name] = bytes(cast(list[int], value))
        except ValueError:
            raise wrong_shape(f"new_state.{name}: a byte is a number from 0 to 255") from None
    return state


def _limit(raw: str | None) -> int:
    if raw is None:
        return LIST_LIMIT_DEFAULT
    if not raw.isascii() or not raw.isdigit() or len(raw) > 9 or not 1 <= int(raw) <= LIST_LIMIT_MAX:
        raise _bad_query("limit", f"'{raw}' is not a number from 1 to {LIST_LIMIT_MAX}")
    return int(raw)


def _flag(name: str, raw: str | None) -> bool:
    if raw not in (None, "true", "false"):
        raise _bad_query(name, f"'{raw}' is neither true nor false")
    return raw == "true"


def _bad_query(name: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"The query parameter '{name}' is invalid. Reason: {reason}")
