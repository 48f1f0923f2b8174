"""The command as processes of their own, and in this one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from holdfast.cli.main import holdfast as command
from tests.api.conftest import PATIENCE_S

REPOSITORY = Path(__file__).resolve().parents[2]


def environment() -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
    return inherited | {"PYTHONPATH": str(REPOSITORY)}


@dataclass
class Process:
    """A running `holdfast serve` or `holdfast api`."""

    popen: subprocess.Popen[str]
    document: dict[str, Any]
    """What it said when it was ready."""
    log_path: Path

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.popen.terminate()
        return self.popen.wait(PATIENCE_S)


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[Process]:
    """`holdfast …` with `--json`, until the block ends."""
    log_path = folder / f"{arguments[0]}.log"
    with log_path.open("w") as log:
        popen = subprocess.Popen(
            [sys.executable, "-m", "holdfast.cli", *arguments, "--json"],
            stdout=subprocess.PIPE,
            stderr=log,
            stdin=subprocess.DEVNULL,
            text=True,
            cwd=folder,
            env=environment(),
        )
    with popen:
        try:
            assert popen.stdout is not None
            told = popen.stdout.readline()
            assert told, log_path.read_text()
            yield Process(popen, json.loads(told), log_path)
        finally:
            popen.kill()


@dataclass
class Cli:
    """The command with options that say where workflows are, in this process: an interpreter costs a third of a second."""

    options: tuple[str, ...]
    provider: str
    prefix: str = ""
    """Of workflow ids, where several tests share a server."""
    settings: dict[str, str] = field(default_factory=dict[str, str])

    def __call__(self, *arguments: str, stdin: str = "") -> Result:
        return CliRunner().invoke(
            command, [*arguments, *self.options], input=stdin, env=self.settings, prog_name="holdfast"
        )

    def done(self, *arguments: str, stdin: str = "") -> str:
        """Run the command, which must succeed; what it printed."""
        result = self(*arguments, stdin=stdin)
        assert result.exit_code == 0, (result.stderr, result.exception)
        return result.stdout.removesuffix("\n")

    def json(self, *arguments: str, stdin: str = "") -> Any:
        return json.loads(self.done(*arguments, "--json", stdin=stdin))

    def create(self, flow: str, *more: str) -> str:
        """A workflow of the tests; its id."""
        workflow_id = f"{self.prefix}{flow}"
        self.done("workflows", "create", "--id", workflow_id, "--definition", f"tests.api.flows:{flow}", *more)
        return workflow_id
