"""`apps.recon.serve` with one change: it kills itself with SIGKILL at one chosen point of one chosen step.

The environment variable DIE_AT says where, for example `parse before` (the step's transaction is about to be written)
or `parse after` (it is on disk, but the engine has not been told). Without it the service lives like any other.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import apps.recon.engines
import apps.recon.serve
from apps.recon.store import Step, Store


class DyingStore(Store):
    async def write_step(self, step: Step, sql: str, **params: Any) -> list[Any]:
        self._die(f"{step.name} before")
        results = await super().write_step(step, sql, **params)
        self._die(f"{step.name} after")
        return results

    @staticmethod
    def _die(point: str) -> None:
        if point == os.environ.get("DIE_AT"):
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    apps.recon.engines.Store = DyingStore
    sys.exit(apps.recon.serve.main())
