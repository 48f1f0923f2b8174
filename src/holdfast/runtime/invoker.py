"""Runs attempts: gives them places, wakes, suspends, times out and retries them."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
from collections import Counter, deque

from holdfast.config import EngineConfig
from holdfast.core import ids
from holdfast.core.catalog import Deployment
from holdfast.core.events import AttemptFailed, FramesReceived, RetryDue
from holdfast.core.model import Invocation, Status
from holdfast.core.results import pending_sleeps
from holdfast.protocol import messages as m
from holdfast.runtime.attempt import Attempt, Order
from holdfast.runtime.clock import Clock
from holdfast.runtime.deployments import Deployments
from holdfast.runtime.processor import Processor
from holdfast.runtime.transport.endpoints import Endpoints
from holdfast.store.sqlite import SqliteTables

log = logging.getLogger("holdfast.invoker")

SWEEP_S = 0.1
"""Interval of looking for idle attempts."""
PRESSED_SWEEP_S = 0.005
"""The same while others wait for a place: then an idle attempt is suspended at once."""

CROWD = 128
CROWDED_SWEEP_S, CROWDED_PATIENCE_S = 0.01, 0.02
"""From this many attempts on, an idle one is suspended soon: each holds about 30 KB, and a burst of sleepers would hold
all places until `suspend_after_ms` is over."""

REMOTE_PATIENCE_S = 0.1
"""While others wait for a place, an attempt at an endpoint gives up its own after this silence. Whether it waits or works
cannot be asked there; one that works finishes its step first and suspends then."""

LAUNCHES_PER_TURN = 64
"""Of those that wait for a place, so that the first of thousands make progress while the last are still being started."""

COLLECT_EVERY = 250
"""An attempt that suspends or fails leaves 30 KB in a reference cycle (the SDK's exception, its traceback and its context). A process
that has frozen what it imported, as `holdfast serve` does, collects it cheaply after so many; others leave it to the
collector's own rhythm."""

UNWIND_S = 1.0

FRAME_OVERHEAD_BYTES = 1 << 18
"""What names, ids and headers may add to a value that is as large as a request body may be."""

_JITTER = 0.3  # of the delay, as the server's
_NEEDS_NO_COMMIT = frozenset((m.RUN, m.GET_EAGER_STATE, m.GET_EAGER_STATE_KEYS))


class Invoker:
    """Implements `attempt.Listener`. All methods run in the engine's loop."""

    def __init__(
        self,
        deployments: Deployments,
        endpoints: Endpoints,
        tables: SqliteTables,
        config: EngineConfig,
        clock: Clock,
    ) -> None:
        self.attempts: dict[int, Attempt] = {}
        self.processor: Processor = None  # type: ignore[assignment]  # set by the engine, which wires the two
        self.retries: Counter[tuple[str, str]] = Counter()
        """(service, handler) -> attempts that failed and were to be repeated."""
        self._deployments = deployments
        self._endpoints = endpoints
        self._tables = tables
        self._config = config
        self._clock = clock
        self._ready: deque[int] = deque()
        self._numbers = 0
        self._stopping = False
        self._cut_short_count = 0
        self._sweeping: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._retries: set[asyncio.TimerHandle] = set()
        self._absent: dict[str, list[int]] = {}
        """Application of this process that was not registered yet -> what waits for it."""

    # ---- starting ----------------------------------------------------------------------------------------------------

    def start(self, inv: Invocation) -> None:
        """Run an attempt now, or as soon as there is a place."""
        if len(self.attempts) < self._config.attempts_max and not self._ready and not self._stopping:
            self._launch(inv)
            return
        self._ready.append(inv.seq)
        self.processor.machine.forget(inv)
        self._sweep_soon(PRESSED_SWEEP_S)

    def recover(self, seqs: list[int]) -> None:
        """Queue invocations found in the database, at start and after `drop_all`."""
        self._stopping = False
        self._ready.extend(seqs)

    def fill(self) -> None:
        """Start waiting invocations while there are places."""
        self.processor.when_readable(self._fill)

    def _fill(self) -> None:
        until = min(self._config.attempts_max, len(self.attempts) + LAUNCHES_PER_TURN)
        while self._ready and len(self.attempts) < until and not self._stopping:
            inv = self.processor.machine.get(self._ready.popleft())
            if inv is not None:
                self._launch(inv)
        if self._ready and len(self.attempts) == until < self._config.attempts_max:
            self.processor.call_soon(self.fill)

    def _launch(self, inv: Invocation) -> None:
        if inv.in_flight or inv.is_gone or inv.status != Status.INVOKED:
            return
        catalog = self._deployments.catalog
        deployment = catalog.placed(inv.deployment_id, inv.service, in_process=inv.entries > 1)
        if deployment is not None and not self._endpoints.is_present(deployment):
            self._hold(inv, deployment)
            return
        self._numbers += 1
        inv.attempt = self._numbers
        inv.in_flight = inv.input_open = True
        inv.next_retry_at_ms = None
        inv.missed = []
        inv.forward = []
        version = self._version(inv, deployment) if deployment is not None else None
        if deployment is None or version is None:
            self._unplaced(inv, deployment)
            return
        inv.protocol_version = version
        inv.attempt_deployment = deployment
        inv.attempt_at_ms = self._clock.now_ms()
        inv.spec = spec = catalog.handler_on(deployment, inv.service, inv.handler)
        if spec is None:
            self._unserved(inv, deployment)
            return
        timeouts_ms = (spec.inactivity_timeout_ms, spec.abort_timeout_ms)
        order = Order(
            seq=inv.seq,
            number=inv.attempt,
            invocation_id=inv.id,
            service=inv.service,
            handler=inv.handler,
            key=inv.key,
            deployment_id=deployment.id,
            version=version,
            timeouts_ms=timeouts_ms,
            first_input=self._first_input(inv, version),
            body_bytes_max=self._config.body_bytes_max + FRAME_OVERHEAD_BYTES,
        )
        attempt = self._endpoints.attempt(deployment, self, order, self._loop)
        self.attempts[inv.seq] = attempt
        if timeouts_ms[0] == 0 or attempt.is_closed:  # request/response
            inv.input_open = False
            attempt.close()
        if self._sweeping is None:
            self._sweep_soon(SWEEP_S)
        elif len(self.attempts) == CROWD:
            self._sweep_soon(CROWDED_SWEEP_S)

    def _version(self, inv: Invocation, deployment: Deployment) -> int | None:
        """An invocation keeps its version on the deployment that it is bound to, as far as that is another process."""
        version = self._deployments.versions[deployment.id]
        if not deployment.is_remote:
            return version
        bound = inv.protocol_version if inv.deployment_id == deployment.id else None
        return version if bound is None or version is None else min(version, bound)

    def _hold(self, inv: Invocation, deployment: Deployment) -> None:
        """Its code is an application of this process that is registered later."""
        name = deployment.name or ""
        waiting = self._absent.setdefault(name, [])
        if not waiting:
            log.warning("invocations wait for an application to be registered", extra={"application": name})
        waiting.append(inv.seq)
        self.processor.machine.forget(inv)

    def _unplaced(self, inv: Invocation, deployment: Deployment | None) -> None:
        if deployment is not None:
            text = f"deployment {deployment.id} speaks no service protocol version that this engine speaks [RT0013]"
        elif inv.deployment_id is not None:
            text = (
                f"deployment {inv.deployment_id}, which this invocation is bound to, was removed; pause it, then resume "
                f"it on another one: holdfast invocations resume {inv.id} --deployment latest [RT0011]"
            )
        else:
            text = f"no deployment offers the service {inv.service}; serve it again, or register one that does [RT0011]"
        self.processor.post(AttemptFailed(inv.seq, inv.attempt, 500, text, self._clock.now_ms()))

    def _unserved(self, inv: Invocation, deployment: Deployment) -> None:
        """The code changed: its handler is gone."""
        where = f"deployment {deployment.id}" if deployment.is_remote else f"the application '{deployment.name}'"
        text = (
            f"{inv.service}/{inv.handler} is not served any more by {where}, where this invocation runs; serve it again, "
            f"and it goes on by itself (once paused: holdfast invocations resume {inv.id}) [RT0011]"
        )
        self.processor.post(AttemptFailed(inv.seq, inv.attempt, 500, text, self._clock.now_ms()))

    def registered(self, deployment: Deployment) -> None:
        """A deployment came or changed: go on with what waited for it, and with what failed for want of it."""
        if deployment.name is not None:
            self._ready.extend(self._absent.pop(deployment.name, []))
        now_ms = self._clock.now_ms()
        for inv in list(self.processor.machine.resident.values()):
            waits = inv.status == Status.INVOKED and not inv.in_flight and inv.next_retry_at_ms is not None
            if waits and inv.service in deployment.services:
                self.processor.post(RetryDue(inv.seq, inv.attempt, now_ms))
        self.processor.call_soon(self.fill)

    def _first_input(self, inv: Invocation, version: int) -> bytes:
        raw = inv.raw or ids.invocation_bytes(inv.id)
        journal, entries = inv.head, inv.entries
        if entries > 1 or not journal:
            journal += self._tables.journal(inv.seq)
            inv.sleeps = pending_sleeps(journal)
        if inv.output:  # the process died, or the attempt failed, between Output and End
            journal += inv.output
            entries += 1
        state: list[tuple[bytes, bytes]] = []
        partial = True
        if inv.key is not None and inv.spec is not None and not inv.spec.lazy_state:
            rows = self._tables.state(inv.service, inv.key)
            partial = sum(len(value) for _, value in rows) > self._config.eager_state_bytes_max
            state = [] if partial else [(name.encode(), value) for name, value in rows]
        start = m.start_frame(
            invocation_bytes=raw,
            debug_id=inv.id,
            known_entries=entries,
            state=state,
            partial_state=partial,
            key=inv.key,
            retry_count=inv.failures_since_entry,
            since_last_entry_ms=max(0, self._clock.now_ms() - inv.entry_at_ms),
            random_seed=inv.random_seed,
            version=version,
            idempotency_key=inv.idempotency_key,
        )
        return start + journal

    # ---- what attempts report ----------------------------------------------------------------------------------------

    def frames_received(self, attempt: Attempt, frames: list[tuple[int, bytes]]) -> None:
        # A Run command alone has no effect and nobody waits for it: it is stored together with its completion.
        lazy = len(frames) == 1 and frames[0][0] in _NEEDS_NO_COMMIT
        self.processor.post(FramesReceived(attempt.seq, attempt.number, frames, self._clock.now_ms()), lazy=lazy)

    def attempt_waits(self, attempt: Attempt) -> None:
        inv = self.processor.machine.resident.get(attempt.seq)
        if inv is not None and inv.attempt == attempt.number:
            inv.input_open = False
        attempt.close()

    def attempt_ended(self, attempt: Attempt, failure: str | None) -> None:
        if self.attempts.get(attempt.seq) is attempt:
            del self.attempts[attempt.seq]
        if not attempt.has_ended:
            self._cut_short_count += 1
            if self._cut_short_count % COLLECT_EVERY == 0 and gc.get_freeze_count():
                gc.collect()
        if failure is not None and not attempt.aborted:
            now_ms, code = self._clock.now_ms(), attempt.failure_code
            self.processor.post(
                AttemptFailed(attempt.seq, attempt.number, code, failure, now_ms, attempt.retry_after_ms)
            )
        if self._ready and not self._stopping:
            self.processor.call_soon(self.fill)

    # ---- effects -----------------------------------------------------------------------------------------------------

    def forward(self, inv: Invocation) -> None:
        notifications, inv.forward = inv.forward, []
        if not notifications or not inv.in_flight:
            return
        attempt = self.attempts.get(inv.seq)
        if attempt is None or attempt.number != inv.attempt or attempt.is_closed:
            # Its input was closed while the commit was under way in the thread: the SDK will not see these, and its
            # suspension on what they bring is on its way, or waits in the inbox already.
            inv.missed += [leaf for _, leaf in notifications]
        else:
            attempt.feed(b"".join([frames for frames, _ in notifications]))

    def close_input(self, inv: Invocation) -> None:
        attempt = self.attempts.get(inv.seq)
        if attempt is not None and attempt.number == inv.attempt:
            attempt.close()

    def abort(self, seq: int, number: int) -> None:
        attempt = self.attempts.get(seq)
        if attempt is not None and attempt.number == number:
            self._drop(attempt)

    def _drop(self, attempt: Attempt) -> None:
        attempt.abort()
        self.attempts.pop(attempt.seq, None)
        if self._ready:  # a task that is cancelled before its first step never reports its end
            self.processor.call_soon(self.fill)

    def schedule_retry(self, seq: int, number: int, delay_ms: int, jitter: bool) -> None:
        inv = self.processor.machine.resident.get(seq)
        if inv is not None:
            self.retries[inv.service, inv.handler] += 1
        if inv is not None and inv.last_error is not None:
            extra = {"invocation_id": inv.id, "target": inv.target, "error": inv.last_error.message}
            log.warning("attempt failed, will retry", extra={**extra, "delay_ms": delay_ms, "failed": inv.retry_count})
        delay_s = delay_ms / 1000
        if jitter:  # so that many invocations that failed together do not come back together
            delay_s += 0.003 + random.random() * _JITTER * delay_s  # noqa: S311 no secret

        def due() -> None:
            self._retries.discard(handle)
            self.processor.post(RetryDue(seq, number, self._clock.now_ms()))

        handle = self.processor.call_later(delay_s, due)
        self._retries.add(handle)

    # ---- looking after attempts that do nothing ------------------------------------------------------------------------

    def _sweep_soon(self, delay_s: float) -> None:
        if self._sweeping is not None:
            if self._sweeping.when() <= self._loop.time() + delay_s:
                return
            self._sweeping.cancel()
        self._sweeping = self.processor.call_later(delay_s, self._sweep)

    def _sweep(self) -> None:
        self._sweeping = None
        now_s = self._loop.time()
        interval_s, patience_s = SWEEP_S, self._config.suspend_after_ms / 1000
        if self._ready:
            interval_s, patience_s = PRESSED_SWEEP_S, 0.0
        elif len(self.attempts) >= CROWD:
            interval_s, patience_s = CROWDED_SWEEP_S, min(patience_s, CROWDED_PATIENCE_S)
        for attempt in list(self.attempts.values()):
            idle_s = now_s - attempt.active_at_s
            inactivity_ms, abort_ms = attempt.timeouts_ms
            if attempt.is_closed:
                closed_s = now_s - (attempt.closed_at_s or now_s)
                if not attempt.terminal and closed_s * 1000 >= abort_ms:
                    self._time_out(attempt, abort_ms)
            elif idle_s * 1000 >= inactivity_ms or (self._ready and attempt.is_remote and idle_s >= REMOTE_PATIENCE_S):
                self.attempt_waits(attempt)
            elif attempt.version >= 7 and not attempt.probed and idle_s >= patience_s:
                attempt.probe()
        if self.attempts or self._ready:
            self._sweep_soon(interval_s)

    def _time_out(self, attempt: Attempt, abort_ms: int) -> None:
        text = f"the invocation stream was closed after the 'abort timeout' ({abort_ms} ms) fired. [RT0001]"
        self.processor.post(AttemptFailed(attempt.seq, attempt.number, 500, text, self._clock.now_ms()))
        self._drop(attempt)

    # ---- stopping ------------------------------------------------------------------------------------------------------

    async def drain(self, drain_ms: int) -> None:
        """Let running attempts suspend or finish, then abort the rest."""
        self._stopping = True
        for attempt in list(self.attempts.values()):
            self.attempt_waits(attempt)
        tasks = [attempt.task for attempt in self.attempts.values()]
        if tasks and drain_ms > 0:
            await asyncio.wait(tasks, timeout=drain_ms / 1000)
        aborted = [attempt.task for attempt in self.attempts.values()]
        self.abort_all()
        if aborted:  # let them unwind before the loop ends; one that swallows its cancellation is left behind
            await asyncio.wait(aborted, timeout=UNWIND_S)

    def drop_all(self) -> None:
        """Forget everything that works or waits; nothing starts until `recover`."""
        self.abort_all()
        self._ready.clear()
        self._absent.clear()

    def abort_all(self) -> None:
        self._stopping = True
        for attempt in list(self.attempts.values()):
            attempt.abort()
        self.attempts.clear()
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        for handle in self._retries:
            handle.cancel()
        self._retries.clear()
