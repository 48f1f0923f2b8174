"""A mixed load on an engine process that is killed again and again, and what must hold of it afterwards."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from holdfast import Engine
from tests.crash import program
from tests.crash.history import Steps, check_database
from tests.crash.process import Host, hosting

KEYS = 3
WORKERS_PER_KIND = 2
SETTLE_S = 60.0
"""Patience for what is left when the killing is over; it takes a second."""


class Load:
    """Submits work until it is told to stop, and remembers what was accepted and what came back."""

    def __init__(self, host: Host, rng: random.Random) -> None:
        self.host = host
        self.rng = rng
        self.stopping = False
        self.results: dict[str, dict[str, Any]] = {}
        self.ids: dict[str, str] = {}
        self.increments: dict[str, list[str]] = {}
        """Key -> increments in the order in which they were accepted."""
        self.accepted_once: set[str] = set()
        self.unsure: set[str] = set()
        self.posted: list[str] = []
        self.waiting: set[str] = set()
        self._numbers = 0
        self._seen = 0
        self._awakeables: dict[str, asyncio.Future[str]] = {}

    def unique(self, kind: str) -> str:
        self._numbers += 1
        return f"{kind}{self._numbers}"

    async def invoke(self, handler: str, u: str, **fields: Any) -> Any:
        """Send under an idempotency key until accepted, then wait for the result, across restarts."""
        self.waiting.add(u)
        path = f"/Flow/{handler}"
        headers = {"idempotency-key": u}
        body = {"u": u, **fields}
        if self.rng.random() < 0.3:  # a call that is repeated until it gets through
            response = await self.host.persist("POST", path, json=body, headers=headers)
        else:
            sent = await self.host.persist("POST", f"{path}/send", json=body, headers=headers)
            assert sent.status_code == 202, sent.text
            self.ids[u] = invocation_id = sent.json()["invocationId"]
            again = await self.host.persist("POST", f"{path}/send", json=body, headers=headers)
            assert again.json() == {"invocationId": invocation_id, "status": "PreviouslyAccepted"}
            response = await self.host.persist("GET", f"/restate/invocation/{invocation_id}/attach")
        assert response.status_code == 200, f"{u}: {response.status_code} {response.text}"
        self.waiting.discard(u)
        return response.json() if response.content else None

    async def steps(self) -> None:
        u = self.unique("steps")
        self.results.setdefault("steps", {})[u] = await self.invoke("steps", u, n=self.rng.randint(1, 7))

    async def parallel(self) -> None:
        u = self.unique("parallel")
        self.results.setdefault("parallel", {})[u] = await self.invoke("parallel", u)

    async def parent(self) -> None:
        u = self.unique("parent")
        self.results.setdefault("parent", {})[u] = await self.invoke("parent", u)

    async def nap(self) -> None:
        u, nap_ms = self.unique("nap"), self.rng.randint(1, 300)
        assert await self.invoke("nap", u, ms=nap_ms) >= nap_ms, "a timer fired early"
        self.results.setdefault("nap", {})[u] = nap_ms

    async def race(self) -> None:
        u = self.unique("race")
        winner, journaled = await self.invoke("race", u, ms=self.rng.randint(1, 20))
        assert winner == journaled, "another future won after a replay"
        self.results.setdefault("race", {})[u] = winner

    async def post(self) -> None:
        u = self.unique("post")
        await self.invoke("post", u, ms=self.rng.randint(1, 300))
        self.posted.append(u)

    async def wait(self) -> None:
        """An awakeable: resolved once, after that only the engine can lose it."""
        u = self.unique("wait")
        waiting = asyncio.create_task(self.invoke("wait", u))
        try:
            awakeable_id = await self._awakeable(u)
            answer = await self.host.persist("POST", f"/restate/awakeables/{awakeable_id}/resolve", json=f"for {u}")
            assert answer.status_code == 202
            assert await waiting == f"for {u}"
        finally:
            waiting.cancel()
        self.results.setdefault("wait", {})[u] = True

    async def _awakeable(self, u: str) -> str:
        future = self._awakeables.setdefault(u, asyncio.get_running_loop().create_future())
        return await future

    def look(self) -> int:
        """Read what is new in the ledger; returns its length."""
        entries = self.host.ledger()
        for entry in entries[self._seen :]:
            if entry["what"] == "awakeable":
                future = self._awakeables.setdefault(entry["u"], asyncio.get_running_loop().create_future())
                if not future.done():
                    future.set_result(entry["id"])
        self._seen = len(entries)
        return self._seen

    async def approve(self) -> None:
        u = self.unique("approval")
        sent = await self.host.persist("POST", f"/Approval/{u}/run/send", json={"u": u})
        assert sent.status_code == 202
        decided = await self.host.persist(
            "POST", f"/Approval/{u}/decide", json={"decision": u}, headers={"idempotency-key": u}
        )
        # A decision that was stored before a kill and asked for again is refused by the promise, not applied twice.
        assert decided.status_code in (200, 409), decided.text
        done = await self.host.persist("GET", f"/restate/workflow/Approval/{u}/attach")
        assert done.status_code == 200, done.text
        assert done.json()[1] == u
        self.results.setdefault("approve", {})[u] = done.json()[0]

    async def chain(self) -> None:
        u = self.unique("chain")
        keys = [f"chain{self.rng.randrange(KEYS)}a", f"chain{self.rng.randrange(KEYS)}b"]
        await self.invoke("chain", u, keys=keys)
        for key in keys:
            self.increments.setdefault(key, []).append(u)
        self.results.setdefault("chain", {})[u] = keys

    async def ordered(self, key: str) -> None:
        """The next increment of a key is sent when the last one was accepted: that order must be kept."""
        u = self.unique("ordered")
        sent = await self.host.persist(
            "POST", f"/Counter/{key}/add/send", json={"u": u}, headers={"idempotency-key": u}
        )
        assert sent.status_code == 202, sent.text
        self.increments.setdefault(key, []).append(u)

    async def unkeyed(self) -> None:
        """Without an idempotency key: never repeated. Accepted means once, no answer means once or never."""
        u = self.unique("unkeyed")
        answer = await self.host.attempt("POST", f"/Counter/unkeyed{self.rng.randrange(KEYS)}/add/send", json={"u": u})
        if answer is None:
            self.unsure.add(u)
            await self.host.up.wait()
        else:
            assert answer.status_code == 202
            self.accepted_once.add(u)

    async def repeat(self, work: Callable[[], Awaitable[None]]) -> None:
        while not self.stopping:
            await work()
            await asyncio.sleep(self.rng.random() * 0.02)  # not every core of the machine for the load

    def workers(self) -> list[asyncio.Task[None]]:
        kinds = [
            self.steps, self.parallel, self.parent, self.nap, self.race, self.post, self.wait, self.approve, self.chain,
        ]  # fmt: skip
        work: list[Callable[[], Awaitable[None]]] = [*kinds * WORKERS_PER_KIND, self.unkeyed]
        work += [lambda key=f"ordered{index}": self.ordered(key) for index in range(KEYS)]
        return [asyncio.create_task(self.repeat(one)) for one in work]


async def _kill_many(host: Host, load: Load, rng: random.Random, kills: int) -> Counter[str]:
    """The schedule: some kills after an amount of progress, some at an exact commit, some in the middle of a start."""
    kinds = Counter[str]()
    for _ in range(kills):
        kind = rng.choice(("progress", "progress", "moment", "start", "before commit", "after commit"))
        kinds[f"kills: {kind}"] += 1
        commit_ms = rng.choice((0, 0, 4))
        if kind.endswith("commit"):
            host.begin(commit_ms=commit_ms, die_at_commit=rng.randint(1, 40), die_before=kind.startswith("before"))
            while not host.down.is_set():
                load.look()
                await asyncio.sleep(0.005)
            continue
        host.begin(commit_ms=commit_ms)
        if kind == "start":
            await asyncio.sleep(rng.random() * 0.15)
        else:
            await host.answers()
            goal, moment = load.look() + rng.randint(1, 60), time.monotonic() + rng.random() * 0.15
            while load.look() < goal if kind == "progress" else time.monotonic() < moment:
                assert not host.down.is_set(), f"the engine died by itself: {host.log()}"
                await asyncio.sleep(0.002)
        await host.kill()
    return kinds


async def _settle(host: Host, load: Load, workers: list[asyncio.Task[None]]) -> None:
    """Let the last process finish everything."""
    load.stopping = True
    await host.start()
    deadline = time.monotonic() + SETTLE_S
    while True:
        load.look()
        unfinished = await _unfinished(host)
        if all(worker.done() for worker in workers) and not unfinished:
            break
        assert time.monotonic() < deadline, f"still not done: {unfinished}; waiting: {sorted(load.waiting)}"
        await asyncio.sleep(0.02)
    for worker in workers:
        worker.result()
    await host.stop()


async def _unfinished(host: Host) -> list[str]:
    statuses = ("scheduled", "pending", "ready", "running", "backing-off", "suspended", "paused")
    response = await host.client.get(f"{host.admin}/invocations", params={"status": statuses})
    return [
        " ".join(str(info.get(name)) for name in ("id", "target", "status", "waiting_for", "last_failure"))
        for info in response.json()["invocations"]
    ]


async def kill_and_judge(home: Path, kills: int, seed: int) -> Counter[str]:
    """Kill the engine that many times under a mixed load, let the last one finish, judge. Returns what happened.

    Raises:
        AssertionError: something accepted was lost, or happened twice.
    """
    rng = random.Random(seed)
    async with hosting(home, suspend_after_ms=20, drain_ms=5_000) as host:
        load = Load(host, rng)
        workers = load.workers()
        try:
            figures = await _kill_many(host, load, rng, kills)
            for worker in workers:
                if worker.done():
                    worker.result()
            await _settle(host, load, workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        steps = Steps(host.ledger())
        _check_steps(load, steps)
        check_database(host.db)
        async with Engine(program.app, db=host.db) as engine:
            _check_state(load, steps, engine)
            _check_journals(load, steps, engine)
    figures["kills"] = kills
    figures["requests judged"] = sum(
        map(len, (*load.results.values(), *load.increments.values(), load.accepted_once, load.unsure, load.posted))
    )
    figures["steps"] = len(steps.executions)
    figures["steps run again, their result being lost with the process"] = steps.repeated
    return figures


def _check_steps(load: Load, steps: Steps) -> None:
    for u, values in load.results["steps"].items():
        steps.check_sequence(u, values)
    for u, values in load.results["parallel"].items():
        for step, value in enumerate(values):
            steps.check(u, step, value)
    for u, result in load.results["parent"].items():
        assert result["failure"] == f"418 no {u}"
        for index, values in enumerate(result["children"]):
            steps.check_sequence(f"{u}.{index}", values)
    for u, value in load.results["approve"].items():
        steps.check(u, 0, value)


def _check_state(load: Load, steps: Steps, engine: Engine) -> None:
    for key, accepted in load.increments.items():
        state = {name: program.json.loads(value) for name, value in engine.state("Counter", key).items()}
        if key.startswith("ordered"):
            assert state["log"] == accepted, f"{key}: applied in another order than accepted"
        else:
            assert sorted(state["log"]) == sorted(accepted), key
        assert state["count"] == len(accepted), key
        for u in accepted:
            assert (f"{u}@{key}", 0) in steps.executions
    unkeyed: list[str] = []
    for key in engine.state_keys("Counter"):
        if key.startswith("unkeyed"):
            unkeyed += program.json.loads(engine.state("Counter", key)["log"])
    assert len(unkeyed) == len(set(unkeyed)), "an increment was applied twice"
    assert load.accepted_once <= set(unkeyed), "an accepted increment was lost"
    assert set(unkeyed) <= load.accepted_once | load.unsure
    for u in load.posted:
        for key in (f"{u}.later", f"{u}.now"):
            arrivals = program.json.loads(engine.state("Mailbox", key)["arrivals"])
            assert len(arrivals) == 1, f"{key} arrived {len(arrivals)} times"
            assert arrivals[0] >= -1, f"{key} arrived {-arrivals[0]} ms early"


def _check_journals(load: Load, steps: Steps, engine: Engine) -> None:
    """The stored journal tells the same as the answer and the ledger."""
    for u, values in load.results["steps"].items():
        invocation_id = load.ids.get(u) or engine.idempotent_invocation_id("Flow", None, "steps", u)
        info = engine.describe(invocation_id)
        assert (info.status, info.completion_result) == ("completed", "success")
        entries = engine.journal(invocation_id)
        assert [entry.index for entry in entries] == list(range(len(entries)))
        kinds = [entry.entry_type for entry in entries]
        assert kinds[0] == "Command: Input"
        assert kinds[-1] == "Command: Output"
        results: dict[int, Any] = {
            entry.completion_id or 0: entry.detail["value"]
            for entry in entries
            if entry.entry_type == "Notification: Run"
        }
        assert [program.json.loads(results[key]) for key in sorted(results)] == values
