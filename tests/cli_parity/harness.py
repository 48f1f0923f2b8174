"""Runs the official `restate` command against two engines and compares what it prints.

Both engines have the same endpoints registered, so that only the engine differs. What is different by nature (ids, ports,
times) is replaced before the comparison, and lines are compared in alphabetical order: Restate lists services and
handlers in any order.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from holdfast.server import Serving, serve
from tests.support.restate_server import REPOSITORY

PATIENCE_S = 60


def cli_binary() -> Path | None:
    """The command, or None when npm did not install it."""
    found = [*(REPOSITORY / "node_modules").glob("@restatedev/restate-*/bin/restate")]
    return found[0] if len(found) == 1 else None


def skip_without_cli() -> None:
    if cli_binary() is None:
        pytest.skip("no restate command: run `npm install @restatedev/restate`")


@dataclass(frozen=True, slots=True)
class Output:
    """What the command did."""

    exit_code: int
    stdout: str
    stderr: str


@dataclass(slots=True)
class Target:
    """One engine, and the command pointed at it."""

    name: str
    admin_url: str
    ingress_url: str
    home: Path
    """An empty home directory for the command."""
    names: dict[str, str] = field(default_factory=dict[str, str])
    """Filled into arguments: `{app}`, `{dp}`, ids of invocations."""

    def restate(self, *arguments: str, stdin: str = "", env: dict[str, str] | None = None) -> Output:
        """Run the command; `{name}` in an argument is filled in."""
        binary = cli_binary()
        assert binary is not None
        settings = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "RESTATE_ADMIN_URL": self.admin_url,
            "DO_NOT_TRACK": "1",
            "NO_COLOR": "1",
        }
        done = subprocess.run(
            [str(binary), *(argument.format(**self.names) for argument in arguments)],
            env={**settings, **(env or {})},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            cwd=self.home,
            check=False,
        )
        return Output(done.returncode, done.stdout, done.stderr)

    def normal(self, output: Output) -> list[str]:
        """The output without what differs by nature, as sorted lines."""
        text = f"exit code {output.exit_code}\n{output.stdout}\n{output.stderr}"
        for pattern, replacement in _DIFFERENT:
            text = re.sub(pattern, replacement, text)
        known: dict[str, str] = {value: name for name, value in self.names.items()}
        text = re.sub(r"\b(?:dp|inv|sub)_1\w+", lambda match: f"<{known.get(match[0], 'id')}>", text)
        return sorted(filter(None, (re.sub(r"\s+", " ", line).strip() for line in text.splitlines())))


_DIFFERENT = (
    (r"\x1b\[[0-9;]*m", ""),
    (r"http://127\.0\.0\.1:\d+", "URL"),
    (r"\w{3} \d\d? \w{3} \d{4} \d\d:\d\d:\d\d \+00:00", "TIME"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[.\d]*(?:Z| ?\+00:00)?", "TIME"),
    (r"(?:(?:\d+ (?:seconds?|ms|minutes?)(?:,? and |,? )?)+|\bnow\b)(?: ago)?", "A-WHILE"),
    (r"[─━═]+", "-"),
    (r" (- \w+ \[\d+\])", r"\n\1"),  # the first service of a deployment stands on the deployment's line
)


@dataclass(frozen=True, slots=True)
class Pair:
    """A Restate server and holdfast."""

    restate: Target
    holdfast: Target

    def __iter__(self) -> Iterator[Target]:
        return iter((self.restate, self.holdfast))

    def same(self, *arguments: str, stdin: str = "", env: dict[str, str] | None = None) -> Output:
        """Run the command against both; they must print the same. Returns what holdfast gave."""
        theirs, ours = [target.restate(*arguments, stdin=stdin, env=env) for target in self]
        normal = self.holdfast.normal(ours), self.restate.normal(theirs)
        assert normal[0] == normal[1], (
            f"{' '.join(arguments)}\n{ours.stdout}{ours.stderr}\n{theirs.stdout}{theirs.stderr}"
        )
        return ours

    def name(self, name: str, find: Any) -> None:
        """Give a name to something that both have: `find(target)` is its id."""
        for target in self:
            target.names[name] = find(target)

    def register(self, name: str, app_url: str) -> None:
        """Register an endpoint with both."""

        def find(target: Target) -> str:
            answer = httpx.post(f"{target.admin_url}/deployments", json={"uri": app_url}, timeout=PATIENCE_S)
            assert answer.status_code in (200, 201), answer.text
            return answer.json()["id"]

        self.name(name, find)

    def call(self, name: str, path: str, body: Any = None) -> None:
        """Call both ingresses; the invocation gets a name."""

        def find(target: Target) -> str:
            content = {} if body is None else {"json": body}
            answer = httpx.post(f"{target.ingress_url}/{path}", timeout=PATIENCE_S, **content)
            invocation_id = answer.headers.get("x-restate-id")
            return invocation_id or answer.json()["invocationId"]

        self.name(name, find)


@contextmanager
def serving_holdfast(db: Path) -> Iterator[Serving]:
    """holdfast without an application of its own, on free ports, from a thread with a loop of its own."""
    loop = asyncio.new_event_loop()
    ready = threading.Event()
    served: list[Serving] = []

    def on_ready(serving: Serving) -> None:
        served.append(serving)
        ready.set()

    async def run() -> None:
        await serve(None, db=db, ingress_port=0, admin_port=0, on_ready=on_ready)

    task = loop.create_task(run())

    def main() -> None:
        try:
            loop.run_until_complete(task)
        except asyncio.CancelledError:
            pass
        finally:
            loop.close()

    thread = threading.Thread(target=main, name="holdfast", daemon=True)
    thread.start()
    try:
        assert ready.wait(PATIENCE_S), "holdfast did not come up"
        yield served[0]
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(PATIENCE_S)
