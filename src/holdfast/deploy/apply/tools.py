"""Programs that do the work where there is no API to call: kubectl, docker."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from holdfast.deploy.errors import ApplyFailed, ToolMissing


def has_compose() -> bool:
    """Whether `docker compose` can be run here."""
    docker = shutil.which("docker")
    return docker is not None and _succeeds([docker, "compose", "version"]) and _succeeds([docker, "info"])


def run(command: Sequence[str], project: Path) -> None:
    """Run it in the project's folder, its output going where ours goes.

    Raises:
        ToolMissing: it is not installed.
        ApplyFailed: it did not succeed.
    """
    program = shutil.which(command[0])
    if program is None:
        raise ToolMissing(f"{command[0]} is not installed", hint=f"install it, or run elsewhere: {' '.join(command)}")
    # Its own talk is talk to us: standard output is for data.
    done = subprocess.run([program, *command[1:]], cwd=project, stdout=2, check=False)  # noqa: S603 - no shell
    if done.returncode != 0:
        raise ApplyFailed(f"{' '.join(command)} ended with {done.returncode}", hint="its own words are above")


def _succeeds(command: Sequence[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=20).returncode == 0  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return False
