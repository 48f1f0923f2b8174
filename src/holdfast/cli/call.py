"""`holdfast call` and `holdfast send`: requests to the ingress."""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import quote

import click

from holdfast.admin.api import INGRESS_TOKEN_VARIABLE
from holdfast.cli.body import check_json, read
from holdfast.cli.output import ingress_option, json_option, show, talk
from holdfast.errors import (
    EngineError,
    EngineStopped,
    Forbidden,
    HoldfastError,
    InvalidRequest,
    InvocationFailed,
    Unauthorized,
)

if TYPE_CHECKING:
    import httpx

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class _Body:
    content: bytes | None
    content_type: str | None


def _request_options(command: _Command) -> _Command:
    options = [
        click.argument("target"),
        click.argument("body", required=False),
        click.option("--idempotency-key", help="The same key again gives the same invocation, not a second one."),
        click.option("--header", "-H", "headers", multiple=True, metavar="NAME:VALUE", help="Passed to the handler."),
        click.option("--content-type", help="Of a body that is not JSON; it is then sent as it is."),
        ingress_option,
        json_option,
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@_request_options
@click.option("--timeout", "timeout_s", type=float, help="Seconds to wait; the invocation goes on. Default: no limit.")
def call(
    target: str,
    body: str | None,
    idempotency_key: str | None,
    headers: tuple[str, ...],
    content_type: str | None,
    ingress_url: str,
    as_json: bool,
    timeout_s: float | None,
) -> None:
    """Call a handler and print its result.

    TARGET is Service/handler or Object/key/handler. BODY is JSON, @FILE, or - for standard input.

    In Python: engine.client.service_call.
    """
    answer = _post(ingress_url, _path(target), _body(body, content_type), headers, idempotency_key, timeout_s=timeout_s)
    invocation_id = answer.headers.get("x-restate-id", "")
    if (failure := _failure(answer)) is not None:
        if as_json:
            click.echo(json.dumps({"invocation_id": invocation_id, "failure": failure}, ensure_ascii=False))
        raise _failed(failure, invocation_id)
    if as_json:
        click.echo(json.dumps({"invocation_id": invocation_id, "result": _result(answer)}, ensure_ascii=False))
    elif answer.content:
        sys.stdout.buffer.write(answer.content)
        sys.stdout.buffer.write(b"" if answer.content.endswith(b"\n") else b"\n")


@click.command()
@_request_options
@click.option("--delay", help="Start later: 10s, 5m, '1h 30m', PT1S.")
def send(
    target: str,
    body: str | None,
    idempotency_key: str | None,
    headers: tuple[str, ...],
    content_type: str | None,
    ingress_url: str,
    as_json: bool,
    delay: str | None,
) -> None:
    """Send a request without waiting, print its invocation id.

    TARGET is Service/handler or Object/key/handler. BODY is JSON, @FILE, or - for standard input.

    In Python: engine.client.service_send.
    """
    query = {"delay": delay} if delay is not None else {}
    path = _path(target) + "/send"
    answer = _post(ingress_url, path, _body(body, content_type), headers, idempotency_key, query=query, timeout_s=30)
    if (failure := _failure(answer)) is not None:
        raise _failed(failure, "")
    receipt: dict[str, Any] = answer.json()
    show(receipt, as_json, lambda: str(receipt["invocationId"]))
    if not as_json:
        start = f", starts at {receipt['executionTime']}" if "executionTime" in receipt else ""
        before = receipt["status"] == "PreviouslyAccepted"
        talk(
            f"{'accepted before' if before else 'accepted'}{start}; follow it: "
            f"holdfast invocations show {receipt['invocationId']}"
        )


def _path(target: str) -> str:
    service, *middle, handler = target.split("/") if "/" in target else [target, ""]
    if not service or not handler:
        raise InvalidRequest(
            f"{target!r} names no handler",
            hint="write Service/handler, or Object/key/handler; see: holdfast services list",
        )
    return "/" + "/".join(quote(part, safe="") for part in [service, *(["/".join(middle)] if middle else []), handler])


def _body(argument: str | None, content_type: str | None) -> _Body:
    if argument is None:
        return _Body(None, content_type)
    content = read(argument)
    if content_type is None:
        check_json(content, otherwise="--content-type")
    return _Body(content, content_type or "application/json")


def _headers(pairs: tuple[str, ...]) -> list[tuple[str, str]]:
    headers: list[tuple[str, str]] = []
    for pair in pairs:
        name, colon, value = pair.partition(":")
        if not colon or not name.strip():
            raise InvalidRequest(f"{pair!r} is no header", hint="write --header 'name: value'")
        headers.append((name.strip(), value.strip()))
    return headers


def _post(
    ingress_url: str,
    path: str,
    body: _Body,
    headers: tuple[str, ...],
    idempotency_key: str | None,
    *,
    query: dict[str, str] | None = None,
    timeout_s: float | None,
) -> httpx.Response:
    import httpx

    from holdfast.admin.client import http_client, unreachable

    url = ingress_url.rstrip("/")
    all_headers = _headers(headers)
    if body.content_type is not None:
        all_headers.append(("content-type", body.content_type))
    if idempotency_key is not None:
        all_headers.append(("idempotency-key", idempotency_key))
    try:
        with http_client(url, timeout_s=timeout_s, token=os.environ.get(INGRESS_TOKEN_VARIABLE)) as http:
            return http.post(url + path, params=query, content=body.content, headers=all_headers)
    except httpx.ReadTimeout as error:
        hint = "see how far it is: holdfast invocations list"
        raise EngineError(f"no result within {timeout_s:g} s; the invocation goes on", hint=hint) from error
    except httpx.TransportError as error:
        raise unreachable(url, error) from error
    except (httpx.InvalidURL, UnicodeEncodeError) as error:
        raise InvalidRequest(f"cannot send that request: {error}") from error


def _failure(answer: httpx.Response) -> dict[str, Any] | None:
    """How the invocation failed, if that is what was answered: code, message, metadata.

    Raises:
        HoldfastError: the ingress refused the request, so there is no invocation.
    """
    # A terminal error may carry any code, even 200: the header decides, not the status.
    source = answer.headers.get("x-restate-error-source")
    if answer.is_success and source is None:
        return None
    try:
        body = cast(dict[str, Any], answer.json())
        code, message = int(body["code"]), str(body["message"])
    except (ValueError, KeyError, TypeError):
        raise _refused(answer.status_code, answer.text.strip()[:200] or answer.reason_phrase) from None
    if source != "invocation":
        raise _refused(answer.status_code, message)
    return {"code": code, "message": message, "metadata": body.get("metadata") or {}}


def _failed(failure: dict[str, Any], invocation_id: str) -> InvocationFailed:
    message = f"[{failure['code']}] {failure['message']}"
    error = InvocationFailed(message, failure_code=failure["code"], invocation_id=invocation_id)
    if invocation_id:
        error.hint = f"how it got there: holdfast invocations show {invocation_id}"
    return error


def _refused(status: int, message: str) -> HoldfastError:
    if status in (Unauthorized.status, Forbidden.status):
        return (Unauthorized if status == Unauthorized.status else Forbidden)(message)
    if status == 503:
        return EngineStopped(message, hint="it is stopping or has stopped; start it again: holdfast serve module:app")
    if status >= 500:
        return EngineError(message)
    hint = "what handlers accept: holdfast services list" if status == 400 else ""
    return InvalidRequest(message, status=status, hint=hint)


def _result(answer: httpx.Response) -> Any:
    if not answer.content:
        return None
    if "json" in answer.headers.get("content-type", ""):
        return answer.json()
    try:
        return answer.content.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(answer.content).decode()}
