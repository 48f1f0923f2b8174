"""A token with a line end is refused where it comes in, by each application, and is nowhere in what it says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click
import pytest
from click.testing import CliRunner

from apps.imports.cli import main as imports
from apps.imports.settings import InvalidSetting as ImportsError
from apps.imports.settings import Settings as ImportsSettings
from apps.leads.cli import main as leads
from apps.leads.settings import Settings as LeadsSettings
from apps.leads.settings import SettingsError as LeadsError
from apps.recon.cli import recon
from apps.recon.settings import InvalidSetting as ReconError
from apps.recon.settings import Settings as ReconSettings

WRONG = "s3cret-of-a-file\n"


def of_recon(environment: Mapping[str, str]) -> ReconSettings:
    return ReconSettings.load(environment=environment)


def of_imports(environment: Mapping[str, str]) -> ImportsSettings:
    return ImportsSettings.load(environ=environment)


@pytest.mark.parametrize(
    ("load", "error", "variable", "value"),
    [
        (of_recon, ReconError, "RESTATE_AUTH_TOKEN", WRONG),
        (of_recon, ReconError, "RECON_ADMIN_TOKEN", WRONG),
        (of_recon, ReconError, "NVD_API_KEY", WRONG),
        (of_imports, ImportsError, "RESTATE_AUTH_TOKEN", WRONG),
        (LeadsSettings.from_environment, LeadsError, "RESTATE_AUTH_TOKEN", WRONG),
        (LeadsSettings.from_environment, LeadsError, "LEADS_AUDIT_SERVICE_KEY", WRONG),
        (
            LeadsSettings.from_environment,
            LeadsError,
            "LEADS_ACTOR",
            '{"url": "http://a", "actor": "b", "token": "s3cret-of-a-file\\n"}',
        ),
        (
            LeadsSettings.from_environment,
            LeadsError,
            "LEADS_OWNER_SOURCES",
            '[{"name": "answer_engine", "url": "http://a", "token": "s3cret-of-a-file\\n"}]',
        ),
    ],
)
def test_settings(load: Callable[[Mapping[str, str]], Any], error: type[Exception], variable: str, value: str) -> None:
    with pytest.raises(error, match=f"{variable}.*no header can carry") as refused:
        load({variable: value})
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    ("command", "arguments"),
    [(recon, ["jobs", "list"]), (imports, ["history"]), (leads, ["jobs", "list"])],
)
def test_options(command: click.Command, arguments: list[str]) -> None:
    option = "--key" if command is leads else "--token"
    result = CliRunner().invoke(command, [option, WRONG, *arguments])
    assert result.exit_code == 2
    assert "no header can carry" in " ".join(result.output.split())
    assert "s3cret" not in result.output
