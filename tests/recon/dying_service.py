"""recon in a process that kills itself with SIGKILL at one chosen point of one chosen step.

    python -m tests.recon.dying_service DIRECTORY STEP before|after     dies there
    python -m tests.recon.dying_service DIRECTORY                       lives until standard input ends

It is `apps.recon.serve` with one change: the store ends the process when the step's transaction is about to be
written, or has been written but not yet reported to the engine.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import apps.recon.serve
from apps.recon.store import Step, Store


class Dying(Store):
    async def _write_step(self, step: Step, sql: str, **params: Any) -> None:
        if [step.name, "before"] == sys.argv[2:]:
            os.kill(os.getpid(), signal.SIGKILL)
        await super()._write_step(step, sql, **params)
        if [step.name, "after"] == sys.argv[2:]:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    apps.recon.serve.Store = Dying
    directory, *_ = sys.argv[1:]
    original = sys.argv
    sys.argv = ["serve", "--dir", directory, "--port", "0", "--child"]
    arguments = apps.recon.serve.parse_arguments()
    sys.argv = original
    sys.exit(apps.recon.serve.run(arguments))
