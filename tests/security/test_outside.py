"""Every promise of docs/security.md, tried from outside on a running `holdfast serve`: at least one refusal each."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.support import PATIENCE_S, environment, run
from tests.ingress.http2 import connected
from tests.ingress.table import post
from tests.security.process import APP, REPOSITORY, Answer, Running, listening_ports, serving, token, until
from tests.support.restate_server import skip_without_server

HELLO = b'"hello"'
EVIL = "http://evil.example"
NO_TOKEN_HINT = (
    "make one: holdfast tokens create; then HOLDFAST_ADMIN_TOKEN (ingress: HOLDFAST_INGRESS_TOKEN) or --token"
)


@pytest.fixture(scope="module")
def open_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """On this machine only, without tokens: what `holdfast serve` gives by default."""
    with serving(tmp_path_factory.mktemp("open")) as running:
        yield running


class Closed:
    """An engine that asks for tokens, and the tokens."""

    def __init__(self, running: Running, ingress_token: str, admin_token: str) -> None:
        self.running = running
        self.ingress_token = ingress_token
        self.admin_token = admin_token


@pytest.fixture(scope="module")
def closed_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Closed]:
    folder = tmp_path_factory.mktemp("closed")
    ingress_token, admin_token = token(folder, "ingress"), token(folder, "admin", "--name", "operator")
    with serving(folder) as running:
        yield Closed(running, ingress_token, admin_token)


def code_of(answer: Answer) -> tuple[int, str]:
    return answer.status, json.loads(answer.body)["message"]


# ---- who can connect ---------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="reads the system's table of sockets")
def test_by_default_only_this_machine_can_connect(open_engine: Running):
    assert listening_ports(open_engine.pid) == {"0100007F"}  # 127.0.0.1


@pytest.mark.parametrize("flags", [["--host", "0.0.0.0"], ["--host", "::"], ["--admin-host", "0.0.0.0"]])
def test_other_machines_without_tokens_are_refused_before_anything_is_opened(tmp_path: Path, flags: list[str]):
    db = tmp_path / "app.db"
    result = run("serve", APP, "--db", str(db), "--ingress-port", "0", "--admin-port", "0", *flags)
    assert result.returncode == 1
    first, second = result.stderr.splitlines()
    assert first.startswith("error HF0310: other machines could reach the ")
    assert second.startswith("  next: make one: holdfast tokens create --scope ")
    assert list(tmp_path.iterdir()) == []


def test_tokens_for_one_api_do_not_let_other_machines_reach_the_other(tmp_path: Path):
    token(tmp_path, "ingress")
    result = run("serve", APP, "--db", str(tmp_path / "app.db"), "--host", "0.0.0.0")
    assert (result.returncode, "reach the admin on 0.0.0.0" in result.stderr) == (1, True)


def test_a_token_that_is_revoked_or_expired_lets_nobody_in(tmp_path: Path):
    token(tmp_path, "ingress", "--name", "gone")
    token(tmp_path, "admin")
    assert run("tokens", "revoke", "gone", "--db", str(tmp_path / "app.db")).returncode == 0
    result = run("serve", APP, "--db", str(tmp_path / "app.db"), "--host", "0.0.0.0")
    assert (result.returncode, "reach the ingress on 0.0.0.0" in result.stderr) == (1, True)


def test_other_machines_with_tokens(tmp_path: Path):
    ingress_token, admin_token = token(tmp_path, "ingress"), token(tmp_path, "admin")
    with serving(tmp_path, "--host", "0.0.0.0") as engine:
        assert engine.ingress("POST", "/S/echo", HELLO).status == 401
        assert engine.admin("GET", "/services").status == 401
        # By whatever name they call it.
        answer = engine.ingress(
            "POST", "/S/echo", HELLO, host="engine.example", authorization=f"Bearer {ingress_token}"
        )
        assert (answer.status, answer.body) == (200, HELLO)
        assert engine.admin("GET", "/services", authorization=f"Bearer {admin_token}").status == 200
        assert "tokens of the ingress travel unencrypted" in engine.log


def test_other_machines_without_tokens_where_somebody_takes_the_blame(tmp_path: Path):
    with serving(tmp_path, "--host", "0.0.0.0", "--insecure") as engine:
        assert engine.ingress("POST", "/S/echo", HELLO, host="engine.example").status == 200
        assert engine.ingress("POST", "/S/echo", HELLO, origin=EVIL).status == 403
        assert "everybody who can reach 0.0.0.0 may use the ingress" in engine.log


# ---- tokens ------------------------------------------------------------------------------------------------------------

PROTECTED = [
    ("ingress", "POST", "/S/echo"),
    ("ingress", "POST", "/S/echo/send"),
    ("ingress", "GET", "/O/k/key"),
    ("ingress", "POST", "/restate/call/S/echo"),
    ("ingress", "GET", "/restate/output/inv_1drmoFJNGl3m6thcNbXQRBKccQJos4eYDG"),
    ("ingress", "POST", "/restate/a/sign_1h8KLciPQaHjacYFM2qcoJIQA4nMjJn5NAAAAEQ/resolve"),
    ("ingress", "POST", "/restate/lookup"),
    ("ingress", "POST", "/restate/health"),
    ("ingress", "GET", "/restate/health/more"),
    ("ingress", "GET", "/no/such/path"),
    ("ingress", "PUT", "/S/echo"),
    ("admin", "GET", "/services"),
    ("admin", "GET", "/v3/services"),
    ("admin", "GET", "/version"),
    ("admin", "GET", "/openapi"),
    ("admin", "GET", "/invocations"),
    ("admin", "POST", "/deployments"),
    ("admin", "POST", "/query"),
    ("admin", "POST", "/services/O/state"),
    ("admin", "PATCH", "/invocations/inv_1drmoFJNGl3m6thcNbXQRBKccQJos4eYDG/kill"),
    ("admin", "POST", "/health"),
    ("admin", "GET", "/health/more"),
    ("admin", "GET", "/no/such/path"),
    ("admin", "OPTIONS", "/services"),
]


@pytest.mark.parametrize(("api", "method", "path"), PROTECTED)
@pytest.mark.parametrize("has", ["no token", "a wrong token", "the other API's token", "basic authentication"])
def test_without_its_token_nothing_is_answered(closed_engine: Closed, api: str, method: str, path: str, has: str):
    other = closed_engine.admin_token if api == "ingress" else closed_engine.ingress_token
    authorization = {
        "no token": {},
        "a wrong token": {"authorization": "Bearer " + "x" * 43},
        "the other API's token": {"authorization": f"Bearer {other}"},
        "basic authentication": {"authorization": "Basic dXNlcjpwYXNz"},
    }[has]
    ask = closed_engine.running.ingress if api == "ingress" else closed_engine.running.admin
    answer = ask(method, path, HELLO if method == "POST" else None, **authorization)
    assert answer.status == 401
    challenge = f'Bearer realm="holdfast {api}"'
    assert answer.headers["www-authenticate"] == challenge + ("" if has == "no token" else ', error="invalid_token"')
    assert "message" in json.loads(answer.body)


def test_with_its_token_each_api_answers(closed_engine: Closed):
    engine = closed_engine.running
    answer = engine.ingress("POST", "/S/echo", HELLO, authorization=f"Bearer {closed_engine.ingress_token}")
    assert (answer.status, answer.body) == (200, HELLO)
    assert engine.admin("GET", "/services", authorization=f"Bearer {closed_engine.admin_token}").status == 200


def test_health_needs_no_token_and_tells_nothing(closed_engine: Closed):
    engine = closed_engine.running
    answer = engine.ingress("GET", "/restate/health")
    assert (answer.status, answer.body) == (200, b'{"services":[]}')
    for path in ("/health", "/v2/health", "/v3/health"):
        answer = engine.admin("GET", path)
        assert (answer.status, answer.body) == (200, b"")
    known = engine.ingress("GET", "/restate/health", authorization=f"Bearer {closed_engine.ingress_token}")
    assert "S" in json.loads(known.body)["services"]


def test_a_refused_request_leaves_nothing(closed_engine: Closed):
    engine = closed_engine.running
    secret_body = b'"never stored 8d1f"'
    assert engine.ingress("POST", "/S/echo/send", secret_body).status == 401
    assert all(b"never stored 8d1f" not in file.read_bytes() for file in engine.files())


def test_a_revoked_token_is_refused_while_the_engine_runs(tmp_path: Path):
    secret = token(tmp_path, "ingress", "--name", "guest")
    with serving(tmp_path) as engine:
        assert engine.ingress("POST", "/S/echo", HELLO, authorization=f"Bearer {secret}").status == 200
        assert run("tokens", "revoke", "guest", "--db", str(engine.db)).stdout.startswith("revoked tok_")
        until(
            lambda: engine.ingress("POST", "/S/echo", HELLO, authorization=f"Bearer {secret}").status == 401,
            "the token is still admitted",
        )
        # And it was the last one: the door stays shut, to everybody.
        assert engine.ingress("POST", "/S/echo", HELLO).status == 401


def test_a_token_made_while_the_engine_runs_closes_the_api(tmp_path: Path):
    with serving(tmp_path) as engine:
        assert engine.admin("GET", "/services").status == 200
        secret = token(tmp_path, "admin")
        until(lambda: engine.admin("GET", "/services").status == 401, "the API is still open")
        assert engine.admin("GET", "/services", authorization=f"Bearer {secret}").status == 200
        assert engine.ingress("POST", "/S/echo", HELLO).status == 200


def test_a_token_expires(tmp_path: Path):
    secret = token(tmp_path, "admin", "--expires", "2s")
    with serving(tmp_path) as engine:
        until(
            lambda: engine.admin("GET", "/services", authorization=f"Bearer {secret}").status == 401,
            "the token is still admitted",
        )
    listed = json.loads(run("tokens", "list", "--db", str(tmp_path / "app.db"), "--json").stdout)
    assert [one["status"] for one in listed] == ["expired"]


def test_tokens_of_the_environment(tmp_path: Path):
    ingress_token, admin_token = "i" * 40, "a" * 40
    settings = {"HOLDFAST_INGRESS_TOKEN": ingress_token, "HOLDFAST_ADMIN_TOKEN": admin_token}
    with serving(tmp_path, settings=settings) as engine:
        assert engine.ingress("POST", "/S/echo", HELLO).status == 401
        assert engine.ingress("POST", "/S/echo", HELLO, authorization=f"Bearer {admin_token}").status == 401
        assert engine.ingress("POST", "/S/echo", HELLO, authorization=f"Bearer {ingress_token}").status == 200
        assert engine.admin("GET", "/services", authorization=f"Bearer {admin_token}").status == 200


def test_a_token_of_the_environment_that_could_be_guessed_is_refused(tmp_path: Path):
    result = run("serve", APP, "--db", str(tmp_path / "app.db"), settings={"HOLDFAST_ADMIN_TOKEN": "secret-word"})
    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        "error HF0311: the admin token of the environment has 11 characters, fewer than 32",
        "  next: take a random one: openssl rand -hex 32",
    ]
    assert list(tmp_path.iterdir()) == []


def test_a_tokens_file_that_others_may_write_stops_the_start(tmp_path: Path):
    token(tmp_path, "admin")
    file = tmp_path / "app.db.tokens"
    file.chmod(0o666)
    result = run("serve", APP, "--db", str(tmp_path / "app.db"))
    assert (result.returncode, result.stderr.splitlines()[0][:38]) == (1, "error HF0311: others may have written ")
    assert list(tmp_path.iterdir()) == [file]


def test_no_secret_is_ever_logged_or_stored(tmp_path: Path):
    ingress_token, admin_token, wrong = token(tmp_path, "ingress"), token(tmp_path, "admin"), "hf_admin_" + "w" * 43
    with serving(tmp_path, "--log-level", "debug", "--deny-headers", "") as engine:
        for secret in (ingress_token, admin_token, wrong):
            engine.ingress("POST", "/S/headers", None, authorization=f"Bearer {secret}")
            engine.admin("GET", "/services", authorization=f"Bearer {secret}")
            engine.admin("GET", f"/services?token={secret}", authorization=f"Bearer {secret}")
        kept = engine.log.encode() + b"".join(file.read_bytes() for file in engine.files())
    for secret in (ingress_token, admin_token, wrong):
        assert secret.encode() not in kept


# ---- the commands ------------------------------------------------------------------------------------------------------


def test_the_commands_send_their_token(closed_engine: Closed):
    engine = closed_engine.running
    urls = {"HOLDFAST_ADMIN_URL": engine.admin_url, "HOLDFAST_INGRESS_URL": engine.ingress_url}
    without = run("services", "list", settings=urls)
    assert without.returncode == 2
    assert without.stderr.splitlines() == [
        "error HF0110: the admin asks for a token: send 'authorization: Bearer TOKEN'",
        f"  next: {NO_TOKEN_HINT}",
    ]
    by_option = run("services", "list", "--token", closed_engine.admin_token, settings=urls)
    assert (by_option.returncode, "echo" in by_option.stdout) == (0, True)
    tokens = {"HOLDFAST_ADMIN_TOKEN": closed_engine.admin_token, "HOLDFAST_INGRESS_TOKEN": closed_engine.ingress_token}
    assert run("services", "list", settings=urls | tokens).returncode == 0
    assert run("call", "S/echo", '"x"', settings=urls | tokens).stdout == '"x"\n'
    refused = run("call", "S/echo", '"x"', settings=urls)
    assert (refused.returncode, refused.stderr[:14]) == (2, "error HF0110: ")


@pytest.mark.restate_server
def test_the_official_cli_sends_its_token(closed_engine: Closed):
    skip_without_server()
    binary = REPOSITORY / "node_modules" / ".bin" / "restate"
    if not binary.exists():
        pytest.skip("no restate CLI: run `npm install @restatedev/restate`")

    def services(settings: dict[str, str]) -> subprocess.CompletedProcess[str]:
        urls = {
            "RESTATE_ADMIN_URL": closed_engine.running.admin_url,
            "RESTATE_INGRESS_URL": closed_engine.running.ingress_url,
            "DO_NOT_TRACK": "1",
        }
        return subprocess.run(
            [str(binary), "services", "list"],
            capture_output=True,
            text=True,
            env=environment(urls | settings),
            timeout=PATIENCE_S,
            check=False,
        )

    without = services({})
    assert without.returncode != 0
    assert "401" in without.stderr
    allowed = services({"RESTATE_AUTH_TOKEN": closed_engine.admin_token})
    assert allowed.returncode == 0, allowed.stderr
    assert "Holder" in allowed.stdout


def test_tokens_are_made_listed_and_revoked(tmp_path: Path):
    place = ("--db", str(tmp_path / "app.db"))
    made = json.loads(run("tokens", "create", "--scope", "ingress", "--name", "web", "--json", *place).stdout)
    assert made["token"].startswith("hf_ingress_")
    listed = run("tokens", "list", *place).stdout
    assert [line.split()[:4] for line in listed.splitlines()] == [
        ["ID", "NAME", "SCOPE", "STATUS"],
        [made["id"], "web", "ingress", "usable"],
    ]
    assert made["token"] not in listed
    assert json.loads(run("tokens", "revoke", "web", "--json", *place).stdout)["status"] == "revoked"
    again = run("tokens", "revoke", "nope", *place)
    assert (again.returncode, again.stderr.splitlines()) == (
        2,
        ["error HF0105: there is no token 'nope'", "  next: see: holdfast tokens list"],
    )


@pytest.mark.parametrize("expires", ["soon", "0s", "-1d", "3 months"])
def test_a_token_needs_a_sensible_end(tmp_path: Path, expires: str):
    result = run("tokens", "create", "--scope", "admin", "--expires", expires, "--db", str(tmp_path / "app.db"))
    assert (result.returncode, result.stderr[:14]) == (2, "error HF0105: ")
    assert list(tmp_path.iterdir()) == []


# ---- pages in a browser ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "localhost.evil.example"])
def test_a_rebound_name_reaches_neither_api(open_engine: Running, host: str):
    for path in ("/S/echo", "/restate/health"):
        status, message = code_of(open_engine.ingress("GET", path, host=host))
        assert (status, message[:34]) == (403, f"this ingress is not known as '{host}"[:34])
    for path in ("/services", "/health"):
        status, message = code_of(open_engine.admin("GET", path, host=host))
        assert (status, message[:32]) == (403, f"this admin is not known as '{host}"[:32])


PAGE_HEADERS = [
    {"origin": EVIL},
    {"origin": "null"},
    {"origin": "http://localhost:1"},
    {"sec_fetch_site": "cross-site"},
    {"sec_fetch_site": "same-site"},
]


@pytest.mark.parametrize("headers", PAGE_HEADERS)
def test_a_page_of_another_origin_can_do_nothing(open_engine: Running, headers: dict[str, str]):
    body = b'"from a page 77ab"'
    for answer in (
        open_engine.ingress("POST", "/S/echo/send", body, **headers),
        open_engine.ingress("GET", "/O/from-a-page-77ab/key", **headers),
        open_engine.ingress("OPTIONS", "/S/echo", access_control_request_method="POST", **headers),
        open_engine.admin("POST", "/services/O/state", b'{"object_key":"from a page 77ab","new_state":{}}', **headers),
        open_engine.admin("DELETE", "/invocations/x", **headers),
        open_engine.admin("GET", "/services", **headers),
    ):
        assert answer.status == 403
        assert not [name for name in answer.headers if name.startswith("access-control")]
    for file in open_engine.files():
        assert b"from a page 77ab" not in file.read_bytes()
        assert b"from-a-page-77ab" not in file.read_bytes()


def test_nothing_is_said_to_browsers_about_other_origins(open_engine: Running):
    for answer in (
        open_engine.ingress("POST", "/S/echo", HELLO),
        open_engine.ingress("GET", "/restate/health"),
        open_engine.admin("GET", "/services"),
    ):
        assert answer.status == 200
        assert not {"access-control-allow-origin", "access-control-allow-credentials", "vary"} & answer.headers.keys()


def test_a_page_that_was_allowed(tmp_path: Path):
    page = "https://ui.example"
    with serving(tmp_path, "--allow-origin", page) as engine:
        call = engine.ingress("POST", "/S/echo", HELLO, origin=page)
        assert (call.status, call.headers["access-control-allow-origin"]) == (200, page)
        asked = {"access_control_request_method": "PATCH", "access_control_request_headers": "authorization"}
        for ask, path in ((engine.ingress, "/S/echo"), (engine.admin, "/services")):
            preflight = ask("OPTIONS", path, origin=page, **asked)
            assert preflight.status == 200
            assert preflight.headers["access-control-allow-origin"] == page
            assert preflight.headers["access-control-allow-methods"] == "PATCH"
            assert preflight.headers["access-control-allow-headers"] == "authorization"
            assert ask("OPTIONS", path, origin=EVIL, **asked).status == 403
        listed = engine.admin("GET", "/services", origin=page)
        assert (listed.status, listed.headers["access-control-allow-origin"]) == (200, page)


def test_a_page_that_was_allowed_still_needs_its_token(tmp_path: Path):
    page = "https://ui.example"
    secret = token(tmp_path, "ingress")
    with serving(tmp_path, "--allow-origin", page) as engine:
        preflight = engine.ingress("OPTIONS", "/S/echo", origin=page, access_control_request_method="POST")
        assert preflight.status == 200  # browsers send no token with this
        refused = engine.ingress("POST", "/S/echo", HELLO, origin=page)
        assert (refused.status, refused.headers["access-control-allow-origin"]) == (401, page)
        assert engine.ingress("POST", "/S/echo", HELLO, origin=page, authorization=f"Bearer {secret}").status == 200


def test_a_name_that_was_allowed(tmp_path: Path):
    with serving(tmp_path, "--allow-host", "engine.internal") as engine:
        assert engine.ingress("POST", "/S/echo", HELLO, host="engine.internal:8080").status == 200
        assert engine.ingress("POST", "/S/echo", HELLO, host="other.internal").status == 403


# ---- files -------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
def test_whatever_the_umask_only_the_owner_can_read_what_is_kept(tmp_path: Path):
    with serving(tmp_path, umask=0) as engine:
        assert engine.ingress("POST", "/S/echo/send", HELLO).status == 202
        assert run("tokens", "create", "--scope", "admin", "--db", str(engine.db)).returncode == 0
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in engine.files()}
    assert modes == dict.fromkeys(["app.db", "app.db-shm", "app.db-wal", "app.db.owner", "app.db.tokens"], 0o600)


# ---- headers -----------------------------------------------------------------------------------------------------------

CREDENTIALS = {"authorization": "Bearer 5ecretA", "cookie": "session=5ecretB", "proxy_authorization": "Basic 5ecretC"}


def seen_headers(answer: Answer) -> dict[str, str]:
    assert answer.status == 200, answer
    return dict(json.loads(answer.body))


def kept(engine: Running) -> bytes:
    """All that is on disk, after the engine was killed: nothing is on its way any more."""
    os.kill(engine.pid, signal.SIGKILL)
    return b"".join(file.read_bytes() for file in engine.files())


def test_credentials_are_neither_stored_nor_shown(tmp_path: Path):
    with serving(tmp_path) as engine:
        seen = seen_headers(engine.ingress("POST", "/S/headers", x_shown="marker-1", **CREDENTIALS))
        assert engine.ingress("POST", "/S/headers/send", x_shown="marker-2", **CREDENTIALS).status == 202
        content = kept(engine)
    assert {"authorization", "cookie", "proxy-authorization"} & seen.keys() == set()
    assert seen["x-shown"] == "marker-1"
    assert b"marker-2" in content  # so this is where headers are
    assert b"5ecret" not in content


def test_headers_may_be_denied_by_name(tmp_path: Path):
    with serving(tmp_path, "--deny-headers", "X-Secret, cookie") as engine:
        seen = seen_headers(engine.ingress("POST", "/S/headers", x_secret="5ecretX", x_shown="marker", **CREDENTIALS))
        content = kept(engine)
    assert seen["authorization"] == "Bearer 5ecretA"  # as on a Restate server, because somebody asked for it
    assert "x-secret" not in seen
    assert b"5ecretX" not in content
    assert b"5ecretB" not in content


def test_or_all_but_some(tmp_path: Path):
    with serving(tmp_path, settings={"HOLDFAST_ALLOW_HEADERS": "x-shown,authorization"}) as engine:
        seen = seen_headers(engine.ingress("POST", "/S/headers", x_other="5ecretY", x_shown="marker", **CREDENTIALS))
        content = kept(engine)
    assert seen == {"x-restate-ingress-path": "/S/headers", "x-shown": "marker"}  # what is denied stays denied
    assert b"5ecret" not in content


# ---- the end -----------------------------------------------------------------------------------------------------------


def test_over_http2_who_waits_is_answered_when_the_engine_stops(tmp_path: Path):
    with serving(tmp_path, "--drain", "0") as engine, connected(engine.ingress_url) as client:
        stream = client.begin(post("/S/gate", "stopped"), end=False)
        client.http.send_data(stream, b'"stopped"', end_stream=True)
        client.flush()
        until(lambda: engine.ingress("GET", "/Holder/stopped/announced").body not in (b"", b"null"), "it does not run")
        os.kill(engine.pid, signal.SIGTERM)
        answer = client.answer(stream)
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
