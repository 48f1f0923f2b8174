"""The process that the demo kills: `python -m apps.recon.serve`, the same program a user would run."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process, create_subprocess_exec
from collections.abc import Mapping
from pathlib import Path

from apps.recon.demo_scans import DemoFailed

_START_S = 60
"""Two seconds on an idle machine."""
_STOP_S = 30


class Child:
    """A running service."""

    def __init__(self, process: Process, url: str, log: Path) -> None:
        self._process = process
        self.url = url
        self.log = log

    @property
    def pid(self) -> int:
        return self._process.pid

    @classmethod
    async def start(
        cls, directory: Path, *, module: str = "apps.recon.serve", settings: Mapping[str, str] | None = None
    ) -> Child:
        """Start the service (`module`, run as a program) on `directory` and wait until it answers.

        Args:
            settings: Environment variables besides those of this process.
        Raises:
            DemoFailed: it ended, or said nothing for half a minute.
        """
        log = directory / "serve.log"
        command = (sys.executable, "-m", module, "--dir", str(directory), "--port", "0", "--child")
        with log.open("ab") as stderr:
            # A session of its own: Ctrl-C in the terminal reaches this process only, which then cleans up.
            process = await create_subprocess_exec(
                *command,
                stdin=PIPE,
                stdout=PIPE,
                stderr=stderr,
                start_new_session=True,
                env={**os.environ, **(settings or {})},
            )
        assert process.stdout is not None
        try:
            line = await asyncio.wait_for(process.stdout.readline(), _START_S)
            return cls(process, json.loads(line)["url"], log)
        except (TimeoutError, ValueError) as error:
            cls(process, "", log).discard()
            last = log.read_text(errors="replace").strip().splitlines()[-3:]
            raise DemoFailed(
                f"the service did not start: {' | '.join(last) or 'it said nothing'}; see {log}"
            ) from error

    async def kill(self) -> None:
        """SIGKILL: no handler runs, nothing is flushed, no connection is closed properly."""
        if self._process.returncode is not None:
            raise DemoFailed(f"the service ended by itself with {self._process.returncode}; see {self.log}")
        self._process.kill()
        await self._process.wait()

    async def ended(self) -> int:
        """Wait for it to end by itself; returns its exit status, negative for a signal."""
        return await self._process.wait()

    async def stop(self) -> None:
        """Close its standard input and wait for it to end.

        Raises:
            DemoFailed: it did not end, or not with 0.
        """
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            status = await asyncio.wait_for(self._process.wait(), _STOP_S)
        except TimeoutError as error:
            raise DemoFailed(f"the service did not stop within {_STOP_S} s; see {self.log}") from error
        if status != 0:
            raise DemoFailed(f"the service ended with {status}; see {self.log}")

    def discard(self) -> None:
        """Make sure that it is gone, whatever happened."""
        if self._process.returncode is None:
            self._process.kill()
