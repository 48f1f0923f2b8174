"""The process that the demo kills: `python -m apps.imports serve`, the same program a user would run."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process, create_subprocess_exec
from collections.abc import Sequence
from pathlib import Path

import httpx
import msgspec

from apps.imports.model import Progress

_START_S = 60
_STOP_S = 60
_OURS = ("IMPORTS_", "RESTATE_", "MOTHERDUCK_")


class DemoFailed(Exception):
    """The demo cannot go on; the text says why."""


class Child:
    """A running imports, and a client of its API."""

    def __init__(self, process: Process, url: str, log: Path) -> None:
        self._process = process
        self.log = log
        self.http = httpx.AsyncClient(base_url=url, timeout=30, trust_env=False)

    @classmethod
    async def start(cls, directory: Path, log: Path, options: Sequence[str], variables: dict[str, str]) -> Child:
        """Start it on `directory` and wait until it answers.

        Raises:
            DemoFailed: it ended, or said nothing for a minute.
        """
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        command = (sys.executable, "-m", "apps.imports", "serve", "--child", "--port", "0", "--dir", str(directory))
        with log.open("ab") as stderr:
            # A session of its own: Ctrl-C in the terminal reaches the demo only, which then cleans up.
            process = await create_subprocess_exec(
                *command, *options, stdin=PIPE, stdout=PIPE, stderr=stderr, env=kept | variables, start_new_session=True
            )
        assert process.stdout is not None
        try:
            line = await asyncio.wait_for(process.stdout.readline(), _START_S)
            return cls(process, json.loads(line)["url"], log)
        except (TimeoutError, ValueError) as error:
            if process.returncode is None:
                process.kill()
            last = log.read_text(errors="replace").strip().splitlines()[-3:]
            raise DemoFailed(f"imports did not start: {' | '.join(last) or 'it said nothing'}; see {log}") from error

    async def progress(self, import_id: str) -> Progress | None:
        """None while the engine cannot be asked, or does not know the import."""
        answer = await self.http.get(f"/api/imports/{import_id}/progress")
        return msgspec.json.decode(answer.content, type=Progress) if answer.is_success else None

    async def kill(self) -> None:
        """SIGKILL: no handler runs, nothing is flushed, no connection is closed properly."""
        if self._process.returncode is not None:
            raise DemoFailed(f"imports ended by itself with {self._process.returncode}; see {self.log}")
        self._process.kill()
        await self._process.wait()
        await self.http.aclose()

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
            raise DemoFailed(f"imports did not stop within {_STOP_S} s; see {self.log}") from error
        if status != 0:
            raise DemoFailed(f"imports ended with {status}; see {self.log}")

    def discard(self) -> None:
        """Make sure that it is gone, whatever happened."""
        if self._process.returncode is None:
            self._process.kill()
