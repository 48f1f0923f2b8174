"""Files that others read: Dockerfile, compose, Fly.io, Railway, settings. Judged by their tools; what they say is run."""

from __future__ import annotations

from pathlib import Path

import pytest

from apps.leads.cli import discord_commands, main, serve
from apps.leads.serve import load_settings
from apps.leads.settings import Settings
from tests.leads.ui import environment
from tests.support import deployment
from tests.support.restate_server import REPOSITORY

APP = REPOSITORY / "apps" / "leads"
DEPLOY = APP / "deploy"
ENGINES = {
    "compose.yaml": ("embedded", "embedded"),
    "compose.restate.yaml": ("restate", "restate"),
    "compose.hybrid.yaml": ("embedded", "restate"),
}


def known_variables() -> set[str]:
    """Every environment variable that leads reads."""
    options = [option for command in (main, serve, discord_commands) for option in command.params]
    of_options = [option.envvar for option in options if option.envvar]
    names = {name for each in of_options for name in ([each] if isinstance(each, str) else each)}
    restate = {"RESTATE_INGRESS_URL", "RESTATE_ADMIN_URL", "RESTATE_AUTH_TOKEN"}
    of_settings = {f"LEADS_{name.upper()}" for name in Settings.__struct_fields__}
    return names | restate | of_settings | {"LEADS_ENGINE"}


def test_the_dockerfile_passes_hadolint() -> None:
    deployment.check_dockerfile(DEPLOY / "Dockerfile")


def test_what_the_image_holds_is_enough_and_its_commands_work(tmp_path: Path) -> None:
    def variables(of_image: dict[str, str]) -> dict[str, str]:
        assert {name for name in of_image if name.startswith("LEADS_")} <= known_variables()
        ours = {"LEADS_DIRECTORY": str(tmp_path / "data"), "LEADS_API_MASTER_KEY": "secret"}
        return environment(**of_image | ours)

    deployment.check_image(DEPLOY / "Dockerfile", tmp_path, "leads answers on http://0.0.0.0:{port}", variables)


@pytest.mark.parametrize("path", sorted(DEPLOY.glob("compose*.yaml")), ids=lambda path: path.name)
def test_compose_files_fit_the_specification_and_mean_what_they_say(path: Path) -> None:
    leads = deployment.checked_compose(path, "leads", known_variables())
    fixed = {name: value for name, value in leads["environment"].items() if "$" not in value}
    settings = load_settings(None, fixed)
    assert (settings.discovery_engine, settings.enrichment_engine) == ENGINES[path.name]


def test_the_choice_of_engine_is_settings_only() -> None:
    embedded, *others = (deployment.compose_service(DEPLOY / name, "leads") for name in ENGINES)
    for other in others:
        added = {
            "RESTATE_INGRESS_URL": "http://restate:8080",
            "RESTATE_ADMIN_URL": "http://restate:9070",
            "LEADS_RESTATE_ADVERTISED_URL": "http://leads:9080",
        }
        deployment.check_difference(embedded, other, added)


def test_platform_files_can_be_read() -> None:
    deployment.check_platforms(DEPLOY, known_variables())


def test_the_example_of_settings_names_what_there_is_and_works() -> None:
    example = deployment.example_settings(APP / ".env.example")
    assert set(example) <= known_variables()
    of_serve = {name for name in known_variables() if name.startswith(("LEADS_API_", "RESTATE_", "DISCORD_"))}
    assert of_serve <= set(example)
    assert Settings.from_environment(example) == Settings()
