"""The typed client that scripts use."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest

from holdfast.admin.client import AdminClient
from holdfast.core.results import state_version
from holdfast.errors import EngineError, EngineStopped, InvalidRequest, InvocationConflict, InvocationNotFound
from tests.cli.support import Served

UNKNOWN = "inv_12kpUQONmeFb0f6RCQUL06M6iQaCnI02st"


def test_rows_are_the_engines_own_types(engine: Served):
    invocation_id = engine.call("Counter/typed/add", 2)
    with AdminClient(f"{engine.admin_url}/") as admin:
        [info] = admin.list_invocations(service="Counter", key="typed")
        assert info == admin.invocation(invocation_id)
        assert (info.target, info.status, info.completion_result) == ("Counter/typed/add", "completed", "success")
        entries = admin.journal(invocation_id)
        assert [entry.index for entry in entries] == list(range(info.journal_size))
        assert admin.journal_events(invocation_id) == []


def test_services_and_version(engine: Served):
    assert engine.admin.service("Counter") in engine.admin.services()
    assert engine.admin.version()["ingress_endpoint"] == f"{engine.ingress_url}/"


def test_errors_are_those_of_the_engine(engine: Served):
    completed = engine.call("Greeter/greet", "Ada")
    with pytest.raises(InvocationNotFound, match=UNKNOWN):
        engine.admin.journal(UNKNOWN)
    with pytest.raises(InvocationConflict, match="already completed"):
        engine.admin.kill(completed)
    with pytest.raises(InvalidRequest, match="'Nope' does not exist") as raised:
        engine.admin.service("Nope")
    assert raised.value.status == 404
    with pytest.raises(InvalidRequest, match="Reason: bad format"):
        engine.admin.cancel("Greeter")
    for path in ("../../health", ""):
        with pytest.raises(InvalidRequest, match="is no invocation id"):
            engine.admin.cancel(path)


def test_state_is_only_replaced_when_it_is_still_what_was_seen(engine: Served):
    seen = engine.admin.state("Counter", "versions")
    assert seen == {}
    engine.call("Counter/versions/add", 1)
    engine.admin.set_state("Counter", "versions", {"total": b"100"}, version=state_version(list(seen.items())))
    assert engine.admin.state("Counter", "versions") == {"total": b"1"}
    seen = engine.admin.state("Counter", "versions")
    changed = {"total": b"100", "\u00e9": b"\xff"}
    engine.admin.set_state("Counter", "versions", changed, version=state_version(list(seen.items())))
    assert engine.admin.state("Counter", "versions") == changed
    engine.admin.set_state("Counter", "versions", {})
    assert engine.admin.state("Counter", "versions") == {}


def test_nobody_there(free_port: int):
    with AdminClient(f"http://127.0.0.1:{free_port}") as admin, pytest.raises(EngineStopped, match="no engine answers"):
        admin.services()


class _Other(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"<h1>welcome</h1>"
        self.send_response(200 if self.path == "/services" else 404)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def other_server() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), _Other) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_somebody_else_there(other_server: str):
    with AdminClient(other_server) as admin:
        with pytest.raises(EngineError, match="was answered 404: <h1>welcome") as raised:
            admin.invocation(UNKNOWN)
        assert raised.value.hint == "is that the admin API of a holdfast engine?"
        with pytest.raises(EngineError, match="was answered 200"):
            admin.services()
