"""The process that the demo kills: `python -m apps.leads serve`, the same program a user would run."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process, create_subprocess_exec
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

_START_S = 60
_STOP_S = 60
_OURS = ("LEADS_", "RESTATE_")


class DemoFailed(Exception):
    """The demo cannot go on; the text says why."""


class Child:
    """A running leads, and a client of its API."""

    def __init__(self, process: Process, url: str, log: Path) -> None:
        self._process = process
        self.log = log
        self.url = url
        self._http = httpx.AsyncClient(base_url=url, timeout=30, trust_env=False)

    @classmethod
    async def start(cls, engine: str, log: Path, variables: Mapping[str, str]) -> Child:
        """Start it and wait until it answers.

        Args:
            variables: Its settings.
        Raises:
            DemoFailed: it ended, or said nothing for a minute.
        """
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        command = (sys.executable, "-m", "apps.leads", "serve", "--child", "--port", "0", "--engine", engine)
        with log.open("ab") as stderr:
            # A session of its own: Ctrl-C in the terminal reaches the demo only, which then cleans up.
            process = await create_subprocess_exec(
                *command, stdin=PIPE, stdout=PIPE, stderr=stderr, env=kept | dict(variables), start_new_session=True
            )
        assert process.stdout is not None
        try:
            line = await asyncio.wait_for(process.stdout.readline(), _START_S)
            return cls(process, json.loads(line)["url"], log)
        except (TimeoutError, ValueError) as error:
            if process.returncode is None:
                process.kill()
            last = log.read_text(errors="replace").strip().splitlines()[-3:]
            raise DemoFailed(f"leads did not start: {' | '.join(last) or 'it said nothing'}; see {log}") from error

    async def ask(self, method: str, path: str, **request: Any) -> Any:
        """The answer's JSON, or its bytes where it is none.

        Raises:
            DemoFailed: it is an error.
        """
        answer = await self._http.request(method, path, **request)
        if not answer.is_success:
            raise DemoFailed(f"{method} {path} was answered with {answer.status_code}: {answer.text[:300]}")
        is_json = answer.headers.get("content-type", "").startswith("application/json")
        return answer.json() if is_json else answer.content

    async def kill(self) -> None:
        """SIGKILL: no handler runs, nothing is flushed, no connection is closed properly."""
        if self._process.returncode is not None:
            raise DemoFailed(f"leads ended by itself with {self._process.returncode}; see {self.log}")
        self._process.kill()
        await self._process.wait()
        await self._http.aclose()

    async def stop(self) -> None:
        """Close its standard input and wait for it to end.

        Raises:
            DemoFailed: it did not end, or not with 0.
        """
        assert self._process.stdin is not None
        await self._http.aclose()
        self._process.stdin.close()
        try:
            status = await asyncio.wait_for(self._process.wait(), _STOP_S)
        except TimeoutError as error:
            raise DemoFailed(f"leads did not stop within {_STOP_S} s; see {self.log}") from error
        if status != 0:
            raise DemoFailed(f"leads ended with {status}; see {self.log}")

    def discard(self) -> None:
        """Make sure that it is gone, whatever happened."""
        if self._process.returncode is None:
            self._process.kill()
