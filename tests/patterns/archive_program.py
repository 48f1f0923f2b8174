"""A small log, and one of the size that the requirement names."""

from __future__ import annotations

from restate import Context, Service, gather

from holdfast.patterns import BoundedLog

small = BoundedLog("Small", keep=3, chunk=2)
events = BoundedLog("Events", keep=1000, chunk=100)
writer = Service("LogWriter")


@writer.handler()
async def write(ctx: Context, request: dict[str, int | str]) -> None:
    first = int(request["first"])
    calls = [ctx.object_call(events.append, key=str(request["key"]), arg=first + each) for each in range(50)]
    await gather(*calls)


SERVICES = (small.service, small.archive, events.service, events.archive, writer)
