"""What the demos of the applications have in common: the process they kill, what a person sees, and how they end."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import signal
import sys
from asyncio.subprocess import PIPE, Process, create_subprocess_exec
from collections.abc import Collection, Coroutine, Generator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import httpx
from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from tests.support.restate_server import RunningRestate

_START_S = 60
"""Two seconds on an idle machine."""
_STOP_S = 60


class DemoFailed(Exception):
    """The demo cannot go on; the text says why."""


class Child:
    """An application that runs: the same program a user would run, in a process that can be killed."""

    def __init__(self, name: str, process: Process, url: str, log: Path) -> None:
        self._name = name
        self._process = process
        self.url = url
        self.log = log
        self.http = httpx.AsyncClient(base_url=url, timeout=30, trust_env=False)

    @property
    def pid(self) -> int:
        return self._process.pid

    @classmethod
    async def launch(cls, name: str, command: Sequence[str], log: Path, variables: Mapping[str, str]) -> Self:
        """Start `python -m <command>`, which says its address as JSON, and wait until it answers.

        Args:
            name: What it is called in messages.
            log: Its standard error is appended to it.
            variables: All of its environment.
        Raises:
            DemoFailed: it ended, or said nothing for a minute.
        """
        with log.open("ab") as stderr:
            # A session of its own: Ctrl-C in the terminal reaches the demo only, which then cleans up.
            process = await create_subprocess_exec(
                sys.executable, "-m", *command, stdin=PIPE, stdout=PIPE, stderr=stderr, env=variables, start_new_session=True
            )  # fmt: skip
        assert process.stdout is not None
        try:
            line = await asyncio.wait_for(process.stdout.readline(), _START_S)
            return cls(name, process, json.loads(line)["url"], log)
        except (TimeoutError, ValueError) as error:
            if process.returncode is None:
                process.kill()
            last = log.read_text(errors="replace").strip().splitlines()[-3:]
            raise DemoFailed(f"{name} did not start: {' | '.join(last) or 'it said nothing'}; see {log}") from error

    async def kill(self) -> None:
        """SIGKILL: no handler runs, nothing is flushed, no connection is closed properly."""
        if self._process.returncode is not None:
            raise DemoFailed(f"{self._name} ended by itself with {self._process.returncode}; see {self.log}")
        self._process.kill()
        await self._process.wait()
        await self.http.aclose()

    async def ended(self) -> int:
        """Wait for it to end by itself; returns its exit status, negative for a signal."""
        return await self._process.wait()

    async def stop(self) -> None:
        """Close its standard input and wait for it to end.

        Raises:
            DemoFailed: it did not end, or not with 0.
        """
        assert self._process.stdin is not None
        await self.http.aclose()
        self._process.stdin.close()
        try:
            status = await asyncio.wait_for(self._process.wait(), _STOP_S)
        except TimeoutError as error:
            raise DemoFailed(f"{self._name} did not stop within {_STOP_S} s; see {self.log}") from error
        if status != 0:
            raise DemoFailed(f"{self._name} ended with {status}; see {self.log}")

    def discard(self) -> None:
        """Make sure that it is gone, whatever happened."""
        if self._process.returncode is None:
            self._process.kill()


def environment_without(*prefixes: str) -> dict[str, str]:
    """This process's variables, but for those that begin like these: a demo brings its own settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}


@contextlib.contextmanager
def restate_server() -> Generator[RunningRestate]:
    """A Restate server of the demo's own, which outlives the children.

    Raises:
        DemoFailed: none is installed.
    """
    # Only the demos: the server that npm installs for the tests of this repository.
    from tests.support.restate_server import running_server, server_binary

    if server_binary() is None:
        raise DemoFailed("no Restate server here; install it with npm ci, or set RESTATE_SERVER_BIN")
    with running_server() as server:
        yield server


def free_port() -> int:
    """Where a server reaches its worker: the same address for every child, because attempts go on where they were."""
    from tests.support.restate_server import free_ports

    return free_ports(1)[0]


def prepare(folder: Path, ours: Collection[str]) -> None:
    """Make `folder` empty of an earlier demo, and keep it for this process until it ends.

    Args:
        ours: Patterns of the names that a demo leaves there.
    Raises:
        DemoFailed: another demo uses it, or something else is in it; nothing was deleted.
    """
    _own(folder)
    if folder.exists():
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else ["a file"]
        strange = sorted(name for name in names if not any(fnmatch(name, pattern) for pattern in ours))
        if strange:
            raise DemoFailed(f"{folder} holds something else than an earlier demo: {', '.join(strange[:3])}")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)


_owned: dict[Path, int] = {}
"""Locks of this process. The kernel gives them back when it ends, however it ends."""


def _own(folder: Path) -> None:
    lock = folder.absolute().with_name(folder.name + ".lock")
    if lock in _owned:
        return
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock_fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock_fd)
        raise DemoFailed(f"another demo is using {folder}; wait for it, or choose another --keep-dir") from None
    _owned[lock] = lock_fd


class CanSay(Protocol):
    def say(self, text: str = "", *, label: str = "", style: str = "bold") -> None: ...


class Screen:
    """What a person sees. Plain: without colours, for logs and pipes."""

    def __init__(self, *, on_stderr: bool = False, plain: bool = False) -> None:
        self.console = Console(
            highlight=False, no_color=plain, force_terminal=False if plain else None, stderr=on_stderr
        )

    def say(self, text: str = "", *, label: str = "", style: str = "bold") -> None:
        """One line, its label in colour. No markup in it: what others wrote may hold brackets."""
        self.console.print(Text.assemble((label, style), text), soft_wrap=True)


def verdict(screen: CanSay, wrong_count: int, promise: str, folder: Path) -> bool:
    """Say how it came out. `promise`: what holds if nothing is wrong."""
    if wrong_count:
        screen.say(f": {wrong_count} promises do not hold; the files are in {folder}", label="FAILED", style="bold red")
        return False
    screen.say(f": {promise}", label="OK", style="bold green")
    return True


def this_python() -> Path:
    """The interpreter, as a person in this folder would type it."""
    python = Path(sys.executable)
    return python.relative_to(Path.cwd()) if python.is_relative_to(Path.cwd()) else python


def run_demo(
    demo: Coroutine[Any, Any, bool], screen: CanSay, log: Path, expected: Sequence[type[Exception]] = ()
) -> int:
    """Run it; the exit status: 0 if every promise held, 1 if not, 130 after Ctrl-C.

    Args:
        log: Of the child, to be named when it stops answering.
        expected: Errors besides `DemoFailed` that are told in one line.
    """
    known = (DemoFailed, *expected)
    try:
        return 0 if asyncio.run(demo) else 1
    except BaseExceptionGroup as group:
        error: BaseException = group.exceptions[0]
    except (httpx.HTTPError, *known) as raised:
        error = raised
    except KeyboardInterrupt:
        screen.say(f"stopped; the files are in {log.parent}")
        return 128 + signal.SIGINT
    text = str(error) if isinstance(error, known) else f"the application stopped answering ({error!r}); see {log}"
    screen.say(f": {text}", label="FAILED", style="bold red")
    return 1
