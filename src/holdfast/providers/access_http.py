"""Access to a server through Restate's HTTP APIs: ingress, admin, and SQL introspection. Documented paths only.

Requests are repeated while there is no answer, or one that says `try later`: all of them may be. The bearer token is in
the client's headers and nowhere else; nothing here logs a request.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, cast
from urllib.parse import quote, urlsplit

import httpx

from holdfast.errors import InvocationFailed
from holdfast.providers.access import EngineAccess, InvocationRow, Receipt, RunPage
from holdfast.providers.access_engine import journal_event
from holdfast.providers.errors import (
    InvalidConfiguration,
    InvalidInput,
    ProviderUnauthorized,
    ProviderUnavailable,
    RegistrationFailed,
)
from holdfast.providers.merged import Merged
from holdfast.providers.types import HistoryEvent, time_text
from holdfast.security.bearer import bearer_headers

_TRY_LATER = (429, 502, 503, 504)
_RETRY_FIRST_S, _RETRY_MAX_S = 0.1, 2.0
_STARTING = ("doesn't exist on this node", "node lookup for partition")
"""A server that has just started answers SQL with 500 and one of these texts (1.7.12) until it has opened its partitions; it
calls that benign."""
_STARTING_S = 20.0
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
_INVOCATION_COLUMNS = (
    "id, target_service_name, target_service_key, target_handler_name, status, created_at, running_at, completed_at, "
    "retry_count, last_failure, completion_result, completion_failure, pinned_deployment_id"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """What a registration answered."""

    deployment_id: str
    is_new: bool
    services: tuple[Mapping[str, Any], ...]
    """ServiceMetadata, as the server gives it."""


class HttpAccess(EngineAccess):
    """Requests to a Restate server.

    Args:
        endpoint: URL of the ingress, without a trailing slash.
        admin_endpoint: URL of the admin API.
        api_key: Sent as a bearer token with every request to either.
        request_timeout: How long one request may take.
        request_attempts: How often it is sent.
        ca_file: PEM file of the authorities of an https endpoint; None means the system's.
    Raises:
        InvalidConfiguration: `ca_file` cannot be read.
    """

    def __init__(
        self,
        endpoint: str,
        admin_endpoint: str,
        *,
        api_key: str | None = None,
        request_timeout: timedelta = timedelta(seconds=10),
        request_attempts: int = 3,
        ca_file: str | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.admin_endpoint = admin_endpoint
        self._attempts = request_attempts
        self._timeout_s = request_timeout.total_seconds()
        is_local = all(urlsplit(each).hostname in _LOCAL_HOSTS for each in (endpoint, admin_endpoint))
        self._http = httpx.AsyncClient(
            headers=bearer_headers(api_key),
            # Waiting for a free connection is no failure of the server: with many requests at once some must wait.
            timeout=httpx.Timeout(self._timeout_s, pool=None),
            verify=_trust(ca_file, is_needed=any(each.startswith("https:") for each in (endpoint, admin_endpoint))),
            # Proxies of the environment are for the internet, not for a server next door.
            trust_env=not is_local,
        )
        self._invocations = Merged(self._ask_invocations)
        self._journals = Merged(self._ask_journals)
        self._states: dict[tuple[str, tuple[str, ...] | None], Merged[dict[str, bytes]]] = {}

    # ---- ingress ---------------------------------------------------------------------------------------------------------

    async def send(
        self, service: str, key: str | None, handler: str, argument: Any, *, idempotency_key: str | None = None
    ) -> Receipt:
        answer = await self._ingress("POST", _target(service, key, handler) + "/send", argument, idempotency_key)
        if answer.status_code != 202:
            raise self._refused(answer, self.endpoint)
        receipt = self._document(answer, self.endpoint)
        return Receipt(receipt["invocationId"], receipt["status"] == "Accepted")

    async def call(
        self, service: str, key: str | None, handler: str, argument: Any, *, idempotency_key: str | None = None
    ) -> Any:
        # A call that was answered late must not be made twice: sent, then attached to, each as often as it takes.
        key_of_call = idempotency_key or _fresh_key()
        receipt = await self.send(service, key, handler, argument, idempotency_key=key_of_call)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout_s * self._attempts
        while True:
            answer = await self._attached(receipt.invocation_id, self._timeout_s)
            if answer is not None:
                break
            if loop.time() > deadline:
                raise ProviderUnavailable(
                    f"{self.endpoint}: {service}/{handler} was accepted, but gives no answer",
                    endpoint=self.endpoint,
                    hint="are the services registered there reachable from the server?",
                )
        if answer.is_success:
            return answer.json() if answer.content else None
        body = _error_body(answer)
        if _is_of_invocation(answer):
            raise InvocationFailed(
                str(body.get("message", answer.text)),
                failure_code=int(body.get("code", answer.status_code)),
                invocation_id=receipt.invocation_id,
            )
        raise self._refused(answer, self.endpoint)

    async def attach(self, invocation_id: str, wait: timedelta) -> bool:
        answer = await self._attached(invocation_id, wait.total_seconds())
        return answer is not None and answer.status_code != 404

    async def _attached(self, invocation_id: str, wait_s: float) -> httpx.Response | None:
        """The result, whatever it is; None when there is none in time."""
        url = f"{self.endpoint}/restate/invocation/{invocation_id}/attach"
        try:
            answer = await asyncio.wait_for(
                self._request("GET", url, timeout=httpx.Timeout(None, connect=self._timeout_s, pool=None)),
                max(wait_s, 0.001),
            )
        except TimeoutError:
            return None
        if answer.status_code in (401, 403) and not _is_of_invocation(answer):
            raise self._refused(answer, self.endpoint)
        return answer

    async def resolve_awakeable(self, awakeable_id: str, payload: Any) -> None:
        path = f"/restate/awakeables/{quote(awakeable_id, safe='')}/resolve"
        answer = await self._ingress("POST", path, payload, None, is_null_a_value=True)
        if answer.status_code == 400:
            raise InvalidInput("name", str(_error_body(answer).get("message", answer.text)))
        if not answer.is_success:
            raise self._refused(answer, self.endpoint)

    async def _ingress(
        self, method: str, path: str, argument: Any, idempotency_key: str | None, *, is_null_a_value: bool = False
    ) -> httpx.Response:
        headers: dict[str, str] = {}
        content: bytes | None = None
        if argument is not None or is_null_a_value:
            content, headers["content-type"] = json.dumps(argument).encode(), "application/json"
        if idempotency_key is not None:
            headers["idempotency-key"] = idempotency_key
        return await self._request(method, f"{self.endpoint}{path}", content=content, headers=headers)

    # ---- introspection -----------------------------------------------------------------------------------------------------

    async def query(self, sql: str) -> list[dict[str, Any]]:
        """Rows of a query; null columns are missing, as the server leaves them out."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _STARTING_S
        while True:
            answer = await self._request(
                "POST", f"{self.admin_endpoint}/query", json={"query": sql}, headers={"accept": "application/json"}
            )
            if answer.is_success:
                break
            if not any(text in answer.text for text in _STARTING) or loop.time() > deadline:
                raise self._refused(answer, self.admin_endpoint)
            await asyncio.sleep(_RETRY_FIRST_S)
        return cast("list[dict[str, Any]]", self._document(answer, self.admin_endpoint)["rows"])

    async def invocations(self, invocation_ids: Iterable[str]) -> dict[str, InvocationRow]:
        return await self._invocations.get(invocation_ids)

    async def _ask_invocations(self, invocation_ids: list[str]) -> dict[str, InvocationRow]:
        sql = f"SELECT {_INVOCATION_COLUMNS} FROM sys_invocation WHERE id IN ({_list(invocation_ids)})"  # noqa: S608 quoted
        return {row["id"]: _row(row) for row in await self.query(sql)}

    async def runs(
        self,
        service: str,
        handler: str,
        *,
        key_prefix: str,
        created_after: datetime | None,
        created_before: datetime | None,
        limit: int,
        cursor: str | None,
    ) -> RunPage:
        where = [f"target_service_name = {_quoted(service)}", f"target_handler_name = {_quoted(handler)}"]
        if key_prefix:
            # As a range, not with LIKE: an underscore of an id is no wildcard here.
            where += [
                f"target_service_key >= {_quoted(key_prefix)}",
                f"target_service_key < {_quoted(key_prefix + '~')}",
            ]
        if created_after is not None:
            where.append(f"created_at > {_timestamp(created_after)}")
        if created_before is not None:
            where.append(f"created_at < {_timestamp(created_before)}")
        if cursor is not None:
            at, invocation_id = _position(cursor)
            moment = _timestamp(at)
            where.append(f"(created_at < {moment} OR (created_at = {moment} AND id < {_quoted(invocation_id)}))")
        sql = (
            f"SELECT {_INVOCATION_COLUMNS} FROM sys_invocation WHERE {' AND '.join(where)} "  # noqa: S608 quoted
            f"ORDER BY created_at DESC, id DESC LIMIT {limit + 1}"
        )
        rows = [_row(row) for row in await self.query(sql)]
        has_more = len(rows) > limit
        rows = rows[:limit]
        following = json.dumps([time_text(rows[-1].created_at), rows[-1].id]) if has_more else None
        return RunPage(tuple(rows), following)

    async def states(
        self, service: str, keys: Iterable[str], names: Iterable[str] | None = None
    ) -> dict[str, dict[str, bytes]]:
        which = None if names is None else tuple(names)
        merged = self._states.get((service, which))
        if merged is None:
            merged = self._states[service, which] = Merged(partial(self._ask_states, service, which))
        return await merged.get(keys)

    async def _ask_states(
        self, service: str, names: tuple[str, ...] | None, keys: list[str]
    ) -> dict[str, dict[str, bytes]]:
        found: dict[str, dict[str, bytes]] = {}
        which = "" if names is None else f" AND key IN ({_list(names)})"
        sql = (
            f"SELECT service_key, key, value FROM state WHERE service_name = {_quoted(service)} "  # noqa: S608 quoted
            f"AND service_key IN ({_list(keys)}){which}"
        )
        for row in await self.query(sql):
            found.setdefault(row["service_key"], {})[row["key"]] = bytes.fromhex(row.get("value", ""))
        return found

    async def keys_with(self, service: str, name: str, *, after: str, limit: int) -> list[tuple[str, bytes]]:
        sql = (
            f"SELECT service_key, value FROM state WHERE service_name = {_quoted(service)} AND key = {_quoted(name)} "  # noqa: S608 quoted
            f"AND service_key > {_quoted(after)} ORDER BY service_key LIMIT {limit}"
        )
        return [(row["service_key"], bytes.fromhex(row.get("value", ""))) for row in await self.query(sql)]

    async def journal(self, invocation_id: str) -> list[HistoryEvent]:
        return (await self._journals.get([invocation_id])).get(invocation_id, [])

    async def _ask_journals(self, invocation_ids: list[str]) -> dict[str, list[HistoryEvent]]:
        some = _list(invocation_ids)
        entries, events = await asyncio.gather(
            self.query(
                f'SELECT id, "index", entry_type, name, appended_at, entry_lite_json FROM sys_journal '  # noqa: S608 quoted
                f'WHERE id IN ({some}) ORDER BY id, "index"'
            ),
            self.query(
                f"SELECT id, appended_at, event_json FROM sys_journal_events WHERE id IN ({some}) "  # noqa: S608 quoted
                "ORDER BY id, appended_at"
            ),
        )
        found: dict[str, list[HistoryEvent]] = {}
        for row in entries:
            if "appended_at" in row:
                found.setdefault(row["id"], []).append(_entry(row))
        for row in events:
            event = journal_event(_time(row["appended_at"]), json.loads(row["event_json"]))
            found.setdefault(row["id"], []).append(event)
        return found

    # ---- admin -------------------------------------------------------------------------------------------------------------

    async def admin(
        self, method: str, path: str, body: Any = None, *, timeout_s: float | None = None
    ) -> httpx.Response:
        """A request to the admin API; the caller judges the answer."""
        arguments: dict[str, Any] = {} if body is None else {"json": body}
        if timeout_s is not None:
            arguments["timeout"] = httpx.Timeout(timeout_s, pool=None)
        return await self._request(method, f"{self.admin_endpoint}{path}", **arguments)

    async def cancel(self, invocation_id: str) -> None:
        await self._operate(invocation_id, "cancel")

    async def kill(self, invocation_id: str) -> None:
        await self._operate(invocation_id, "kill")

    async def _operate(self, invocation_id: str, operation: str) -> None:
        answer = await self.admin("PATCH", f"/invocations/{invocation_id}/{operation}")
        if not answer.is_success and answer.status_code not in (404, 409):  # unknown, or over already
            raise self._refused(answer, self.admin_endpoint)

    async def handlers(self, service: str) -> Mapping[str, str] | None:
        found = await self.service(service)
        if found is None:
            return None
        return {each["name"]: str(each.get("ty") or "service").lower() for each in found["handlers"]}

    async def service(self, name: str) -> dict[str, Any] | None:
        """ServiceMetadata of the latest revision; None for an unknown service."""
        answer = await self.admin("GET", f"/services/{quote(name, safe='')}")
        if answer.status_code == 404:
            return None
        if not answer.is_success:
            raise self._refused(answer, self.admin_endpoint)
        return self._document(answer, self.admin_endpoint)

    async def deployment(self, deployment_id: str) -> dict[str, Any] | None:
        """Full form of a deployment; None for an unknown one."""
        answer = await self.admin("GET", f"/deployments/{deployment_id}")
        if answer.status_code in (400, 404):
            return None
        if not answer.is_success:
            raise self._refused(answer, self.admin_endpoint)
        return self._document(answer, self.admin_endpoint)

    async def register(self, body: Mapping[str, Any]) -> Registered:
        """POST /deployments.

        Raises:
            RegistrationFailed: with the server's own status, message and code.
        """
        # Discovery happens meanwhile: a cold function may take its time.
        answer = await self.admin("POST", "/deployments", dict(body), timeout_s=max(self._timeout_s, 30.0))
        if answer.status_code not in (200, 201):
            raise self._registration_failed(answer, str(body.get("uri") or body.get("arn")))
        document = self._document(answer, self.admin_endpoint)
        return Registered(
            deployment_id=document["id"], is_new=answer.status_code == 201, services=tuple(document["services"])
        )

    async def move(self, deployment_id: str, body: Mapping[str, Any]) -> None:
        """PATCH a deployment: another address for the same services.

        Raises:
            RegistrationFailed: as `register`.
        """
        answer = await self.admin("PATCH", f"/deployments/{deployment_id}", dict(body), timeout_s=30.0)
        if not answer.is_success:
            raise self._registration_failed(answer, str(body.get("uri")))

    async def remove_deployment(self, deployment_id: str) -> None:
        """DELETE a deployment; an unknown one is no error."""
        answer = await self.admin("DELETE", f"/deployments/{deployment_id}?force=true")
        if not answer.is_success and answer.status_code != 404:
            raise self._refused(answer, self.admin_endpoint)

    async def health(self) -> None:
        """One look at both APIs.

        Raises:
            ProviderUnavailable: one of them does not answer.
        """
        for url in (f"{self.endpoint}/restate/health", f"{self.admin_endpoint}/health"):
            answer = await self._request("GET", url, attempts=1)
            if not answer.is_success:
                raise self._refused(answer, url)

    async def is_healthy(self, url: str, timeout_s: float) -> bool:
        """Whether something answers 200 there. Not the server: no token is sent."""
        # Loading the certificate store would hold up the loop for longer than everything else here.
        verify = True if url.startswith("https:") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            async with httpx.AsyncClient(timeout=timeout_s, trust_env=False, verify=verify) as client:
                return (await client.get(url)).status_code == 200
        except httpx.HTTPError:
            return False

    # ---- requests ------------------------------------------------------------------------------------------------------------

    async def _request(self, method: str, url: str, *, attempts: int | None = None, **arguments: Any) -> httpx.Response:
        attempts = self._attempts if attempts is None else attempts
        delay_s = _RETRY_FIRST_S
        while True:
            attempts -= 1
            try:
                answer = await self._http.request(method, url, **arguments)
                if answer.status_code not in _TRY_LATER or attempts <= 0 or _is_of_invocation(answer):
                    return answer
            except httpx.RequestError as error:
                if attempts <= 0:
                    raise self._unreachable(url, error) from error
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, _RETRY_MAX_S)

    def _unreachable(self, url: str, error: httpx.RequestError) -> ProviderUnavailable:
        endpoint = self.admin_endpoint if url.startswith(f"{self.admin_endpoint}/") else self.endpoint
        if isinstance(error, httpx.TimeoutException):
            what = f"gave no answer within {self._timeout_s:g} s"
        elif isinstance(error, httpx.ConnectError):
            what = f"cannot be reached: {error}"
        else:
            what = f"broke off: {str(error) or type(error).__name__}"
        return ProviderUnavailable(f"{endpoint} {what}", endpoint=endpoint)

    def _document(self, answer: httpx.Response, endpoint: str) -> dict[str, Any]:
        try:
            document: Any = answer.json()
        except ValueError:
            document = None
        if isinstance(document, dict):
            return cast("dict[str, Any]", document)
        raise ProviderUnavailable(  # a login page, a proxy's greeting …
            f"{endpoint} answered {answer.request.method} {answer.request.url.path} with something that is not JSON",
            endpoint=endpoint,
            status_code=answer.status_code,
            body=answer.text,
            hint="is that the address of a Restate server?",
        )

    def _refused(self, answer: httpx.Response, endpoint: str) -> ProviderUnavailable | InvalidInput:
        body = _error_body(answer)
        message = str(body.get("message") or answer.text.strip() or answer.reason_phrase)
        what = (
            f"{endpoint} answered {answer.status_code} to {answer.request.method} {answer.request.url.path}: {message}"
        )
        status = answer.status_code
        if status in (401, 403):
            return ProviderUnauthorized(
                what,
                endpoint=endpoint,
                status_code=status,
                body=answer.text,
                hint="check workflow.restate.auth_type and workflow.restate.api_key",
            )
        if status == 413:
            return InvalidInput("input", what)
        return ProviderUnavailable(what, endpoint=endpoint, status_code=status, body=answer.text)

    def _registration_failed(self, answer: httpx.Response, where: str) -> RegistrationFailed | ProviderUnavailable:
        body = _error_body(answer)
        if (not body and answer.status_code >= 500) or answer.status_code in (401, 403):
            refused = self._refused(answer, self.admin_endpoint)
            assert isinstance(refused, ProviderUnavailable)
            return refused
        message, server_code = str(body.get("message") or answer.text.strip()), body.get("restate_code")
        code = f" {server_code}" if server_code else ""
        return RegistrationFailed(
            f"{self.admin_endpoint} refused {where}: {answer.status_code}{code}: {message}",
            status_code=answer.status_code,
            body=answer.text,
            server_code=server_code,
        )

    async def close(self) -> None:
        for merged in (self._invocations, self._journals, *self._states.values()):
            await merged.close()
        await self._http.aclose()


def _trust(ca_file: str | None, *, is_needed: bool) -> ssl.SSLContext:
    if not is_needed:  # loading the certificate store takes longer than everything else here
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise InvalidConfiguration([f"workflow.restate.ca_file: {ca_file!r} cannot be used: {error}"]) from error


def _target(service: str, key: str | None, handler: str) -> str:
    parts = [service, handler] if key is None else [service, key, handler]
    return "/" + "/".join(quote(part, safe="") for part in parts)


def _fresh_key() -> str:
    import uuid

    return uuid.uuid4().hex


def _quoted(value: str) -> str:
    """An SQL string literal. (PostgreSQL's dialect: a quote is doubled, a backslash means itself.)"""
    return "'" + value.replace("'", "''") + "'"


def _list(values: Iterable[str]) -> str:
    return ", ".join(map(_quoted, values))


def _timestamp(value: datetime) -> str:
    return f"TIMESTAMP {_quoted(value.astimezone(UTC).isoformat(timespec='milliseconds'))}"


def _position(cursor: str) -> tuple[datetime, str]:
    at, invocation_id = json.loads(cursor)
    return datetime.fromisoformat(at), str(invocation_id)


def _row(row: Mapping[str, Any]) -> InvocationRow:
    status = row["status"]
    return InvocationRow(
        id=row["id"],
        service=row["target_service_name"],
        handler=row["target_handler_name"],
        key=row.get("target_service_key"),
        status=status,
        created_at=_time(row["created_at"]),
        started_at=_time(row["running_at"]) if "running_at" in row else None,
        completed_at=_time(row["completed_at"]) if "completed_at" in row else None,
        has_run=row.get("retry_count", 0) > 0 or status in ("running", "suspended", "completed") or "running_at" in row,
        retry_count=row.get("retry_count", 0),
        last_failure=row.get("last_failure"),
        completion_result=row.get("completion_result"),
        completion_failure=row.get("completion_failure"),
        deployment_id=row.get("pinned_deployment_id"),
    )


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _entry(row: Mapping[str, Any]) -> HistoryEvent:
    return HistoryEvent(
        timestamp=_time(row["appended_at"]),
        type=row["entry_type"],
        name=row.get("name", ""),
        details={"index": row["index"], **_details(row.get("entry_lite_json"))},
    )


def _details(text: str | None) -> dict[str, Any]:
    """What is worth showing of an entry: its own fields, without the wrapping of types that its name says already."""
    try:
        found: Any = json.loads(text) if text else {}
    except ValueError:
        return {}
    while isinstance(found, dict) and len(cast("dict[str, Any]", found)) == 1:
        inner = next(iter(cast("dict[str, Any]", found).values()))
        if not isinstance(inner, dict):
            break
        found = cast(Any, inner)
    return {"entry": found} if found else {}


def _is_of_invocation(answer: httpx.Response) -> bool:
    """Whether an error is the handler's own, whatever its code looks like."""
    return "invocation" in (answer.headers.get("x-restate-error-source"), _error_body(answer).get("source"))


def _error_body(answer: httpx.Response) -> dict[str, Any]:
    try:
        body: Any = answer.json()
    except ValueError:
        return {}
    return cast("dict[str, Any]", body) if isinstance(body, dict) else {}
