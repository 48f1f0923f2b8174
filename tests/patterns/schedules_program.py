"""A schedule whose target leaves a trace and, for some keys, takes as long as the test wants or fails."""

from __future__ import annotations

from restate import Context, Service, TerminalError

from holdfast.patterns import Firing, Schedules
from tests.patterns import world

reports = Service("ReportWriter")


@reports.handler()
async def write(ctx: Context, firing: Firing) -> None:
    key = firing["schedule"]

    async def work() -> None:
        world.effects[key].append(f"{firing['scheduled_at_ms']} {firing['payload']}")
        world.running[key] += 1
        world.running_max[key] = max(world.running_max[key], world.running[key])
        try:
            if "-slow" in key:
                await world.gate(key)
        finally:
            world.running[key] -= 1

    await ctx.run_typed("work", work)
    if key.endswith("-bad"):
        raise TerminalError("no paper")


schedules = Schedules("Reports", write)
SERVICES = (*schedules.services, reports)
