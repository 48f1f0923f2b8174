"""Files that others read: Dockerfile, compose, Fly.io, Railway, settings. Judged by their tools; what they say is run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.support.restate_server import REPOSITORY, free_ports

BIN = Path(sys.executable).parent


def run_tool(tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A tool of the test environment."""
    return subprocess.run([BIN / tool, *arguments], capture_output=True, text=True, timeout=60, check=False)


def check_dockerfile(path: Path) -> None:
    result = run_tool("hadolint", "--no-color", "--failure-threshold", "style", str(path))
    assert result.returncode == 0, result.stdout


def last_stage(path: Path) -> dict[str, list[str]]:
    """Instruction -> its arguments, of a Dockerfile's last stage."""
    text = re.sub(r"\\\n\s*", " ", path.read_text())
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            found = {}
        found.setdefault(instruction, []).append(rest)
    return found


def check_image(path: Path, folder: Path, says: str, environment: Callable[[dict[str, str]], dict[str, str]]) -> None:
    """The packages and the folders that the image copies, nothing else of the repository, are enough: it serves.

    Args:
        folder: Where the image's files go.
        says: The line that it begins with, `{port}` in it.
        environment: Of the process: what the image sets, and what the test adds.
    """
    image = last_stage(path)
    for copied in image["COPY"]:
        source, target = copied.split()[-2:]
        if not copied.startswith("--from"):
            shutil.copytree(REPOSITORY / source, folder / target)
    [port] = free_ports(1)
    variables = dict(pair.split("=") for line in image["ENV"] for pair in line.split() if pair[:1].isalpha())
    env = environment(variables) | {"PORT": str(port), "PYTHONPATH": ""}
    command = json.loads(image["CMD"][0])
    health = json.loads(image["HEALTHCHECK"][0].partition("CMD ")[2])
    assert command[0] == health[0] == "python"
    with subprocess.Popen(
        [sys.executable, *command[1:]], cwd=folder, env=env, stdout=subprocess.PIPE, text=True
    ) as served:
        try:
            assert served.stdout is not None
            assert served.stdout.readline().startswith(says.format(port=port))
            subprocess.run([sys.executable, *health[1:]], env=env, timeout=60, check=True)
        finally:
            served.terminate()
    assert served.returncode == 0
    asked = subprocess.run([sys.executable, *health[1:]], env=env, timeout=60, capture_output=True, check=False)
    assert asked.returncode != 0


def checked_compose(path: Path, name: str, variables: set[str]) -> dict[str, Any]:
    """The service `name` of a compose file that fits the specification, pins versions and opens no port to the world."""
    result = run_tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(path))
    assert result.returncode == 0, result.stdout
    document: dict[str, Any] = yaml.safe_load(path.read_text())
    for service in document["services"].values():
        assert not service["image"].endswith(":latest")
        assert all(volume.split(":")[0] in document["volumes"] for volume in service.get("volumes", []))
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    ours = document["services"][name]
    assert set(ours["environment"]) <= variables
    assert (path.parent / ours["build"]["context"] / ours["build"]["dockerfile"]).samefile(path.parent / "Dockerfile")
    return ours


def compose_service(path: Path, name: str) -> dict[str, Any]:
    """The service `name`, unchecked."""
    return yaml.safe_load(path.read_text())["services"][name]


def check_difference(first: dict[str, Any], second: dict[str, Any], added: dict[str, str]) -> None:
    """Two services of compose files differ in settings only, and the second one's have these besides."""
    differing = {key for key in first | second if first.get(key) != second.get(key)}
    assert differing == {"depends_on", "environment", "expose"}
    more = {key: value for key, value in second["environment"].items() if key not in first["environment"]}
    assert more == added


def check_platforms(deploy: Path, variables: set[str]) -> None:
    """`fly.toml` and `railway.json`."""
    fly = tomllib.loads((deploy / "fly.toml").read_text())
    assert fly["http_service"]["checks"][0]["path"] == "/health"
    assert fly["http_service"]["auto_stop_machines"] == "off"
    assert fly["mounts"][0]["destination"] == "/data"
    assert set(fly["env"]) <= variables
    railway = json.loads((deploy / "railway.json").read_text())
    assert (REPOSITORY / railway["build"]["dockerfilePath"]).is_file()
    assert railway["deploy"]["healthcheckPath"] == "/health"


def example_settings(path: Path) -> dict[str, str]:
    """What an `.env.example` sets."""
    lines = [line for line in path.read_text().splitlines() if re.match(r"[A-Z]", line)]
    return dict(line.split("=", 1) for line in lines)
