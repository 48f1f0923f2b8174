"""Files that others read: Dockerfile, compose, Fly.io, Railway, settings. Judged by their tools; what they say is run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from apps.imports.cli import serve
from apps.imports.settings import Settings
from tests.imports.running import environment
from tests.support.restate_server import REPOSITORY, free_ports

APP = REPOSITORY / "apps" / "imports"
DEPLOY = APP / "deploy"
COMPOSE = sorted(DEPLOY.glob("compose*.yaml"))
BIN = Path(sys.executable).parent


def known_variables() -> set[str]:
    """Every environment variable that imports reads."""
    of_serve = [option.envvar for option in serve.params if option.envvar]
    names = {name for each in of_serve for name in ([each] if isinstance(each, str) else each)}
    return names | {each.metadata["env"] for each in fields(Settings)} | {"IMPORTS_URL", "IMPORTS_TOKEN"}


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
    variables = dict(pair.split("=") for line in image["ENV"] for pair in line.split() if pair.startswith("IMPORTS_"))
    assert set(variables) <= known_variables()
    env = environment(**variables) | {"PORT": str(port), "IMPORTS_DIR": str(tmp_path / "data"), "PYTHONPATH": ""}
    command = json.loads(image["CMD"][0])
    health = json.loads(image["HEALTHCHECK"][0].partition("CMD ")[2])
    assert command[0] == health[0] == "python"
    with subprocess.Popen(
        [sys.executable, *command[1:]], cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True
    ) as served:
        try:
            assert served.stdout is not None
            assert served.stdout.readline().startswith(f"imports answers on http://0.0.0.0:{port}")
            subprocess.run([sys.executable, *health[1:]], env=env, timeout=60, check=True)
        finally:
            served.terminate()
    assert served.returncode == 0
    assert subprocess.run(
        [sys.executable, *health[1:]], env=env, timeout=60, capture_output=True, check=False
    ).returncode


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_compose_files_fit_the_specification_and_mean_what_they_say(path: Path) -> None:
    result = run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(path))
    assert result.returncode == 0, result.stdout
    document: dict[str, Any] = yaml.safe_load(path.read_text())
    for service in document["services"].values():
        assert not service["image"].endswith(":latest")
        assert all(volume.split(":")[0] in document["volumes"] for volume in service.get("volumes", []))
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    imports = document["services"]["imports"]
    assert set(imports["environment"]) <= known_variables()
    assert (path.parent / imports["build"]["context"] / imports["build"]["dockerfile"]).samefile(DEPLOY / "Dockerfile")


def test_the_choice_of_engine_is_settings_only() -> None:
    embedded, restate = (
        yaml.safe_load((DEPLOY / name).read_text())["services"]["imports"]
        for name in ("compose.yaml", "compose.restate.yaml")
    )
    differing = {key for key in embedded | restate if embedded.get(key) != restate.get(key)}
    assert differing == {"depends_on", "environment", "expose"}
    assert {key: value for key, value in restate["environment"].items() if key not in embedded["environment"]} == {
        "IMPORTS_ENGINE": "restate",
        "RESTATE_INGRESS_URL": "http://restate:8080",
        "RESTATE_ADMIN_URL": "http://restate:9070",
        "IMPORTS_WORKER_URL": "http://imports:9080",
        "RESTATE_SIGNING_PUBLIC_KEY": "${RESTATE_SIGNING_PUBLIC_KEY:-}",
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
