"""imports that kills itself: run by test_crashes.py, again and again on the same files, until it lives.

With the embedded engine each life is a process forked from one that has imported everything and opened nothing: what
dies is as dead, and nobody waits seventeen times for imports. Prints how often it died, and how it ended.

    python -m tests.imports.dying FOLDER ENGINE PORT ZIP STEP:WHERE ...

For each STEP (a batch, `download`, `prepare` or `finalize`) it dies once: WHERE is `inside`, in the middle of the
database's transaction, or `after`, when that is committed and the engine has not heard of it. ENGINE is `embedded`, or
`restate`: then the services are served on PORT for a server that somebody else runs.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from apps.imports import finalize, jobs
from apps.imports.app import create_app
from apps.imports.model import SERVICE, ImportRequest
from apps.imports.settings import Settings
from apps.imports.store import Store
from apps.imports.worker import Worker
from holdfast import Engine
from holdfast.endpoint import serve_endpoint


class Deaths:
    """Which are still to come. A file remembers the others."""

    def __init__(self, folder: Path, planned: list[str]) -> None:
        self._folder = folder
        self._planned = set(planned)

    def here(self, step: str, where: str) -> None:
        """Die, if this is one of the places, for the first time."""
        marker = self._folder / f"died-{step}-{where}"
        if f"{step}:{where}" in self._planned and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def dying(function: Callable[..., Any], name: Callable[..., str], deaths: Deaths) -> Callable[..., Any]:
    """A transaction's last step: what it did is not committed when it dies."""

    def replaced(*args: Any) -> Any:
        result = function(*args)
        deaths.here(name(*args), "inside")
        return result

    return replaced


def dying_after(
    step: Callable[..., Awaitable[Any]], name: Callable[..., str], deaths: Deaths
) -> Callable[..., Awaitable[Any]]:
    """A workflow's step: done, and not yet recorded by the engine."""

    async def replaced(*args: Any) -> Any:
        result = await step(*args)
        deaths.here(name(*args), "after")
        return result

    return replaced


def arm(deaths: Deaths) -> None:
    jobs.apply_batch = dying(jobs.apply_batch, lambda _con, batch, *_: batch.name, deaths)
    jobs.switch = dying(finalize.switch, lambda *_: "finalize", deaths)
    jobs.plan = dying(jobs.plan, lambda *_: "prepare", deaths)
    names: dict[str, Callable[..., str]] = {
        step: lambda *_, step=step: step for step in ("download", "prepare", "finalize")
    }
    names["batch"] = lambda _self, _request, _sha256, _plan, table, operation, number: f"{table}-{operation}-{number}"
    for step, name in names.items():
        setattr(Worker, step, dying_after(getattr(Worker, step), name, deaths))


async def main(folder: Path, engine_name: str, port: int, source: str, planned: list[str]) -> None:
    arm(Deaths(folder, planned))
    settings = Settings.load(
        environ={}, database=str(folder / "kbo.duckdb"), files=folder / "files", batch_rows=1000, delete_batch_rows=5
    )
    async with Store(settings) as store:
        app = create_app(store, settings)
        if engine_name == "restate":
            async with serve_endpoint(app, port=port):
                sys.stdout.write("ready\n")
                sys.stdout.flush()
                await asyncio.to_thread(sys.stdin.read)
            return
        async with Engine(app, db=folder / "engine.db") as engine:
            request = msgspec.json.encode(ImportRequest(source=source))
            headers = {"Content-Type": "application/json"}
            key = Path(source).stem
            sent = await engine.client.generic_send(SERVICE, "run", request, key=key, headers=headers)
            await engine.attach(sent.invocation_id)  # the job is over before: its last death comes after that
            job = await store.job(key)
            assert job is not None
            sys.stdout.write(msgspec.json.encode([job.status, job.error]).decode() + "\n")


def lives(run: Callable[[], None]) -> int:
    """Run it in a process of its own, until one is not killed. Returns how many were."""
    died = 0
    while True:
        child = os.fork()
        if child == 0:
            run()
            sys.stdout.flush()
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code == 0:
            return died
        if code != -signal.SIGKILL:
            sys.exit(f"a process ended with {code}")
        died += 1


if __name__ == "__main__":
    folder, engine_name, port, source, *planned = sys.argv[1:]

    def once() -> None:
        asyncio.run(main(Path(folder), engine_name, int(port), source, planned))

    if engine_name == "restate":
        once()
    else:
        sys.stdout.write(f"{lives(once)}")
