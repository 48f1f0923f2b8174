"""Calls that Schemathesis makes of our OpenAPI documents, to a server in a process of its own.

Of every answer: it comes in time, the document knows its status, its type and its shape, and an error says which it is.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import requests
import schemathesis
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.api.processes import running
from tests.fuzz.asked import Asked

PATIENCE_S = 20.0
"""No handler of `application.py` waits, and no request here is one that may: longer than this is a hang."""

NOWHERE = "http://127.0.0.1:1"
"""Nothing is sent to addresses that were drawn."""

Known = dict[str, Sequence[str]]
"""Parameter of a path -> what exists under it."""

NOT_IMPLEMENTED = 501
"""Says it all; a Restate server gives it without a body, too."""
OFTEN_FINE = {404, 405, 503}
"""Of any path: a part that is empty or has a slash too many makes another one."""


@contextmanager
def _serving() -> Generator[dict[str, Any]]:
    """Where a `holdfast serve` listens, which must not fail meanwhile."""
    with tempfile.TemporaryDirectory(prefix="holdfast-fuzz-") as home:
        folder = Path(home)
        options = ("--db", str(folder / "engine.db"), "--ingress-port", "0", "--admin-port", "0", "--drain", "0")
        with running(folder, "serve", "tests.fuzz.application:app", *options) as process:
            yield process.document
            assert process.popen.poll() is None, f"the server is gone: {process.log_path.read_text()[-2000:]}"
            assert process.stop() == 0
            log = process.log_path.read_text()
            assert "Traceback" not in log, log[log.index("Traceback") - 500 :][:3000]


@contextmanager
def ingress() -> Generator[Asked]:
    """The documents of services, which the admin API gives out and the ingress fulfils."""
    with _serving() as server, requests.Session() as session:
        documents = [
            httpx.get(f"{server['admin_url']}/services/{name}/openapi").json() for name in ("Shop", "Cart", "Delivery")
        ]
        known: Known = {"key": ["k"], "idempotencyKey": ["once"]}
        yield Asked(_cases(documents, known), _check(session, server["ingress_url"], _ingress_error))


@contextmanager
def workflows() -> Generator[Asked]:
    """`/v1`."""
    with _serving() as server, requests.Session() as session:
        url = server["admin_url"]
        for flow in ("hello", "approval"):
            spec = {"workflow_id": flow, "name": flow, "definition": f"tests.api.flows:{flow}"}
            httpx.post(f"{url}/v1/workflows", json=spec).raise_for_status()
            started = {"execution_name": "e", "input": "x"}
            httpx.post(f"{url}/v1/workflows/{flow}/executions", json=started).raise_for_status()
        httpx.get(f"{url}/v1/executions/hello.e/wait").raise_for_status()
        # Only what has ended is known by name: others may be waited for, and watched, for as long as they take.
        known: Known = {"workflow_id": ["hello", "approval"], "execution_id": ["hello.e"]}
        document = httpx.get(f"{url}/v1/openapi.json").json()
        yield Asked(_cases([document], known), _check(session, url, _problem))


@contextmanager
def admin() -> Generator[Asked]:
    """The admin API, with invocations of every fate behind it."""
    with _serving() as server, requests.Session() as session:
        url, ingress_url = server["admin_url"], server["ingress_url"]
        ids = [
            httpx.post(f"{ingress_url}/{path}", json=body).json()["invocationId"]
            for path, body in (
                ("Shop/nothing/send", None),
                ("Shop/refuse/send", {"article": "book", "count": 18}),
                ("Cart/k/put/send", {"article": "book", "count": 1}),
                ("Delivery/k/run/send", "here"),
                ("Shop/nothing/send?delay=1h", None),
            )
        ]
        known: Known = {
            "invocation_id": ids,
            "service": ["Shop", "Cart", "Delivery"],
            "handler": ["order", "put", "run"],
            "key": ["k"],
            "deployment": [httpx.get(f"{url}/deployments").json()["deployments"][0]["id"]],
        }
        document = httpx.get(f"{url}/openapi").json()
        yield Asked(_cases([document], known), _check(session, url, _admin_error))


# ---- what is sent --------------------------------------------------------------------------------------------------------


def _cases(documents: list[dict[str, Any]], known: Known) -> st.SearchStrategy[Any]:
    """Requests as described, and others; often about something that exists."""
    schemas: list[Any] = [schemathesis.openapi.from_dict(document) for document in documents]
    operations = [found.ok() for schema in schemas for found in schema.get_all_operations()]

    @st.composite
    def cases(draw: st.DrawFn) -> Case:
        operation = draw(st.sampled_from(operations))
        mode = draw(st.sampled_from([GenerationMode.POSITIVE, GenerationMode.POSITIVE, GenerationMode.NEGATIVE]))
        case: Any = draw(operation.as_strategy(generation_mode=mode))
        for name in case.path_parameters or {}:
            if name in known and draw(st.sampled_from([True, True, True, False])):
                case.path_parameters[name] = draw(st.sampled_from(known[name]))
        if isinstance(case.body, dict):
            if "uri" in case.body:
                case.body["uri"] = NOWHERE
            if "definition" in case.body and draw(st.booleans()):
                case.body["definition"] = "tests.api.flows:hello"
        return case

    return cases()


# ---- what is answered ----------------------------------------------------------------------------------------------------


def _check(session: requests.Session, url: str, is_typed: Callable[[requests.Response], bool]) -> Callable[[Any], None]:
    def holds(case: Any) -> None:
        answer = case.call(base_url=url, session=session, timeout=PATIENCE_S)
        told = f"{case.as_curl_command()}\n{answer.status_code} {answer.content[:500]!r}"
        if answer.status_code >= 500 and answer.status_code != NOT_IMPLEMENTED:
            assert is_typed(answer), told
        if answer.status_code in OFTEN_FINE:
            return
        checks = [status_code_conformance, *([content_type_conformance] if answer.content else [])]
        if not _content_type(answer).startswith("text/event-stream"):
            checks.append(
                response_schema_conformance
            )  # of a stream it looks at events, as only OpenAPI 3.2 describes them
        case.validate_response(answer, checks=checks)

    return holds


def _content_type(answer: Any) -> str:
    return next(iter(answer.headers.get("content-type", [])), "")


def _json(answer: Any) -> Any:
    try:
        return answer.json()
    except ValueError:
        return {}


def _problem(answer: Any) -> bool:
    is_problem = _content_type(answer) == "application/problem+json"
    return is_problem and _json(answer).get("code", "").startswith("HF")


def _admin_error(answer: Any) -> bool:
    return bool(_json(answer).get("restate_code"))


def _ingress_error(answer: Any) -> bool:
    return _json(answer).get("code") == answer.status_code
