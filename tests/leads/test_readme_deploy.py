"""Files that others read: Dockerfile, compose, Fly.io, Railway, settings. Judged by their tools; what they say is run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from apps.leads.cli import discord_commands, main, serve
from apps.leads.serve import load_settings
from apps.leads.settings import Settings
from tests.leads.ui import environment
from tests.support.restate_server import REPOSITORY, free_ports

APP = REPOSITORY / "apps" / "leads"
DEPLOY = APP / "deploy"
COMPOSE = sorted(DEPLOY.glob("compose*.yaml"))
BIN = Path(sys.executable).parent
ENGINES = {"compose.yaml": "embedded", "compose.restate.yaml": "restate", "compose.hybrid.yaml": "hybrid"}


def known_variables() -> set[str]:
    """Every environment variable that leads reads."""
    options = [option for command in (main, serve, discord_commands) for option in command.params]
    of_options = [option.envvar for option in options if option.envvar]
    names = {name for each in of_options for name in ([each] if isinstance(each, str) else each)}
    restate = {"RESTATE_INGRESS_URL", "RESTATE_ADMIN_URL", "RESTATE_AUTH_TOKEN"}
    of_settings = {f"LEADS_{name.upper()}" for name in Settings.__struct_fields__}
    return names | restate | of_settings | {"LEADS_ENGINE"}


def run(tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BIN / tool, *arguments], capture_output=True, text=True, timeout=60, check=False)


def dockerfile() -> dict[str, list[str]]:
    """Instruction -> its arguments, of the last stage."""
    text = re.sub(r"\\\n\s*", " ", (DEPLOY / "Dockerfile").read_text())
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            found = {}
        found.setdefault(instruction, []).append(rest)
    return found


def test_the_dockerfile_passes_hadolint() -> None:
    result = run("hadolint", "--no-color", "--failure-threshold", "style", str(DEPLOY / "Dockerfile"))
    assert result.returncode == 0, result.stdout


def test_what_the_image_holds_is_enough_and_its_commands_work(tmp_path: Path) -> None:
    """The image has the packages and these folders, nothing else of the repository."""
    image = dockerfile()
    for copied in image["COPY"]:
        source, target = copied.split()[-2:]
        if not copied.startswith("--from"):
            shutil.copytree(REPOSITORY / source, tmp_path / target)
    [port] = free_ports(1)
    variables = dict(pair.split("=") for line in image["ENV"] for pair in line.split() if pair.startswith("LEADS_"))
    assert set(variables) <= known_variables()
    variables |= {"PORT": str(port), "LEADS_DIRECTORY": str(tmp_path / "data"), "PYTHONPATH": ""}
    command = json.loads(image["CMD"][0])
    health = json.loads(image["HEALTHCHECK"][0].partition("CMD ")[2])
    assert command[0] == health[0] == "python"
    env = environment(**variables, LEADS_API_MASTER_KEY="secret")
    with subprocess.Popen(
        [sys.executable, *command[1:]], cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True
    ) as served:
        try:
            assert served.stdout is not None
            assert served.stdout.readline().startswith(f"leads answers on http://0.0.0.0:{port}")
            subprocess.run([sys.executable, *health[1:]], env=env, timeout=60, check=True)
        finally:
            served.terminate()
    assert served.returncode == 0


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_compose_files_fit_the_specification_and_mean_what_they_say(path: Path) -> None:
    result = run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(path))
    assert result.returncode == 0, result.stdout
    document: dict[str, Any] = yaml.safe_load(path.read_text())
    for service in document["services"].values():
        assert not service["image"].endswith(":latest")
        assert all(volume.split(":")[0] in document["volumes"] for volume in service.get("volumes", []))
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    leads = document["services"]["leads"]
    assert set(leads["environment"]) <= known_variables()
    assert (path.parent / leads["build"]["context"] / leads["build"]["dockerfile"]).samefile(DEPLOY / "Dockerfile")
    fixed = {name: value for name, value in leads["environment"].items() if "$" not in value}
    settings = load_settings(None, fixed)
    expected = {
        "embedded": ("embedded", "embedded"),
        "restate": ("restate", "restate"),
        "hybrid": ("embedded", "restate"),
    }
    assert (settings.discovery_engine, settings.enrichment_engine) == expected[ENGINES[path.name]]


def test_the_choice_of_engine_is_settings_only() -> None:
    embedded, *others = (yaml.safe_load((DEPLOY / name).read_text())["services"]["leads"] for name in ENGINES)
    for other in others:
        differing = {key for key in embedded | other if embedded.get(key) != other.get(key)}
        assert differing == {"depends_on", "environment", "expose"}
        assert {key: value for key, value in other["environment"].items() if key not in embedded["environment"]} == {
            "RESTATE_INGRESS_URL": "http://restate:8080",
            "RESTATE_ADMIN_URL": "http://restate:9070",
            "LEADS_RESTATE_ADVERTISED_URL": "http://leads:9080",
        }


def test_platform_files_can_be_read() -> None:
    fly = tomllib.loads((DEPLOY / "fly.toml").read_text())
    assert fly["http_service"]["checks"][0]["path"] == "/health"
    assert fly["http_service"]["auto_stop_machines"] == "off"
    assert fly["mounts"][0]["destination"] == "/data"
    assert set(fly["env"]) <= known_variables()
    railway = json.loads((DEPLOY / "railway.json").read_text())
    assert (REPOSITORY / railway["build"]["dockerfilePath"]).is_file()
    assert railway["deploy"]["healthcheckPath"] == "/health"


def test_the_example_of_settings_names_what_there_is_and_works() -> None:
    lines = [line for line in (APP / ".env.example").read_text().splitlines() if re.match(r"[A-Z]", line)]
    example = dict(line.split("=", 1) for line in lines)
    assert set(example) <= known_variables()
    of_serve = {name for name in known_variables() if name.startswith(("LEADS_API_", "RESTATE_", "DISCORD_"))}
    assert of_serve <= set(example)
    assert Settings.from_environment(example) == Settings()
