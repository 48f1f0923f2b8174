"""The same things happen to any engine: calls, sends, waits, failures, operations. Then it is asked by SQL."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

PATIENCE_S = 60
"""For what takes milliseconds on an idle machine."""

Rows = list[dict[str, Any]]


@dataclass(slots=True)
class Asked:
    """An engine, reached over HTTP, and the invocations that were made on it by name."""

    ingress_url: str
    admin_url: str
    http: httpx.Client
    ids: dict[str, str] = field(default_factory=dict[str, str])

    def ask(self, sql: str, accept: str = "application/json") -> httpx.Response:
        return self.http.post(f"{self.admin_url}/query", json={"query": sql}, headers={"accept": accept})

    def rows(self, sql: str) -> Rows:
        answer = self.ask(sql)
        assert answer.status_code == 200, f"{sql}: {answer.text}"
        return answer.json()["rows"]

    def call(
        self, name: str, path: str, body: Any = None, *, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """A request to the ingress, whose invocation is then known as `name`; `b""` is no body at all."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        if content:
            kind = "octet-stream" if isinstance(body, bytes) else "json"
            headers = {"content-type": f"application/{kind}", **(headers or {})}
        answer = self.http.post(f"{self.ingress_url}/{path}", content=content, headers=headers)
        assert answer.status_code == status, f"{path}: {answer.status_code} {answer.text}"
        self.ids[name] = answer.headers.get("x-restate-id") or answer.json()["invocationId"]
        return answer

    def send(self, name: str, target: str, body: Any = None, delay: str = "") -> None:
        self.call(name, f"{target}/send{f'?delay={delay}' if delay else ''}", body, status=202)

    def operate(self, name: str, operation: str) -> None:
        answer = self.http.patch(f"{self.admin_url}/invocations/{self.ids[name]}/{operation}")
        assert answer.status_code in (200, 202), f"{operation} {name}: {answer.text}"

    def wait_for(self, status: str, *names: str) -> None:
        for name in names:
            sql = f"SELECT status FROM sys_invocation WHERE id = '{self.ids[name]}'"
            self.poll(lambda sql=sql: self.rows(sql) == [{"status": status}], f"{name} is not {status}")

    def poll(self, condition: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, otherwise
            time.sleep(0.05)  # between two looks


@contextmanager
def asked(ingress_url: str, admin_url: str) -> Iterator[Asked]:
    with httpx.Client(timeout=PATIENCE_S, trust_env=False) as http:
        yield Asked(ingress_url, admin_url, http)


def happen(to: Asked) -> None:
    """Everything that the tests ask about."""
    _complete(to)
    _fail(to)
    _wait(to)
    _operate(to)
    _resolve(to)


def _complete(to: Asked) -> None:
    to.call("echo", "Worker/echo", {"a": 1}, headers={"x-custom": "1", "idempotency-key": "once"})
    to.call("steps", "Worker/steps", 4, headers={"idempotency-key": "steps"})
    to.call("raw", "Worker/raw", b"\x00\xff\x01")
    to.call("add", "Counter/a/add", 2)
    to.call("add again", "Counter/a/add", 3)
    to.call("fill", "Counter/f%20x/fill", {"one": "1", "zwei": "ü"})
    to.call("fill to empty", "Counter/gone/fill", {"one": "1"})
    to.call("empty", "Counter/gone/empty", b"")
    to.call("look", "Lazy/l/look", "missing")
    to.call("calls", "Worker/calls", "k")
    to.call("tuned", "Worker/tuned", 1, headers={"idempotency-key": "tuned"})


def _fail(to: Asked) -> None:
    to.call("refuse", "Worker/refuse", 409, status=409)
    to.call("failing step", "Worker/failing_step")
    to.send("stumble", "Worker/stumble", "over a stone")
    to.send("stumble in step", "Worker/stumble_in_step", "on ice")
    to.send("give up", "Worker/give_up", "no more")
    to.wait_for("backing-off", "stumble", "stumble in step")
    to.wait_for("paused", "give up")


def _wait(to: Asked) -> None:
    for name in ("wait_timer", "wait_signal", "wait_any", "wait_all", "call_waiting"):
        to.send(name, f"Worker/{name}")
    for name, key in (("resolved", "w1"), ("rejected", "w2")):
        to.send(name, "Worker/wait_awakeable", key)
        to.wait_for("suspended", name)  # so that it is decided which one pinned its note first
    to.send("hold", "Counter/busy/hold")
    to.send("holds its turn", "Counter/turn/hold")
    to.send("scheduled", "Worker/echo", "later", delay="1h")
    for name in ("ada", "bob", "eve"):
        to.send(name, f"Signup/{name}/run", f"{name}@example.org")
    to.wait_for(
        "suspended", "wait_timer", "wait_signal", "wait_any", "wait_all", "call_waiting", "hold", "holds its turn"
    )
    to.wait_for("suspended", "ada", "bob", "eve")
    for number in (1, 2):
        to.send(f"queued {number}", "Counter/busy/add", number)
        to.wait_for("pending", f"queued {number}")


def _operate(to: Asked) -> None:
    to.call("purged", "Worker/echo", "purged", headers={"idempotency-key": "purged"})
    to.operate("purged", "purge-journal")
    for name, operation in (("canceled", "cancel"), ("killed", "kill")):
        to.send(name, "Worker/wait_timer")
        to.wait_for("suspended", name)
        to.operate(name, operation)
        to.wait_for("completed", name)
    to.send("had its turn", "Counter/turn/add", 1)
    to.wait_for("pending", "had its turn")
    to.operate("holds its turn", "kill")
    to.wait_for("completed", "had its turn")


def _resolve(to: Asked) -> None:
    to.call("approve", "Signup/ada/approve", "boss")
    to.call("reject", "Signup/bob/reject", "no")
    pinned = to.rows("SELECT service_key, value_utf8 FROM state WHERE service_name = 'Board'")
    awakeables = {row["service_key"]: json.loads(row["value_utf8"]) for row in pinned}
    whom = {"awakeable": awakeables["w1"], "rejected": awakeables["w2"], "signalled": to.ids["wait_signal"]}
    to.call("notify", "Worker/notify", whom)
    to.wait_for("completed", "ada", "bob", "resolved", "rejected", "wait_signal")
