"""A quick ticker whose every tick leaves a trace, and a slow one."""

from __future__ import annotations

from datetime import timedelta

from restate import ObjectContext, TerminalError

from holdfast.patterns import Ticker
from tests.patterns import world


async def tick(ctx: ObjectContext) -> None:
    world.effects[ctx.key()].append("tick")
    if ctx.key().endswith("-bad"):
        raise TerminalError("this tick failed")


quick = Ticker("QuickTicks", tick, every=timedelta(milliseconds=40))
slow = Ticker("SlowTicks", tick, every=timedelta(hours=1))
SERVICES = (quick.service, slow.service)
