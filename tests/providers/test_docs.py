"""The pages about providers are true: their programs and commands run, their tables are those of the code."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import holdfast.errors
from holdfast import providers
from holdfast.providers import errors, registry
from holdfast.providers.configuration import variable_for
from holdfast.providers.settings import AUTH_TYPES, MECHANISMS, SECTIONS, Setting, setting_text
from holdfast.providers.types import ExecutionState
from tests.support.restate_server import RunningRestate
from tests.test_readme import ROOT, Shell, play

DOCS = ROOT / "docs"
CONFIGURATION = (DOCS / "providers-configuration.md").read_text()


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Shell]:
    """A shell in an empty folder."""
    folder, outputs = tmp_path / "session", tmp_path / "outputs"
    folder.mkdir()
    outputs.mkdir()
    shell = Shell(folder, ROOT, outputs)
    shell.run("unset HOLDFAST_WORKFLOW_RESTATE_DRAIN")
    yield shell
    shell.stop()


def test_the_page_about_providers_works(session: Shell) -> None:
    assert play((DOCS / "providers.md").read_text(), session) == []


def test_the_page_about_the_embedded_provider_works(session: Shell) -> None:
    assert play((DOCS / "providers-embedded.md").read_text(), session) == []


def test_the_page_about_configuration_works(session: Shell) -> None:
    [file] = re.findall(r"^```toml\n(# holdfast\.toml\n.*?)^```$", CONFIGURATION, re.MULTILINE | re.DOTALL)
    session.run(f"cat >holdfast.toml <<'END'\n{file}END")
    assert play(CONFIGURATION, session) == []


@pytest.mark.restate_server
def test_the_page_about_the_restate_provider_works(session: Shell, restate_server: RunningRestate) -> None:
    # The page says localhost:8080; the server of this test listens elsewhere.
    for name, url in (("endpoint", restate_server.ingress_url), ("admin_endpoint", restate_server.admin_url)):
        session.run(f"export {variable_for(f'workflow.restate.{name}')}={url}")
    assert play((DOCS / "providers-restate.md").read_text(), session) == []


def row(provider: str, setting: Setting) -> str:
    """A setting as the page shows it."""
    default = setting_text(setting.default)
    shown = "required" if setting.is_required else "" if default is None else f"`{default}`"
    return f"| `{provider}.{setting.name}` | {setting.form} | {shown} | {setting.doc} |"


@pytest.mark.parametrize("provider", SECTIONS)
def test_every_setting_is_documented_as_it_is(provider: str) -> None:
    expected = [row(provider, setting) for setting in registry.settings(provider)]
    found = [line for line in CONFIGURATION.splitlines() if line.startswith(f"| `{provider}.")]
    assert found == expected


def test_the_table_of_mechanism_and_authentication_is_complete() -> None:
    page = (DOCS / "providers-restate.md").read_text()
    header = "| | " + " | ".join(f"`{each}`" for each in AUTH_TYPES) + " |"
    assert header in page
    for mechanism in MECHANISMS:
        iam = "yes" if mechanism == "lambda" else "refused"
        assert f"| `{mechanism}` | with an `api_key` | {iam} | yes |" in page


def test_every_state_is_in_the_table() -> None:
    page = (DOCS / "providers.md").read_text()
    table = page[page.index("| State | Final |") : page.index("Progress is")]
    named = set(
        re.findall(r"`([a-z-]+)`", " ".join(line.split("|")[1] for line in table.splitlines()[2:] if "|" in line))
    )
    assert named == {state.value for state in ExecutionState}


def test_every_error_of_a_provider_has_its_row() -> None:
    page = (DOCS / "errors.md").read_text()
    found = [
        value
        for value in vars(errors).values()
        if isinstance(value, type)
        and issubclass(value, holdfast.errors.HoldfastError)
        and value.__module__ == errors.__name__
    ]
    assert len({error.code for error in found}) == len(found) >= 12
    for error in found:
        assert f"| {error.code} | {error.__name__} |" in page


def test_every_public_name_can_be_had() -> None:
    assert sorted(providers.__all__) == providers.__all__
    for name in providers.__all__:
        assert getattr(providers, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        providers.nonsense  # noqa: B018


def test_every_module_says_what_it_is() -> None:
    for module in pkgutil.iter_modules(providers.__path__):
        assert importlib.import_module(f"holdfast.providers.{module.name}").__doc__
