"""An application as a user runs it: in a process of its own, on a free port, stopped at the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.restate_server import REPOSITORY

STOP_S = 60.0


def environment_without(*prefixes: str) -> dict[str, str]:
    """This process's variables, but for those that begin like these."""
    return {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}


@contextmanager
def serving_process(
    *command: str, log: Path, env: dict[str, str], is_killed: bool = False
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`python -m <command>`, which says its address as JSON and stops when its standard input ends.

    Args:
        log: Its standard error is appended to it.
        is_killed: At the end by SIGKILL.
    Yields:
        Its address, and the process.
    """
    with (
        log.open("a") as errors,
        subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=REPOSITORY,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            said = process.stdout.readline()
            assert said, log.read_text()
            yield json.loads(said)["url"], process
        finally:
            if is_killed:
                process.kill()
            process.stdin.close()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
