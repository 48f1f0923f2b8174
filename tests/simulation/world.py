"""Callers and trouble: a random history on a simulated machine, from one seed.

Callers repeat what was not answered, ask twice for the same, and remember what they were told. Trouble comes at any
call that SQLite makes of its disk: the process is killed, the power fails, a read, write or sync fails, the disk is
full for a while. When the trouble is over, everything must come to its end, and `oracle.py` judges.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any, NoReturn

from holdfast.errors import DiskFull, EngineError, HoldfastError
from tests.ingress.backend import Got
from tests.power.disk import CALLS, io_error, write_images
from tests.simulation.loop import VirtualLoop, run_virtually
from tests.simulation.machine import Machine
from tests.simulation.oracle import LATE_MS, History, Rows, Violation, judge, judge_at_rest
from tests.simulation.program import Entry

KEYS = 2
PATIENCE_S = 900.0
"""Virtual seconds in which everything must have ended."""

TROUBLES = ("kill", "power", "io error", "failed sync", "lasting sync failure", "full disk", "stop")


class World:
    """One history. `seed` decides everything that is random in it."""

    def __init__(
        self,
        seed: int,
        folder: Path,
        loop: VirtualLoop,
        *,
        version: int,
        requests: int,
        troubles: int,
        kinds: Sequence[str],
    ) -> None:
        self.random = random = Random(seed)
        self.folder = folder
        self.machine = machine = Machine(
            folder / "disk",
            loop,
            random,
            protocol_version_max=version,
            suspend_after_ms=random.choice((0, 20, 500)),
            attempts_max=random.choice((3, 20, 1000)),
        )
        self.loop = loop
        self.troubles_left = troubles
        self.kinds = kinds
        self.requests = requests
        self.history = History(machine.ledger)
        self.happened: Counter[str] = Counter()
        self.invocations = 0
        """In the database, when everything is over."""
        self._numbers = 0
        self._waiting_for: dict[str, asyncio.Future[Any]] = {}
        self._awaits_no_more = False
        machine.here.on_entry = self._told
        machine.here.slowest_step_s = random.choice((0.0, 0.005, 0.1))
        machine.here.flakiness = random.choice((0.0, 0.05, 0.3))
        machine.wire.delay_s = random.choice((0.0, 0.01, 0.2))
        machine.wire.cuts = random.choice((0.0, 0.3, 0.9))
        machine.wire.breaks = random.choice((0.0, 0.0, 0.02, 0.1))
        machine.commits_in_thread = random.random() < 0.4
        machine.checkpoint_pages = random.choice((10, 60, 4000))
        loop.slowest_job_s = random.choice((0.002, 0.05, 0.5))  # a slow disk: commits take up to half a second

    # ---- the course of things --------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """
        Raises:
            Violation, or what else went wrong.
        """
        async with self.machine.switched_on():
            await self.machine.start()
            load = asyncio.create_task(self._load())
            trouble = asyncio.create_task(self._trouble())
            await self._until_done(load, trouble)
            await self._everything_ends()
            await self.machine.stop()
        rows = self._rows()
        self.invocations = len(rows.invocations)
        judge(self.history, rows)

    async def _until_done(self, *tasks: asyncio.Task[None]) -> None:
        all_done = asyncio.gather(*tasks)
        stopped = self.machine.stopped_by_itself
        await asyncio.wait((all_done, stopped), timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
        if stopped.done():
            raise Violation("engine_goes_on", f"the engine has stopped by itself: {stopped.result()}")
        if not all_done.done():
            self._stuck("still waiting")
        all_done.result()

    async def _load(self) -> None:
        kinds = [
            self.steps, self.parallel, self.parent, self.nap, self.race, self.post, self.wait, self.approve,
            self.chain, self.unkeyed, self.tree, self.talk, *[self.ordered] * KEYS,
        ]  # fmt: skip
        works: list[Callable[[], Awaitable[None]]] = [kinds[index % len(kinds)] for index in range(self.requests)]
        self.random.shuffle(works)
        running: list[asyncio.Task[None]] = []
        for work in works:
            running.append(asyncio.ensure_future(work()))
            await asyncio.sleep(self.random.random() ** 2 * 0.4)
        await asyncio.gather(*running)

    def _stuck(self, what: str) -> NoReturn:
        """Something never ends. What else is wrong may be the reason, and says more."""
        unfinished, rows = self._unfinished(), self._rows()
        judge(self.history, rows, is_over=False)
        overdue = [due_ms for due_ms, _, _ in rows.timers if due_ms + LATE_MS < self.machine.clock.now_ms()]
        if overdue:
            raise Violation("timers_never_early_never_lost", f"{len(overdue)} timers are due and nobody looks")
        raise Violation("accepted_request_survives", f"{what}: {unfinished}")

    def _unfinished(self) -> list[str]:
        engine = self.machine.engine
        if engine is None:
            return ["the engine is down"]
        live = engine.list_invocations(
            statuses=["scheduled", "pending", "ready", "running", "backing-off", "suspended", "paused"]
        )
        return [f"{info.target} {info.status}" for info in live] or ["callers"]

    async def _everything_ends(self) -> None:
        deadline_s = self.loop.time() + PATIENCE_S
        engine = self.machine.engine
        assert engine is not None
        while True:
            live = engine.list_invocations(
                statuses=["scheduled", "pending", "ready", "running", "backing-off", "suspended"]
            )
            if not live:
                return
            if self.loop.time() > deadline_s:
                self._stuck("never ends")
            await asyncio.sleep(1.0)

    def _rows(self) -> Rows:
        """The database as the disk shows it, looked at in another place."""
        copy = write_images(self.folder / "look", self.machine.disk.platters.cache())
        return Rows(copy / "engine.db")

    # ---- trouble ---------------------------------------------------------------------------------------------------------

    async def _trouble(self) -> None:
        while self.troubles_left:
            self.troubles_left -= 1
            await asyncio.sleep(self.random.random() * 2.0)
            kind = self.random.choice(self.kinds)
            self.happened[kind] += 1
            await self._strike(kind)

    async def _strike(self, kind: str) -> None:
        machine = self.machine
        if kind == "full disk":
            await self._full_disk()
            return
        if kind == "stop":
            await machine.stop()
        elif kind in ("kill", "power"):
            await self._at_a_call(lambda _: None)
            await (machine.kill() if kind == "kill" else machine.lose_power())
        else:
            await self._failing_call(None if kind == "io error" else "sync", lasts=kind.startswith("lasting"))
            if machine.engine is not None:
                return
        if machine.has_database:
            judge_at_rest(self.history, self._rows())
        await asyncio.sleep(self.random.random() * 0.5)
        await self._start()

    async def _start(self) -> None:
        """Start again; the power may fail in the middle of that, too."""
        while True:
            dies_at = self.machine.disk.calls + self.random.randrange(1, 60) if self.random.random() < 0.2 else None
            if dies_at is not None:
                self._cut_at(dies_at)
            try:
                await self.machine.start()
            except HoldfastError as error:
                if dies_at is None:
                    raise Violation("integrity", f"does not start: {error}") from error
                self.machine.disk.before = _fine
                self.happened["power while starting"] += 1
                self.machine.restore_after_failed_start()
                continue
            self.machine.disk.before = _fine
            if self.machine.disk.is_off:  # it noticed nothing yet
                self.happened["power while starting"] += 1
                await self.machine.lose_power()
                continue
            # From here on handlers act on what they find recorded.
            self.history.look_at_rest(self._rows())
            return

    def _cut_at(self, call: int) -> None:
        disk = self.machine.disk

        def before(kind: str, file: str) -> BaseException | None:
            if disk.calls >= call:
                disk.cut_power()
                return io_error(kind)
            return None

        disk.before = before

    async def _at_a_call(self, strike: Callable[[str], BaseException | None]) -> None:
        """Wait until SQLite has made some more calls, and cut the power at the next."""
        disk = self.machine.disk
        left = self.random.randrange(1, 80)
        hit = asyncio.Event()

        def before(kind: str, file: str) -> BaseException | None:
            nonlocal left
            left -= 1
            if left > 0:
                return None
            disk.cut_power()
            hit.set()
            return io_error(kind)

        disk.before = before
        try:
            await asyncio.wait_for(hit.wait(), 5.0)
        except TimeoutError:
            pass  # nothing happens any more; then now
        finally:
            disk.before = _fine

    async def _failing_call(self, only: str | None, *, lasts: bool) -> None:
        """One call fails, or all of its kind from then on. The engine must stop, and not go on from what it believes."""
        machine = self.machine
        kind = only or self.random.choice([call for call in CALLS if call not in ("open", "create", "delete")])
        left = self.random.randrange(1, 20)
        failed = asyncio.Event()
        errors = machine.disk.checkpoint_errors

        def before(called: str, file: str) -> BaseException | None:
            nonlocal left
            if called != kind or (failed.is_set() and not lasts):
                return None
            left -= 1
            if left > 0:
                return None
            failed.set()
            return io_error(kind)

        machine.disk.before = before
        machine.may_stop = True
        engine = machine.engine
        assert engine is not None
        try:
            await asyncio.wait_for(failed.wait(), 5.0)
        except TimeoutError:
            machine.disk.before = _fine
            await machine.stop()  # nothing happens any more
            return
        try:
            await asyncio.wait_for(engine.stopped.wait(), 5.0)
        except TimeoutError:
            in_checkpoint = machine.disk.checkpoint_errors > errors
            if kind == "sync" and not in_checkpoint:
                raise Violation("stops_after_a_failed_sync", "the engine goes on") from None
            # It met somebody who only looked, or a checkpoint: that is repeated from the log, which was synced before.
            self.happened["error in a checkpoint" if in_checkpoint else "error in a look"] += 1
            return
        finally:
            machine.disk.before = _fine
            machine.may_stop = False
        if not isinstance(engine.failure, EngineError):
            raise Violation("engine_goes_on", f"stopped without an error: {engine.failure}")
        self.happened["stopped by itself"] += 1
        await machine.has_stopped()

    async def _full_disk(self) -> None:
        """No space for a while. The engine refuses, and goes on by itself."""
        disk = self.machine.disk
        disk.capacity_bytes = disk.used_bytes + self.random.choice((0, 4096, 30_000))
        await asyncio.sleep(self.random.random() * 8.0)
        disk.capacity_bytes = None
        engine = self.machine.engine
        assert engine is not None
        deadline_s = self.loop.time() + 60.0
        while engine.disk_full is not None:
            if self.loop.time() > deadline_s:
                raise Violation("recovers_when_space_returns", "still refuses after a minute")
            await asyncio.sleep(0.5)
        if engine.failure is not None:
            raise Violation("engine_goes_on", f"a full disk has ended the engine: {engine.failure}")

    # ---- callers ---------------------------------------------------------------------------------------------------------

    def _told(self, entry: Entry) -> None:
        if entry.what in ("awakeable", "node"):
            future = self._future(f"{entry.what} {entry.u}")
            if not future.done():
                future.set_result(entry.detail)

    def _future(self, name: str) -> asyncio.Future[Any]:
        return self._waiting_for.setdefault(name, self.loop.create_future())

    def _u(self, kind: str) -> str:
        self._numbers += 1
        return f"{kind}{self._numbers}"

    def _accepted(self, u: str, got: Got) -> None:
        self.history.accepted[u] = got.headers["x-restate-id"]

    async def _invoke(self, path: str, u: str, **fields: Any) -> Any:
        """Ask for one result, several times: by calls, sends and attaches under one idempotency key."""
        body = {"u": u, **fields}
        askers = [self._ask(path, u, body) for _ in range(self.random.choice((1, 1, 2, 3)))]
        results = await asyncio.gather(*askers)
        if self.random.random() < 0.3:
            await asyncio.sleep(self.random.random() * 5.0)
            results.append(await self._attach(self.history.accepted[u], u))
        return results[0]

    async def _ask(self, path: str, u: str, body: Any) -> Any:
        await asyncio.sleep(self.random.random() * 0.05)
        if self.random.random() < 0.5:
            got = await self.machine.persist("POST", path, body, idempotency_key=u)
            self._accepted(u, got)
            return self._result(u, got)
        sent = await self.machine.persist("POST", f"{path}/send", body, idempotency_key=u)
        assert sent.status == 202, sent
        self._accepted(u, sent)
        return await self._attach(sent.headers["x-restate-id"], u)

    async def _attach(self, invocation_id: str, u: str) -> Any:
        return self._result(u, await self.machine.persist("GET", f"/restate/invocation/{invocation_id}/attach"))

    def _result(self, u: str, got: Got) -> Any:
        if got.status == 404:
            raise Violation("accepted_request_survives", f"{u}: {got.body!r}")
        value = [got.status, json.loads(got.body) if got.body else None]
        self.history.results[u].append(value[1] if got.status == 200 else value)
        if got.status != 200 and not u.startswith("tree"):
            raise Violation("accepted_request_survives", f"{u}: {got.status} {got.body!r}")
        return value[1]

    async def steps(self) -> None:
        u = self._u("steps")
        self.history.sequences.add(u)
        await self._invoke("/Flow/steps", u, n=self.random.randint(1, 6))

    async def parallel(self) -> None:
        u = self._u("parallel")
        for step, value in enumerate(await self._invoke("/Flow/parallel", u)):
            self.history.single_steps[u, step] = value

    async def parent(self) -> None:
        u = self._u("parent")
        result = await self._invoke("/Flow/parent", u)
        assert result["failure"] == f"418 no {u}"
        for index, values in enumerate(result["children"]):
            self.history.sequences.add(f"{u}.{index}")
            self.history.results[f"{u}.{index}"].append(values)

    async def nap(self) -> None:
        u, nap_ms = self._u("nap"), 100 * self.random.randint(1, 50)
        self.history.naps[u] = (nap_ms, await self._invoke("/Flow/nap", u, ms=nap_ms))

    async def race(self) -> None:
        u = self._u("race")
        winner, recorded = await self._invoke("/Flow/race", u, ms=100 * self.random.randint(1, 3))
        if winner != recorded:
            raise Violation("recorded_step_never_runs_again", f"{u}: {recorded} won, and {winner} after a replay")

    async def post(self) -> None:
        u = self._u("post")
        await self._invoke("/Flow/post", u, ms=100 * self.random.randint(1, 40))
        self.history.posted.append(u)

    async def wait(self) -> None:
        """An awakeable, resolved twice: the first that was answered counts."""
        u = self._u("wait")
        waiting = asyncio.ensure_future(self._invoke("/Flow/wait", u))
        awakeable_id = await self._future(f"awakeable {u}")
        if self.random.random() < 0.5:
            await self.machine.persist("POST", f"/restate/awakeables/{awakeable_id}/resolve", "first")
            await self.machine.persist("POST", f"/restate/awakeables/{awakeable_id}/resolve", "second")
        else:
            await self._invoke("/Flow/answer", self._u("answer"), awakeable=awakeable_id, value="first")
        value = await waiting
        if value != "first":
            raise Violation("first_completion_of_a_promise_wins", f"{u}: awakeable resolved as first, seen as {value}")

    async def approve(self) -> None:
        u = self._u("approval")
        said = self.history.decisions[u] = {"answers": {}, "seen": []}
        sent = await self.machine.persist("POST", f"/Approval/{u}/run/send", {"u": u})
        self._accepted(u, sent)

        async def decide(decision: str) -> None:
            await asyncio.sleep(self.random.random())
            got = await self.machine.persist("POST", f"/Approval/{u}/decide", decision, idempotency_key=decision)
            said["answers"][decision] = json.loads(got.body)

        async def watch(name: str) -> None:
            await asyncio.sleep(self.random.random())
            got = await self.machine.persist("POST", f"/Approval/{u}/watch", idempotency_key=name)
            before, decision, closed = json.loads(got.body)
            assert closed == "410"
            said["seen"] += [decision] if before is None else [before, decision]

        await asyncio.gather(decide(f"{u}a"), decide(f"{u}b"), watch("one"), watch("two"))
        got = await self.machine.persist("GET", f"/restate/workflow/Approval/{u}/attach")
        value, decision = json.loads(got.body)
        self.history.single_steps[u, 0] = value
        said["seen"].append(decision)

    async def chain(self) -> None:
        u = self._u("chain")
        keys = [f"chain{self.random.randrange(KEYS)}a", f"chain{self.random.randrange(KEYS)}b"]
        await self._invoke("/Flow/chain", u, keys=keys)
        for key in keys:
            self.history.increments[key].add(u)

    async def ordered(self) -> None:
        """Increments of one key, each sent when the one before was accepted: that order must be kept."""
        key = self._u("ordered")
        for _ in range(self.random.randint(2, 6)):
            u = self._u("one")
            body = {"u": u, "n": self.random.randint(1, 2), "pause_ms": self.random.choice((0, 0, 100))}
            sent = await self.machine.persist("POST", f"/Counter/{key}/add/send", body, idempotency_key=u)
            self._accepted(u, sent)
            self.history.order[key].append(u)
            self.history.increments[key].add(u)

    async def unkeyed(self) -> None:
        """Never repeated. Accepted means once, refused means never, no answer means once or never."""
        for _ in range(3):
            u, key = self._u("unkeyed"), f"unkeyed{self.random.randrange(KEYS)}"
            await self.machine.up.wait()
            engine = self.machine.engine
            assert engine is not None
            handler = engine.services["Counter"].handlers["add"]
            try:
                receipt = await engine.send(handler, key, json.dumps({"u": u}).encode())
            except DiskFull:
                self.history.refused.add(u)
            except EngineError:
                self.history.unsure.add(u)
            else:
                self.history.accepted[u] = receipt.invocation_id
                self.history.increments[key].add(u)
            await asyncio.sleep(self.random.random())

    async def talk(self) -> None:
        u = self._u("talk")
        said = await self._invoke("/Flow/talk", u)
        assert said == [u, "418 enough"], said

    async def tree(self) -> None:
        """A tree of calls, cancelled at its root when it has a leaf."""
        u = self._u("tree")
        asking = asyncio.ensure_future(self._invoke("/Flow/tree", u, depth=2))
        await self._future(f"node {u}.0.0")
        root = await self._future(f"node {u}")
        while True:
            await self.machine.up.wait()
            engine = self.machine.engine
            assert engine is not None
            try:
                await engine.cancel(root)
                break
            except EngineError:
                await asyncio.sleep(0.05)
            except HoldfastError:
                break  # completed: a cancel before, without an answer, has done it
        self.history.cancelled.add(u)
        await asking


def _fine(kind: str, file: str) -> BaseException | None:
    return None


def play(
    seed: int,
    folder: Path,
    *,
    version: int = 7,
    requests: int = 40,
    troubles: int = 6,
    kinds: Sequence[str] | None = None,
    slow_commits: bool = False,
) -> World:
    """Run one history to its end and judge it.

    Args:
        kinds: of trouble, some of TROUBLES; None means all.
        slow_commits: every commit takes place in a thread, and takes long.
    Raises:
        Violation: with the name of the invariant.
    """
    worlds: list[World] = []

    async def main(loop: VirtualLoop) -> None:
        world = World(
            seed, folder, loop, version=version, requests=requests, troubles=troubles, kinds=kinds or TROUBLES
        )
        worlds.append(world)
        if slow_commits:
            world.machine.commits_in_thread, loop.slowest_job_s = True, 0.5
        await world.run()

    run_virtually(main, Random(seed))
    return worlds[0]


def version_of(seed: int) -> int:
    """Protocol version that a seed plays; version 7, with its own ways to suspend, most often."""
    return (7, 6, 7, 5)[seed % 4]


def fingerprint(world: World) -> str:
    """Of everything that happened, to the last byte that SQLite wrote."""
    digest = hashlib.sha256(repr(sorted(world.happened.items())).encode())
    for part in (world.machine.ledger, world.history.results.items(), world.machine.disk.log):
        for one in part:
            digest.update(repr(one).encode())
    return f"{world.machine.disk.calls} calls, {world.loop.time():.6f} s, {digest.hexdigest()}"
