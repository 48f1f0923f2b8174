"""Files that others read: Dockerfile, compose, Fly.io, Railway, settings. Judged by their tools; what they say is run."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from apps.imports.cli import serve
from apps.imports.settings import Settings
from tests.imports.running import environment
from tests.support import deployment
from tests.support.restate_server import REPOSITORY

APP = REPOSITORY / "apps" / "imports"
DEPLOY = APP / "deploy"


def known_variables() -> set[str]:
    """Every environment variable that imports reads."""
    of_serve = [option.envvar for option in serve.params if option.envvar]
    names = {name for each in of_serve for name in ([each] if isinstance(each, str) else each)}
    return names | {each.metadata["env"] for each in fields(Settings)} | {"IMPORTS_URL", "IMPORTS_TOKEN"}


def test_the_dockerfile_passes_hadolint() -> None:
    deployment.check_dockerfile(DEPLOY / "Dockerfile")


def test_what_the_image_holds_is_enough_and_its_commands_work(tmp_path: Path) -> None:
    def variables(of_image: dict[str, str]) -> dict[str, str]:
        assert {name for name in of_image if name.startswith("IMPORTS_")} <= known_variables()
        return environment(**of_image | {"IMPORTS_DIR": str(tmp_path / "data")})

    deployment.check_image(DEPLOY / "Dockerfile", tmp_path, "imports answers on http://0.0.0.0:{port}", variables)


@pytest.mark.parametrize("path", sorted(DEPLOY.glob("compose*.yaml")), ids=lambda path: path.name)
def test_compose_files_fit_the_specification_and_mean_what_they_say(path: Path) -> None:
    deployment.checked_compose(path, "imports", known_variables())


def test_the_choice_of_engine_is_settings_only() -> None:
    names = ("compose.yaml", "compose.restate.yaml")
    embedded, restate = (deployment.compose_service(DEPLOY / name, "imports") for name in names)
    added = {
        "IMPORTS_ENGINE": "restate",
        "RESTATE_INGRESS_URL": "http://restate:8080",
        "RESTATE_ADMIN_URL": "http://restate:9070",
        "IMPORTS_WORKER_URL": "http://imports:9080",
        "RESTATE_SIGNING_PUBLIC_KEY": "${RESTATE_SIGNING_PUBLIC_KEY:-}",
    }
    deployment.check_difference(embedded, restate, added)


def test_platform_files_can_be_read() -> None:
    deployment.check_platforms(DEPLOY, known_variables())


def test_the_example_of_settings_names_what_there_is_and_works() -> None:
    example = deployment.example_settings(APP / ".env.example")
    assert set(example) <= known_variables()
    assert {name for name in known_variables() if name.startswith(("RESTATE_", "MOTHERDUCK_"))} <= set(example)
    assert Settings.load(environ=example) == Settings(
        ingress_url="http://localhost:8080", admin_url="http://localhost:9070"
    )


def test_every_price_has_a_source_and_a_date() -> None:
    rows = re.findall(r"^\|(.+)\|$", (APP / "hosting.md").read_text().partition("## What it costs")[2], re.M)
    prices = [[cell.strip() for cell in row.split("|")] for row in rows[2:]]
    assert len(prices) >= 8
    for _, price, source, date in prices:
        assert re.search(r"\d", price) is None or source.startswith(("https://", "as above"))
        assert date or "unknown" in price
