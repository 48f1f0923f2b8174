"""A Restate server behind a door: a token, a limit on requests, hours in which nobody opens. Imports waits and goes on."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import trustme
from click.testing import CliRunner

from apps.imports.cli import main
from tests.imports.extracts import full_extract
from tests.imports.running import PATIENCE_S, Running, events, running_imports, wait_until_registered
from tests.providers.proxy import Fault, Passed, Proxy, running_proxy
from tests.support.restate_server import RunningRestate, free_ports, running_server, skip_without_server

pytestmark = pytest.mark.restate_server

TOKEN = "t0ken-of-the-engine"


@pytest.fixture(scope="module")
def server() -> Iterator[RunningRestate]:
    skip_without_server()
    with running_server() as server:
        yield server


@dataclass
class Behind:
    """imports that knows the server by the addresses of two proxies, which ask for the token."""

    imports: Running
    ingress: Proxy
    admin: Proxy


@contextmanager
def behind_proxies(folder: Path, patience_s: str) -> Iterator[Behind]:
    """Two proxies in front of a server of their own. They speak TLS, as a hosted engine does."""
    skip_without_server()
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "authority.pem")
    certificate = folder / "certificate.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
    with (
        running_server() as server,
        running_proxy(server.ingress_url, certificate=certificate) as ingress,
        running_proxy(server.admin_url, certificate=certificate) as admin,
    ):
        ingress.required_token = admin.required_token = TOKEN
        variables = {
            "RESTATE_INGRESS_URL": ingress.url,
            "RESTATE_ADMIN_URL": admin.url,
            "RESTATE_AUTH_TOKEN": TOKEN,
            "SSL_CERT_FILE": str(folder / "authority.pem"),
            "IMPORTS_ENGINE_PATIENCE_S": patience_s,
            "IMPORTS_BATCH_ROWS": "1",
        }
        with running_imports(folder, server, ready=True, **variables) as imports:
            yield Behind(imports, ingress, admin)


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    with behind_proxies(tmp_path_factory.mktemp("patient"), "10") as behind:
        yield behind


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    """Gives up on a request soon."""
    with behind_proxies(tmp_path_factory.mktemp("hasty"), "0.2") as behind:
        yield behind


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)  # between two looks


def test_a_protected_engine_is_reached_with_the_token_which_nobody_else_sees(patient: Behind) -> None:
    imports, ingress = patient.imports, patient.ingress
    imports.start(full_extract(imports.folder, imports.next_number()), "with-token")
    assert imports.until("with-token", "completed", "failed")["error"] is None
    [sent] = [each for each in ingress.passed if each.path == "/KboImport/with-token/run/send"]
    assert sent.headers["authorization"] == f"Bearer {TOKEN}"
    assert {each.headers["authorization"] for each in patient.admin.passed if each.path == "/deployments"} == {
        f"Bearer {TOKEN}"
    }
    ingress.required_token = "another"
    refused = imports.http.get("/api/imports/with-token/progress")
    ingress.required_token = TOKEN
    assert (refused.status_code, refused.json()["error"]) == (502, "engine_away")
    assert "RESTATE_AUTH_TOKEN" in refused.json()["message"]
    assert TOKEN not in refused.text + (imports.folder / "imports.log").read_text()


def at_most(requests_per_s: int) -> tuple[Fault, list[Passed]]:
    """A limit like that of a hosted engine. Returns the fault, and the list of what it refused."""
    recent: deque[float] = deque()
    refused: list[Passed] = []

    def limit(request: Passed) -> tuple[int, str] | None:
        now = time.monotonic()
        while recent and recent[0] < now - 1:
            recent.popleft()
        if len(recent) >= requests_per_s:
            refused.append(request)
            return 429, '{"message":"slow down"}'
        recent.append(now)
        return None

    return limit, refused


def test_a_limited_engine_is_asked_more_slowly_and_nobody_sees_an_error(patient: Behind) -> None:
    imports = patient.imports
    # A hosted engine allows 30 to 40; fewer make sure that the limit is met on a slow machine, too.
    patient.ingress.fault, refused = at_most(10)
    imports.start(full_extract(imports.folder, imports.next_number(), enterprises=20), "limited")
    with ThreadPoolExecutor(12) as pool:
        asked = pool.map(lambda _: imports.http.get("/api/imports/limited/progress").status_code, range(24))
        assert set(asked) == {200}
    assert refused, "the limit was never reached"
    patient.ingress.fault = None
    assert imports.until("limited", "completed", "failed")["error"] is None


def test_a_start_waits_for_an_engine_that_is_down_for_a_while(patient: Behind) -> None:
    imports = patient.imports
    refusals = 0

    def down(_: Passed) -> tuple[int, str] | None:
        nonlocal refusals
        refusals += 1
        return (503, "down for a while") if refusals <= 3 else None

    patient.ingress.fault = down
    imports.start(full_extract(imports.folder, imports.next_number()), "patient")
    patient.ingress.fault = None
    assert refusals > 3
    assert imports.until("patient", "completed", "failed")["error"] is None


def test_an_engine_that_stays_away_is_a_502_and_the_same_start_is_safe_later(hasty: Behind) -> None:
    imports = hasty.imports
    hasty.ingress.fault = lambda _: (503, "down")
    body = {"fileUrl": str(full_extract(imports.folder, imports.next_number())), "workflowId": "later"}
    refused = imports.http.post("/api/imports/start", json=body)
    assert (refused.status_code, refused.json()["error"]) == (502, "engine_away")
    assert refused.headers["retry-after"] == "5"
    assert imports.http.get("/api/imports/later/progress").status_code == 502
    page = imports.http.get("/imports/later")
    assert page.status_code == 502
    assert "The engine is away" in page.text
    assert imports.http.get("/health").json() == {"status": "ok", "engine": "away"}
    hasty.ingress.fault = None
    assert imports.http.post("/api/imports/start", json=body).status_code == 202
    assert imports.until("later", "completed", "failed")["error"] is None


def test_a_start_whose_answer_was_lost_is_told_as_started(patient: Behind) -> None:
    """Asked again by imports itself, the engine says that it has it already."""
    imports, lost = patient.imports, 0

    def lose_the_answer(request: Passed) -> tuple[int, str] | None:
        nonlocal lost
        if not request.path.endswith("/run/send") or lost:
            return None
        lost += 1
        headers = {"content-type": "application/json"}
        accepted = httpx.post(f"{patient.ingress.target}{request.path}", content=request.body, headers=headers)
        assert accepted.json()["status"] == "Accepted"
        return 503, "the answer got lost"

    patient.ingress.fault = lose_the_answer
    body = {"fileUrl": str(full_extract(imports.folder, imports.next_number())), "workflowId": "lost"}
    assert [imports.http.post("/api/imports/start", json=body).status_code for _ in range(2)] == [202, 409]
    patient.ingress.fault = None
    assert lost == 1
    assert imports.until("lost", "completed", "failed")["error"] is None


def test_cancel_and_events_tell_that_the_engine_is_away(hasty: Behind) -> None:
    imports = hasty.imports
    extract = full_extract(imports.folder, imports.next_number())
    imports.start(imports.gate.hold(extract), "unheard")
    hasty.admin.fault = lambda _: (503, "down")
    refused = imports.http.post("/api/imports/unheard/cancel")
    assert (refused.status_code, refused.json()["error"]) == (502, "engine_away")
    hasty.admin.fault = None
    hasty.ingress.fault = lambda _: (503, "down")
    with imports.http.stream("GET", "/api/imports/unheard/events") as answer:
        told = events(answer)
        assert next(told)[0] == "away"
        hasty.ingress.fault = None
        imports.gate.release(extract)
        *_, (kind, last) = told
    assert (kind, last["status"]) == ("progress", "completed")


def test_a_running_import_does_not_notice_and_its_watcher_waits(hasty: Behind) -> None:
    """The engine reaches the worker directly; only questions pass the door."""
    imports, ingress = hasty.imports, hasty.ingress
    imports.start(full_extract(imports.folder, imports.next_number(), enterprises=60), "watched")
    imports.until("watched", "processing", completed=1)
    ingress.fault = lambda _: (503, "down")
    asked = len(ingress.passed)
    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(CliRunner().invoke, main, ["--url", imports.url, "watch", "watched"])
        wait_until(lambda: len(ingress.passed) > asked + 4)
        assert not watching.done()
        ingress.fault = None
        result = watching.result(PATIENCE_S)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("completed watched: ")


def test_the_worker_is_registered_when_the_server_comes_up(tmp_path: Path) -> None:
    skip_without_server()
    [port] = free_ports(1)
    with (
        running_server() as server,
        running_imports(tmp_path, server, ready=False, RESTATE_ADMIN_URL=f"http://127.0.0.1:{port}") as imports,
    ):
        assert imports.http.get("/health").status_code == 200
        with running_proxy(server.admin_url, port=port) as admin:
            wait_until(lambda: any(each.path == "/deployments" for each in admin.passed))
            wait_until_registered(server)
            imports.start(full_extract(tmp_path, imports.next_number()), "late-server")
            assert imports.until("late-server", "completed", "failed")["error"] is None


def test_a_server_that_does_not_take_the_worker_ends_it_with_the_reason(tmp_path: Path, server: RunningRestate) -> None:
    with running_proxy(server.admin_url) as admin:
        admin.required_token = "another"
        with running_imports(tmp_path, server, ready=False, RESTATE_ADMIN_URL=admin.url) as imports:
            assert imports.process.wait(PATIENCE_S) == 1
        said = (tmp_path / "imports.log").read_text()
        assert f"error: {admin.url} does not register http://127.0.0.1:" in said
        assert said.splitlines()[-1].startswith("next: ")
        assert "Traceback" not in said


def test_only_signed_requests_reach_the_workflow_when_a_key_is_set(tmp_path: Path, server: RunningRestate) -> None:
    [port] = free_ports(1)
    key = "publickeyv1_AfQwmwfgEZhrWpvv8N52SHpRtZqGGaFr4AZN6qtYWSiY"
    variables = {"RESTATE_SIGNING_PUBLIC_KEY": key, "IMPORTS_WORKER_PORT": str(port)}
    # Nothing registers it: the server of this test does not sign.
    with running_proxy(server.admin_url) as admin:
        admin.fault = lambda _: (503, "not now")
        with (
            running_imports(tmp_path, server, ready=False, RESTATE_ADMIN_URL=admin.url, **variables),
            httpx.Client(base_url=f"http://127.0.0.1:{port}") as stranger,
        ):
            assert stranger.get("/discover").status_code == 401
            assert stranger.post("/invoke/KboImport/run").status_code == 401


def test_requests_of_many_threads_start_one_import(tmp_path: Path, server: RunningRestate) -> None:
    with running_imports(tmp_path, server) as imports:
        extract = full_extract(tmp_path, imports.next_number())
        body = {"fileUrl": imports.gate.hold(extract), "workflowId": "once"}
        together = threading.Barrier(6)

        def start() -> int:
            together.wait()
            return imports.http.post("/api/imports/start", json=body).status_code

        with ThreadPoolExecutor(6) as pool:
            statuses = [each.result() for each in [pool.submit(start) for _ in range(6)]]
        assert sorted(statuses) == [202, 409, 409, 409, 409, 409]
        imports.gate.release(extract)
        assert imports.until("once", "completed", "failed")["error"] is None
