"""A typed client of the admin API: what the CLI uses, and what scripts can use as well.

    with AdminClient() as admin:
        for invocation in admin.list_invocations(statuses=["paused"]):
            admin.resume(invocation.id)

Errors are those that the engine raises in process (`InvocationNotFound`, …).
"""

from __future__ import annotations

import base64
import os
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from json import loads
from typing import Any, Literal, Self, TypeVar, cast
from urllib.parse import quote

import httpx

from holdfast.admin.api import ADMIN_TOKEN_VARIABLE, ADMIN_URL, BATCH_MAX, ERROR_CODE_HEADER, LIST_LIMIT_DEFAULT
from holdfast.errors import (
    CallerError,
    DeploymentError,
    DeploymentRefused,
    EngineError,
    EngineStopped,
    HoldfastError,
    InvalidManifest,
    InvalidRequest,
    InvocationFailed,
)
from holdfast.query.media import COLUMNS_HEADER
from holdfast.runtime.introspect import InvocationInfo, JournalEntryInfo
from holdfast.security.bearer import bearer_headers

_Row = TypeVar("_Row", InvocationInfo, JournalEntryInfo)


BatchOperation = Literal["cancel", "kill", "pause", "resume", "restart-as-new", "purge", "purge-journal"]


@dataclass(slots=True)
class BatchResult:
    """What became of many invocations."""

    succeeded: list[str] = field(default_factory=list[str])
    failed: dict[str, str] = field(default_factory=dict[str, str])
    """Invocation -> why not."""
    restarted: dict[str, str] = field(default_factory=dict[str, str])
    """Invocation -> the new one, after restart-as-new."""


@dataclass(slots=True)
class QueryResult:
    """Rows of a query, each with all columns; values are those of JSON."""

    columns: list[str]
    rows: list[dict[str, Any]]


class AdminClient:
    """Asks a running engine over HTTP. Synchronous; close it, or use it in a `with` block.

    Every method raises `EngineStopped` when nothing answers at `url`, `InvalidRequest` when an argument is malformed.
    """

    def __init__(self, url: str = ADMIN_URL, *, timeout_s: float = 30.0, token: str | None = None) -> None:
        """
        Args:
            url: Base address of the admin API.
            timeout_s: How long one answer may take, seconds.
            token: For an engine that asks for one; None takes HOLDFAST_ADMIN_TOKEN of the environment, if it is set.
        """
        self.url = url.rstrip("/")
        token = os.environ.get(ADMIN_TOKEN_VARIABLE) if token is None else token
        self._http = http_client(self.url, timeout_s=timeout_s, token=token)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def version(self) -> dict[str, Any]:
        """Version of the engine and of its API, and where its ingress is."""
        return self._get("/version")

    def services(self) -> list[dict[str, Any]]:
        """Every service with its handlers and settings, as Restate's `ServiceMetadata`."""
        return self._get("/services")["services"]

    def service(self, name: str) -> dict[str, Any]:
        """One service. Raises `InvalidRequest` (404) when there is none of that name."""
        return self._get(f"/services/{_part(name)}")

    def configure_service(
        self,
        name: str,
        *,
        public: bool | None = None,
        idempotency_retention: str | None = None,
        workflow_completion_retention: str | None = None,
        journal_retention: str | None = None,
        inactivity_timeout: str | None = None,
        abort_timeout: str | None = None,
    ) -> dict[str, Any]:
        """Change settings of a service, until it is registered again; what is None stays. Returns the service.

        Durations are texts like `3h`, `1d 12h` or `PT3H`. Raises `InvalidRequest`: no such service, or no such setting
        of its type.
        """
        body = {
            "public": public,
            "idempotency_retention": idempotency_retention,
            "workflow_completion_retention": workflow_completion_retention,
            "journal_retention": journal_retention,
            "inactivity_timeout": inactivity_timeout,
            "abort_timeout": abort_timeout,
        }
        return self._document("PATCH", f"/services/{_part(name)}", body)

    def deployments(self) -> list[dict[str, Any]]:
        """Every deployment with the revisions of its services, oldest first."""
        return self._get("/deployments")["deployments"]

    def deployment(self, deployment_id: str) -> dict[str, Any]:
        """One deployment with its services in full. Raises `InvalidRequest` (404) when there is none of that id."""
        return self._get(f"/deployments/{_part(deployment_id)}")

    def register_deployment(
        self,
        uri: str,
        *,
        headers: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
        use_http_11: bool = False,
        force: bool = False,
        breaking: bool = False,
        dry_run: bool = False,
    ) -> tuple[dict[str, Any], bool]:
        """Have services that are served at `uri`, in any language, run by the engine.

        Args:
            headers: Sent with every request to the endpoint.
            metadata: Yours; shown with the deployment.
            use_http_11: Do not try HTTP/2; every step is then a request of its own.
            force: Discover an address again that is known, in place: for development.
            breaking: Allow a service to change its type.
            dry_run: Check, and change nothing.
        Returns:
            (the deployment, is_new); is_new is False when the address was known already.
        Raises:
            DeploymentRefused: the endpoint cannot be reached, or offers what cannot be served.
        """
        body = {
            "uri": uri,
            "additional_headers": dict(headers or {}),
            "metadata": dict(metadata or {}),
            "use_http_11": use_http_11,
            "force": force,
            "breaking": breaking,
            "dry_run": dry_run,
        }
        answer = self._request("POST", "/deployments", json=body)
        return _parsed(answer), answer.status_code == 201

    def update_deployment(
        self,
        deployment_id: str,
        *,
        uri: str | None = None,
        headers: Mapping[str, str] | None = None,
        use_http_11: bool | None = None,
        overwrite: bool = False,
        dry_run: bool = False,
    ) -> dict[str, Any]:
        """Move a deployment: another address, other headers, the same services. Returns the deployment.

        Args:
            headers: In place of all that it has; None leaves them.
            overwrite: Take the services that the address offers now in place of the recorded ones.
            dry_run: Check, and change nothing.
        Raises:
            DeploymentRefused: the address does not offer the recorded services.
        """
        body = {
            "uri": uri,
            "additional_headers": None if headers is None else dict(headers),
            "use_http_11": use_http_11,
            "overwrite": overwrite,
            "dry_run": dry_run,
        }
        return self._document("PATCH", f"/deployments/{_part(deployment_id)}", body)

    def remove_deployment(self, deployment_id: str) -> None:
        """Forget a deployment, whatever is bound to it. Raises `InvalidRequest` (404) when there is none of that id."""
        self._request("DELETE", f"/deployments/{_part(deployment_id)}", {"force": "true"})

    def list_invocations(
        self,
        *,
        statuses: Sequence[str] = (),
        service: str | None = None,
        handler: str | None = None,
        key: str | None = None,
        deployment: str | None = None,
        limit: int = LIST_LIMIT_DEFAULT,
        before: str | None = None,
        oldest_first: bool = False,
    ) -> list[InvocationInfo]:
        """One page of invocations, newest first.

        Args:
            statuses: Only these; any when empty.
            service: Only of this service.
            handler: Only of handlers of this name.
            key: Only of this object or workflow key.
            deployment: Only those bound to this deployment.
            limit: Rows at most, up to 1,000.
            before: Go on behind this invocation, the last one of the previous page.
            oldest_first: Turn the order round.
        """
        query: dict[str, Any] = {"status": list(statuses), "limit": limit, "oldest_first": str(oldest_first).lower()}
        query |= {"service": service, "handler": handler, "key": key, "deployment": deployment, "before": before}
        page = self._get("/invocations", {name: value for name, value in query.items() if value is not None})
        return [_row(InvocationInfo, row) for row in page["invocations"]]

    def invocation(self, invocation_id: str) -> InvocationInfo:
        """One invocation. Raises `InvocationNotFound`."""
        return _row(InvocationInfo, self._get(_invocation(invocation_id)))

    def journal(self, invocation_id: str) -> list[JournalEntryInfo]:
        """Its journal, in stored order. Raises `InvocationNotFound`."""
        entries = self._get(_invocation(invocation_id, "/journal"))["entries"]
        return [_row(JournalEntryInfo, row) for row in entries]

    def journal_events(self, invocation_id: str) -> list[dict[str, Any]]:
        """Its failed attempts (each distinct failure once) and pauses, oldest first. Raises `InvocationNotFound`."""
        return self._get(_invocation(invocation_id, "/journal"))["events"]

    def cancel(self, invocation_id: str) -> Literal["appended", "done"]:
        """Ask it to stop: `appended` when its handler will be told, `done` when it had not started and is gone.

        Raises `InvocationNotFound`, `InvocationConflict` (already completed).
        """
        return "appended" if self._patch(_invocation(invocation_id, "/cancel")) == 202 else "done"

    def kill(self, invocation_id: str) -> None:
        """End it and its children at once. Raises `InvocationNotFound`, `InvocationConflict` (already completed)."""
        self._patch(_invocation(invocation_id, "/kill"))

    def pause(self, invocation_id: str) -> Literal["accepted", "done"]:
        """Let it wait for `resume`: `accepted` when its attempt must end first.

        Raises `InvocationNotFound`, `InvocationConflict` (not running).
        """
        return "accepted" if self._patch(_invocation(invocation_id, "/pause")) == 202 else "done"

    def resume(self, invocation_id: str, deployment: str = "keep") -> None:
        """Go on with a paused or suspended one, or retry a failing one now.

        Args:
            deployment: `keep` the one it is bound to, `latest`, or an id.
        Raises:
            InvocationNotFound, InvocationTooEarly (not started yet).
            InvocationConflict: completed, or running while another deployment is asked for.
            InvalidRequest: no such deployment, or it cannot read the journal.
        """
        self._patch(_invocation(invocation_id, "/resume"), {"deployment": deployment})

    def restart_as_new(self, invocation_id: str, *, from_index: int = 0, deployment: str = "latest") -> str:
        """Run a completed one again, as a new invocation with the same input; its id.

        Args:
            from_index: The new one takes over the journal up to this entry; 0: the input only.
            deployment: `latest`, `keep` the one it is bound to, or an id.
        Raises:
            InvocationNotFound, InvocationConflict (still running), InvocationTooEarly (not started yet).
            InvalidRequest: its journal is gone, it is a workflow, or the prefix cannot stand for itself.
        """
        query = {"from": from_index, "deployment": deployment}
        answer = self._request("PATCH", _invocation(invocation_id, "/restart-as-new"), query)
        return _parsed(answer)["new_invocation_id"]

    def batch(
        self, operation: BatchOperation, invocation_ids: Sequence[str], deployment: str | None = None
    ) -> BatchResult:
        """Do one thing to many, in one request per thousand; whatever becomes of one, the others are done.

        Args:
            deployment: For resume and restart-as-new, as there.
        """
        result = BatchResult()
        for start in range(0, len(invocation_ids), BATCH_MAX):
            body: dict[str, Any] = {"invocation_ids": list(invocation_ids[start : start + BATCH_MAX])}
            if deployment is not None:
                body["deployment"] = deployment
            answer = self._document("POST", f"/internal/invocations_batch_operations/{operation}", body)
            for done in answer["succeeded"]:
                if isinstance(done, str):
                    result.succeeded.append(done)
                else:
                    result.succeeded.append(done["old_invocation_id"])
                    result.restarted[done["old_invocation_id"]] = done["new_invocation_id"]
            result.failed |= {failure["invocation_id"]: failure["error"] for failure in answer["failed"]}
        return result

    def purge(self, invocation_id: str) -> None:
        """Forget a completed one, with its result. Raises `InvocationNotFound`, `InvocationConflict` (not completed)."""
        self._patch(_invocation(invocation_id, "/purge"))

    def purge_journal(self, invocation_id: str) -> None:
        """Forget the journal of a completed one, keep its result. Raises like `purge`."""
        self._patch(_invocation(invocation_id, "/purge-journal"))

    def state(self, service: str, key: str) -> dict[str, bytes]:
        """Whole state of one key; empty when there is none. Raises `InvalidRequest` (404): no such service."""
        values = self._get(f"/services/{_part(service)}/state/{_part(key)}")
        return {name: _bytes(value) for name, value in values.items()}

    def set_state(self, service: str, key: str, state: Mapping[str, bytes], *, version: str | None = None) -> None:
        """Replace the whole state of one key. Queued behind its lock: returns when stored, not when applied.

        Args:
            version: `core.results.state_version` of the state that this is based on. When the key has changed since, this change
                is dropped, silently, as Restate does. None: unconditional.
        """
        body = {"object_key": key, "new_state": {name: list(value) for name, value in state.items()}}
        self._request(
            "POST", f"/services/{_part(service)}/state", json=body | ({"version": version} if version else {})
        )

    def query(self, sql: str) -> QueryResult:
        """Rows of a SELECT over `sys_invocation`, `sys_journal`, `state` and the other tables of docs/query.md.

        Timestamps are RFC 3339 texts, durations ISO 8601, bytes hexadecimal. Raises `QueryRefused`, `QueryLimited`, and
        `SqlNotInstalled` when the engine lacks the extra `holdfast[sql]`.
        """
        answer = self._request("POST", "/query", json={"query": sql}, headers={"accept": "application/json"})
        rows: list[dict[str, Any]] = _parsed(answer)["rows"]
        told = answer.headers.get(COLUMNS_HEADER)
        # A Restate server does not tell: then they are those that are not null everywhere.
        columns: list[str] = list(dict.fromkeys(name for row in rows for name in row)) if told is None else loads(told)
        return QueryResult(columns, [{name: row.get(name) for name in columns} for row in rows])

    def _get(self, path: str, query: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return _parsed(self._request("GET", path, query))

    def _document(self, method: str, path: str, body: Any) -> dict[str, Any]:
        return _parsed(self._request(method, path, json=body))

    def _patch(self, path: str, query: Mapping[str, Any] | None = None) -> int:
        return self._request("PATCH", path, query).status_code

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        try:
            answer = self._http.request(method, f"{self.url}{path}", params=query, json=json, headers=headers)
        except httpx.TransportError as error:
            raise unreachable(self.url, error) from error
        if answer.is_success:
            return answer
        raise _refusal(answer)


def http_client(url: str, *, timeout_s: float | None, token: str | None = None) -> httpx.Client:
    """A client for an engine's API. Proxies of the environment are for the internet, not for an engine next door.

    Raises:
        InvalidRequest: no header can carry the token.
    """
    # Loading the certificate store takes longer than everything else here; plain HTTP needs none. SSL_CERT_FILE names
    # another store: the certificate of an engine is often of an authority of one's own.
    verify = httpx.create_ssl_context() if url.startswith("https:") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    headers = bearer_headers(token)
    return httpx.Client(timeout=httpx.Timeout(timeout_s, connect=5.0), trust_env=False, verify=verify, headers=headers)


def unreachable(url: str, error: httpx.TransportError) -> EngineError:
    """What to raise when there was no answer."""
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        hint = "name the file of the authority that made it: SSL_CERT_FILE=ca.pem"
        return EngineError(f"the certificate of {url} is not trusted", hint=hint)
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return EngineStopped(f"no engine answers at {url}", hint="start one: holdfast serve module:app")
    return EngineError(f"lost the engine at {url}: {str(error) or type(error).__name__}", hint="is it still running?")


def _parsed(answer: httpx.Response) -> dict[str, Any]:
    try:
        return cast(dict[str, Any], answer.json())
    except ValueError:
        raise _unexpected(answer) from None


def _refusal(answer: httpx.Response) -> HoldfastError:
    error_type = _error_types().get(answer.headers.get(ERROR_CODE_HEADER, ""))
    if error_type is None:
        return _unexpected(answer)
    refusal = answer.json()
    message = str(refusal["message"])
    if issubclass(error_type, InvalidRequest | DeploymentRefused | InvalidManifest):
        return error_type(message, status=answer.status_code, restate_code=refusal.get("restate_code"))
    return error_type(message)


def _unexpected(answer: httpx.Response) -> HoldfastError:
    message = f"{answer.request.method} {answer.request.url} was answered {answer.status_code}"
    detail = answer.text.strip()[:200]
    if answer.status_code == 400 and detail.startswith("Invalid URL"):  # an id in the path that is none
        return InvalidRequest(detail)
    return EngineError(
        f"{message}: {detail}" if detail else message, hint="is that the admin API of a holdfast engine?"
    )


def _error_types() -> dict[str, type[HoldfastError]]:
    # InvocationFailed needs more than a message, and no admin request raises it.
    found: dict[str, type[HoldfastError]] = {}
    waiting: list[type[HoldfastError]] = [CallerError, DeploymentError, EngineError]
    while waiting:
        error_type = waiting.pop()
        if not issubclass(error_type, InvocationFailed):
            found[error_type.code] = error_type
        waiting += error_type.__subclasses__()
    return found


def _invocation(invocation_id: str, rest: str = "") -> str:
    if not invocation_id or "/" in invocation_id:  # it would be another path, escaped or not
        raise InvalidRequest(f"{invocation_id!r} is no invocation id", hint="ids look like inv_1…")
    return f"/invocations/{_part(invocation_id)}{rest}"


def _part(text: str) -> str:
    return quote(text, safe="")


def _row(row_type: type[_Row], raw: Mapping[str, Any]) -> _Row:
    # A newer engine may tell more than this client knows.
    known: dict[str, Any] = {column.name: raw[column.name] for column in fields(row_type)}
    return row_type(**known)


def _bytes(value: Mapping[str, str]) -> bytes:
    return value["utf8"].encode() if "utf8" in value else base64.b64decode(value["base64"])
