"""The embedded engine: wiring, start, stop, recovery, and the operations that ingress and admin API offer."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import apsw

from holdfast.config import EngineConfig
from holdfast.core import effects as fx
from holdfast.core import events as ev
from holdfast.core import ids
from holdfast.core.catalog import Deployment
from holdfast.core.machine import Machine
from holdfast.core.model import Completion, Failure, Invocation, Receipt, Status
from holdfast.core.results import completion_of
from holdfast.errors import (
    CallerError,
    DiskFull,
    EngineError,
    EngineStopped,
    InvalidApp,
    InvalidRequest,
    InvocationConflict,
    InvocationNotFound,
    InvocationNotReady,
    InvocationTooEarly,
)
from holdfast.protocol import discovery
from holdfast.protocol.discovery import HandlerSpec, ServiceSpec
from holdfast.protocol.messages import Result
from holdfast.runtime.attempt import AsgiApp
from holdfast.runtime.clock import Clock, SystemClock
from holdfast.runtime.deployments import MAIN, Deployments, Registration, check_app
from holdfast.runtime.discover import fetch_manifest, sigterm_kept
from holdfast.runtime.introspect import Introspection
from holdfast.runtime.invoker import Invoker
from holdfast.runtime.operations import Operations
from holdfast.runtime.processor import Processor
from holdfast.runtime.standstill import Standstill
from holdfast.runtime.timers import Timers
from holdfast.runtime.transport.endpoints import Endpoints
from holdfast.store.database import Owner, connect
from holdfast.store.deployments import DeploymentRows
from holdfast.store.failures import disk_full, is_full, unreadable, unusable
from holdfast.store.sqlite import SqliteTables

log = logging.getLogger("holdfast.engine")

T = TypeVar("T")

_REFUSALS: dict[str, Callable[[str], CallerError]] = {
    "not_found": InvocationNotFound,
    "conflict": InvocationConflict,
    "too_early": InvocationTooEarly,
    "gone": partial(InvalidRequest, status=410),
    "unsupported": partial(InvalidRequest, status=422),
    "invalid": InvalidRequest,
}


class _Waiter:
    """Somebody who waits for a result."""

    __slots__ = ("future", "is_stored", "is_undecided", "is_workflow")

    def __init__(self, future: asyncio.Future[Completion], is_workflow: bool) -> None:
        self.future = future
        self.is_workflow = is_workflow
        self.is_stored = False
        # Whether it began a workflow's run, or was too late, is known once it is accepted. Until then an end is not its own.
        self.is_undecided = is_workflow


class EngineRuntime(Operations):
    """Runs one restate-sdk application on one database file, in the event loop that calls `start`."""

    def __init__(
        self,
        app: Any,
        *,
        db: str | os.PathLike[str] = ":memory:",
        config: EngineConfig | None = None,
        clock: Clock | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        if app is not None and not callable(app):
            raise InvalidApp(
                f"{type(app).__name__} object is no application", hint="pass what restate.app([...]) returns"
            )
        self.config = config or EngineConfig()
        self.path = None if str(db) == ":memory:" else Path(db).absolute()
        self._app = cast(AsgiApp | None, app)
        self._endpoints = Endpoints(
            ca_file=self.config.endpoint_ca_file, connect_timeout_s=self.config.connect_timeout_ms / 1000
        )
        self._clock = clock or SystemClock()
        self._entropy = entropy
        self._state = "new"
        self._owner: Owner | None = None
        self._waiters: dict[str, list[_Waiter]] = {}
        self._operators: dict[asyncio.Future[Any], None] = {}  # in the order in which they came
        self.stopped: asyncio.Event = asyncio.Event()
        """Set when the engine has stopped, also after a failure of its own."""
        self.failure: EngineError | None = None

    # ---- start and stop ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the database, ask the application what it serves, and go on with everything that was not finished.

        Raises:
            DatabaseInUse, DatabaseRefused: the file; nothing was changed.
            InvalidApp, InvalidManifest: the application.
            InvalidRequest: the file of the identity key.
        """
        if self._state != "new":
            raise EngineError("an engine can be started once", hint="make a new Engine")
        manifest: bytes | None = None
        if self._app is not None:
            with sigterm_kept():
                manifest = await fetch_manifest(self._app)
            check_app(discovery.parse_manifest(manifest), self.config)  # before a database is made for nothing
        if self.config.identity_key_file is not None:
            self._endpoints.sign_with(self.config.identity_key_file)
        self._loop = asyncio.get_running_loop()
        if self.path is not None:
            self._owner = Owner(self.path)
        connection: apsw.Connection | None = None
        try:
            connection = connect(self.path, fsync=self.config.durability == "full")
            self._deployments = Deployments(
                DeploymentRows(connection), self.config, self._endpoints, self._clock.now_ms, self._entropy
            )
            if self._app is not None and manifest is not None:
                await self._deployments.register_app(self._app, MAIN, manifest)
            self._open(connection)
            self._state = "running"
            self._settle_log()
            if self._processor.disk_full is None:
                self._recover()
        except BaseException as error:
            is_about_space = connection is not None and is_full(error, connection)
            if self._state == "running":
                self._close(EngineStopped("the engine could not start"))
            elif connection is not None:
                with suppress(apsw.Error):
                    connection.close(True)
            self._release()
            if isinstance(error, apsw.Error):
                what = f"{self.path} could not be opened"
                raise (disk_full(is_final=True) if is_about_space else unusable(error, what)) from error
            raise

    def _open(self, connection: apsw.Connection) -> None:
        """Wire everything around an open database."""
        self._tables = SqliteTables(connection)
        self._reader = connection if self.path is None else apsw.Connection(str(self.path))
        self.introspection = Introspection(self._reader, self._resident, self._service_type)
        self._invoker = Invoker(self._deployments, self._endpoints, self._tables, self.config, self._clock)
        self._machine = Machine(
            self._tables,
            self._deployments.catalog,
            self._entropy,
            next_number=int(self._tables.meta("next_number") or 1),
            refuse_deadlocks=self.config.refuse_deadlocks,
            pause_on_mismatch=self.config.pause_on_mismatch,
        )
        self._processor = Processor(
            self._machine,
            self._tables,
            self._clock,
            self._performers(),
            self._failed,
            self._full,
            self._refuse_event,
            self._invoker.attempts,
            in_memory=self.path is None,
        )
        self._invoker.processor = self._processor
        self._deployments.exclusively = self._exclusively
        self._timers = Timers(self._processor, self._tables, self._clock, self.config.cleanup_interval_ms)
        self._standstill = Standstill(self._processor, self._tables, self._drop_memory, self._recover)

    async def _exclusively(self, change: Callable[[], None]) -> None:
        """Run a change of rows between two batches."""
        done: asyncio.Future[None] = self._loop.create_future()

        def run() -> None:
            try:
                change()
            except apsw.Error as error:
                full = is_full(error, self._tables.connection)
                _set_exception(done, disk_full() if full else unusable(error, "a change of deployments failed"))
            except Exception as error:  # noqa: BLE001 it is the caller's
                _set_exception(done, error)
            else:
                _set_result(done, None)

        self._operators[done] = None
        try:
            self._processor.when_readable(run)
            await done
        finally:
            self._operators.pop(done, None)

    def _settle_log(self) -> None:
        """Rows that a process before this one could not sync are only in the cache; nothing may build on them yet."""
        try:
            self._tables.settle_log()
        except apsw.Error as error:
            if not is_full(error, self._tables.connection):
                raise
            self._processor.stand_still()

    def _full(self) -> bool:
        """The disk is full. Whoever waits for an invocation that is on disk goes on waiting."""
        if self._state != "running":
            return False  # on the way out there is nobody to wait for
        self._standstill.begin()
        return True

    def _refuse_event(self, event: ev.Event, failure: DiskFull) -> None:
        """It did not happen, because the disk is full."""
        token: Any = getattr(event, "token", None)
        if isinstance(token, _Waiter):
            _set_exception(token.future, failure)
        elif token is not None:
            _set_exception(token, failure)
        elif isinstance(event, ev.Submitted):
            for waiter in self._waiters.get(event.id, ()):
                _set_exception(waiter.future, failure)

    def _drop_memory(self) -> None:
        """Forget what rows tell as well."""
        self._timers.stop()
        self._invoker.drop_all()
        self._machine.drop_all(next_number=int(self._tables.meta("next_number") or 1))

    @property
    def disk_full(self) -> DiskFull | None:
        """Set while the disk is full: every request that needs a commit is refused with it, and reads still work."""
        return self._processor.disk_full if self._state == "running" else None

    def _recover(self) -> None:
        """Re-derive what the rows ask for: attempts of everything invoked, and the next timer."""
        unfinished = self._tables.invoked()
        if unfinished:
            log.info("going on with unfinished invocations", extra={"count": len(unfinished)})
        self._invoker.recover(unfinished)
        self._processor.call_soon(self._invoker.fill)
        self._timers.start()

    async def stop(self, drain_ms: int | None = None) -> None:
        """Accept nothing more, let attempts finish or suspend, close the database. Safe to call twice.

        Args:
            drain_ms: How long attempts may take, milliseconds; None means the configured time. Attempts that are still
                running then are aborted, and go on at the next start.
        """
        if self._state == "running":
            self._state = "stopping"
            await self._invoker.drain(self.config.drain_ms if drain_ms is None else drain_ms)
            await self._processor.settled()
            self._close(EngineStopped("the engine was stopped", hint="the invocation goes on at the next start"))
        elif self._state == "new":
            self._state = "stopped"
            self.stopped.set()
        else:
            await self.stopped.wait()
        await self._endpoints.closed()

    def _failed(self, failure: EngineError) -> None:
        self.failure = failure
        self._close(failure)

    def _close(self, reason: EngineError) -> None:
        if self._state == "stopped":
            return
        self._state = "stopped"
        self._timers.stop()
        self._standstill.end()
        self._invoker.abort_all()
        self._endpoints.close()
        self._processor.close()
        for waiters in self._waiters.values():
            for waiter in waiters:
                _set_exception(waiter.future, reason)
        self._waiters.clear()
        for future in self._operators:
            _set_exception(future, reason)
        try:
            if self._reader is not self._tables.connection:
                self._reader.close()
            self._tables.connection.close()
        except apsw.Error as error:
            log.error("closing the database failed", extra={"error": str(error)})
        self._release()
        self.stopped.set()

    def _release(self) -> None:
        if self._owner is not None:
            self._owner.release()
            self._owner = None

    @property
    def services(self) -> dict[str, ServiceSpec]:
        """The newest revision of every service; empty before the start."""
        return self._deployments.services if self._state != "new" else {}

    @property
    def deployments(self) -> Deployments:
        """What is registered: where services run."""
        return self._deployments

    @property
    def identity_public_key(self) -> str | None:
        """What services list in `identity_keys` to accept this engine only; None when requests are not signed."""
        return self._endpoints.identity.public_key if self._endpoints.identity is not None else None

    def check_running(self) -> None:
        """
        Raises:
            EngineStopped: the engine does not accept requests.
        """
        if self._state != "running":
            if self.failure is not None:
                raise self.failure
            raise EngineStopped(
                f"the engine is {'not started' if self._state == 'new' else self._state}",
                hint="start it with `async with Engine(...)` or `holdfast serve`",
            )

    def check_accepting(self) -> None:
        """
        Raises:
            EngineStopped: the engine does not accept requests. DiskFull: it does not for now.
        """
        self.check_running()
        if self._processor.disk_full is not None:
            raise self._processor.disk_full

    async def register(self, app: Any, name: str) -> Deployment:
        """Serve one more application of this process, from now on and whenever it is registered again.

        What is in flight waits for its application after a restart, until it is registered under the same name.

        Args:
            app: What `restate.app([...])` returns.
            name: Tells it from the others of this process; "app" is the one the engine was made with.
        Raises:
            InvalidApp, InvalidManifest: the application.
        """
        self.check_running()
        if not callable(app):
            raise InvalidApp(
                f"{type(app).__name__} object is no application", hint="pass what restate.app([...]) returns"
            )
        with sigterm_kept():
            body = await fetch_manifest(cast(AsgiApp, app))
        deployment = await self._deployments.register_app(cast(AsgiApp, app), name, body)
        self._invoker.registered(deployment)
        return deployment

    async def unregister(self, name: str) -> None:
        """Forget an application that was registered under this name. See `Deployments.remove_app`."""
        self.check_running()
        await self._deployments.remove_app(name)

    async def register_deployment(
        self,
        uri: str,
        *,
        headers: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
        use_http_11: bool = False,
        force: bool = False,
        breaking: bool = False,
        dry_run: bool = False,
    ) -> Registration:
        """Have services of another process, in any language, run by this engine. See `Deployments.register`."""
        self.check_running()
        registration = await self._deployments.register(
            uri,
            headers=headers,
            metadata=metadata,
            use_http_11=use_http_11,
            force=force,
            breaking=breaking,
            dry_run=dry_run,
        )
        if not dry_run:
            self._invoker.registered(registration.deployment)
        return registration

    async def update_deployment(
        self,
        deployment_id: str,
        *,
        uri: str | None = None,
        headers: Mapping[str, str] | None = None,
        use_http_11: bool | None = None,
        overwrite: bool = False,
        dry_run: bool = False,
    ) -> Deployment:
        """Move a deployment to another address. See `Deployments.update`."""
        self.check_running()
        deployment = await self._deployments.update(
            deployment_id, uri=uri, headers=headers, use_http_11=use_http_11, overwrite=overwrite, dry_run=dry_run
        )
        if not dry_run:
            self._invoker.registered(deployment)
        return deployment

    async def remove_deployment(self, deployment_id: str) -> None:
        """Forget a deployment. See `Deployments.remove`."""
        self.check_running()
        await self._deployments.remove(deployment_id)

    async def configure_service(self, name: str, settings: Mapping[str, Any]) -> ServiceSpec:
        """Change settings of a service until it is registered again. See `Deployments.configure_service`."""
        self.check_running()
        return await self._deployments.configure_service(name, settings)

    # ---- effects -------------------------------------------------------------------------------------------------------

    def _performers(self) -> dict[type, Callable[[Any], None]]:
        invoker = self._invoker
        return {
            fx.StartAttempt: lambda effect: invoker.start(effect.invocation),
            fx.Forward: lambda effect: invoker.forward(effect.invocation),
            fx.CloseInput: lambda effect: invoker.close_input(effect.invocation),
            fx.AbortAttempt: lambda effect: invoker.abort(effect.seq, effect.attempt),
            fx.ScheduleRetry: lambda effect: invoker.schedule_retry(
                effect.seq, effect.attempt, effect.delay_ms, effect.jitter
            ),
            fx.ReportPaused: self._report_paused,
            fx.ArmTimer: lambda effect: self._timers.arm(effect.due_ms),
            fx.Accepted: self._accepted,
            fx.Completed: self._completed,
            fx.Answer: lambda effect: _set_result(effect.token, effect.value),
            fx.Refuse: self._refuse,
        }

    def _report_paused(self, effect: fx.ReportPaused) -> None:
        inv = effect.invocation
        error = inv.last_error.message if inv.last_error else "paused by an operator"
        log.error("invocation paused", extra={"invocation_id": inv.id, "target": inv.target, "error": error})

    def _accepted(self, effect: fx.Accepted) -> None:
        token = effect.token
        if isinstance(token, _Waiter):
            token.is_undecided = False
            if effect.is_new:
                return
            if token.is_workflow:
                failure = Failure(409, "the workflow method was already invoked")
                _set_result(token.future, Completion(effect.invocation_id, None, failure))
            elif effect.completion is not None:
                token.is_stored = True
                _set_result(token.future, effect.completion)
            return
        _set_result(token, Receipt(effect.invocation_id, effect.is_new, effect.start_at_ms))

    def _completed(self, effect: fx.Completed) -> None:
        completion = effect.completion
        waiters = self._waiters.pop(completion.invocation_id, None)
        if waiters is not None:
            for waiter in waiters:
                if waiter.is_undecided:
                    self._wait(completion.invocation_id, waiter)
                else:
                    _set_result(waiter.future, completion)

    def _refuse(self, effect: fx.Refuse) -> None:
        _set_exception(effect.token, _REFUSALS[effect.kind](effect.message))

    # ---- callers ---------------------------------------------------------------------------------------------------------

    async def call(
        self,
        handler: HandlerSpec,
        key: str | None,
        body: bytes,
        headers: Iterable[tuple[str, str]] = (),
        idempotency_key: str | None = None,
    ) -> tuple[Completion, bool]:
        """Submit and wait for the result. If the caller goes away, the invocation goes on.

        Returns:
            (result, is_new); is_new is False when a stored result answers, instead of a handler.
        Raises:
            EngineStopped: before it was accepted, or while waiting (then it goes on at the next start).
        """
        if self._state != "running":
            self.check_running()
        now_ms = self._clock.now_ms()
        raw_id, is_unique = self._id_for(handler, key, idempotency_key, now_ms)
        invocation_id = ids.invocation_text(raw_id)
        waiter = _Waiter(self._loop.create_future(), handler.is_workflow_run)
        self._wait(invocation_id, waiter)
        self._processor.post(
            ev.Submitted(
                waiter if is_unique else None,
                invocation_id,
                raw_id,
                is_unique,
                handler,
                key,
                body,
                list(headers),
                idempotency_key,
                None,
                now_ms,
            )
        )
        return await self._result(invocation_id, waiter), not waiter.is_stored

    def _wait(self, invocation_id: str, waiter: _Waiter) -> None:
        others = self._waiters.get(invocation_id)
        if others is None:
            self._waiters[invocation_id] = [waiter]
        else:
            others.append(waiter)

    async def _result(self, invocation_id: str, waiter: _Waiter) -> Completion:
        try:
            return await waiter.future
        finally:
            others = self._waiters.get(invocation_id)
            if others is not None and waiter in others:
                others.remove(waiter)
                if not others:
                    del self._waiters[invocation_id]

    async def send(
        self,
        handler: HandlerSpec,
        key: str | None,
        body: bytes,
        headers: Iterable[tuple[str, str]] = (),
        idempotency_key: str | None = None,
        delay_ms: int | None = None,
    ) -> Receipt:
        """Submit; returns when the request is durable.

        Args:
            delay_ms: Start this much later, milliseconds; None starts at once.
        Raises:
            EngineStopped: it was not accepted.
        """
        self.check_running()
        now_ms = self._clock.now_ms()
        raw_id, is_unique = self._id_for(handler, key, idempotency_key, now_ms)
        invocation_id = ids.invocation_text(raw_id)
        start_at_ms = None if delay_ms is None else now_ms + delay_ms
        token: asyncio.Future[Receipt] = self._loop.create_future()
        event = ev.Submitted(
            token,
            invocation_id,
            raw_id,
            is_unique,
            handler,
            key,
            body,
            list(headers),
            idempotency_key,
            start_at_ms,
            now_ms,
        )
        return await self._ask(token, event)

    def _id_for(
        self, handler: HandlerSpec, key: str | None, idempotency_key: str | None, now_ms: int
    ) -> tuple[bytes, bool]:
        """(invocation id, whether an invocation with it may exist)."""
        if handler.is_workflow_run:
            return ids.workflow_run_id(handler.service, key or ""), True
        if idempotency_key is not None:
            return ids.idempotent_id(handler.service, key, handler.name, idempotency_key), True
        return ids.fresh_id(key, now_ms, self._entropy(24)), False

    async def _ask(self, token: asyncio.Future[T], event: ev.Event) -> T:
        self._operators[token] = None
        self._processor.post(event)
        try:
            return await token
        finally:
            self._operators.pop(token, None)

    def workflow_invocation_id(self, service: str, key: str) -> str:
        """Id of the run of workflow `service` with this key, whether it exists or not."""
        return ids.invocation_text(ids.workflow_run_id(service, key))

    def idempotent_invocation_id(self, service: str, key: str | None, handler: str, idempotency_key: str) -> str:
        """Id of the invocation made with this idempotency key, whether it exists or not."""
        return ids.invocation_text(ids.idempotent_id(service, key, handler, idempotency_key))

    async def attach(self, invocation_id: str) -> Completion:
        """Wait for the output of an invocation that may still be running. Starts nothing; safe to repeat.

        Raises:
            InvocationNotFound: never accepted, or purged.
            InvalidRequest: not an invocation id.
        """
        inv = await self._stored(invocation_id)
        if inv.status == Status.COMPLETED:
            return completion_of(inv)
        waiter = _Waiter(self._loop.create_future(), is_workflow=False)
        self._wait(invocation_id, waiter)
        return await self._result(invocation_id, waiter)

    async def output(self, invocation_id: str) -> Completion:
        """The output, if there is one now.

        Raises:
            InvocationNotReady: accepted, but not completed.
            InvocationNotFound, InvalidRequest: as for `attach`.
        """
        inv = await self._stored(invocation_id)
        if inv.status != Status.COMPLETED:
            raise InvocationNotReady("the invocation exists but has not completed yet", hint="attach to wait for it")
        return completion_of(inv)

    async def _stored(self, invocation_id: str) -> Invocation:
        self.check_running()
        _check_id(invocation_id)
        await self._processor.settled()
        self.check_running()
        try:
            inv = self._machine.find(invocation_id)
        except apsw.Error as error:
            raise unreadable(error) from error
        if inv is None:
            raise InvocationNotFound(
                f"invocation {invocation_id} not found", hint="it was never accepted, or its retention is over"
            )
        return inv

    async def resolve_awakeable(self, awakeable_id: str, value: bytes) -> None:
        """Complete an awakeable. Nothing happens when it is unknown or its invocation is over.

        Raises:
            InvalidRequest: not an awakeable id.
        """
        await self._complete_awakeable(awakeable_id, Result(value=value))

    async def reject_awakeable(self, awakeable_id: str, message: str) -> None:
        """Fail an awakeable: its handler gets TerminalError(message, 500)."""
        await self._complete_awakeable(awakeable_id, Result(failure=(500, message, {})))

    async def _complete_awakeable(self, awakeable_id: str, result: Result) -> None:
        self.check_running()
        try:
            raw, signal = ids.awakeable_parts(awakeable_id)
        except ids.MalformedId as error:
            raise InvalidRequest(f"bad awakeable id '{awakeable_id}': {error}") from None
        token: asyncio.Future[str] = self._loop.create_future()
        now_ms = self._clock.now_ms()
        await self._ask(token, ev.SignalSent(token, ids.invocation_text(raw), signal, result, now_ms))

    def _resident(self, seq: int) -> Invocation | None:
        return self._machine.resident.get(seq)

    def _service_type(self, service: str) -> str:
        spec = self.services.get(service)
        return spec.ty.lower() if spec else "service"


def _check_id(invocation_id: str) -> None:
    try:
        ids.invocation_bytes(invocation_id)
    except ids.MalformedId as error:
        raise InvalidRequest(f"bad invocation id '{invocation_id}': {error}") from None


def _set_result(future: Any, value: Any) -> None:
    if not future.done():
        future.set_result(value)


def _set_exception(future: Any, error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
