"""What the patterns do to the outside, seen by the tests, which run in the same process as the application."""

from __future__ import annotations

import asyncio
from collections import defaultdict

effects: dict[str, list[str]] = defaultdict(list)
"""Test's key -> what was done, in order. Not rolled back by anything, unlike what a handler returns."""
running: dict[str, int] = defaultdict(int)
running_max: dict[str, int] = defaultdict(int)
gates: dict[str, bool] = defaultdict(bool)
"""Test's key -> may steps that wait for it go on?"""


async def gate(key: str) -> None:
    """Wait until the test opens it. Looks again and again, because the test may run in another thread's loop."""
    while not gates[key]:
        await asyncio.sleep(0.005)
