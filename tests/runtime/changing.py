"""One handler in many versions: what becomes of an invocation that began with another one.

`application(version)` serves `Orders/place`. Version `first` is what records the journal; lines that another version is
stopped at end with `# at: <version>`.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import restate

from tests.runtime import programs

ran: Counter[str] = Counter()
"""How often each step ran."""


def at(version: str) -> str:
    """`file:line` of the line that this version is stopped at."""
    for number, line in enumerate(Path(__file__).read_text().splitlines(), 1):
        if line.endswith(f"# at: {version}"):
            return f"{__file__}:{number}"
    raise LookupError(version)


def _note(name: str) -> str:
    ran[name] += 1
    return name


def application(version: str) -> Any:
    """The application as this version of its code has it."""
    stock, orders = restate.Service("Stock"), restate.Service("Orders")
    pause = timedelta(milliseconds=1)

    @stock.handler()
    async def reserve(ctx: restate.Context, item: str) -> str:
        return item

    @stock.handler()
    async def release(ctx: restate.Context, item: str) -> str:
        return item

    async def place(ctx: restate.Context, order: str) -> list[Any]:  # at: end removed
        name, paid = ctx.awakeable()
        programs.notes["paid"].append(name)
        if version == "step added":
            await ctx.run_typed("check", lambda: _note("check"))  # at: step added
        if version == "step renamed":
            charge = await ctx.run_typed("bill", lambda: _note("bill"))  # at: step renamed
        elif version == "step replaced":
            charge = await ctx.service_call(reserve, "pen")  # at: step replaced
        elif version != "step removed":
            charge = await ctx.run_typed("charge", lambda: _note("charge"))
        else:
            charge = ""
        if version == "sleep inserted":
            await ctx.sleep(pause)  # at: sleep inserted
        if version == "await inserted":
            await paid  # at: await inserted
        target = release if version == "target changed" else reserve
        item = await ctx.service_call(target, "ink" if version == "argument changed" else "pen")  # at: call
        if version == "end removed":
            return []
        await _pack(ctx, version)
        return [charge, item, await paid]

    async def _pack(ctx: restate.Context, version: str) -> None:
        """What the handler calls itself: the line is that of the innermost function of the user's."""
        names = ["label", "pack"] if version == "steps swapped" else ["pack", "label"]
        for name in names:
            await ctx.run_typed(name, lambda name=name: _note(name))  # at: steps swapped

    orders.handler("cancel" if version == "handler removed" else "place")(place)
    others = [stock, _box(version), _tour(version)]
    return restate.app(others if version == "service removed" else [*others, orders])


def _box(version: str) -> restate.VirtualObject:
    box = restate.VirtualObject("Box")

    @box.handler()
    async def put(ctx: restate.ObjectContext, what: str) -> Any:
        name, paid = ctx.awakeable()
        programs.notes["paid"].append(name)
        ctx.set("what" if version != "state renamed" else "which", what)  # at: state renamed
        await ctx.run_typed("wrap", lambda: _note("wrap"))
        return await paid

    return box


def _tour(version: str) -> restate.Workflow:
    tour = restate.Workflow("Tour")

    @tour.main()
    async def run(ctx: restate.WorkflowContext, order: str) -> Any:
        name, paid = ctx.awakeable()
        programs.notes["paid"].append(name)
        await ctx.run_typed("plan" if version != "tour renamed" else "draw", lambda: _note("plan"))  # at: tour renamed
        return await paid

    return tour
