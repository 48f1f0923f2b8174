"""The ingress as an ASGI 3 application: parse, ask the engine, render. No framework, because this is the hot path.

One request is one coroutine of the HTTP server; no task is made for it. A caller who hangs up does not stop its
invocation (see `callers.py`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from holdfast.core.ids import MalformedId, awakeable_parts, invocation_bytes
from holdfast.core.model import Completion
from holdfast.errors import CallerError, EngineError, InvalidRequest, InvocationNotFound, InvocationNotReady
from holdfast.ingress import responses
from holdfast.ingress.callers import SWEEP_S, CallerGone, Callers, Receive
from holdfast.ingress.paths import (
    Action,
    Awakeable,
    ById,
    ByIdempotencyKey,
    ByTarget,
    ByWorkflow,
    Health,
    Invoke,
    Route,
    parse_path,
    request_path,
)
from holdfast.ingress.responses import CORS, JSON, Headers
from holdfast.ingress.rules import StoredHeaders, check_input, delay_and_limit_key, header_fields, header_text
from holdfast.ingress.targets import IdempotentTarget, InvocationTarget, WorkflowTarget, parse_target
from holdfast.protocol.discovery import HandlerSpec, ServiceSpec
from holdfast.runtime.engine import EngineRuntime
from holdfast.security.guard import Guard, Origins, Refusal

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_RETRY_AFTER_S = 5
"""An engine that is being restarted is back by then; a full disk is not, but asking costs nothing."""

_CONTENT_LENGTH = b"content-length"


class _BodyTooLarge(Exception):
    """More bytes than the limit arrived without a `content-length` that said so."""


class _Endpoint:
    """A handler with everything that can be worked out before a request comes."""

    __slots__ = ("accepts", "empty_headers", "full_headers", "handler", "is_public", "is_workflow_run")

    def __init__(self, handler: HandlerSpec) -> None:
        self.handler = handler
        self.is_public = handler.public
        self.is_workflow_run = handler.is_workflow_run
        accepted = handler.input.content_type
        # With this content type and a body nothing else needs to be checked.
        self.accepts = None if accepted is None or "*" in accepted or ";" in accepted else accepted.encode()
        output = handler.output_content_type
        self.full_headers: Headers = [] if output is None else [(b"content-type", output.encode())]
        self.empty_headers: Headers = self.full_headers if handler.set_content_type_if_empty else []


class Ingress:
    """ASGI application in front of an engine. See `create_ingress`."""

    def __init__(
        self, engine: EngineRuntime, *, body_bytes_max: int, sweep_s: float, guard: Guard, status_max: int
    ) -> None:
        self._engine = engine
        self._status_max = status_max
        self._guard = guard
        config = engine.config
        self._cors: Headers = CORS if config.allowed_origins else []
        deny, allow = config.stored_headers_deny, config.stored_headers_allow
        self._stored_headers = StoredHeaders(deny, allow)
        self._stored_headers_with_token = StoredHeaders((*deny, "authorization"), allow)
        self._body_bytes_max = body_bytes_max
        self._callers = Callers(sweep_s)
        self._services: Mapping[str, ServiceSpec] = {}
        self._endpoints: dict[str, dict[str, _Endpoint]] = {}
        self._direct: dict[str, Invoke] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await _decline(scope, receive, send)
            return
        if self._services is not self._engine.services:
            self._prepare(self._engine.services)
        headers: Headers = scope["headers"]
        fields = header_fields(headers if type(headers) is list else [(name, value) for name, value in headers])
        reply = _Reply(send, self._cors, fields.get(b"origin"), scope["method"] != "HEAD", self._status_max)
        refusal = self._guard.refusal(fields)
        try:
            if refusal is not None and await self._turn_away(refusal, scope, reply):
                return
            length = fields.get(_CONTENT_LENGTH)
            # Python refuses to convert thousands of digits; 15 are enough for anything that fits on a disk.
            if length is not None and length.isdigit() and (len(length) > 15 or int(length) > self._body_bytes_max):
                await reply.too_large()
            elif scope["method"] == "OPTIONS":
                await reply.send(200, responses.preflight(fields), b"")
            else:
                await self._answer(scope, fields, receive, reply)
        except InvalidRequest as error:
            await reply.refuse(error.status, error.message)
        except (InvocationNotFound, InvocationNotReady) as error:
            await reply.refuse(error.status, _OUTPUT_REFUSALS[error.status])
        except CallerError as error:
            await reply.refuse(error.status, error.message)
        except EngineError as error:
            await reply.unavailable(error)
        except _BodyTooLarge:
            await reply.refuse(413, "cannot read body: LengthLimitError")
        except CallerGone:
            pass

    async def _turn_away(self, refusal: Refusal, scope: Scope, reply: _Reply) -> bool:
        """Answer a request that the guard refuses. False: it may come without a token, so it was not answered."""
        if refusal.status == 403:
            await reply.forbid(refusal.message)
        elif scope["method"] == "OPTIONS":
            return False  # a browser asks before the request, and sends no token with that
        elif scope["method"] == "GET" and scope["path"].strip("/") == "restate/health":
            # Whoever has no token may know that we are well, but not what we serve.
            self._engine.check_accepting()
            await reply.send(200, [JSON], responses.health_body({}))
        else:
            await reply.refuse(refusal.status, refusal.message, *refusal.headers)
        return True

    def _prepare(self, services: Mapping[str, ServiceSpec]) -> None:
        """Work out everything that depends on the services only. They are known once the engine has started."""
        self._endpoints = {
            service.name: {handler.name: _Endpoint(handler) for handler in service.handlers.values()}
            for service in services.values()
        }
        self._direct = {}
        for service in services.values():
            for handler in () if service.keyed else service.handlers.values():
                name = f"{service.name}/{handler.name}"
                self._direct[f"/{name}"] = self._direct[f"/restate/call/{name}"] = Invoke(handler, None, is_send=False)
                self._direct[f"/{name}/send"] = self._direct[f"/restate/send/{name}"] = Invoke(
                    handler, None, is_send=True
                )
        self._services = services

    async def _answer(self, scope: Scope, fields: dict[bytes, bytes], receive: Receive, reply: _Reply) -> None:
        path: str = scope["path"]
        raw_path: bytes | None = scope.get("raw_path")
        root_path: str = scope.get("root_path", "")
        if root_path or raw_path is None or b"%" in raw_path:
            path = request_path(path, raw_path, root_path)
        route: Route | None = self._direct.get(path)
        if route is None:
            path = "/" + path.strip("/")
            route = self._direct.get(path) or parse_path(path, self._services)
        if type(route) is Invoke:
            await self._invoke(route, path, scope, fields, receive, reply)
        else:
            await self._ask(route, scope["method"], receive, reply)

    async def _invoke(
        self, route: Invoke, path: str, scope: Scope, fields: dict[bytes, bytes], receive: Receive, reply: _Reply
    ) -> None:
        handler, key = route.handler, route.key
        endpoint = self._endpoints[handler.service][handler.name]
        if not endpoint.is_public:
            raise InvalidRequest("the invoked service is not public")
        raw_idempotency_key = fields.get(b"idempotency-key")
        idempotency_key = None
        if raw_idempotency_key is not None:
            idempotency_key = header_text("idempotency-key", raw_idempotency_key)
            if endpoint.is_workflow_run:
                raise InvalidRequest(
                    "cannot use the idempotency key with workflow handlers. "
                    "The handler invocation will already be idempotent by the workflow key itself."
                )
        if route.scope is not None:
            raise _scope_refusal(route.scope)
        if scope["method"] not in ("POST", "GET"):
            raise _method_refusal()
        body = await self._body(receive)
        content_type = fields.get(b"content-type")
        if not body or content_type is None or content_type != endpoint.accepts:
            check_input(handler.input, content_type, body)
        query: bytes = scope["query_string"]
        delay_ms, has_limit_key = delay_and_limit_key(query) if query else (None, False)
        limit_key = fields.get(b"x-restate-limit-key")
        if has_limit_key or (limit_key and header_text("x-restate-limit-key", limit_key)):
            raise InvalidRequest("limit-key requires a scope to be set")
        stored = self._stored_headers_with_token if self._guard.takes_tokens else self._stored_headers
        headers = stored.of(fields, f"{path}?{query.decode('latin-1')}" if query else path)
        if route.is_send:
            receipt = await self._engine.send(handler, key, body, headers, idempotency_key, delay_ms)
            answer = [JSON, (b"x-restate-id", receipt.invocation_id.encode())]
            await reply.send(202, answer, responses.receipt_body(receipt))
            return
        if delay_ms is not None:
            raise InvalidRequest(
                "cannot use the delay query parameter with calls. The delay is supported only with sends"
            )
        completion, is_new = await self._callers.wait(
            receive, self._engine.call(handler, key, body, headers, idempotency_key)
        )
        await reply.complete(completion, endpoint, has_expiry=not is_new)

    async def _ask(self, route: Route, method: str, receive: Receive, reply: _Reply) -> None:
        """Everything but calls and sends."""
        match route:
            case ById():
                _check_invocation_id(route.invocation_id)
                _require(method, "GET")
                endpoint = self._endpoint_of(route.invocation_id)
                await self._result(route.action, route.invocation_id, endpoint, receive, reply)
            case ByWorkflow():
                _require(method, "GET")
                invocation_id = self._engine.workflow_invocation_id(route.workflow, route.key)
                endpoint = self._workflow_endpoint(route.workflow)
                await self._result(route.action, invocation_id, endpoint, receive, reply)
            case ByIdempotencyKey():
                _require(method, "GET")
                endpoint = self._endpoints.get(route.service, {}).get(route.handler)
                invocation_id = self._engine.idempotent_invocation_id(
                    route.service, route.key, route.handler, route.idempotency_key
                )
                await self._result(route.action, invocation_id, endpoint, receive, reply)
            case ByTarget():
                _require(method, "POST")
                await self._by_target(route, receive, reply)
            case Awakeable():
                _require(method, "POST")
                _check_awakeable_id(route.awakeable_id)
                await self._complete_awakeable(route, await self._body(receive), reply)
            case Health():
                _require(method, "GET")
                self._engine.check_accepting()
                await reply.send(200, [JSON], responses.health_body(self._services))
            case Invoke():
                raise AssertionError("invocations are answered by _invoke")

    async def _by_target(self, route: ByTarget, receive: Receive, reply: _Reply) -> None:
        target = parse_target(await self._body(receive), "lookup" if route.action == "lookup" else "request")
        endpoint = None
        match target:
            case InvocationTarget():
                invocation_id = target.invocation_id
                _check_invocation_id(invocation_id)
                if route.action != "lookup":
                    endpoint = self._endpoint_of(invocation_id)
            case WorkflowTarget():
                invocation_id = self._engine.workflow_invocation_id(_scoped(target.scope, target.workflow), target.key)
                endpoint = self._workflow_endpoint(target.workflow)
            case IdempotentTarget():
                invocation_id = self._engine.idempotent_invocation_id(
                    _scoped(target.scope, target.service), target.key, target.handler, target.idempotency_key
                )
                endpoint = self._endpoints.get(target.service, {}).get(target.handler)
        if route.action == "lookup":
            await reply.send(200, [JSON], responses.lookup_body(invocation_id))
        else:
            await self._result(route.action, invocation_id, endpoint, receive, reply)

    async def _result(
        self, action: Action, invocation_id: str, endpoint: _Endpoint | None, receive: Receive, reply: _Reply
    ) -> None:
        try:
            completion = await self._engine.output(invocation_id)
        except InvocationNotReady:
            if action == "output":
                raise
            # Who had to wait is told the result like the first caller, without the time until which it is kept.
            completion = await self._callers.wait(receive, self._engine.attach(invocation_id))
            await reply.complete(completion, endpoint, has_expiry=False)
        except InvocationNotFound:
            if action == "output":
                raise
            await reply.fail(invocation_id, 404, responses.error_body(404, "not found", "invocation"))
        else:
            await reply.complete(completion, endpoint, has_expiry=True)

    def _endpoint_of(self, invocation_id: str) -> _Endpoint | None:
        """The handler of a stored invocation; None when it is unknown, or the application no longer has the handler."""
        try:
            info = self._engine.describe(invocation_id)
        except InvocationNotFound:
            return None
        return self._endpoints.get(info.service, {}).get(info.handler)

    def _workflow_endpoint(self, workflow: str) -> _Endpoint | None:
        endpoints = self._endpoints.get(workflow, {}).values()
        return next((endpoint for endpoint in endpoints if endpoint.is_workflow_run), None)

    async def _complete_awakeable(self, route: Awakeable, body: bytes, reply: _Reply) -> None:
        if route.is_reject:
            await self._engine.reject_awakeable(route.awakeable_id, body.decode(errors="replace"))
        else:
            await self._engine.resolve_awakeable(route.awakeable_id, body)
        await reply.send(202, [], b"")

    async def _body(self, receive: Receive) -> bytes:
        message = await receive()
        body: bytes = message.get("body", b"")
        if message.get("more_body"):
            chunks = [body]
            size = len(body)
            while message.get("more_body"):
                message = await receive()
                chunk: bytes = message.get("body", b"")
                chunks.append(chunk)
                size += len(chunk)
                if size > self._body_bytes_max:
                    raise _BodyTooLarge
            body = b"".join(chunks)
        elif len(body) > self._body_bytes_max:
            raise _BodyTooLarge
        if message["type"] == "http.disconnect":
            # Part of a body is no request: nothing is stored.
            raise CallerGone
        return body


class _Reply:
    """Writes the one answer to a request."""

    __slots__ = ("_cors", "_has_body", "_send", "_status_max")

    def __init__(self, send: Send, cors: Headers, origin: bytes | None, has_body: bool, status_max: int) -> None:
        self._send = send
        self._cors = cors if origin is None or not cors else [*cors, (b"access-control-allow-origin", origin)]
        self._has_body = has_body
        self._status_max = status_max

    async def send(self, status: int, headers: Headers, body: bytes) -> None:
        answer = [*headers, *self._cors]
        if status in responses.BODYLESS_STATUSES:
            body = b""
        else:
            answer.append((_CONTENT_LENGTH, b"%d" % len(body)))
        try:
            await self._send({"type": "http.response.start", "status": status, "headers": answer})
            await self._send({"type": "http.response.body", "body": body if self._has_body else b""})
        except OSError:
            pass  # how an ASGI server says that nobody is there to read the answer

    async def complete(self, completion: Completion, endpoint: _Endpoint | None, *, has_expiry: bool) -> None:
        expires_at_ms = completion.expires_at_ms if has_expiry else None
        failure = completion.failure
        if failure is not None:
            status = responses.failure_status(failure, self._status_max)
            body = responses.error_body(failure.code, failure.message, "invocation", failure.metadata)
            await self.fail(completion.invocation_id, status, body, expires_at_ms)
            return
        value = completion.value or b""
        headers: Headers = [(b"x-restate-id", completion.invocation_id.encode())]
        if expires_at_ms is not None:
            headers.append(responses.expires(expires_at_ms))
        if endpoint is not None:
            headers += endpoint.full_headers if value else endpoint.empty_headers
        await self.send(200, headers, value)

    async def fail(self, invocation_id: str, status: int, body: bytes, expires_at_ms: int | None = None) -> None:
        """The invocation ended with a failure."""
        headers: Headers = [(b"x-restate-id", invocation_id.encode())]
        if expires_at_ms is not None:
            headers.append(responses.expires(expires_at_ms))
        headers += [(b"x-restate-error-source", b"invocation"), JSON]
        await self.send(status, headers, body)

    async def refuse(self, status: int, message: str, *more: tuple[bytes, bytes]) -> None:
        """The request was refused; nothing was stored."""
        headers: Headers = [(b"x-restate-error-source", b"ingress"), JSON, *more]
        await self.send(status, headers, responses.error_body(status, message, "ingress"))

    async def unavailable(self, error: EngineError) -> None:
        message = f"{error.message} ({error.hint})" if error.hint else error.message
        retry_after = (b"retry-after", b"%d" % _RETRY_AFTER_S)
        await self.refuse(503, message, retry_after, (b"x-holdfast-error-code", error.code.encode()))

    async def forbid(self, message: str) -> None:
        """The page that the request comes from may not even read why."""
        self._cors = []
        await self.refuse(403, message)

    async def too_large(self) -> None:
        """Said before anything else is looked at, so it has none of the usual headers."""
        self._cors = []
        await self.send(413, [(b"content-type", b"text/plain; charset=utf-8")], b"length limit exceeded")


_OUTPUT_REFUSALS = {404: "invocation not found", 470: "the invocation exists but has not completed yet"}


def _check_invocation_id(text: str) -> None:
    try:
        invocation_bytes(text)
    except MalformedId as error:
        raise InvalidRequest(f"bad invocation id '{text}': {error}") from error


def _check_awakeable_id(text: str) -> None:
    try:
        awakeable_parts(text)
    except MalformedId as error:
        raise InvalidRequest(f"bad awakeable id '{text}': {error}") from error


def _require(method: str, allowed: str) -> None:
    if method != allowed:
        raise _method_refusal()


def _method_refusal() -> InvalidRequest:
    return InvalidRequest("method not allowed", status=405)


def _scope_refusal(scope: str) -> InvalidRequest:
    if not scope:
        return InvalidRequest("bad scope value: value cannot be empty")
    return InvalidRequest("scoped invocations require vqueues to be enabled")


def _scoped(scope: str | None, service: str) -> str:
    # Ids are derived from the comma-separated parts, the scope first. No service name has a comma, so this is the id of
    # an invocation that cannot exist: a scoped target is answered as unknown.
    return service if scope is None else f"{scope},{service}"


async def _decline(scope: Scope, receive: Receive, send: Send) -> None:
    """Lifespan: the engine is started by its owner, so there is nothing to do. WebSocket: refused."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1002})


def create_ingress(
    engine: EngineRuntime,
    *,
    body_bytes_max: int | None = None,
    sweep_s: float = SWEEP_S,
    guard: Guard | None = None,
    status_max: int = responses.STATUS_MAX,
) -> Ingress:
    """The ingress HTTP API of an engine as an ASGI 3 application, compatible with a Restate server's.

    Serve it with any ASGI server, mount it into FastAPI or Starlette, or call it in process through
    `httpx.ASGITransport`. It may be made before the engine is started.

    Args:
        engine: answers every request; starting and stopping it is the caller's business.
        body_bytes_max: larger request bodies are refused with 413; None takes the engine's setting.
        sweep_s: how often to look for callers who hung up while they waited, seconds.
        guard: who may send requests; None: everybody but web pages of origins that the engine's setting
            `allowed_origins` does not name.
        status_max: the largest HTTP status that the server can send; failure codes beyond it are answered 500.
    """
    limit = engine.config.body_bytes_max if body_bytes_max is None else body_bytes_max
    guard = guard or Guard("ingress", origins=Origins(engine.config.allowed_origins))
    return Ingress(engine, body_bytes_max=limit, sweep_s=sweep_s, guard=guard, status_max=status_max)
