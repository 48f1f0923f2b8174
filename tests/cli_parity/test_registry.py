"""`restate deployments`, `restate services`, `whoami` and what is switched off: the same on both engines."""

from __future__ import annotations

import httpx
import pytest

from tests.cli_parity.harness import Pair
from tests.support.restate_server import serving_h2c

pytestmark = pytest.mark.restate_server

UNKNOWN = "dp_16tCcPQuIcwtYpzUmqjMAmK"


@pytest.fixture(scope="module")
def registered(bare_pair: Pair) -> Pair:
    """The application, registered by the command itself."""
    output = bare_pair.same("deployments", "register", "{app}", "--yes")
    assert output.exit_code == 0
    assert "Greeter" in output.stdout

    def find(target):
        return httpx.get(f"{target.admin_url}/deployments").json()["deployments"][0]["id"]

    bare_pair.name("dp", find)
    return bare_pair


READ = (
    "services list",
    "services list --public-only",
    "services describe Greeter",
    "services describe Counter",
    "services describe Signup",
    "services describe Nope",
    "services config view Greeter",
    "services config view Counter",
    "services config view Signup",
    "services config view Nope",
    "deployments list",
    "deployments list --extra",
    "deployments describe {dp}",
    "deployments describe {dp} --extra",
    f"deployments describe {UNKNOWN}",
    "deployments describe foo",
    "subscriptions list",
    f"subscriptions describe {UNKNOWN.replace('dp', 'sub')}",
    "subscriptions create kafka://foo/t service://Greeter/greet --yes",
    "kafka-clusters list",
    "kafka-clusters describe nope",
    "rules list",
    "vqueues list",
)


@pytest.mark.parametrize("line", READ)
def test_it_shows_the_same(registered: Pair, line: str):
    registered.same(*line.split())


def test_whoami_finds_the_engine(registered: Pair):
    theirs, ours = [target.restate("whoami") for target in registered]
    told = [line.strip() for line in ours.stdout.splitlines() + ours.stderr.splitlines()]
    assert ours.exit_code == theirs.exit_code == 0
    assert any(line.endswith("is healthy!") for line in told)
    assert any(
        line.split() == ["Advertised", "ingress", "address", f"{registered.holdfast.ingress_url}/"] for line in told
    )


WRITE = (
    "services config patch Counter --idempotency-retention 3h --journal-retention 90m --yes",
    "services config patch Counter --inactivity-timeout 5s --abort-timeout 1h --yes",
    "services config patch Counter --public false --yes",
    "services config patch Signup --workflow-completion-retention 2d --yes",
    "services config patch Greeter --workflow-completion-retention 2d --yes",
    "services config patch Nope --public false --yes",
    "services config patch Greeter --abort-timeout soon --yes",
    "services list",
    "services config view Counter",
    "services config view Signup",
    "deployments register {app} --yes",
    "deployments register {app} --yes --force",
    "services config view Counter",
    "services list",
)


def test_it_changes_the_same(registered: Pair):
    for line in WRITE:
        registered.same(*line.split())


def test_config_edit_opens_an_editor(registered: Pair):
    registered.same("services", "config", "edit", "Greeter", "--yes", env={"EDITOR": "true"})


def test_another_deployment_takes_over_and_the_old_one_is_removed(registered: Pair):
    with serving_h2c("tests.admin.sample_app:app") as second:
        for target in registered:
            target.names["second"] = second
        registered.same("deployments", "register", "{second}", "--yes")
        registered.register("newer", second)
        for line in (
            "services describe Greeter",
            "deployments list",
            "deployments list --extra",
            "deployments describe {dp} --extra",
            "deployments remove {dp} --yes",
            "deployments list",
        ):
            registered.same(*line.split())


def test_an_endpoint_that_is_not_there(registered: Pair):
    theirs, ours = [target.restate("deployments", "register", "http://127.0.0.1:1", "--yes") for target in registered]
    assert ours.exit_code == theirs.exit_code == 1
    for output in (theirs, ours):
        assert "META0003" in output.stderr
        assert "Http status code 500" in output.stderr
