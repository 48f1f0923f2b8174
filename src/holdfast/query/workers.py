"""Query workers, from the engine's side: started when one is needed, shared by all engines of this process."""

from __future__ import annotations

import asyncio
import atexit
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TypeVar

from holdfast.query.exchange import Answer, Open, Query, receive_answer, send_request

T = TypeVar("T")

IDLE_MAX = 2
"""Workers that are kept for the next query. They end by themselves when none comes."""

_idle: list[Worker] = []
_all: set[Worker] = set()
_lock = threading.Lock()


class WorkerEnded(Exception):
    """The worker's process ended while it worked on a query."""

    def __init__(self, exit_code: int | None) -> None:
        super().__init__(f"exit code {exit_code}")
        self.exit_code = exit_code


class Worker:
    """One process, and the thread that waits for it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._is_asked = False
        self._thread = ThreadPoolExecutor(1, "holdfast-query")

    async def open(self, path: Path) -> Answer:
        """Have it begin to read a file."""
        return await self._in_thread(lambda: self._asked_anew(Open(path)))

    async def query(self, query: Query) -> Answer:
        """
        Raises:
            WorkerEnded: its process did, most likely because of the query.
        """
        ask = self._asked if query.snapshot.database is None else self._asked_anew
        return await self._in_thread(lambda: ask(query))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _asked_anew(self, request: Open | Query) -> Answer:
        """Ask, in a new process if the old one has ended: it does so when it is not needed for a while."""
        if self._process is not None:
            try:
                return self._asked(request)
            except WorkerEnded as ended:
                if ended.exit_code != 0 and not isinstance(request, Open):
                    raise  # the query may do the same to the next one
        self._start()
        return self._asked(request)

    def _asked(self, request: Open | Query) -> Answer:
        assert self._process is not None
        requests, answers = _pipes(self._process)
        self._is_asked = True
        try:
            send_request(requests, request)
            answer = receive_answer(answers)
        except OSError:
            answer = None
        finally:
            self._is_asked = False
        if answer is None:
            raise WorkerEnded(self._buried())
        return answer

    def _start(self) -> None:
        home = str(Path(__file__).parents[2])  # where this process found the package, the worker finds it too
        places = os.pathsep.join([home, *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "holdfast.query.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what it has to say is in its answers
            env={**os.environ, "PYTHONPATH": places},
        )

    def _buried(self) -> int | None:
        """Let go of a process that has ended; its exit code."""
        with _lock:
            process, self._process = self._process, None
        if process is None:
            return None
        for pipe in _pipes(process):
            try:
                pipe.close()
            except OSError:
                pass  # what was not sent cannot be flushed any more
        return process.wait()

    def end(self) -> None:
        """End the process, whatever it does. Whoever waits for it gets WorkerEnded."""
        process = self._process
        if process is not None:
            process.kill()
            process.wait()  # microseconds: a killed process needs nobody's consent
            if not self._is_asked:  # else the thread that waits for its answer does it
                self._buried()
        self._thread.shutdown(wait=False)
        with _lock:
            _all.discard(self)


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout


def take() -> Worker:
    """A worker that nobody else uses."""
    with _lock:
        if _idle:
            return _idle.pop()
        worker = Worker()
        _all.add(worker)
        return worker


def give_back(worker: Worker) -> None:
    """It is free for the next query."""
    with _lock:
        if len(_idle) < IDLE_MAX:
            _idle.append(worker)
            return
    worker.end()


def end_all() -> None:
    """End every worker of this process; the next query starts a new one."""
    with _lock:
        _idle.clear()
        workers = [*_all]
    for worker in workers:
        worker.end()


atexit.register(end_all)
