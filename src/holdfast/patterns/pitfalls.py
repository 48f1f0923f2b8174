"""What must not stand in a handler, found by reading it: clocks, chance, tasks of its own, waits that are not durable."""

from __future__ import annotations

import ast
import asyncio
import datetime as dt
import inspect
import os
import random
import secrets
import textwrap
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Finding:
    """One pitfall, where it is and what to do instead."""

    rule: str
    """`clock`, `chance`, `task`, `wait`, `sleep` or `state`."""
    handler: str
    """`Service/handler`."""
    message: str
    place: str = ""
    """`file:line`, if it is a line."""


CLOCK = "use `await ctx.time()`, or read the clock in a step: at a replay it would tell another time"
CHANCE = "use `ctx.uuid()`, `ctx.random()`, or draw in a step: at a replay it would come out differently"
TASK = "start calls and steps through the context and wait with restate.gather or restate.select: the engine does not know this task"
WAIT = "use `ctx.sleep`: this wait is lost with the process, and holds the attempt until then"

_CLOCKS: tuple[Any, ...] = (
    time.time,
    time.time_ns,
    dt.datetime.now,
    dt.datetime.today,
    dt.datetime.utcnow,  # pyright: ignore[reportDeprecated] that is why
    dt.date.today,
)
_DRAWS: tuple[Any, ...] = (uuid.uuid1, uuid.uuid4, os.urandom, random.Random, random.SystemRandom)
_TASKS: tuple[Any, ...] = (
    asyncio.create_task,
    asyncio.ensure_future,
    asyncio.TaskGroup,
    asyncio.gather,
    asyncio.wait,
    asyncio.wait_for,
    asyncio.as_completed,
    asyncio.to_thread,
    threading.Thread,
)
_WAITS: tuple[Any, ...] = (asyncio.sleep, time.sleep)


def rule_of(called: Any) -> tuple[str, str] | None:
    """(rule, advice) if a handler must not call this."""
    if any(called == each for each in _CLOCKS):
        return "clock", CLOCK
    # The functions of `random` are methods of one hidden generator.
    is_drawn = isinstance(getattr(called, "__self__", None), random.Random)
    if is_drawn or getattr(called, "__module__", None) == secrets.__name__ or any(called == each for each in _DRAWS):
        return "chance", CHANCE
    if any(called == each for each in _TASKS):
        return "task", TASK
    if any(called == each for each in _WAITS):
        return "wait", WAIT
    return None


def read_handler(name: str, function: Callable[..., Any]) -> Iterator[Finding]:
    """Pitfalls in the text of a handler, and of the functions of its package that it calls by name.

    What stands in functions inside it is left alone: these are its steps. Nothing is found where there is no source, as
    in an interactive session.
    """
    function = inspect.unwrap(function)
    package = _package(function)
    read, to_read = {function}, [(function, "a handler")]
    while to_read:
        function, where = to_read.pop(0)
        names = _names(function)
        for call, place in _calls(function):
            called = _resolve(call.func, names)
            found = rule_of(called)
            if found is not None:
                rule, advice = found
                yield Finding(rule, name, f"{ast.unparse(call.func)}() in {where}; {advice}", place)
            elif inspect.isfunction(called) and called not in read and _package(called) == package:
                read.add(called)
                to_read.append((called, f"{called.__name__}(), which a handler calls"))


def _package(function: Callable[..., Any]) -> str:
    return str(function.__module__).partition(".")[0]


def _calls(function: Callable[..., Any]) -> list[tuple[ast.Call, str]]:
    """The calls in the text of a function, each with its place."""
    try:
        lines, first = inspect.getsourcelines(function)
        tree = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, TypeError, SyntaxError):
        return []
    file = inspect.getsourcefile(function) or "?"
    return [(call, f"{file}:{first + call.lineno - 1}") for call in _own_calls(tree.body[0])]


def _names(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        inside = inspect.getclosurevars(function)
    except (TypeError, ValueError):
        return dict(getattr(function, "__globals__", {}))
    return {**getattr(function, "__globals__", {}), **inside.nonlocals}


def _own_calls(function: ast.AST) -> Iterator[ast.Call]:
    for child in ast.iter_child_nodes(function):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.Call):
            yield child
        yield from _own_calls(child)


def _resolve(expression: ast.expr, names: dict[str, Any]) -> Any:
    """The object that `a.b.c` names, None if that cannot be known without running it."""
    if isinstance(expression, ast.Name):
        return names.get(expression.id)
    if isinstance(expression, ast.Attribute):
        owner = _resolve(expression.value, names)
        # Of modules and classes only: an attribute of another object may run code.
        if inspect.ismodule(owner) or inspect.isclass(owner):
            return getattr(owner, expression.attr, None)
    return None
