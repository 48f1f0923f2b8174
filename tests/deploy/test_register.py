"""`holdfast deploy register` against a real Restate server and against an engine: what they answer is what is shown."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from holdfast.deploy.errors import InvalidDeployment
from holdfast.deploy.register import Address, address_of, register
from holdfast.errors import EngineStopped
from tests.deploy.support import GREETER, cli, greet, json_of, running, settings
from tests.deploy.variants import IMAGE
from tests.support.restate_server import RunningRestate, free_ports, serving_h2c

OTHER_TYPE = GREETER.replace("restate.Service", "restate.VirtualObject").replace(
    "restate.Context", "restate.ObjectContext"
)


def application(source: str = GREETER) -> Any:
    module: dict[str, Any] = {"__name__": "greeter"}
    exec(compile(source, "greeter.py", "exec"), module)  # the sample, as a module of its own
    return module["app"]


def line(*more: str, mechanism: str = "self-hosted") -> list[str]:
    return ["deploy", "register", "--mechanism", mechanism, "greeter:app", *more]


@pytest.mark.restate_server
def test_registered_twice_it_is_one_deployment(restate: RunningRestate, project: Path) -> None:
    with serving_h2c(application()) as url:
        more = ["--uri", url, "--admin-url", restate.admin_url]
        first, second = cli(*line(*more)), cli(*line(*more))
        assert (first.exit_code, second.exit_code) == (0, 0)
        assert (first.stderr, second.stderr) == ("new\n", "it was registered already\n")
        assert first.stdout == second.stdout
        assert first.stdout.splitlines()[1:] == [f"address     {url}", "services    Greeter"]
        deployments = httpx.get(f"{restate.admin_url}/deployments").json()["deployments"]
        assert [deployment["uri"] for deployment in deployments].count(f"{url}/") == 1
        assert greet(restate.ingress_url) == "Hello Ada!"


@pytest.mark.restate_server
def test_a_dead_port_is_told_in_the_servers_words(restate: RunningRestate, project: Path) -> None:
    [port] = free_ports(1)
    uri = f"http://127.0.0.1:{port}"
    asked = httpx.post(f"{restate.admin_url}/deployments", json={"uri": uri})
    answer = asked.json()
    result = cli(*line("--uri", uri, "--admin-url", restate.admin_url))
    assert result.exit_code == 1
    told = f"{restate.admin_url} refused {uri}: {asked.status_code} {answer['restate_code']}: {answer['message']}"
    assert result.stderr.splitlines()[0] == f"error HF0203: {told}"
    assert f"curl -v {uri}/health" in result.stderr


@pytest.mark.restate_server
def test_another_type_is_refused_unless_breaking(restate: RunningRestate, project: Path) -> None:
    with serving_h2c(application()) as url, serving_h2c(application(OTHER_TYPE)) as other:
        admin = ["--admin-url", restate.admin_url]
        assert cli(*line("--uri", url, *admin)).exit_code == 0
        result = cli(*line("--uri", other, *admin))
        assert result.exit_code == 1
        assert "409 META0006" in result.stderr
        assert "--breaking" in result.stderr
        assert json_of(*line("--uri", other, *admin, "--breaking"))["services"][0]["ty"] == "VirtualObject"
        assert json_of(*line("--uri", url, *admin, "--breaking", "--force"))["services"][0]["ty"] == "Service"


@pytest.mark.restate_server
def test_a_dry_run_keeps_nothing(restate: RunningRestate, project: Path) -> None:
    with serving_h2c(application()) as url:
        told = json_of(*line("--uri", f"{url}/", "--admin-url", restate.admin_url, "--dry-run"))
        assert [service["name"] for service in told["services"]] == ["Greeter"]
        deployments = httpx.get(f"{restate.admin_url}/deployments").json()["deployments"]
        assert f"{url}/" not in [deployment["uri"] for deployment in deployments]


@pytest.mark.restate_server
def test_headers_go_with_every_request(restate: RunningRestate, project: Path) -> None:
    seen: list[dict[bytes, bytes]] = []
    inner = application()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            seen.append(dict(scope["headers"]))
        await inner(scope, receive, send)

    with serving_h2c(app) as url:
        more = ["--uri", url, "--admin-url", restate.admin_url, "--header", "x-way-in=open sesame"]
        told = json_of(*line(*more))
        known = httpx.get(f"{restate.admin_url}/deployments/{told['id']}").json()
        assert known["additional_headers"] == {"x-way-in": "open sesame"}
        assert [headers.get(b"x-way-in") for headers in seen if headers] == [b"open sesame"]


def test_an_engine_takes_deployments_the_same_way(project: Path) -> None:
    source = GREETER.replace('"Greeter"', '"Remote"')
    serve = ["serve", "greeter:app", "--db", "engine.db", "--ingress-port", "0", "--admin-port", "0"]
    with running(*serve, cwd=project) as engine, serving_h2c(application(source)) as url:
        admin_url = engine.ready["admin_url"]
        first, second = (cli(*line("--uri", url, "--admin-url", admin_url)) for _ in range(2))
        assert (first.stderr, second.stderr) == ("new\n", "it was registered already\n")
        assert first.stdout.splitlines()[1:] == [f"address     {url}", "services    Remote"]
        assert httpx.post(f"{engine.ready['ingress_url']}/Remote/greet", json="Ada").json() == "Hello Ada!"
        [port] = free_ports(1)
        refused = cli(*line("--uri", f"http://127.0.0.1:{port}", "--admin-url", admin_url))
        assert refused.exit_code == 1
        assert "META0003" in refused.stderr


def test_no_admin_api_is_told_with_its_address(project: Path) -> None:
    [port] = free_ports(1)
    result = cli(*line("--uri", "http://127.0.0.1:1", "--admin-url", f"http://127.0.0.1:{port}"))
    assert result.exit_code == 1
    assert f"error HF0303: no admin API answers at http://127.0.0.1:{port}" in result.stderr
    assert "holdfast restate up" in result.stderr


def test_it_waits_for_an_admin_api_that_comes_up(project: Path) -> None:
    [port] = free_ports(1)
    started = threading.Timer(0.3, lambda: None)
    with pytest.raises(EngineStopped):
        register(f"http://127.0.0.1:{port}", Address(uri="http://127.0.0.1:1"))
    with answering(200, b'{"id": "dp_1", "services": [{"name": "S"}]}', port=port, after=started):
        assert register(f"http://127.0.0.1:{port}", Address(uri="http://127.0.0.1:1"), wait_s=30).id == "dp_1"


@contextmanager
def answering(
    status: int, body: bytes, *, port: int = 0, after: threading.Timer | None = None, seen: list[Any] | None = None
) -> Iterator[str]:
    """Another program on the admin port."""

    class Api(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["content-length"]))
            if seen is not None:
                seen.append((self.path, dict(self.headers), content))
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    servers: list[ThreadingHTTPServer] = []

    def start() -> None:
        servers.append(ThreadingHTTPServer(("127.0.0.1", port), Api))
        servers[0].serve_forever()

    if after is not None:
        after.function = start
        after.start()
        thread: threading.Thread = after
    else:
        thread = threading.Thread(target=start)
        thread.start()
    while not servers and after is None:
        pass
    try:
        yield f"http://127.0.0.1:{servers[0].server_port if servers else port}"
    finally:
        servers[0].shutdown()
        servers[0].server_close()
        thread.join()


REFUSALS = {
    "a proxy's page": (502, b"<html>Bad Gateway</html>", "502: <html>Bad Gateway</html>", ""),
    "a token is asked for": (401, b"", "401: no reason given", "--token"),
    "another program": (404, b"not here", "404: not here", "is --admin-url the admin API?"),
    "an answer of another form": (200, b'{"ok": true}', '200: {"ok": true}', ""),
    "no JSON": (200, b"ok", "200: ok", ""),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_is_no_admin_api_is_told_as_it_is(case: str, project: Path) -> None:
    status, body, told, hint = REFUSALS[case]
    with answering(status, body) as url:
        result = cli(*line("--uri", "http://app:9080", "--admin-url", url))
    assert result.exit_code == 1
    assert f"refused http://app:9080: {told}" in result.stderr
    assert hint in result.stderr


def test_a_token_is_sent_and_never_shown(project: Path) -> None:
    seen: list[Any] = []
    with answering(500, b'{"message": "no", "restate_code": null}', seen=seen) as url:
        result = cli(*line("--uri", "http://app:9080", "--admin-url", url), env={"HOLDFAST_ADMIN_TOKEN": "s3cret"})
    [(path, headers, _)] = seen
    assert (path, headers["authorization"]) == ("/deployments", "Bearer s3cret")
    assert "s3cret" not in result.output
    broken = cli(*line("--uri", "http://app:9080", "--admin-url", url), env={"HOLDFAST_ADMIN_TOKEN": "s3cret\n"})
    assert (broken.exit_code, "no header can carry" in broken.stderr, "s3cret" in broken.output) == (2, True, False)


def test_the_configuration_says_where_and_how(project: Path) -> None:
    seen: list[Any] = []
    with answering(200, b'{"id": "dp_1", "services": []}', seen=seen) as url:
        (project / "holdfast.toml").write_text(
            f'[workflow.restate]\nadmin_endpoint = "{url}"\nexecution_mechanism = "self-hosted"\n'
            'auth_type = "api_key"\napi_key = "k3y"\n'
        )
        assert cli("deploy", "register", "greeter:app").exit_code == 0
    [(_, headers, content)] = seen
    assert headers["authorization"] == "Bearer k3y"
    assert b'"uri":"http://greeter-1:9080"' in content


ADDRESSES = {
    "local": ({}, "http://127.0.0.1:9080"),
    "self-hosted": ({}, "http://greeter-1:9080"),
    "self-hosted on a machine": ({"host": "10.0.0.5", "path": "/restate"}, "http://10.0.0.5:9080/restate"),
    "kubernetes": ({"image": IMAGE}, "http://greeter-1-0-0.default.svc.cluster.local:9080"),
    "kubernetes in a namespace": (
        {"image": IMAGE, "namespace": "shop", "port": 8000, "path": "/restate"},
        "http://greeter-1-0-0.shop.svc.cluster.local:8000/restate",
    ),
    "asgi with a host": ({"host": "greeter.fly.dev"}, "https://greeter.fly.dev"),
}


@pytest.mark.parametrize("case", ADDRESSES)
def test_where_a_mechanism_puts_it(case: str) -> None:
    more, uri = ADDRESSES[case]
    mechanism: Any = case.partition(" ")[0]
    assert address_of(settings(mechanism, **more)).uri == uri


def test_where_a_stack_puts_it() -> None:
    arn = "arn:aws:lambda:eu-central-1:123456789012:function:greeter:7"
    address = address_of(settings("lambda"), {"FunctionVersionArn": arn, "InvokerRoleArn": "arn:aws:iam::1:role/r"})
    assert address.request() == {"arn": arn, "assume_role_arn": "arn:aws:iam::1:role/r"}
    fargate = address_of(settings("fargate", image=IMAGE), {"DeploymentUri": "http://nlb:9080"}, use_http_11=True)
    assert fargate.request() == {"uri": "http://nlb:9080", "use_http_11": True}


UNKNOWN = {
    "the platform's own name": ("asgi", {}, "only the platform knows"),
    "a stack that was not applied": ("lambda", {}, "no output FunctionVersionArn"),
    "the operator's work": ("kubernetes", {"operator": "restate"}, "the Restate operator registers"),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_what_cannot_be_known_is_said(case: str) -> None:
    mechanism, more, told = UNKNOWN[case]
    chosen: Any = mechanism
    with pytest.raises(InvalidDeployment, match=told):
        address_of(settings(chosen, **more))


def test_an_arn_without_a_version_is_refused() -> None:
    with pytest.raises(InvalidDeployment, match="names no version"):
        Address(arn="arn:aws:lambda:eu-central-1:123456789012:function:greeter")
