"""`deployments` and `services`: services of another process, registered, looked at, configured, moved and removed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import restate
import trustme

from tests.admin.conftest import serving_http_11
from tests.admin.zoo import app as zoo_app
from tests.cli.support import Serve, Served, poll
from tests.support.restate_server import serving_h2c

IDENTITY = "publickeyv1_w7YHemBctH5Ck2nQRQ47iBBqhNHy4FV7t2Usbye2A6f"
UNKNOWN = "dp_16tCcPQuIcwtYpzUmqjMAmK"


@pytest.fixture(scope="module")
def zoo() -> Iterator[str]:
    with serving_h2c(zoo_app) as url:
        yield url


@pytest.fixture(scope="module")
def here(serve: Serve) -> Served:
    """An engine of its own: these tests change what it serves."""
    return serve()


def registered(engine: Served, url: str, *options: str) -> str:
    """The id."""
    return engine.json("deployments", "register", url, *options)["id"]


def test_register_says_what_there_is(here: Served, zoo: str):
    url = f"{zoo}/two-services/first"
    result = here.cli("deployments", "register", url)
    assert result.exit_code == 0
    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows == [["SERVICE", "REVISION", "HANDLERS"], ["Zoofirst", "1", "1"], ["Otherfirst", "1", "1"]]
    told = re.fullmatch(rf"registered {url} as (dp_1\w+)\n", result.stderr)
    assert told is not None
    again = here.cli("deployments", "register", url)
    assert again.stderr == f"{url} was registered before as {told[1]}; to discover it again: --force\n"
    forced = here.cli("deployments", "register", url, "--force")
    assert forced.stderr == f"discovered {url} again as {told[1]}\n"
    assert forced.stdout.splitlines()[1].split() == ["Zoofirst", "2", "1"]


def test_a_dry_run_changes_nothing(here: Served, zoo: str):
    result = here.cli("deployments", "register", f"{zoo}/plain/dry", "--dry-run")
    assert result.stderr == f"{zoo}/plain/dry can be registered; nothing was changed\n"
    assert "Zoodry" not in here.done("services", "list")


def test_options_of_a_registration(here: Served, zoo: str):
    options = ("--header", "X-Key: a b", "--header", "x-b:", "--metadata", "team=payments", "--http1", "--breaking")
    deployment_id = registered(here, f"{zoo}/request-response/options", *options)
    found = here.json("deployments", "describe", deployment_id)
    assert found["additional_headers"] == {"x-key": "a b", "x-b": ""}
    assert found["metadata"] == {"team": "payments"}
    assert (found["http_version"], found["protocol_type"]) == ("HTTP/1.1", "RequestResponse")
    lines = here.done("deployments", "describe", deployment_id).splitlines()
    assert lines[0] == f"{deployment_id}  {zoo}/request-response/options"
    assert lines[1] == "HTTP/1.1, request/response, service protocol 5 to 7"
    assert lines[2] == "SDK zoo/1.0"
    assert re.fullmatch(r"registered \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", lines[3])
    assert lines[4:8] == [
        "sends x-key: a b",
        "sends x-b: ",
        "team=payments",
        "no live invocation is bound to it",
    ]
    assert lines[8] == "revisions: Zoooptions 1"


REFUSED = {
    "nobody listens": ("http://127.0.0.1:1", 1, "HF0203", "[META0003] "),
    "no address": ("localhost", 2, "HF0105", "The provided uri localhost is not absolute"),
    "another type": ("{zoo}/object/refused", 1, "HF0203", "Service type cannot be changed"),
    "no manifest": ("{zoo}/no-json/refused", 1, "HF0203", "cannot be decoded"),
    "a reserved name": ("{zoo}/reserved-name/refused", 1, "HF0203", "[META0005] "),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_registered(here: Served, zoo: str, case: str):
    url, exit_code, code, words = REFUSED[case]
    registered(here, f"{zoo}/plain/refused")
    result = here.cli("deployments", "register", url.replace("{zoo}", zoo))
    assert (result.exit_code, result.stdout) == (exit_code, "")
    first = result.stderr.splitlines()[0]
    assert first.startswith(f"error {code}: ")
    assert words in first


NEXT_STEPS = {
    "another type": ("{zoo}/object/refused", "give the service another name; or, if the change is meant, --breaking"),
    "no address": ("localhost:9080", "write all of it, e.g. http://localhost:9080"),
    "mounted elsewhere": (
        "{zoo}/not-found/refused",
        "where is the SDK's application mounted? Register the URL with that path, such as http://localhost:9080/restate",
    ),
    "nobody listens": ("http://127.0.0.1:1", "what the endpoint answers: curl -i --http2-prior-knowledge URL/discover"),
}


@pytest.mark.parametrize("case", NEXT_STEPS)
def test_a_refused_address_says_what_to_do(here: Served, zoo: str, case: str):
    url, step = NEXT_STEPS[case]
    registered(here, f"{zoo}/plain/refused")
    result = here.cli("deployments", "register", url.replace("{zoo}", zoo))
    assert result.stderr.splitlines()[-1] == f"  next: {step}"


def test_an_endpoint_without_http_2_says_how_to_register_it(here: Served):
    with serving_http_11(zoo_app) as url:
        result = here.cli("deployments", "register", f"{url}/plain/old")
        assert result.stderr.splitlines()[-1] == (
            "  next: say so: --http1; or serve it with a server that speaks HTTP/2, like hypercorn"
        )
        registered(here, f"{url}/plain/old", "--http1")


def test_an_endpoint_that_wants_signed_requests_says_how_to_sign_them(here: Served):
    signed_only = restate.app([restate.Service("Signed")], identity_keys=[IDENTITY])
    with serving_h2c(signed_only) as url:
        result = here.cli("deployments", "register", url)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith(
        "  next: does it ask for signed requests? holdfast serve --identity"
    )


def test_an_endpoint_of_an_unknown_authority_says_where_to_name_it(here: Served, tmp_path: Path):
    issued = trustme.CA().issue_cert("localhost")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    issued.cert_chain_pems[0].write_to_path(str(cert))
    issued.private_key_pem.write_to_path(str(key))
    with serving_h2c(zoo_app, tls=(cert, key)) as url:
        result = here.cli("deployments", "register", url)
    assert result.exit_code == 1
    assert "CERTIFICATE_VERIFY_FAILED" in result.stderr
    assert result.stderr.splitlines()[-1].endswith("holdfast serve --endpoint-ca ca.pem")


@pytest.mark.parametrize("option", ["--header", "--metadata"])
def test_a_pair_needs_both_halves(here: Served, zoo: str, option: str):
    result = here.cli("deployments", "register", f"{zoo}/plain/pairs", option, "alone")
    assert result.exit_code == 2
    assert f"{option} 'alone' has no name and value" in result.stderr


def test_list_shows_where_new_invocations_run(here: Served, zoo: str):
    old = registered(here, f"{zoo}/two-services/listed")
    new = registered(here, f"{zoo}/plain/listed")
    rows = {line.split()[0]: line for line in here.done("deployments", "list").splitlines()}
    assert re.split(r" {2,}", rows[old])[2:] == ["HTTP/2.0", "(Zoolisted), Otherlisted"]
    assert re.split(r" {2,}", rows[new])[2:] == ["HTTP/2.0", "Zoolisted"]
    inside = next(row for row in rows.values() if "inprocess://app" in row)
    assert inside.endswith("Greeter, Counter, Signup")
    assert [one["id"] for one in here.json("deployments", "list")][-2:] == [old, new]


def test_update_moves_it(here: Served, zoo: str):
    deployment_id = registered(here, f"{zoo}/plain/moved", "--header", "a: b")
    result = here.cli("deployments", "update", deployment_id, "--uri", f"{zoo}/anonymous/moved", "--no-headers")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == f"{deployment_id} is at {zoo}/anonymous/moved\n"
    found = here.json("deployments", "describe", deployment_id)
    assert (found["uri"], found.get("additional_headers")) == (f"{zoo}/anonymous/moved", None)
    dry = here.cli("deployments", "update", deployment_id, "--uri", f"{zoo}/tuned/moved", "--dry-run", "--overwrite")
    assert dry.stderr == f"{deployment_id} can be changed; nothing was\n"
    lacking = here.cli("deployments", "update", deployment_id, "--uri", f"{zoo}/empty/moved")
    assert lacking.exit_code == 1
    assert "does not offer service Zoomoved" in lacking.stderr
    nothing = here.cli("deployments", "update", deployment_id)
    assert nothing.exit_code == 2
    assert "nothing to change" in nothing.stderr


def test_remove_asks_first(here: Served, zoo: str):
    deployment_id = registered(here, f"{zoo}/plain/removed")
    refused = here.cli("deployments", "remove", deployment_id, stdin="n\n")
    assert refused.exit_code == 1
    assert f"remove {deployment_id} at {zoo}/plain/removed? [y/N]" in refused.stderr
    assert here.done("deployments", "remove", deployment_id, "--yes") == f"{deployment_id} removed"
    gone = here.cli("deployments", "describe", deployment_id)
    assert gone.exit_code == 2
    assert gone.stderr.splitlines() == [
        f"error HF0105: The requested deployment '{deployment_id}' does not exist",
        "  next: what there is: holdfast deployments list",
    ]


def test_what_is_bound_to_a_deployment_keeps_it(here: Served):
    with serving_h2c("tests.admin.sample_app:app") as url:
        deployment_id = registered(here, url)
        invocation_id = here.send("Counter/bound/hold")
        bound = ("invocations", "list", "--bound-to", deployment_id)
        poll(lambda: [one["id"] for one in here.json(*bound)] == [invocation_id], "it was not bound")
        refused = here.cli("deployments", "remove", deployment_id, "--yes")
        assert refused.exit_code == 2
        assert refused.stderr.splitlines()[0] == f"error HF0103: 1 live invocation is bound to {deployment_id}"
        assert "1 live invocation is bound to it" in here.done("deployments", "describe", deployment_id)
        outcome = here.json("deployments", "remove", deployment_id, "--force", "--yes")
        assert outcome == {"id": deployment_id, "outcome": "removed", "live_invocations": 1}
        here.done("invocations", "pause", invocation_id)
        here.wait_for(invocation_id, "paused")
        # It goes on with the same code in the engine's own process.
        text = here.done("invocations", "resume", invocation_id, "--deployment", "latest")
        assert text == f"{invocation_id} goes on"
        state = here.admin.state("Counter", "bound")
        here.post(f"restate/awakeables/{state['awakeable'].decode().strip(chr(34))}/resolve", "on")
        assert here.wait_for(invocation_id, "completed").completion_result == "success"


@pytest.mark.parametrize("command", ["describe", "remove"])
def test_a_deployment_that_is_not_there(here: Served, command: str):
    result = here.cli("deployments", command, UNKNOWN)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[0] == f"error HF0105: The requested deployment '{UNKNOWN}' does not exist"


@pytest.mark.parametrize("command", ["describe", "remove", "update"])
def test_what_is_no_id_of_a_deployment(here: Served, command: str):
    options = ("--no-headers",) if command == "update" else ()
    result = here.cli("deployments", command, "dp_nope", *options)
    assert result.exit_code == 2
    first, step = result.stderr.splitlines()
    assert first.startswith("error HF0105: Invalid URL: Cannot parse `deployment` with value `dp_nope`")
    assert step == "  next: what there is: holdfast deployments list"


def test_a_service_is_described(here: Served):
    lines = here.done("services", "describe", "Signup").splitlines()
    assert lines[0] == "Signup, workflow, public"
    assert re.fullmatch(r"revision \d+, new invocations run on dp_1\w+", lines[1])
    assert lines[2:4] == ["keeps workflow runs 3d 4h 5m 6s 7ms", "keeps results by idempotency key 2d"]
    assert "retries up to 70 attempts, 500ms apart at first, growing by 2 to 1m; then it is paused" in lines
    assert any("run (once per key)" in line for line in lines)
    assert here.json("services", "describe", "Signup")["ty"] == "Workflow"
    assert here.cli("services", "describe", "Nope").exit_code == 2


def test_a_service_is_configured(here: Served, zoo: str):
    registered(here, f"{zoo}/plain/configured")
    lines = here.done(
        "services",
        "configure",
        "Zooconfigured",
        *("--private", "--journal-retention", "90m", "--idempotency-retention", "PT3H"),
        *("--inactivity-timeout", "5s", "--abort-timeout", "1d"),
    ).splitlines()
    assert lines[0] == "Zooconfigured, service, private: for handlers only"
    assert "keeps journals 1h 30m" in lines
    found = here.json("services", "configure", "Zooconfigured", "--public")
    assert (found["public"], found["journal_retention"], found["abort_timeout"]) == (True, "1h 30m", "1d")


MISUSES = {
    "nothing": ((), "nothing to change"),
    "no duration": (("--journal-retention", "soon"), "--journal-retention 'soon' is no duration"),
    "not of its type": (("--workflow-retention", "1h"), "for service type VirtualObject is unsupported"),
}


@pytest.mark.parametrize("misuse", MISUSES)
def test_what_cannot_be_configured(here: Served, misuse: str):
    options, words = MISUSES[misuse]
    result = here.cli("services", "configure", "Counter", *options)
    assert result.exit_code == 2
    assert words in result.stderr
