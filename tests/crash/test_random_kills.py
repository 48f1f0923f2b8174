"""SIGKILL at random moments, again and again, under a mixed load. What was accepted happens, once.

HOLDFAST_KILLS sets the number of kills, HOLDFAST_SEED repeats a schedule (not its timing).
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.crash.load import kill_and_judge

KILLS = int(os.environ.get("HOLDFAST_KILLS", "200"))
SEED = int(os.environ.get("HOLDFAST_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)


@pytest.mark.slow
@pytest.mark.timeout(120 + 3 * KILLS)
async def test_what_was_accepted_happens_exactly_once(tmp_path: Path) -> None:
    print(f"HOLDFAST_SEED={SEED} HOLDFAST_KILLS={KILLS}")
    print(await kill_and_judge(tmp_path, KILLS, SEED))
