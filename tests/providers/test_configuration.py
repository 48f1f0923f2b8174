"""Settings: where they come from, which ones are refused, and with what words."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from holdfast.cli.main import holdfast
from holdfast.providers import Configuration, InvalidConfiguration, registry
from holdfast.providers.configuration import variable_for
from holdfast.providers.settings import AUTH_TYPES, MECHANISMS, SECTIONS

KEY = "workflow.restate.endpoint"
LOCAL = {KEY: "http://localhost:8080"}
SEVEN = ("endpoint", "execution_mechanism", "service_name", "auth_type", "api_key", "timeout", "retry_attempts")


def load(flags: Mapping[str, Any] | None = None, **sources: Any) -> Configuration:
    return Configuration.load(flags, environ=sources.get("environ", {}), file=sources.get("file"))


def problems(flags: Mapping[str, Any]) -> list[str]:
    return load({**LOCAL, **flags}).problems()


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user"))
    for name in ("HOLDFAST_CONFIG", variable_for(KEY)):
        monkeypatch.delenv(name, raising=False)


# ---- values --------------------------------------------------------------------------------------------------------------


def test_nothing_configured_is_valid_and_embedded_is_the_default() -> None:
    configuration = load()
    configuration.check()
    assert configuration.default_provider == "embedded"
    assert configuration.provider_for("anything") == "embedded"


def test_values_are_typed() -> None:
    section = load({**LOCAL, "workflow.restate.timeout": "30m", "workflow.restate.retry_attempts": "0"}).section(
        "restate"
    )
    assert section["timeout"] == timedelta(minutes=30)
    assert section["retry_attempts"] == 0
    assert section["endpoint"] == "http://localhost:8080"
    assert section["execution_mechanism"] == "local"
    assert section["auth_type"] == "none"
    assert section["admin_endpoint"] is None


WRONG = {
    "endpoint missing": ({KEY: ""}, f"{KEY}: endpoint is required, e.g. http://localhost:8080"),
    "endpoint malformed": ({KEY: "htp:/x"}, f"{KEY}: 'htp:/x' is no http or https URL"),
    "endpoint without host": ({KEY: "http://"}, f"{KEY}: 'http://' is no http or https URL"),
    "endpoint of another scheme": ({KEY: "ftp://host"}, f"{KEY}: 'ftp://host' is no http or https URL"),
    "endpoint with a query": ({KEY: "http://host/?a=b"}, f"{KEY}: 'http://host/?a=b' is no http or https URL"),
    "endpoint with a password": (
        {KEY: "http://me:secret@host"},
        f"{KEY}: has a user or password in it; leave them out",
    ),
    "endpoint with a bad port": ({KEY: "http://host:99999"}, f"{KEY}: 'http://host:99999' is no http or https URL"),
    "admin endpoint": (
        {"workflow.restate.admin_endpoint": "nope"},
        "workflow.restate.admin_endpoint: 'nope' is no http",
    ),
    "mechanism": (
        {"workflow.restate.execution_mechanism": "foo"},
        "'foo' is unknown; allowed: lambda, fargate, kubernetes, self-hosted, local",
    ),
    "auth type": ({"workflow.restate.auth_type": "basic"}, "'basic' is unknown; allowed: api_key, iam, none"),
    "negative timeout": ({"workflow.restate.timeout": "-1s"}, "'-1s' is no duration (it is negative)"),
    "timeout without unit": ({"workflow.restate.timeout": "30"}, "write one with its unit, e.g. 30s"),
    "timeout of nothing": ({"workflow.restate.timeout": "0s"}, "'0s' is not above zero"),
    "negative retries": ({"workflow.restate.retry_attempts": "-1"}, "-1 is not allowed: 0 or more"),
    "retries in words": ({"workflow.restate.retry_attempts": "few"}, "'few' is no whole number; allowed: 0 or more"),
    "service name": ({"workflow.restate.service_name": "7up"}, "workflow.restate.service_name: '7up' is no name"),
    "reserved service name": ({"workflow.restate.service_name": "restate-x"}, "'restate-x' is reserved"),
    "port": ({"workflow.restate.listen_port": "70000"}, "70000 is not allowed: 0 to 65535"),
    "unqualified ARN": (
        {
            "workflow.restate.deployment_arn": "arn:aws:lambda:eu-central-1:123456789012:function:f",
            "workflow.restate.execution_mechanism": "lambda",
        },
        "is no qualified Lambda ARN",
    ),
    "durability": ({"workflow.embedded.durability": "some"}, "'some' is unknown; allowed: full, relaxed"),
    "unknown setting": (
        {"workflow.restate.endpiont": "x"},
        "workflow.restate.endpiont: is no setting; allowed: endpoint,",
    ),
    "unknown section": ({"workflow.temporal.x": "1"}, "is no section of workflow; allowed: default_provider, routing,"),
    "section with a value": ({"workflow.restate": "x"}, "workflow.restate: is a section, and has no value of its own"),
    "default provider": ({"workflow.default_provider": "mock"}, "'mock' is no provider; known: embedded, restate"),
    "route": (
        {"workflow.routing.a-*": "mock"},
        "workflow.routing.a-*: 'mock' is no provider; known: embedded, restate",
    ),
    "pattern": ({"workflow.routing.A b": "restate"}, "is no pattern of workflow ids"),
    "key without api_key": (
        {"workflow.restate.auth_type": "api_key"},
        "workflow.restate.api_key: is required with auth_type api_key",
    ),
    "api_key with none": (
        {"workflow.restate.auth_type": "none", "workflow.restate.api_key": "k"},
        "auth_type: is none, but there is an api_key",
    ),
    "api_key alone": ({"workflow.restate.api_key": "k"}, "auth_type: is none, but there is an api_key"),
    "ARN elsewhere": (
        {"workflow.restate.deployment_arn": "arn:aws:lambda:eu-central-1:123456789012:function:f:1"},
        "deployment_arn: belongs to the mechanism lambda, not local",
    ),
    "role without iam": (
        {
            "workflow.restate.execution_mechanism": "lambda",
            "workflow.restate.assume_role_arn": "arn:aws:iam::123456789012:role/r",
        },
        "assume_role_arn: belongs to auth_type iam, not none",
    ),
    "deployment_url of local": (
        {"workflow.restate.deployment_url": "http://host:9080"},
        "deployment_url: belongs to self-hosted, kubernetes and fargate, not local",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_value_is_named_with_what_is_allowed(case: str) -> None:
    flags, text = WRONG[case]
    found = problems(flags)
    assert len(found) == 1, found
    assert text in found[0]
    assert found[0].startswith("workflow.")


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(InvalidConfiguration) as refusal:
        load({KEY: "x", "workflow.restate.timeout": "-1s", "workflow.nope.a": "b"}).check()
    assert len(refusal.value.problems) == 3


@pytest.mark.parametrize(("mechanism", "auth"), [*itertools.product(MECHANISMS, AUTH_TYPES)])
def test_mechanism_and_authentication_fit_together(mechanism: str, auth: str) -> None:
    flags = {"workflow.restate.execution_mechanism": mechanism, "workflow.restate.auth_type": auth}
    if auth == "api_key":
        flags["workflow.restate.api_key"] = "k"
    found = problems(flags)
    if auth == "iam" and mechanism != "lambda":
        reason = f"iam fits the mechanism lambda only, not {mechanism}; allowed here: api_key, none (from flag)"
        assert found == [f"workflow.restate.auth_type: {reason}"]
    else:
        assert found == []


def test_an_empty_auth_type_means_none() -> None:
    assert load({**LOCAL, "workflow.restate.auth_type": ""}).section("restate")["auth_type"] == "none"


def test_a_restate_section_is_only_needed_when_restate_is_used() -> None:
    assert load({"workflow.embedded.db": "x.db"}).problems() == []
    for flags in ({"workflow.default_provider": "restate"}, {"workflow.routing.a": "restate"}):
        assert "endpoint is required" in load(flags).problems()[0]


# ---- sources -------------------------------------------------------------------------------------------------------------


def test_flags_win_over_variables_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "holdfast.toml"
    file.write_text('[workflow.restate]\nendpoint = "http://file:1"\n')
    environ = {variable_for(KEY): "http://variable:2"}
    flag = {KEY: "http://flag:3"}
    for flags, variables, expected, origin in (
        (flag, environ, "http://flag:3", "flag"),
        ({}, environ, "http://variable:2", "variable HOLDFAST_WORKFLOW_RESTATE_ENDPOINT"),
        ({}, {}, "http://file:1", "file holdfast.toml"),
    ):
        configuration = load(flags, environ=variables)
        assert configuration.section("restate")["endpoint"] == expected
        assert configuration.origin(KEY) == origin
    file.unlink()
    assert load().origin(KEY) == "default"


def test_the_file_is_looked_for_in_the_usual_places(tmp_path: Path) -> None:
    user = tmp_path / "user" / "holdfast" / "holdfast.toml"
    user.parent.mkdir(parents=True)
    user.write_text('[workflow.embedded]\ndb = "user.db"\n')
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "user")}
    assert load(environ=environ).section("embedded")["db"] == "user.db"
    Path("holdfast.toml").write_text('[workflow.embedded]\ndb = "here.db"\n')
    assert load(environ=environ).section("embedded")["db"] == "here.db"
    other = tmp_path / "other.toml"
    other.write_text('[workflow.embedded]\ndb = "named.db"\n')
    assert load(environ={**environ, "HOLDFAST_CONFIG": str(other)}).section("embedded")["db"] == "named.db"
    assert load(file=other).section("embedded")["db"] == "named.db"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match=r"nowhere\.toml: there is no such configuration file"):
        load(file=tmp_path / "nowhere.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("[workflow")
    with pytest.raises(InvalidConfiguration, match=r"broken\.toml: cannot be read as TOML"):
        load(file=broken)
    broken.write_text("workflow = 3")
    with pytest.raises(InvalidConfiguration, match="workflow must be a table"):
        load(file=broken)


def test_a_table_of_another_name_is_not_overlooked(tmp_path: Path) -> None:
    file = tmp_path / "given.toml"
    file.write_text('[restate]\nendpoint = "http://localhost:8080"\n')
    told = "is unknown: every setting is under workflow, e.g. [workflow.restate]"
    assert load(file=file).problems() == [f"restate: {told} (from file {file})"]
    assert problems({"restate.endpoint": "http://h"}) == [f"restate.endpoint: {told} (from flag)"]


def test_a_misspelt_variable_is_told() -> None:
    [problem] = load(environ={"HOLDFAST_WORKFLOW_RESTATE_ENDPIONT": "x"}).problems()
    assert problem.startswith("HOLDFAST_WORKFLOW_RESTATE_ENDPIONT: is no setting; allowed: ")


def test_the_first_route_that_matches_counts(tmp_path: Path) -> None:
    file = tmp_path / "routes.toml"
    file.write_text(
        '[workflow]\ndefault_provider = "embedded"\n[workflow.restate]\nendpoint = "http://localhost:8080"\n'
        '[workflow.routing]\n"enrich-fast" = "embedded"\n"enrich-*" = "restate"\n'
    )
    configuration = load(file=file)
    configuration.check()
    found = {name: configuration.provider_for(name) for name in ("enrich-fast", "enrich-slow", "discover")}
    assert found == {"enrich-fast": "embedded", "enrich-slow": "restate", "discover": "embedded"}


def test_a_route_of_a_stronger_source_comes_first(tmp_path: Path) -> None:
    file = tmp_path / "routes.toml"
    file.write_text('[workflow.restate]\nendpoint = "http://localhost:8080"\n[workflow.routing]\n"*" = "embedded"\n')
    environ = {"HOLDFAST_WORKFLOW_ROUTING": "enrich-*=restate"}
    configuration = load({"workflow.routing.enrich-fast": "embedded"}, file=file, environ=environ)
    found = {name: configuration.provider_for(name) for name in ("enrich-fast", "enrich-slow", "discover")}
    assert found == {"enrich-fast": "embedded", "enrich-slow": "restate", "discover": "embedded"}
    assert configuration.with_flags({"workflow.routing.*": "restate"}).provider_for("enrich-fast") == "restate"


def test_routes_can_be_a_variable() -> None:
    environ = {"HOLDFAST_WORKFLOW_ROUTING": "long-*=restate, *=embedded", variable_for(KEY): "http://localhost:8080"}
    configuration = load(environ=environ)
    configuration.check()
    assert configuration.provider_for("long-one") == "restate"


# ---- showing -------------------------------------------------------------------------------------------------------------


def test_all_settings_are_shown_and_secrets_masked() -> None:
    flags = {**LOCAL, "workflow.restate.auth_type": "api_key", "workflow.restate.api_key": "very-secret"}
    configuration = load(flags)
    document = configuration.show()["workflow"]
    assert set(SEVEN) <= set(document["restate"])
    assert document["restate"]["api_key"] == "********"
    assert "very-secret" not in json.dumps(configuration.show(origins=True))
    assert document["restate"]["stop_grace"] == "10s"
    for provider, settings in SECTIONS.items():
        assert [setting.name for setting in settings] == [*document[provider]]


def test_a_secret_of_a_wrong_form_is_not_repeated() -> None:
    [problem] = [each for each in problems({"workflow.restate.api_key": 4711}) if "form" in each]
    assert "4711" not in problem


@pytest.mark.parametrize("key", ["very-secret\n", " very-secret", "very\tsecret", "very-sécret", "very-secret\x00"])
def test_a_key_that_no_header_can_carry_is_refused_at_start_and_not_repeated(key: str) -> None:
    flags = {**LOCAL, "workflow.restate.auth_type": "api_key", "workflow.restate.api_key": key}
    assert problems(flags) == ["workflow.restate.api_key: is not of the right form: ASCII text, one line (from flag)"]


def cli(*arguments: str) -> Result:
    return CliRunner().invoke(holdfast, arguments)


def test_config_show_on_the_command_line() -> None:
    shown = json.loads(cli("config", "show", "--json", "--set", f"{KEY}=http://h:1").stdout)
    assert set(SEVEN) <= set(shown["workflow"]["restate"])
    assert shown["workflow"]["restate"]["endpoint"] == "http://h:1"
    lines = cli("config", "show", "--origin", "--set", f"{KEY}=http://h:1").stdout.splitlines()
    assert f'{KEY} = "http://h:1"  # flag --set' in lines
    assert 'workflow.restate.execution_mechanism = "local"  # default' in lines


def test_config_check_on_the_command_line() -> None:
    fine = cli("config", "check", "--set", f"{KEY}=http://h:1")
    assert (fine.exit_code, fine.stdout) == (0, "the configuration is valid\n")
    wrong = cli("config", "check", "--set", f"{KEY}=htp:/x")
    assert wrong.exit_code == 2
    assert f"error HF0408: {KEY}: 'htp:/x' is no http or https URL" in wrong.stderr
    document = json.loads(cli("config", "check", "--json", "--set", f"{KEY}=").stdout)
    assert not document["is_valid"]
    assert "endpoint is required" in document["problems"][0]
    assert cli("config", "check", "--set", "nonsense").exit_code == 2


def test_variables_name_their_settings() -> None:
    every = [f"workflow.{name}.{setting.name}" for name in registry.names() for setting in registry.settings(name)]
    assert len({variable_for(key) for key in every}) == len(every)
    assert variable_for("workflow.restate.api_key") == "HOLDFAST_WORKFLOW_RESTATE_API_KEY"
