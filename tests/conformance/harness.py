"""How a scenario talks to an engine, and how its outcome is made comparable.

A scenario is a coroutine `(run: Run) -> outcome`, registered with the outcome that a real Restate server gives:

    @scenario({"answer": ok("done"), "steps": {"step": 3}})
    async def a_step_is_retried(run: Run) -> Outcome:
        return {"answer": await run.call("Steps/fails_then_succeeds", failures=2), "steps": run.counts()}

It uses only the public HTTP interfaces and the ledger. Ids and test ids in outcomes are replaced by placeholders.
"""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote

import httpx

from tests.conformance import ledger
from tests.conformance.backends import Backend

Outcome = Any
T = TypeVar("T")
MODES = ("streaming", "suspending", "request-response")
"""How long an idle attempt stays open: as long as it likes, 20 ms, or not at all."""

SCENARIO_TIMEOUT_S = 20.0
EVENTUALLY_TIMEOUT_S = 15.0
_IDS = re.compile(r"\b(inv_1|sign_1)[0-9A-Za-z_-]{33,}")


@dataclass(frozen=True, slots=True)
class Scenario:
    name: str
    area: str
    play: Callable[[Run], Coroutine[Any, Any, Outcome]]
    expected: Outcome
    modes: tuple[str, ...]
    server_modes: tuple[str, ...]
    """Those in which a real server can run it at all."""


SCENARIOS: dict[str, Scenario] = {}


def scenario(
    expected: Outcome, *, modes: tuple[str, ...] = MODES, server_modes: tuple[str, ...] | None = None
) -> Callable[[Callable[[Run], Coroutine[Any, Any, Outcome]]], Callable[[Run], Coroutine[Any, Any, Outcome]]]:
    """Register a scenario with the outcome a real server gave, and the modes in which it holds.

    `server_modes` are fewer than `modes` where the server itself has a defect, which the scenario's comment names.
    """

    def register(
        play: Callable[[Run], Coroutine[Any, Any, Outcome]],
    ) -> Callable[[Run], Coroutine[Any, Any, Outcome]]:
        name = play.__name__
        if name in SCENARIOS:
            raise ValueError(f"two scenarios are called {name}")
        area = play.__module__.rpartition(".")[2]
        SCENARIOS[name] = Scenario(name, area, play, expected, modes, modes if server_modes is None else server_modes)
        return play

    return register


def ok(value: Any) -> Outcome:
    """The answer of a handler that returned `value`; None also stands for an empty body."""
    return {"status": 200, "value": value}


def failed(code: int, message: str, metadata: dict[str, str] | None = None, *, status: int | None = None) -> Outcome:
    """The answer when the invocation failed. `status` where HTTP cannot carry the code."""
    error: dict[str, Any] = {"code": code, "message": message, "source": "invocation"}
    if metadata:
        error["metadata"] = metadata
    return {"status": code if status is None else status, "error": error}


def refused(code: int, message: str) -> Outcome:
    """The answer when the ingress refused the request."""
    return {"status": code, "error": {"code": code, "message": message, "source": "ingress"}}


class NeverHappened(AssertionError):
    """A condition that a scenario waits for did not become true in time."""


class Run:
    """One run of one scenario: requests, conditions, and what the ledger saw."""

    def __init__(self, backend: Backend, mode: str) -> None:
        self.backend = backend
        self.mode = mode
        self.test_id = uuid.uuid4().hex[:12]
        self._tasks: list[asyncio.Task[Outcome]] = []

    # --- requests to the ingress ---

    def key(self, name: str = "k") -> str:
        """An object or workflow key that no other test uses."""
        return f"{self.test_id}~{name}"

    async def request(
        self, method: str, path: str, *, content: bytes | None = None, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        """A raw ingress request."""
        return await self.backend.ingress.request(method, path, content=content, headers=headers)

    async def call(
        self,
        target: str,
        key: str | None = None,
        *,
        body: Any = ...,
        headers: dict[str, str] | None = None,
        **fields: Any,
    ) -> Outcome:
        """Call `Service/handler` and wait. The body is `fields` plus the test id, unless given; None sends nothing."""
        response = await self._invoke(target, key, "", body, fields, headers)
        return self.answer(response)

    def start(self, target: str, key: str | None = None, **kwargs: Any) -> asyncio.Task[Outcome]:
        """`call` in the background."""
        task = asyncio.create_task(self.call(target, key, **kwargs))
        self._tasks.append(task)
        return task

    async def send(
        self,
        target: str,
        key: str | None = None,
        *,
        body: Any = ...,
        headers: dict[str, str] | None = None,
        delay: str | None = None,
        **fields: Any,
    ) -> str:
        """One-way; returns the invocation id."""
        response = await self.send_raw(target, key, body=body, headers=headers, delay=delay, **fields)
        assert response.status_code == 202, f"send answered {response.status_code}: {response.text}"
        return response.json()["invocationId"]

    async def send_raw(
        self,
        target: str,
        key: str | None = None,
        *,
        body: Any = ...,
        headers: dict[str, str] | None = None,
        delay: str | None = None,
        **fields: Any,
    ) -> httpx.Response:
        suffix = "/send" if delay is None else f"/send?delay={delay}"
        return await self._invoke(target, key, suffix, body, fields, headers)

    async def _invoke(
        self,
        target: str,
        key: str | None,
        suffix: str,
        body: Any,
        fields: dict[str, Any],
        headers: dict[str, str] | None,
    ) -> httpx.Response:
        service, handler = target.split("/")
        path = f"/{service}/{handler}" if key is None else f"/{service}/{quote(key, safe='')}/{handler}"
        if body is ...:
            body = {"t": self.test_id, **fields}
        content, sent_headers = None, dict(headers or {})
        if isinstance(body, bytes):
            content = body
        elif body is not None:
            content = json.dumps(body).encode()
            sent_headers.setdefault("content-type", "application/json")
        return await self.request("POST", path + suffix, content=content, headers=sent_headers)

    async def attach(self, invocation_id: str) -> Outcome:
        return self.answer(await self.request("GET", f"/restate/invocation/{invocation_id}/attach"))

    def start_attach(self, invocation_id: str) -> asyncio.Task[Outcome]:
        """`attach` in the background."""
        task = asyncio.create_task(self.attach(invocation_id))
        self._tasks.append(task)
        return task

    async def output(self, invocation_id: str) -> Outcome:
        return self.answer(await self.request("GET", f"/restate/invocation/{invocation_id}/output"))

    async def lookup(self, service: str, handler: str, key: str | None, idempotency_key: str) -> str:
        """The id that the invocation with this idempotency key has, whether it exists or not."""
        target = {
            "target": "idempotentInvocation", "service": service, "key": key, "handler": handler,
            "idempotencyKey": idempotency_key,
        }  # fmt: skip
        response = await self.request(
            "POST", "/restate/lookup", content=json.dumps(target).encode(), headers={"content-type": "application/json"}
        )
        return response.json()["invocationId"]

    async def resolve(self, awakeable_id: str, value: Any) -> int:
        """Resolve over the ingress; returns the HTTP status."""
        response = await self.request(
            "POST",
            f"/restate/awakeables/{awakeable_id}/resolve",
            content=json.dumps(value).encode(),
            headers={"content-type": "application/json"},
        )
        return response.status_code

    async def reject(self, awakeable_id: str, message: str) -> int:
        response = await self.request(
            "POST",
            f"/restate/awakeables/{awakeable_id}/reject",
            content=message.encode(),
            headers={"content-type": "text/plain"},
        )
        return response.status_code

    # --- requests to the admin API ---

    async def operate(self, operation: str, invocation_id: str) -> Outcome:
        """PATCH cancel, kill, pause, resume, purge: the status, and the message of an error."""
        response = await self.backend.admin.patch(f"/invocations/{invocation_id}/{operation}")
        if response.status_code < 300:
            return response.status_code
        return [response.status_code, self.normal(response.json()["message"])]

    # --- conditions ---

    async def eventually(self, probe: Callable[[], Awaitable[T]], what: str) -> T:
        """Ask until the answer is truthy; returns it."""
        try:
            async with asyncio.timeout(EVENTUALLY_TIMEOUT_S):
                while not (answer := await probe()):
                    await asyncio.sleep(0.01)  # between two looks at the condition
                return answer
        except TimeoutError:
            raise NeverHappened(f"{what}; ledger ends with {ledger.entries(self.test_id)[-8:]}") from None

    async def seen(self, entry: str, count: int = 1) -> None:
        """Wait until the ledger holds the entry `count` times."""

        async def probe() -> bool:
            return ledger.counts(self.test_id).get(entry, 0) >= count

        await self.eventually(probe, f"{count} times {entry!r} in the ledger")

    async def noted(self, prefix: str) -> str:
        """Wait for a ledger entry `{prefix} {rest}`; returns the rest."""

        async def probe() -> str:
            found = [entry for entry in ledger.entries(self.test_id) if entry.startswith(prefix + " ")]
            return found[0].removeprefix(prefix + " ") if found else ""

        return await self.eventually(probe, f"a ledger entry {prefix!r}")

    async def status(self, invocation_id: str, *wanted: str) -> str:
        """Wait until the public status is one of `wanted`. `gone`: no longer known."""
        last = ""

        async def probe() -> bool:
            nonlocal last
            info = await self.backend.invocation(invocation_id)
            last = info["status"] if info else "gone"
            return last in wanted

        try:
            await self.eventually(probe, f"status {' or '.join(wanted)}")
        except NeverHappened as error:
            raise NeverHappened(f"{error}; status: {last}") from None
        return last

    async def waiting(self, invocation_id: str) -> None:
        """Wait until the invocation has nothing to do: suspended, or streaming and idle."""
        if self.mode == "streaming":
            # One that others wait behind for a place gives its own up.
            await self.status(invocation_id, "running", "suspended")
        else:
            await self.status(invocation_id, "suspended")

    async def ended(self, invocation_id: str) -> str:
        """Wait for the end; returns `success` or `[409] killed`."""
        await self.status(invocation_id, "completed")
        info = await self.backend.invocation(invocation_id)
        assert info is not None
        return self.normal(info.get("completion_failure") or info.get("completion_result") or "?")

    # --- what happened ---

    def open(self, gate: str) -> None:
        ledger.open_gate(self.test_id, gate)

    def counts(self, *only: str) -> dict[str, int]:
        """How often each ledger entry was recorded; `only` picks some, with zero where absent."""
        counts = ledger.counts(self.test_id)
        return {name: counts.get(name, 0) for name in only} if only else counts

    def entries(self) -> list[str]:
        return [self.normal(entry) for entry in ledger.entries(self.test_id)]

    def answer(self, response: httpx.Response) -> Outcome:
        """An ingress answer in comparable form; see `ok`, `failed`, `refused`."""
        status = response.status_code
        is_json = response.headers.get("content-type", "").startswith("application/json")
        if "x-restate-error-source" in response.headers:
            error = self.normal(response.json())
            error.pop("stacktrace", None)  # lines of SDK code
            return {"status": status, "error": error}
        if not response.content:
            return {"status": status, "value": None}
        return {"status": status, "value": self.normal(response.json()) if is_json else list(response.content)}

    def normal(self, value: Any) -> Any:
        """Replace what differs from run to run."""
        if isinstance(value, str):
            return _IDS.sub(lambda match: match[1].partition("_")[0], value).replace(self.test_id, "T")
        if isinstance(value, list):
            return [self.normal(item) for item in value]
        if isinstance(value, dict):
            return {self.normal(name): self.normal(item) for name, item in value.items()}
        return value

    async def close(self) -> None:
        ledger.close(self.test_id)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def play(one: Scenario, backend: Backend, mode: str) -> Outcome:
    """Run a scenario. What goes wrong becomes part of the outcome, so that one scenario cannot hide another."""
    run = Run(backend, mode)
    try:
        async with asyncio.timeout(SCENARIO_TIMEOUT_S):
            return run.normal(await one.play(run))
    except Exception as error:  # noqa: BLE001 - reported as the outcome
        return f"{type(error).__name__}: {run.normal(str(error))}"
    finally:
        await run.close()
