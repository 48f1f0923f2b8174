"""The process that answers queries: `python -m holdfast.query.worker`, started by `workers`.

A process of its own, because a query may do what an engine must not: take all memory, never end, or overflow the stack
of the query engine's parser, which ends its process. It keeps nothing: engines bring what they ask about.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import threading
import traceback
from typing import IO, TYPE_CHECKING

from holdfast.query.exchange import Answer, Open, Query, receive_request, send_answer
from holdfast.query.reading import Reading, open_copy, open_file

if TYPE_CHECKING:
    import apsw

    from holdfast.query.session import Session

IDLE_S = 60.0
"""How long a worker waits for the next query: it holds some 150 MB."""
NICENESS = 5
"""Where processors are short, the engine comes first."""
GRACE_S = 5.0
"""The engine ends a worker that takes too long; without an engine it ends itself this much later."""
OWN_BYTES = 512 << 20
"""What a worker may need beside a query's memory: its libraries, buffers of the result."""


def main() -> None:
    """Answer requests from standard input until it is closed, or nothing comes for a while."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the engine, which then closes our input
    if sys.platform != "win32":
        os.nice(NICENESS)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a library prints is no answer
    requests: queue.SimpleQueue[Open | Query | None] = queue.SimpleQueue()
    worker = _Worker(answers)
    threading.Thread(target=_receive, args=(sys.stdin.buffer, requests, worker), daemon=True).start()
    with contextlib.suppress(queue.Empty):
        while (request := requests.get(timeout=IDLE_S)) is not None:
            worker.serve(request)
    os._exit(0)  # the threads of libraries have nothing to say any more


def _receive(stream: IO[bytes], requests: queue.SimpleQueue[Open | Query | None], worker: _Worker) -> None:
    while (request := receive_request(stream)) is not None:
        requests.put(request)
    if worker.is_busy:
        os._exit(1)  # nobody waits for the answer
    requests.put(None)


class _Worker:
    def __init__(self, answers: IO[bytes]) -> None:
        self.is_busy = False
        self._answers = answers
        self._connection: apsw.Connection | None = None
        self._session: Session | None = None

    def serve(self, request: Open | Query) -> None:
        self.is_busy = True
        try:
            answer = self._open(request) if isinstance(request, Open) else self._query(request)
        except ImportError as error:
            answer = Answer("missing", str(error))
        except Exception:  # noqa: BLE001 told to the engine, which raises it
            answer = Answer("failed", traceback.format_exc())
        send_answer(self._answers, answer)
        self.is_busy = False

    def _open(self, request: Open) -> Answer:
        self._close()
        self._connection = open_file(request.path)
        return Answer()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close(True)
            self._connection = None

    def _query(self, query: Query) -> Answer:
        watch = threading.Timer(query.timeout_s + GRACE_S, os._exit, [1])
        watch.daemon = True
        watch.start()
        try:
            if query.snapshot.database is not None:
                self._connection = open_copy(query.snapshot.database)
            assert self._connection is not None, "a file is opened before it is queried"
            return self._session_for(query.bytes_max).answer(query, Reading(self._connection, query.snapshot))
        finally:
            watch.cancel()
            self._close()

    def _session_for(self, bytes_max: int) -> Session:
        from holdfast.query.session import Session

        if self._session is None or self._session.bytes_max != bytes_max:
            self._session = Session(bytes_max)
            _limit_memory(bytes_max)
        return self._session


def _limit_memory(bytes_max: int) -> None:
    """Of the whole process, for what DataFusion does not account for, such as the value of one function."""
    try:
        import resource
        from pathlib import Path

        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):
        return  # not on Linux: only DataFusion's own account is kept
    limit = pages * resource.getpagesize() + bytes_max + OWN_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    main()
