"""Hypothesis strategies for programs of the interpreter whose outcome does not depend on chance.

Two engines can only be compared on what is determined. So every program is drawn such that

* it ends: a key is only ever targeted by the one invocation that owns it, so nobody waits in a circle; what waits for
  ever is cancelled, killed or lost a race that something else wins;
* the order per key is that of its owner's code: a key is reused only for calls and sends without a delay, and looked at
  only while nothing is under way on it;
* steps run as often as they say: they fail only while nothing else can arrive or run beside them, because a
  notification resets the SDK's count of attempts and a failing attempt interrupts the steps beside it;
* cancel and kill hit an invocation at one known place, with nothing under way that they might or might not reach.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from tests.conformance.programs.interpreter import VARIANTS

Operation = dict[str, Any]
Node = dict[str, Any]
Body = list[Operation]

DEPTH_MAX = 3
_TEXT = st.text(alphabet="ab ü☃\"\\'\n\0", max_size=6)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=2),
    max_leaves=4,
)
CODES = st.sampled_from((400, 404, 409, 418, 500, 570, 599, 1000))
STATE_KEYS = st.sampled_from(("a", "a", "ü ☃"))


@dataclass(slots=True)
class Scope:
    """What a body may do at this point of its invocation."""

    kind: str
    """service, object, flow."""
    depth: int
    own_key: str | None = None
    suffix: str = ""
    keys: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """(service, key) of objects that this invocation owns and may target again."""
    outstanding: int = 0
    """Notifications that may arrive at any time."""
    starts: int = 0
    """Futures started so far, to be awaited later."""
    calls_outstanding: int = 0
    is_loose: bool = False
    """A child is under way that nobody waited for."""
    was_cancelled: bool = False
    """Restate 1.7 runs hot while an invocation waits after a cancel that it has consumed; see docs/compatibility.md."""

    @property
    def has_state(self) -> bool:
        return self.kind != "service"


class Writer:
    """Draws one program; numbers everything in it."""

    def __init__(self, draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
        self.draw = draw
        self._numbers = 0
        self.budget = draw(st.integers(4, 30))

    def number(self, prefix: str = "") -> str:
        self._numbers += 1
        return f"{prefix}{self._numbers}"

    def coin(self, likely: int = 1, of: int = 2) -> bool:
        """True `likely` times out of `of`; shrinks to False."""
        return self.draw(st.integers(0, of - 1)) >= of - likely

    def one_of(self, *options: Any) -> Any:
        """Shrinks to the first."""
        return self.draw(st.sampled_from(options))

    def suffix(self) -> str:
        return self.one_of(*VARIANTS)

    # --- invocations ---

    def root(self) -> Node:
        kind = self.one_of("service", "object", "flow")
        return self._new_node(kind, depth=0)

    def _new_node(self, kind: str, depth: int, body: Body | None = None) -> Node:
        """An invocation of a service, or of a key that nobody has used."""
        suffix = self.suffix()
        if kind == "service":
            return self._node(f"Interp{suffix}", None, "run", body, Scope("service", depth))
        key = self.number("k")
        names = {"object": "InterpObject", "flow": "InterpFlow"}
        scope = Scope(kind, depth, own_key=key, suffix=suffix)
        return self._node(f"{names[kind]}{suffix}", key, "run", body, scope)

    def _node(self, service: str, key: str | None, handler: str, body: Body | None, scope: Scope) -> Node:
        name = self.number("n")
        drawn = self.body(scope) if body is None else body
        return {"node": name, "service": service, "key": key, "handler": handler, "body": drawn}

    def _child(self, scope: Scope, *, is_queued: bool = True) -> Node:
        """A child with a body of its own, perhaps on a key that was used before."""
        depth = scope.depth + 1
        kind = self.one_of("service", "object", "flow")
        if kind != "object":
            return self._new_node(kind, depth)
        if is_queued and scope.keys and self.coin():
            service, key = self.one_of(*scope.keys)
            suffix = service.removeprefix("InterpObject")
            return self._node(service, key, "run", None, Scope("object", depth, own_key=key, suffix=suffix))
        node = self._new_node("object", depth)
        if is_queued:
            scope.keys.append((node["service"], node["key"]))
        return node

    # --- bodies ---

    def body(self, scope: Scope) -> Body:
        body: Body = []
        started: list[str] = []
        for _ in range(self.draw(st.integers(1, 8 if scope.depth == 0 else 4))):
            if self.budget <= 0:
                break
            self.budget -= 1
            if started and self.coin(1, 3):
                body += self._join(scope, started)
                continue
            options = self._options(scope, started)
            ops = self.one_of(*options)(scope)
            body += ops
            if ops and ops[-1]["o"] == "fail":
                return body
        while started:
            body += self._join(scope, started)
        return body

    def _options(self, scope: Scope, started: list[str]) -> list[Callable[[Scope], Body]]:
        options: list[Callable[[Scope], Body]] = [self._step, self._retries, self._crash, self._fail, self._random]
        if scope.has_state:
            options += [self._state] * 4
        deep = scope.depth < DEPTH_MAX
        if deep:
            options += [self._try, self._send]
        if scope.was_cancelled:
            return options
        options += [self._sleep, self._gather, self._race, self._held, lambda one: self._start(one, started)]
        if scope.kind == "flow":
            options += [self._own_promise]
        if deep:
            options += [
                self._call, self._call, self._send_and_attach, self._queue, self._call_twice, self._cancel_child, self._signals,
                self._asked_child, self._workflow, self._delayed,
            ]  # fmt: skip
            if scope.keys or scope.kind == "object":
                options.append(self._look)
        return options

    def _join(self, scope: Scope, started: list[str]) -> Body:
        name = started.pop(self.draw(st.integers(0, len(started) - 1)))
        scope.outstanding -= 1
        return [{"o": "join", "f": name}]

    # --- what needs no other ---

    def _harmless(self) -> Body:
        """Operations that cannot fail for good."""
        body: Body = []
        for _ in range(self.draw(st.integers(0, 2))):
            n = self.number()
            body.append(
                self.one_of(
                    {"o": "step", "n": n, "value": 1},
                    {"o": "sleep", "ms": 3},
                    {"o": "crash", "n": n, "times": 1},
                    {"o": "step", "n": n, "value": "again", "fails": 1},
                )
            )
        return body

    def _plain_step(self) -> Operation:
        op: Operation = {"o": "step", "n": self.number(), "value": self.draw(VALUES)}
        if self.coin():
            op["is_async"] = True
        if self.coin(1, 6):
            op["name"] = self.draw(_TEXT)
        return op

    def _error(self) -> list[Any]:
        metadata = self.one_of({}, {"a": "1", "ü": "☃"})
        return [self.draw(CODES), self.draw(_TEXT), metadata]

    def _step(self, scope: Scope) -> Body:
        op = self._plain_step()
        fate = self.one_of("works", "fails", "exhausts", "ends")
        if fate == "ends":
            op["terminal"] = self._error()
        elif fate != "works" and scope.outstanding == 0:
            op["max"] = self.one_of(2, 3)
            op["fails"] = op["max"] if fate == "exhausts" else self.draw(st.integers(1, op["max"] - 1))
            if fate == "fails" and self.coin():
                del op["max"]  # the policy of the invocation applies
        return [op]

    def _retries(self, scope: Scope) -> Body:
        """Steps whose attempts are counted each for itself, and not together."""
        if scope.outstanding:
            return self._step(scope)
        return [{**self._plain_step(), "max": 3, "fails": self.one_of(2, 2, 3)} for _ in range(2)]

    def _crash(self, scope: Scope) -> Body:
        op = {"o": "crash", "n": self.number(), "times": self.one_of(1, 2)}
        if self.coin():
            op["after_ms"] = self.one_of(0, 5)
        return [op]

    def _fail(self, scope: Scope) -> Body:
        code, message, metadata = self._error()
        return [{"o": "fail", "code": code, "message": message, "metadata": metadata}]

    def _random(self, scope: Scope) -> Body:
        return [{"o": "random", "n": self.number()}]

    def _sleep(self, scope: Scope) -> Body:
        return [{"o": "sleep", "ms": self.one_of(0, 1, 10, 25)}]

    def _state(self, scope: Scope) -> Body:
        """Some writes, and perhaps a look at them."""
        body: Body = []
        for _ in range(self.draw(st.integers(1, 4))):
            kind = self.one_of("set", "set", "clear", "clear_all", "get", "keys", "dump")
            op: Operation = {"o": kind}
            if kind in ("set", "clear", "get"):
                op["key"] = self.draw(STATE_KEYS)
            if kind == "set":
                op["value"] = self.draw(VALUES)
            body.append(op)
        return body

    def _try(self, scope: Scope) -> Body:
        outstanding, starts = scope.outstanding, scope.starts
        body = self.body(scope)
        scope.outstanding = outstanding + scope.starts - starts  # an error may come before they are joined
        return [{"o": "try", "body": body, "catch": self.body(scope)}]

    def _own_promise(self, scope: Scope) -> Body:
        """Of the workflow, which alone knows of it: complete, then look."""
        name = self.number("own")
        complete: Operation = {"o": "promise", "name": name, "do": "resolve", "value": self.draw(VALUES)}
        if self.coin(1, 3):
            complete = {"o": "promise", "name": name, "do": "reject", "error": [self.draw(_TEXT), self.draw(CODES)]}
        looks: Body = [{"o": "promise", "name": name, "do": self.one_of("peek", "get")}]
        early: Body = [{"o": "promise", "name": name, "do": "peek"}] if self.coin() else []
        return [*early, complete, *looks]

    # --- futures ---

    def _never(self) -> Operation:
        return {"o": "never", "as": self.one_of("awakeable", "sleep", "signal")}

    def _outside(self, scope: Scope) -> Operation:
        """An awakeable that the test completes, twice if it likes."""
        op: Operation = {"o": "awakeable", "n": self.number(), "outside": "resolve", "value": self.draw(VALUES)}
        if self.coin(1, 3):
            op["outside"], op["value"] = "reject", self.draw(_TEXT)
        if self.coin(1, 3):
            op["again"] = True
            scope.outstanding += 1
            scope.starts += 1
        return op

    def _live_branch(self, scope: Scope, *, is_queued: bool = True) -> Operation:
        """A future that completes by itself."""
        options: list[Callable[[], Operation]] = [
            self._plain_step,
            lambda: {"o": "sleep", "ms": self.one_of(0, 5, 20)},
            lambda: {**self._plain_step(), "terminal": self._error()},
            lambda: self._outside(scope),
        ]
        if scope.depth < DEPTH_MAX:
            options.append(
                lambda: {"o": "call", "node": self._child(scope, is_queued=is_queued), "is_typed": self.coin()}
            )
        return self.one_of(*options)()

    def _gather(self, scope: Scope) -> Body:
        branches = [self._live_branch(scope) for _ in range(self.draw(st.integers(1, 4)))]
        return [{"o": self.one_of("gather", "as_completed"), "of": branches}]

    def _race(self, scope: Scope) -> Body:
        """One branch completes, the others never do."""
        branches = [self._never() for _ in range(self.draw(st.integers(0, 2)))]
        branches.insert(self.draw(st.integers(0, len(branches))), self._live_branch(scope))
        return [{"o": self.one_of("select", "wait_completed"), "of": branches}]

    def _start(self, scope: Scope, started: list[str]) -> Body:
        name = self.number("f")
        branch = self._live_branch(scope, is_queued=False)
        if branch["o"] == "call":
            scope.is_loose = True
            scope.calls_outstanding += 1
        scope.outstanding += 1
        scope.starts += 1
        started.append(name)
        return [{"o": "start", "f": name, "branch": branch}]

    def _held(self, scope: Scope) -> Body:
        """Waits for the test, which completes the awakeable, cancels or kills. It may pause and resume first."""
        op = self._outside(scope)
        options = ["complete"]
        if scope.calls_outstanding == 0:
            options.append("cancel")
            if not scope.is_loose:
                options.append("kill")
        fate = self.one_of(*options)
        if fate != "complete":
            op = {"o": "awakeable", "n": op["n"], "outside": fate}
        if fate == "cancel":
            scope.was_cancelled = True
        if self.coin(1, 4):
            op["pause"] = True
        return [op]

    # --- other invocations ---

    def _call(self, scope: Scope) -> Body:
        call: Operation = {"o": "call", "node": self._child(scope), "is_typed": self.coin()}
        return [call] if self.coin(1, 3) else [{"o": "try", "body": [call], "catch": []}]

    def _call_twice(self, scope: Scope) -> Body:
        node = self._new_node(self.one_of("service", "object"), scope.depth + 1)
        return [{"o": "call_twice", "node": node, "is_typed": self.coin(), "idempotency": self.number("i")}]

    def _send_op(self, node: Node, **settings: Any) -> Operation:
        return {"o": "send", "n": self.number(), "node": node, **settings}

    def _send(self, scope: Scope) -> Body:
        """Nobody waits for it, but the test."""
        node = self._child(scope, is_queued=False)
        scope.is_loose = True
        settings = {"idempotency": self.number("i")} if node["handler"] == "run" and self.coin(1, 4) else {}
        if node["service"].startswith("InterpFlow"):
            settings = {}
        return [self._send_op(node, **settings)]

    def _send_and_attach(self, scope: Scope) -> Body:
        """Several; they may meet at a key."""
        return self._sends([self._child(scope) for _ in range(self.draw(st.integers(1, 3)))])

    def _queue(self, scope: Scope) -> Body:
        """Several that wait for one key, some of which fail."""
        node = self._new_node("object", scope.depth + 1, self._queued())
        service, key = node["service"], node["key"]
        scope.keys.append((service, key))
        more = [self._node(service, key, "run", self._queued(), scope) for _ in range(self.draw(st.integers(2, 4)))]
        return self._sends([node, *more])

    def _queued(self) -> Body:
        body = [*self._harmless(), {"o": "get", "key": "a"}, {"o": "set", "key": "a", "value": self.number()}]
        fail: Operation = {"o": "fail", "code": 418, "message": "after the write", "metadata": {"a": "1"}}
        return [*body, fail] if self.coin(1, 3) else body

    def _sends(self, nodes: list[Node]) -> Body:
        """Send to all, then wait for all."""
        sends = [self._send_op(node) for node in nodes]
        return [*sends, *({"o": "try", "body": [{"o": "attach", "to": send["n"]}], "catch": []} for send in sends)]

    def _delayed(self, scope: Scope) -> Body:
        if self.coin():
            send = self._send_op(self._child(scope, is_queued=False), delay_ms=3_600_000, is_cancelled=True)
        else:
            send = self._send_op(self._child(scope, is_queued=False), delay_ms=self.one_of(1, 30))
        return [send, {"o": "try", "body": [{"o": "attach", "to": send["n"]}], "catch": []}]

    def _cancel_child(self, scope: Scope) -> Body:
        """A child that waits for ever, cancelled by whoever called or sent to it."""
        catch = self._harmless()
        body: Body = [self.one_of(self._never(), {"o": "try", "body": [self._never()], "catch": catch})]
        node = self._new_node(self.one_of("service", "object", "flow"), scope.depth + 1, body)
        if self.coin():
            op: Operation = {"o": "cancel_call", "node": node, "is_typed": self.coin()}
            return [op if self.coin() else {"o": "try", "body": [op], "catch": []}]
        send = self._send_op(node, is_cancelled=True)
        return [send, {"o": "try", "body": [{"o": "attach", "to": send["n"]}], "catch": []}]

    def _signals(self, scope: Scope) -> Body:
        """A child that awaits signals, in another order than they are sent in."""
        names = self.draw(st.lists(st.sampled_from(("x", "y")), min_size=1, max_size=3))
        body: Body = []
        for name in names:
            body += [*self._harmless(), {"o": "await_signal", "name": name}]
        signals: list[list[Any]] = []
        for name in self.draw(st.permutations(names)):
            value = {"reject": [self.draw(_TEXT), 481]} if self.coin(1, 5) else self.draw(VALUES)
            signals.append([name, value])
        send = self._send_op(self._new_node(self.one_of("service", "object", "flow"), scope.depth + 1, body))
        attach: Operation = {"o": "try", "body": [{"o": "attach", "to": send["n"]}], "catch": []}
        return [send, {"o": "signal", "to": send["n"], "signals": signals}, attach]

    def _asked_child(self, scope: Scope) -> Body:
        """An awakeable that a child completes."""
        n = self.number()
        complete: Operation = {"o": "complete", "to": n, "value": self.draw(VALUES)}
        if self.coin(1, 3):
            complete = {"o": "complete", "to": n, "reject": [self.draw(_TEXT), self.draw(CODES)]}
        node = self._new_node(self.one_of("service", "object"), scope.depth + 1, [*self._harmless(), complete])
        scope.is_loose = True
        return [{"o": "awakeable", "n": n, "by": self._send_op(node)}]

    def _look(self, scope: Scope) -> Body:
        """A shared handler of a key on which nothing else is under way."""
        places = list(scope.keys)
        if scope.kind == "object" and scope.own_key is not None:
            places.append((f"InterpObject{scope.suffix}", scope.own_key))
        service, key = self.one_of(*places)
        body = [*self._harmless(), {"o": self.one_of("keys", "dump")}, {"o": "get", "key": self.draw(STATE_KEYS)}]
        return [{"o": "call", "node": self._node(service, key, "look", body, scope), "is_typed": self.coin()}]

    def _workflow(self, scope: Scope) -> Body:
        """A run that gets promises, shared handlers that complete them before and during, and what remains after."""
        suffix, key = self.suffix(), self.number("k")
        service = f"InterpFlow{suffix}"
        promises = [self.number("p") for _ in range(self.draw(st.integers(1, 2)))]

        def tell(*body: Operation) -> Operation:
            return {
                "o": "call",
                "node": self._node(service, key, "tell", [*self._harmless(), *body], scope),
                "is_typed": self.coin(),
            }

        body = self.body(Scope("flow", scope.depth + 1, own_key=key, suffix=suffix))
        for name in promises:
            # Not before signals: if the promise is rejected, whoever waits for them would wait for ever.
            places = [place for place in range(len(body) + 1) if [op["o"] for op in body[place:]][:1] != ["signal"]]
            body.insert(self.one_of(*places), {"o": "promise", "name": name, "do": "get"})
        send = self._send_op(self._node(service, key, "run", body, scope))
        steps: Body = [tell(self._completion(name)) for name in promises]
        steps.insert(self.draw(st.integers(0, len(steps))), send)
        after: list[Operation] = [{"o": "attach", "to": send["n"]}]
        if self.coin():
            after.append(tell({"o": "promise", "name": promises[0], "do": self.one_of("peek", "get")}))
        if self.coin():
            after.append(tell(self._completion(promises[0])))
        if self.coin():
            after.append({"o": "call", "node": self._node(service, key, "run", [], scope), "is_typed": False})
        if self.coin():
            after.append(tell({"o": "dump"}))
        return [*steps, *({"o": "try", "body": [op], "catch": []} for op in after)]

    def _completion(self, name: str) -> Operation:
        if self.coin(1, 4):
            return {"o": "promise", "name": name, "do": "reject", "error": [self.draw(_TEXT), self.draw(CODES)]}
        return {"o": "promise", "name": name, "do": "resolve", "value": self.draw(VALUES)}


@st.composite
def programs(draw: Any) -> Node:
    """The root invocation: `{"node", "service", "key", "handler", "body"}`, and how it is started: `"via"`."""
    writer = Writer(draw)
    root = writer.root()
    vias = ("call", "send") if root["service"].startswith("InterpFlow") else ("call", "send", "idempotent", "delayed")
    return {**root, "via": writer.one_of(*vias)}
