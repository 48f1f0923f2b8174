"""A small project to deploy, the command as a person types it, and what several tests look at."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import httpx
from click.testing import CliRunner, Result

from holdfast.cli.main import holdfast as command
from holdfast.deploy import DeploySettings, RenderedFile, Source, render
from holdfast.deploy.settings import Mechanism

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE_S = 60.0
"""For what takes seconds on an idle machine."""

GREETER = """\
from datetime import timedelta

import restate

greeter = restate.Service("Greeter")


@greeter.handler()
async def greet(ctx: restate.Context, name: str) -> str:
    letter = await ctx.run_typed("write letter", lambda: f"Hello {name}!")
    await ctx.sleep(timedelta(milliseconds=100))
    return letter


app = restate.app([greeter])
"""


def settings(mechanism: Mechanism, **more: Any) -> DeploySettings:
    """Settings of the sample project, as the command makes them."""
    given = {"reference": "greeter:app", "sources": (Source("greeter.py", "greeter.py"),), **more}
    return DeploySettings(mechanism=mechanism, **given)


def rendered(mechanism: Mechanism, **more: Any) -> dict[str, str]:
    """Rendered files by their name in the folder."""
    made = settings(mechanism, **more)
    return {file.path.removeprefix(f"{made.out}/"): file.text for file in render(made)}


def texts(files: list[RenderedFile]) -> dict[str, str]:
    return {file.path: file.text for file in files}


def cli(*arguments: str, env: Mapping[str, str] | None = None) -> Result:
    """Run the command in this process and the current directory."""
    return CliRunner().invoke(command, arguments, env=dict(env or {}), prog_name="holdfast", catch_exceptions=False)


def done(*arguments: str, env: Mapping[str, str] | None = None) -> str:
    """Run the command, which must succeed; what it printed."""
    result = cli(*arguments, env=env)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def json_of(*arguments: str, env: Mapping[str, str] | None = None) -> Any:
    """Run the command with `--json`, which must succeed."""
    return json.loads(done(*arguments, "--json", env=env))


def environment(settings: Mapping[str, str] | None = None) -> dict[str, str]:
    """For a child process: nothing of this one's settings."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HOLDFAST_", "AWS_"))}
    return inherited | dict(settings or {})


@dataclass(slots=True)
class Running:
    """A `holdfast` process that stays."""

    process: subprocess.Popen[str]
    ready: dict[str, Any]
    log_path: Path

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


@contextmanager
def running(*arguments: str, cwd: Path, env: Mapping[str, str] | None = None) -> Iterator[Running]:
    """The command as a process that prints one JSON line when it is ready; killed at the end."""
    log_path = cwd / f"stderr-{time.monotonic_ns()}.log"
    with log_path.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "holdfast.cli", *arguments, "--json"],
            cwd=cwd,
            env=environment(env),
            stdout=subprocess.PIPE,
            stderr=log,
            stdin=subprocess.DEVNULL,
            text=True,
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, log_path.read_text()
        yield Running(process, json.loads(line), log_path)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def greet(ingress_url: str, name: str = "Ada") -> str:
    """Call the sample service; it answers through a recorded step and a sleep."""
    answer = httpx.post(f"{ingress_url}/Greeter/greet", json=name, timeout=PATIENCE_S)
    assert answer.status_code == 200, answer.text
    return str(answer.json())


def wheels(folder: Path, *names: str) -> Path:
    """Wheels of installed packages and all that they need, packed again: pip installs from them without a network."""
    folder.mkdir(parents=True, exist_ok=True)
    packed: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name.lower() in packed:
            continue
        packed.add(name.lower())
        found = distribution(name)
        _pack(found, folder)
        waiting += _needed(found)
    return folder


def _needed(found: Distribution) -> list[str]:
    from packaging.requirements import Requirement

    required = [Requirement(line) for line in found.requires or []]
    return [each.name for each in required if each.marker is None or each.marker.evaluate({"extra": ""})]


def _pack(found: Distribution, folder: Path) -> None:
    tags = [
        line.removeprefix("Tag: ") for line in (found.read_text("WHEEL") or "").splitlines() if line.startswith("Tag")
    ]
    stem = f"{found.metadata['Name'].replace('-', '_').replace('.', '_')}-{found.version}"
    interpreter, abi, _ = tags[0].split("-")
    platforms = ".".join(sorted({tag.split("-")[2] for tag in tags}))
    with ZipFile(folder / f"{stem}-{interpreter}-{abi}-{platforms}.whl", "w") as archive:
        for file in found.files or []:
            if ".." not in file.parts and not file.name.endswith(".pyc"):
                archive.write(str(file.locate()), file.as_posix())
